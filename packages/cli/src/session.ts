/** What every command needs: where the services are, which keys to use, how to answer. */
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { CoordinatorClient, LedgerClient, NodeClient } from '@hypha/client';
import { HyphaError, type KeyId, type NodeView, type Signer } from '@hypha/protocol';
import { readKeyFile } from '@hypha/protocol/node';
import type { Command } from 'commander';
import { type CliEnvironment, readEnvironment } from './config.ts';
import { type Context, type ContextFlags, keyDirOf, readContext } from './context.ts';
import { FORMATS, type Format, Output } from './output.ts';

/** Flags that every command takes. */
export interface GlobalFlags extends ContextFlags {
  readonly output: Format;
}

export class Session {
  readonly output: Output;
  readonly env: CliEnvironment;
  readonly flags: GlobalFlags;
  #context: Context | undefined;
  readonly #reader: Signer | undefined;

  /** @param reader signs every request, whatever the context says */
  constructor(flags: GlobalFlags, env: CliEnvironment, reader?: Signer) {
    this.#reader = reader;
    this.flags = flags;
    this.env = env;
    this.output = new Output(flags.output);
  }

  get context(): Context {
    this.#context ??= readContext(this.flags, this.env);
    return this.#context;
  }

  /** Certificates (PEM) to trust; undefined: those of the system. Throws when the file cannot be read. */
  get ca(): string | undefined {
    const file = this.caFile ?? this.context.ca;
    return file === undefined ? undefined : readFileSync(resolve(file), 'utf8');
  }

  /** As this command was told, whatever its context says. */
  get caFile(): string | undefined {
    return this.flags.ca ?? this.env.HYPHA_CA;
  }

  ledger(): LedgerClient {
    return new LedgerClient({ baseUrl: this.context.ledger, ca: this.ca, ...this.#readingKey() });
  }

  /** For an admin whose key is named on the command line. */
  ledgerAs(signer: Signer): LedgerClient {
    return new LedgerClient({ baseUrl: this.context.ledger, ca: this.ca, signer });
  }

  coordinator(): CoordinatorClient {
    const { coordinator: baseUrl } = this.context;
    return new CoordinatorClient({ baseUrl, ca: this.ca, ...this.#readingKey() });
  }

  /** For what only an admin may call. */
  coordinatorAsAdmin(): CoordinatorClient {
    const { coordinator: baseUrl } = this.context;
    return new CoordinatorClient({ baseUrl, ca: this.ca, signer: this.admin() });
  }

  nodeAt(url: string): NodeClient {
    return new NodeClient({ baseUrl: url, ca: this.ca, ...this.#readingKey() });
  }

  /** The same, reading with the first key of this context that will do; itself when none does. */
  readingWith(isUsable: (keyid: KeyId) => boolean): Session {
    const { operator, admin } = this.context.keys;
    const signers = [operator, admin].flatMap((file) =>
      file === undefined ? [] : readKeyFile(resolve(file)),
    );
    const usable = signers.find(({ keyid }) => isUsable(keyid));
    return usable === undefined ? this : new Session(this.flags, this.env, usable);
  }

  /** The key scripts are signed with. */
  operator(file?: string): Signer {
    return readKeyFile(this.#keyFile('operator', file));
  }

  /** The key grants and admissions are signed with. */
  admin(file?: string): Signer {
    return readKeyFile(this.#keyFile('admin', file));
  }

  roots(files?: readonly string[]): Signer[] {
    const chosen = files ?? this.context.keys.root ?? [];
    if (chosen.length === 0) {
      throw new HyphaError('E_ARGUMENT', 'no root key in this context', {
        hint: 'name one with --key FILE, or write it for those who have one: --unsigned --out FILE',
      });
    }
    return chosen.map((file) => readKeyFile(resolve(file)));
  }

  /** A key as the operator names it: a file, or a key of the state folder. */
  keyFileOf(fileOrName: string): string {
    const file = resolve(fileOrName);
    const named = join(keyDirOf(this.flags, this.env), `${fileOrName}.pem`);
    return !existsSync(file) && existsSync(named) ? named : file;
  }

  nowMs(): number {
    return Date.now();
  }

  nowSeconds(): number {
    return Math.floor(this.nowMs() / 1000);
  }

  /**
   * Requests are signed with the operator's key, or else the admin's. With neither they go out unsigned,
   * which is enough for what is public: submissions, genesis, authority and log.
   */
  #readingKey(): { signer?: Signer } {
    if (this.#reader !== undefined) return { signer: this.#reader };
    const { operator, admin } = this.context.keys;
    const file = operator ?? admin;
    return file === undefined ? {} : { signer: readKeyFile(resolve(file)) };
  }

  #keyFile(use: 'operator' | 'admin', file: string | undefined): string {
    if (file !== undefined) return this.keyFileOf(file);
    const chosen = this.context.keys[use];
    if (chosen !== undefined) return resolve(chosen);
    throw new HyphaError('E_ARGUMENT', `no ${use} key in this context`, {
      hint: 'name one with --key FILE',
    });
  }
}

/** The session of a command that commander is about to run. */
export function sessionOf(command: Command): Session {
  const flags = command.optsWithGlobals<GlobalFlags>();
  if (!FORMATS.includes(flags.output)) {
    throw new HyphaError('E_ARGUMENT', `not an output format: ${String(flags.output)}`, {
      hint: `one of ${FORMATS.join(', ')}`,
    });
  }
  return new Session(flags, readEnvironment());
}

/** All items of a paged list; bounded, because a fleet may be large and a server wrong. */
export async function allPages<T>(
  read: (cursor: string | undefined) => Promise<{ items: T[]; nextCursor: string | null }>,
  itemsMax = 100_000,
): Promise<T[]> {
  const items: T[] = [];
  let cursor: string | undefined;
  do {
    const page = await read(cursor);
    items.push(...page.items);
    cursor = page.nextCursor ?? undefined;
  } while (cursor !== undefined && items.length < itemsMax);
  return items;
}

/** Nodes by id or name. Throws `E_NOT_FOUND` naming the one that is not there. */
export function selectNodes(nodes: readonly NodeView[], wanted: readonly string[]): NodeView[] {
  return wanted.map((name) => {
    const found = nodes.find((node) => node.id === name || node.name === name);
    if (found !== undefined) return found;
    throw new HyphaError('E_NOT_FOUND', `no node ${name}`, { hint: 'hypha node list' });
  });
}
