import {
  type Authority,
  type AuthorityChange,
  base64,
  HyphaError,
  Policy,
  Role,
  type Signer,
} from '@hypha/protocol';
import { type Command, Option } from 'commander';
import { grantOf } from '../authority-signing.ts';
import { changeAuthority } from '../authority-update.ts';
import { collect, parseDuration, parseInteger, parsePairs } from '../option-parsers.ts';
import { nameRootKeys } from '../root-keys.ts';
import { type Session, sessionOf } from '../session.ts';
import { type SigningFlags, signingOptions } from '../signing-flags.ts';
import { type ChosenKey, chooseKey } from '../signing-key.ts';

interface GrantOptions extends SigningFlags {
  role: string;
  name?: string;
  realm: string[];
  cap: string[];
  node: string[];
  days: string;
}

/** Operators and viewers are the admin's to govern; everything else is the roots'. */
export function usualSigners(session: Session, role: Role | undefined): Signer[] {
  const governed = role === 'operator' || role === 'viewer';
  return governed && session.context.keys.admin !== undefined ? [session.admin()] : session.roots();
}

export function changeCommands(authority: Command): void {
  grantCommand(authority);
  rotateRootCommand(authority);
  setLedgerKeyCommand(authority);
  setPolicyCommand(authority);
}

function grantCommand(authority: Command): void {
  signingOptions(authority.command('grant <key>'))
    .description('let a key do something: a PEM file (either half), a key of this state, or base64')
    .addOption(new Option('--role <role>').choices(Role.options).default('operator'))
    .option('--name <name>', 'shown in logs; default: the key file or name')
    .option('--realm <realm>', 'repeat for more; default all', collect, [])
    .option('--cap <cap>', 'repeat for more; default all', collect, [])
    .option('--node <id>', 'repeat for more; default all', collect, [])
    .option('--days <days>', 'how long from now', '365')
    .action(async (text: string, options: GrantOptions, command: Command) => {
      const session = sessionOf(command);
      const key = chooseKey(session, text);
      const change = { type: 'grant', grant: grantFor(session, key, options) } as const;
      await changeAuthority(
        session,
        () => change,
        options,
        () => usualSigners(session, change.grant.role),
      );
    });
}

function grantFor(session: Session, key: ChosenKey, options: GrantOptions) {
  const name = options.name ?? key.name;
  if (name === undefined) {
    throw new HyphaError('E_ARGUMENT', 'a key given as base64 has no name', {
      hint: 'say what to call it: --name NAME',
    });
  }
  return grantOf({
    publicKey: key.publicKey,
    name,
    role: Role.parse(options.role),
    nowSeconds: session.nowSeconds(),
    days: parseInteger(options.days, '--days', { min: 1, max: 3650 }),
    realms: orAll(options.realm),
    caps: orAll(options.cap),
    nodes: orAll(options.node),
  });
}

function orAll(items: string[]): string[] {
  return items.length > 0 ? items : ['*'];
}

interface RotateOptions extends SigningFlags {
  threshold: string;
}

function rotateRootCommand(authority: Command): void {
  signingOptions(authority.command('rotate-root <keys...>'))
    .description(
      'replace the root keys by these; needs the old threshold and the new one to sign (private halves given here do)',
    )
    .requiredOption('--threshold <t>', 'how many of the new root keys must sign from now on')
    .action(async (texts: string[], options: RotateOptions, command: Command) => {
      const session = sessionOf(command);
      const keys = texts.map((text) => chooseKey(session, text));
      const rootKeys = nameRootKeys(keys).map(({ name, publicKey }) => ({
        name,
        publicKey: base64(publicKey),
      }));
      const max = Math.min(keys.length, 8);
      const threshold = parseInteger(options.threshold, '--threshold', { min: 1, max });
      await changeAuthority(
        session,
        () => ({ type: 'rotate-root', rootKeys, threshold }),
        options,
        () => distinct([...contextRoots(session), ...keys.flatMap(({ signer }) => signer ?? [])]),
      );
    });
}

/** A root that stays signs once for both sets. */
function distinct(signers: readonly Signer[]): Signer[] {
  return [...new Map(signers.map((signer) => [signer.keyid, signer])).values()];
}

