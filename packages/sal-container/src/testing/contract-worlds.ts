/** What the contract suites of containers work on. Tests only. */
import { contractRef } from '@hypha/sal/contract';
import { findLack, Scratch } from './scratch.ts';
import { type ScratchNode, signal } from './scratch-node.ts';

export class ContractWorlds {
  /** What this machine lacks for them. */
  readonly lacking: string | undefined;
  /** A container that serves a page, with the volume `data`. */
  readonly page: ReturnType<typeof pageOf>;
  readonly image: string;
  readonly #scratch: Scratch | undefined;

  private constructor(lacking: string | undefined, scratch: Scratch | undefined) {
    this.lacking = lacking;
    this.#scratch = scratch;
    this.image = scratch?.image ?? '';
    this.page = pageOf(this.image);
  }

  /** Before the suites are described, because their calls name the image. */
  static async open(): Promise<ContractWorlds> {
    const lacking = await findLack();
    return new ContractWorlds(lacking, lacking === undefined ? await Scratch.create() : undefined);
  }

  /** Images have tests of their own; here each world begins with one. */
  readonly create = async (): Promise<ScratchNode> => {
    if (this.#scratch === undefined) throw new Error(this.lacking);
    const node = await this.#scratch.createNode();
    await node.volume('data');
    const { images } = await node.containers();
    await images.ensure(await images.resolve(node.image), signal());
    return node;
  };

  async close(): Promise<void> {
    await this.#scratch?.close();
  }
}

function pageOf(image: string) {
  return {
    verb: 'container.ensure',
    name: 'web',
    args: {
      image,
      memory: '16MiB',
      mounts: { '/mnt': contractRef('volume', 'data') },
      files: { '/www/page': 'first' },
      health: { http: { port: 80, path: '/page' }, within: '20s' },
    },
  };
}
