import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import {
  Authority,
  type AuthorityChange,
  AuthorityPayload,
  buildAuthorityPayload,
  buildGenesisPayload,
  type Envelope,
  fromBase64,
  HyphaError,
  type KeyRecord,
  parseStrictJson,
  Role,
  type Signer,
  signAuthority,
} from '@hypha/protocol';
import { nodeVerifier, publicKeyFromPem, readKeyFile } from '@hypha/protocol/node';
import { type Command, Option } from 'commander';
import { grantOf } from '../authority-signing.ts';
import { collect, parseInteger } from '../option-parsers.ts';
import { type Session, sessionOf } from '../session.ts';

/** The whole chain as the ledger serves it, replayed here from the pinned genesis. */
export async function fetchAuthority(session: Session): Promise<Authority> {
  const ledger = session.ledger();
  const { envelope } = await ledger.genesis();
  let authority = Authority.fromGenesis(nodeVerifier, envelope, session.context.genesis);
  for (;;) {
    const page = await ledger.authority({ since: authority.seq });
    const next = authority.extend(page.items);
    if (next.seq === authority.seq) return authority;
    authority = next;
  }
}

async function append(session: Session, change: AuthorityChange, signers: Signer[]): Promise<void> {
  const authority = await fetchAuthority(session);
  const payload = buildAuthorityPayload(authority, change, session.nowSeconds());
  const envelope = signAuthority(payload, signers);
  authority.apply(envelope);
  const head = await session.ledger().appendAuthority(envelope);
  session.output.item({ ...head, change }, [
    ['change', describeChange(change)],
    ['authority', `seq ${head.seq}, head ${head.hash}`],
  ]);
}

function describeChange(change: AuthorityChange): string {
  switch (change.type) {
    case 'genesis':
      return `genesis: ${change.threshold} of ${change.rootKeys.length} root keys`;
    case 'grant': {
      const { name, role, realms, caps } = change.grant;
      return `grant ${name}: ${role}, realms ${realms.join(',')}, caps ${caps.join(',')}`;
    }
    case 'revoke':
      return `revoke ${change.keyid}: ${change.reason}`;
    case 'revoke-node':
      return `revoke node ${change.node}: ${change.reason}`;
    case 'rotate-root':
      return `rotate root: ${change.threshold} of ${change.rootKeys.length} root keys`;
    case 'set-ledger-key':
      return `ledger key ${change.publicKey}`;
    case 'set-policy':
      return `policy ${JSON.stringify(change.policy)}`;
  }
}

/** Public half of a key named by file, by name in the state folder, or given as base64. */
function publicKeyOf(session: Session, name: string): Uint8Array {
  const state = session.flags.state ?? session.env.HYPHA_STATE;
  const candidates = [name, ...(state === undefined ? [] : [join(state, 'keys', `${name}.pem`)])];
  const file = candidates.map((path) => resolve(path)).find((path) => existsSync(path));
  if (file !== undefined) return publicKeyFromPem(readFileSync(file, 'utf8'));
  try {
    const raw = fromBase64(name);
    if (raw.length === 32) return raw;
  } catch {
    // Not base64 either: the error below names all that was tried.
  }
  throw new HyphaError(
    'E_NOT_FOUND',
    `no key ${name}: neither a file, nor a key of this state, nor base64`,
    { hint: 'make one: hypha key new NAME; hypha key list shows those there are' },
  );
}

function payloadOf(envelope: Envelope): AuthorityPayload {
  return AuthorityPayload.parse(parseStrictJson(fromBase64(envelope.payload)));
}

interface GrantOptions {
  role: string;
  key: string;
  name?: string;
  realm: string[];
  cap: string[];
  node: string[];
  days: string;
  rootKey: string[];
  adminKey?: string;
}

function signersFor(
  session: Session,
  role: string,
  options: { rootKey: string[]; adminKey?: string },
): Signer[] {
  const byRoot = options.rootKey.length > 0 || !['operator', 'viewer'].includes(role);
  if (byRoot) return session.roots(options.rootKey.length > 0 ? options.rootKey : undefined);
  return [session.admin(options.adminKey)];
}