function contextRoots(session: Session): Signer[] {
  return session.context.keys.root === undefined ? [] : session.roots();
}

interface LedgerKeyOptions extends SigningFlags {
  fromLedger?: true;
}

function setLedgerKeyCommand(authority: Command): void {
  signingOptions(authority.command('set-ledger-key [key]'))
    .description('name the one key whose checkpoints count')
    .option('--from-ledger', 'the key the ledger says it has; compare it with the ledger host')
    .action(async (text: string | undefined, options: LedgerKeyOptions, command: Command) => {
      const session = sessionOf(command);
      const publicKey = await ledgerKeyOf(session, text, options);
      await changeAuthority(
        session,
        (before) => ledgerKeyChange(before, publicKey),
        options,
        () => session.roots(),
      );
    });
}

function ledgerKeyChange({ ledgerKey }: Authority, publicKey: string): AuthorityChange {
  if (ledgerKey === undefined || base64(ledgerKey.publicKey) !== publicKey) {
    return { type: 'set-ledger-key', publicKey };
  }
  throw new HyphaError('E_CONFLICT', `${ledgerKey.keyid} is the key of the ledger already`, {
    hint: 'nothing is left to do; hypha authority show',
  });
}

async function ledgerKeyOf(
  session: Session,
  text: string | undefined,
  { fromLedger }: LedgerKeyOptions,
): Promise<string> {
  if ((text === undefined) === (fromLedger === undefined)) {
    throw new HyphaError('E_ARGUMENT', 'expected either a key or --from-ledger', {
      hint: 'the ledger keeps its key in ledger.pem of its state folder',
    });
  }
  if (text !== undefined) return base64(chooseKey(session, text).publicKey);
  const { publicKey } = await session.ledger().logKey();
  session.output.note(`the ledger says its key is ${publicKey}`);
  return publicKey;
}

interface PolicyOptions extends SigningFlags {
  checkpointMaxAge?: string;
  signatures?: string;
  signaturesFor: string[];
}

function setPolicyCommand(authority: Command): void {
  signingOptions(authority.command('set-policy'))
    .description('what the whole fleet asks of new work; what is not named stays as it is')
    .option('--checkpoint-max-age <time>', 'how old the newest checkpoint may be, like 15m')
    .option('--signatures <n>', 'how many operators have to sign a script')
    .option(
      '--signatures-for <cap=n>',
      'more for scripts that use a capability; also destroy and delete-data; repeat for more',
      collect,
      [],
    )
    .action(async (options: PolicyOptions, command: Command) => {
      const session = sessionOf(command);
      await changeAuthority(
        session,
        (before) => policyChange(before, options),
        options,
        () => session.roots(),
      );
    });
}

function policyChange(before: Authority, options: PolicyOptions): AuthorityChange {
  const { checkpointMaxAge, signatures, signaturesFor } = options;
  if (checkpointMaxAge === undefined && signatures === undefined && signaturesFor.length === 0) {
    throw new HyphaError('E_ARGUMENT', 'nothing to change', { hint: 'add --help for the options' });
  }
  const count = (text: string, what: string) => parseInteger(text, what, { min: 1, max: 8 });
  const { policy } = before;
  const more = Object.entries(parsePairs(signaturesFor, '--signatures-for')).map(
    ([cap, text]) => [cap, count(text, `--signatures-for ${cap}`)] as const,
  );
  const changed = Policy.safeParse({
    checkpointMaxAge:
      checkpointMaxAge === undefined
        ? policy.checkpointMaxAge
        : parseDuration(checkpointMaxAge, '--checkpoint-max-age'),
    signatures: {
      default:
        signatures === undefined ? policy.signatures.default : count(signatures, '--signatures'),
      caps: { ...policy.signatures.caps, ...Object.fromEntries(more) },
    },
  });
  if (changed.success) return { type: 'set-policy', policy: changed.data };
  const [issue] = changed.error.issues;
  throw new HyphaError('E_ARGUMENT', `policy.${issue?.path.join('.')}: ${issue?.message}`, {
    hint: 'checkpoints may be 60 s to 24 h old; 1 to 8 signatures',
  });
}
