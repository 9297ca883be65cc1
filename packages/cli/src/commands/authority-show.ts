import type { Authority, KeyRecord } from '@hypha/protocol';
import type { Command } from 'commander';
import { fetchAuthority } from '../authority-chain.ts';
import { changeOf, describeChange, describePolicy, rootsOf } from '../authority-change.ts';
import { type Session, sessionOf } from '../session.ts';

export function showCommand(authority: Command): void {
  authority
    .command('show')
    .description('root keys, policy, and every key with what it may do now')
    .action(async (_options: unknown, command: Command) => {
      const session = sessionOf(command);
      showAuthority(session, await fetchAuthority(session));
    });
}

export function logCommand(authority: Command): void {
  authority
    .command('log')
    .description('the chain, oldest first')
    .action(async (_options: unknown, command: Command) => {
      const session = sessionOf(command);
      const state = await fetchAuthority(session);
      session.output.list(
        state.updates.map(changeOf),
        [
          { title: 'seq', cell: (item) => String(item.seq) },
          { title: 'at', cell: (item) => new Date(item.iat * 1000).toISOString() },
          { title: 'change', cell: (item) => describeChange(item.change) },
        ],
        'empty',
      );
    });
}

function showAuthority(session: Session, state: Authority): void {
  const { output } = session;
  const roots = rootsOf(state).map(({ name, keyid }) => ({ name, keyid }));
  const revokedNodes = state.updates
    .map((envelope) => changeOf(envelope).change)
    .flatMap((change) => (change.type === 'revoke-node' ? [change.node] : []));
  const keys = state.listKeys().map((record) => viewOf(record, session.nowSeconds()));
  const { genesisHash: genesis, seq, head, threshold, ledgerKey, policy } = state;
  const view = {
    ...{ genesis, seq, head, threshold, roots, policy, revokedNodes, keys },
    ledgerKey: ledgerKey?.keyid ?? null,
  };
  output.item(view, [
    ['genesis', genesis],
    ['newest', `update ${seq}, head ${head}`],
    ['roots', `${threshold} of ${roots.length} have to sign`],
    ...roots.map(({ name, keyid }) => ['root', `${name}  ${keyid}`] as const),
    ['ledger', ledgerKey?.keyid ?? 'no key yet: hypha authority set-ledger-key'],
    ['policy', describePolicy(policy)],
    ['signing', whoSigns(threshold)],
    ...(revokedNodes.length === 0 ? [] : [['revoked', revokedNodes.join(', ')] as const]),
  ]);
  if (output.format !== 'table') return;
  output.line('');
  output.list(
    keys,
    [
      { title: 'name', cell: (item) => item.name },
      { title: 'role', cell: (item) => item.role },
      { title: 'status', cell: (item) => item.status },
      { title: 'realms', cell: (item) => item.realms.join(',') },
      { title: 'caps', cell: (item) => item.caps.join(',') },
      { title: 'nodes', cell: (item) => item.nodes.join(',') },
      { title: 'from', cell: (item) => dayOf(item.notBefore) },
      { title: 'until', cell: (item) => dayOf(item.notAfter) },
      { title: 'keyid', cell: (item) => item.keyid },
    ],
    'no grants',
  );
}

/** Which signature which change of the authority needs. */
function whoSigns(threshold: number): string {
  const roots = `${threshold} root key${threshold === 1 ? '' : 's'}`;
  return `operators and viewers, nodes: one admin; all else: ${roots}; a new root also its own threshold`;
}

function viewOf({ keyid, grant, status, revokedAtSeq }: KeyRecord, nowSeconds: number) {
  const { notBefore, notAfter } = grant;
  const now = notBefore > nowSeconds ? 'not yet' : notAfter < nowSeconds ? 'expired' : status;
  const revoked = revokedAtSeq === undefined ? {} : { revokedAtSeq };
  return { keyid, status: status === 'revoked' ? status : now, ...revoked, ...grant };
}

function dayOf(seconds: number): string {
  return new Date(seconds * 1000).toISOString().slice(0, 10);
}