export function authorityCommand(program: Command): void {
  const authority = program
    .command('authority')
    .description('who may do what: a signed chain that starts at genesis');

  authority
    .command('init')
    .description('make a genesis from root keys, offline')
    .requiredOption('--root-key <file>', 'private root key; repeat for more', collect)
    .option('--threshold <t>', 'how many root keys must sign', '1')
    .option('--out <file>', 'where to write the genesis', 'genesis.json')
    .action((options: { rootKey: string[]; threshold: string; out: string }, command: Command) => {
      const session = sessionOf(command);
      const signers = options.rootKey.map((file) => readKeyFile(session.keyFileOf(file)));
      const payload = buildGenesisPayload({
        rootKeys: signers.map(({ publicKey }, index) => ({ publicKey, name: `root-${index + 1}` })),
        threshold: parseInteger(options.threshold, '--threshold', { min: 1, max: signers.length }),
        nowSeconds: session.nowSeconds(),
      });
      const envelope = signAuthority(payload, signers);
      const { genesisHash } = Authority.fromGenesis(nodeVerifier, envelope);
      writeFileSync(options.out, `${JSON.stringify(envelope)}\n`, { flag: 'wx' });
      session.output.item({ genesis: genesisHash, file: resolve(options.out) }, [
        ['genesis', genesisHash],
        ['file', resolve(options.out)],
        ['next', 'start the ledger with it; pin the hash in every context'],
      ]);
    });

  authority
    .command('grant <key>')
    .description('let a key do something: a PEM file (either half), a key of this state, or base64')
    .addOption(new Option('--role <role>').choices(Role.options).default('operator'))
    .option('--name <name>', 'shown in logs; default: the key file or name')
    .option('--realm <realm>', 'repeat for more; default all', collect, [])
    .option('--cap <cap>', 'repeat for more; default all', collect, [])
    .option('--node <id>', 'repeat for more; default all', collect, [])
    .option('--days <days>', 'how long from now', '365')
    .option('--root-key <file>', 'sign with root keys', collect, [])
    .option('--admin-key <file>', 'sign with this admin key')
    .action(async (key: string, options: GrantOptions, command: Command) => {
      const session = sessionOf(command);
      const publicKey = publicKeyOf(session, key);
      const role = Role.parse(options.role);
      const grant = grantOf({
        publicKey,
        name: options.name ?? nameOf(key),
        role,
        nowSeconds: session.nowSeconds(),
        days: parseInteger(options.days, '--days', { min: 1, max: 3650 }),
        realms: options.realm.length > 0 ? options.realm : ['*'],
        caps: options.cap.length > 0 ? options.cap : ['*'],
        nodes: options.node.length > 0 ? options.node : ['*'],
      });
      await append(session, { type: 'grant', grant }, signersFor(session, role, options));
    });

  authority
    .command('revoke <keyid>')
    .description('a key, by keyid or by the name of its grant, may do nothing from now on')
    .option('--reason <text>', 'kept in the chain', 'revoked by hand')
    .option('--root-key <file>', 'sign with root keys', collect, [])
    .option('--admin-key <file>', 'sign with this admin key')
    .action(
      async (
        wanted: string,
        options: { reason: string; rootKey: string[]; adminKey?: string },
        command: Command,
      ) => {
        const session = sessionOf(command);
        const record = findGrant(await fetchAuthority(session), wanted);
        await append(
          session,
          { type: 'revoke', keyid: record.keyid, reason: options.reason },
          signersFor(session, record.grant.role, options),
        );
      },
    );

  authority
    .command('show')
    .description('every key and what it may do now')
    .action(async (_options: unknown, command: Command) => {
      const session = sessionOf(command);
      const state = await fetchAuthority(session);
      session.output.list(
        state.listKeys().map(({ keyid, status, grant }) => ({ keyid, status, ...grant })),
        [
          { title: 'name', cell: (item) => item.name },
          { title: 'role', cell: (item) => item.role },
          { title: 'status', cell: (item) => item.status },
          { title: 'realms', cell: (item) => item.realms.join(',') },
          { title: 'caps', cell: (item) => item.caps.join(',') },
          {
            title: 'until',
            cell: (item) => new Date(item.notAfter * 1000).toISOString().slice(0, 10),
          },
          { title: 'keyid', cell: (item) => item.keyid },
        ],
        'no grants',
      );
    });

  authority
    .command('log')
    .description('the chain, oldest first')
    .action(async (_options: unknown, command: Command) => {
      const session = sessionOf(command);
      const state = await fetchAuthority(session);
      session.output.list(
        state.updates.map(payloadOf),
        [
          { title: 'seq', cell: (item) => String(item.seq) },
          { title: 'at', cell: (item) => new Date(item.iat * 1000).toISOString() },
          { title: 'change', cell: (item) => describeChange(item.change) },
        ],
        'empty',
      );
    });
}

function nameOf(key: string): string {
  return (key.split('/').pop() ?? key).replace(/\.(?:pem|pub)$/, '').toLowerCase();
}

function findGrant(authority: Authority, wanted: string): KeyRecord {
  const matches = authority
    .listKeys()
    .filter(
      ({ keyid, grant, status }) =>
        status === 'active' && (keyid === wanted || grant.name === wanted),
    );
  const [match, second] = matches;
  if (match === undefined)
    throw new HyphaError('E_NOT_FOUND', `no active grant for ${wanted}`, {
      hint: 'hypha authority show',
    });
  if (second === undefined) return match;
  throw new HyphaError('E_ARGUMENT', `several keys are named ${wanted}`, {
    hint: 'name the keyid',
  });
}
