import { type Envelope, envelopeDigest, HyphaError, PAYLOAD_TYPES } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import type { Command } from 'commander';
import { fetchAuthority } from '../authority-chain.ts';
import { describeChange } from '../authority-change.ts';
import { sendUpdate, showSent } from '../authority-update.ts';
import { parseDuration } from '../option-parsers.ts';
import { type Session, sessionOf } from '../session.ts';
import { countSignatures, describeGroup, isGenesis } from '../signature-count.ts';
import { readSignedPayload } from '../signed-payload.ts';
import { readSigningFile } from '../signing-file.ts';
import { type DeliveryFlags, deliverWork, deliveryOptions } from '../work-delivery.ts';
import { readerOf, WAIT_FOR_NODES, watchRevocation } from './authority-revoke.ts';

export function submitCommand(program: Command): void {
  deliveryOptions(program.command('submit <file>'))
    .description(
      'send what was signed elsewhere: a script, an authority update or an admission (- for stdin)',
    )
    .action(async (file: string, flags: DeliveryFlags, command: Command) => {
      const session = sessionOf(command);
      const { submission } = readSigningFile(file);
      switch (submission.envelope.payloadType) {
        case PAYLOAD_TYPES.authority:
          return await submitUpdate(session, submission.envelope, flags);
        case PAYLOAD_TYPES.admission:
          return await submitAdmission(session, submission.envelope);
        default:
          // Whatever else it is, the coordinator or the node says why not.
          return await deliverWork(session, submission, flags);
      }
    });
}

/** The ledger has it, durably, when this ends. Nodes learn of it by themselves; a revocation waits for that. */
async function submitUpdate(
  session: Session,
  envelope: Envelope,
  { detach, timeout = WAIT_FOR_NODES }: DeliveryFlags,
): Promise<void> {
  const item = readSignedPayload(envelope);
  if (item.kind !== 'authority' || isGenesis(item)) {
    throw new HyphaError(
      'E_ARGUMENT',
      'a genesis is not sent to a ledger: it is what one starts with',
      {
        hint: 'start the ledger with it: --genesis FILE, see docs/offline-signing.md',
      },
    );
  }
  const authority = await fetchAuthority(session);
  const { seq, change } = item.payload;
  const isSent = authority.hashAt(seq) === envelopeDigest(nodeVerifier, envelope, 'authority');
  const count = isSent ? undefined : countSignatures(envelope, item, authority);
  if (count?.complete === false) {
    throw new HyphaError('E_SIG_THRESHOLD', `cannot send: ${describeChange(change)}`, {
      details: count.groups.map(describeGroup),
      hint: 'the others sign the file first: hypha cosign FILE --key KEY',
    });
  }
  const send = () => sendUpdate(session, envelope, authority.extend([envelope]));
  const isRevocation = change.type === 'revoke' || change.type === 'revoke-node';
  if (detach === true || !isRevocation) return showSent(session, change, await send());
  const reader = readerOf(session, authority, change);
  const timeoutMs = parseDuration(timeout, '--timeout') * 1000;
  await watchRevocation(reader, change, timeoutMs, async () => (await send()).seq);
}

async function submitAdmission(session: Session, envelope: Envelope): Promise<void> {
  const { index, digest, existing } = await session.ledger().appendEntry(envelope);
  session.output.item({ index, digest, existing }, [
    ['admission', digest],
    ['log', `entry ${index}${existing ? ', sent before' : ''}`],
  ]);
}
