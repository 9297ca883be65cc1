import type { RunGrant } from '@hypha/engine';
import type { JournalConnection } from '@hypha/journal/client';
import { HyphaError } from '@hypha/protocol';
import type { SecretFiles, SecretOwner, SecretRef } from '@hypha/sal';

interface HeldRun extends SecretOwner {
  readonly run: string;
  readonly epoch: number;
  readonly journal: Pick<JournalConnection, 'provideSecrets'>;
}

/**
 * Secrets as a runner's SALs get them: the supervisor writes the files, for runs this runner owns. The runner opens
 * nothing and has no key.
 */
export class RunSecrets implements SecretFiles {
  // run → where to ask for it
  readonly #held = new Map<string, HeldRun>();

  hold(journal: HeldRun['journal'], { run, epoch, payload }: RunGrant): void {
    const { realm, deployment } = payload;
    this.#held.set(run, { run, epoch, realm, deployment, journal });
  }

  release(run: string): void {
    this.#held.delete(run);
  }

  async provide(
    { realm, deployment }: SecretOwner,
    refs: readonly SecretRef[],
  ): Promise<ReadonlyMap<string, string>> {
    const held = [...this.#held.values()].find(
      (each) => each.realm === realm && each.deployment === deployment,
    );
    if (held === undefined) {
      throw new HyphaError('E_SECRET', `this runner has no run of ${realm}/${deployment}`);
    }
    const files = await held.journal.provideSecrets(held.run, held.epoch, refs);
    return new Map(Object.entries(files));
  }
}
