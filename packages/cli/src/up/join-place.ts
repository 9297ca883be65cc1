/**
 * Where a machine joins and by what right. A join token is a secret: everyone on a machine can read a command
 * line, so it comes from a file, from stdin or from the environment.
 */
import { readFileSync } from 'node:fs';
import {
  AdmissionPayload,
  fromBase64,
  HyphaError,
  Name,
  parseJoinToken,
  parseStrictJson,
  Sha256Hex,
} from '@hypha/protocol';
import type { CliEnvironment } from '../config.ts';
import { findJoined, type StateLayout } from '../state-layout.ts';

export interface PlaceFlags {
  readonly tokenFile?: string;
  readonly ledger?: string;
  readonly coordinator?: string;
  readonly genesis?: string;
  readonly as: string;
}

export interface JoinPlace {
  /** Of the node's folder below the state; also of the node when it joined with a token. */
  readonly name: string;
  readonly ledger: string;
  readonly coordinator: string;
  readonly genesis: string;
  /** Undefined: the node has joined, or waits for an admin to admit its fingerprint. */
  readonly token: string | undefined;
  /** The addresses are the operator's, and not what the token or the node itself has. */
  readonly isChosen: boolean;
}

const STDIN = 0;
const HINT =
  'hypha node join --token-file FILE; or, without a token: --ledger URL --coordinator URL --genesis HASH';

/**
 * By a token, by addresses and genesis, or as the one node that has joined with this state already.
 * @param argument `-` for stdin, or the token itself
 * @throws HyphaError `E_ARGUMENT`, `E_TOKEN`
 */
export function findJoinPlace(
  state: StateLayout,
  argument: string | undefined,
  flags: PlaceFlags,
  env: CliEnvironment,
): JoinPlace {
  const token = readToken(argument, flags, env);
  const { ledger, coordinator, genesis } = flags;
  if (token !== undefined) return placeOfToken(token, flags);
  if (ledger !== undefined && coordinator !== undefined && genesis !== undefined) {
    check(Name, flags.as, '--as');
    check(Sha256Hex, genesis, '--genesis');
    return { name: flags.as, ledger, coordinator, genesis, token: undefined, isChosen: true };
  }
  if (ledger !== undefined || coordinator !== undefined || genesis !== undefined) {
    throw new HyphaError('E_ARGUMENT', 'a node without a token needs all three addresses', {
      hint: HINT,
    });
  }
  const [joined, another] = findJoined(state);
  if (joined !== undefined && another === undefined)
    return { ...joined, token: undefined, isChosen: false };
  throw new HyphaError(
    'E_ARGUMENT',
    joined === undefined ? 'no join token' : `several nodes have joined with ${state.root}`,
    { hint: HINT },
  );
}

/** Without the newline that files and pipes end with. */
function readToken(
  argument: string | undefined,
  { tokenFile }: PlaceFlags,
  env: CliEnvironment,
): string | undefined {
  if (argument !== undefined && argument !== '-') return argument;
  const source = argument === '-' ? STDIN : tokenFile;
  return source === undefined ? env.HYPHA_JOIN_TOKEN : readFileSync(source, 'utf8').trim();
}

/** Addresses as the machine has to use them; the genesis is the token's and no other. */
function placeOfToken(token: string, flags: PlaceFlags): JoinPlace {
  const parsed = parseJoinToken(token);
  const { genesis, admission } = parsed;
  if (flags.genesis !== undefined && flags.genesis !== genesis) {
    throw new HyphaError('E_AUTHORITY', `the join token is for the fleet of genesis ${genesis}`, {
      hint: `for the fleet of ${flags.genesis}, ask its admin for a token`,
    });
  }
  const { name } = AdmissionPayload.parse(parseStrictJson(fromBase64(admission.payload)));
  return {
    name,
    ledger: flags.ledger ?? parsed.ledger,
    coordinator: flags.coordinator ?? parsed.coordinator,
    genesis,
    token,
    isChosen: flags.ledger !== undefined || flags.coordinator !== undefined,
  };
}

function check(schema: typeof Name | typeof Sha256Hex, text: string, flag: string): void {
  if (schema.safeParse(text).success) return;
  throw new HyphaError('E_ARGUMENT', `${flag}: not valid: ${JSON.stringify(text)}`, { hint: HINT });
}
