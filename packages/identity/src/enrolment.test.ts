import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  buildNodeAdmissionPayload,
  HyphaError,
  isHyphaError,
  type Signer,
  signAdmission,
} from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import {
  admitNode,
  createFleet,
  createKey,
  FACTS,
  joinTokenOf,
  openTempDir,
  signUpdate,
  type TestNode,
  waitFor,
} from '@hypha/testkit';
import { describe, expect, test } from 'vitest';
import { ImpatientClock } from '../test/impatient-clock.ts';
import { MemoryLedger } from '../test/memory-ledger.ts';
import { type JoinDeps, joinFleet } from './enrolment.ts';

const URLS = { ledger: 'http://ledger.test:7401', coordinator: 'http://coordinator.test:7402' };
const fleet = createFleet();
const never = new AbortController().signal;

function setUp(folder: string, node: TestNode = admitNode(fleet, { labels: { zone: 'a' } })) {
  const ledger = new MemoryLedger(fleet.authority);
  const keys = keysOf(node.id, node.key);
  const failures: unknown[] = [];
  const clock = new ImpatientClock();
  const connected: string[] = [];
  const deps: JoinDeps = {
    folder,
    keys,
    joinToken: joinTokenOf(fleet, node, URLS),
    connect: (url) => {
      connected.push(url);
      return ledger;
    },
    facts: async () => FACTS,
    boot: { bootId: 'boot', uptimeMs: () => 1 },
    verifier: nodeVerifier,
    clock,
    onFailure: ({ error }) => failures.push(error),
    onAuthorityFailure: (error) => failures.push(error),
  };
  return { ledger, deps, failures, clock, connected, node };
}

function keysOf(nodeId: string, signer: Signer): JoinDeps['keys'] {
  const sealKeys = { current: createKey().publicKey, notePublished: async () => undefined };
  return { nodeId, signer, sealKeys };
}

const codes = (failures: readonly unknown[]) =>
  failures.map((error) => (isHyphaError(error) ? error.code : String(error)));

/** Joins in vain until there is enough to see, and is told to stop then. */
async function joinUntil(deps: JoinDeps, isEnough: () => boolean): Promise<void> {
  const stopping = new AbortController();
  const joining = joinFleet(deps, stopping.signal);
  await waitFor(isEnough);
  stopping.abort(new Error('stopping'));
  await expect(joining).rejects.toThrow('stopping');
}

describe('joining a fleet', () => {
  test('enrols with the token and believes the admission about name, labels and realms', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, node, connected, failures } = setUp(folder.path);
    const { membership, authority } = await joinFleet(deps, never);
    expect(membership).toMatchObject({
      node: node.id,
      name: 'node-1',
      labels: { zone: 'a' },
      realms: ['*'],
      genesis: fleet.authority.genesisHash,
      ...URLS,
    });
    expect(authority.current.head).toBe(fleet.authority.head);
    expect(ledger.nodes.has(node.id)).toBe(true);
    expect(connected).toEqual([URLS.ledger]);
    expect(failures).toEqual([]);
  });

  test('is remembered: a restart needs neither token nor ledger', async () => {
    await using folder = await openTempDir();
    const { deps, ledger } = setUp(folder.path);
    const first = await joinFleet(deps, never);
    ledger.fault = new HyphaError('E_UNAVAILABLE', 'ledger is away');
    const { joinToken: _, ...later } = deps;
    const again = await joinFleet(later, never);
    expect(again.membership).toEqual(first.membership);
    expect(again.authority.current.head).toBe(fleet.authority.head);
    expect((await stat(join(folder.path, 'membership.json'))).mode & 0o777).toBe(0o600);
  });

  test('keeps no secret of the token on disk', async () => {
    await using folder = await openTempDir();
    const { deps, node } = setUp(folder.path);
    await joinFleet(deps, never);
    const kept = await readFile(join(folder.path, 'membership.json'), 'utf8');
    expect(kept).not.toContain(Buffer.from(node.token).toString('base64url'));
  });

  test('goes on trying with growing delays, and says why each time', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, failures, clock, node } = setUp(folder.path);
    ledger.fault = new HyphaError('E_UNAVAILABLE', 'ledger is away');
    const joining = joinFleet(deps, never);
    await waitFor(() => failures.length >= 9);
    ledger.fault = undefined;
    expect((await joining).membership.node).toBe(node.id);
    expect(new Set(codes(failures))).toEqual(new Set(['E_UNAVAILABLE']));
    // Three quarters of 500 ms doubled, by the fixed jitter, up to those of 30 s.
    expect(clock.slept.slice(0, 9)).toEqual([
      375, 750, 1500, 3000, 6000, 12_000, 22_500, 22_500, 22_500,
    ]);
  });

  test('whose answer was lost gets the record it has already', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, failures, node } = setUp(folder.path);
    ledger.losesNextEnrolment = true;
    expect((await joinFleet(deps, never)).membership.node).toBe(node.id);
    expect(codes(failures)).toEqual(['E_UNAVAILABLE']);
    expect(ledger.nodes.size).toBe(1);
  });

  test('after a crash before the membership was written gets the same record', async () => {
    await using folder = await openTempDir();
    const { deps, ledger } = setUp(folder.path);
    const first = await joinFleet(deps, never);
    await rm(join(folder.path, 'membership.json'));
    const again = await joinFleet(deps, never);
    expect(again.membership).toEqual(first.membership);
    expect(ledger.nodes.size).toBe(1);
  });

  test('with a token that was spent by another goes on saying so', async () => {
    await using folder = await openTempDir();
    const first = setUp(folder.path);
    await joinFleet(first.deps, never);
    await using other = await openTempDir();
    const thief = createKey();
    const stolen = setUp(other.path, { ...admitNode(fleet), ...first.node, key: thief });
    const keys = { ...admitNode(fleet) };
    const deps = {
      ...stolen.deps,
      keys: keysOf(keys.id, keys.key),
      connect: () => first.ledger,
    };
    await joinUntil(deps, () => stolen.failures.length >= 2);
    expect(new Set(codes(stolen.failures))).toEqual(new Set(['E_TOKEN']));
  });

  test('stops when it is told to', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, failures } = setUp(folder.path);
    ledger.fault = new HyphaError('E_UNAVAILABLE', 'ledger is away');
    await joinUntil(deps, () => failures.length > 0);
  });

  test('waits for an admin who was granted only later', async () => {
    await using folder = await openTempDir();
    const admin = createKey();
    const { deps, ledger, failures, node } = setUp(folder.path, admitNode({ admin }));
    const joining = joinFleet(deps, never);
    await waitFor(() => failures.length >= 1);
    expect(codes(failures)).toContain('E_UNKNOWN_KEY');
    expect(ledger.calls).not.toContain('challenge');
    const [operatorGrant] = fleet.authority.listKeys();
    if (operatorGrant === undefined) throw new Error('no grant');
    const grant = {
      ...operatorGrant.grant,
      publicKey: Buffer.from(admin.publicKey).toString('base64'),
      name: 'late',
      role: 'admin' as const,
    };
    ledger.authorityState = fleet.authority.apply(
      signUpdate(fleet.authority, { type: 'grant', grant }, fleet.roots),
    );
    expect((await joining).membership.node).toBe(node.id);
  });

  test('believes no ledger of another fleet', async () => {
    await using folder = await openTempDir();
    const { deps, failures } = setUp(folder.path);
    const impostor = new MemoryLedger(createFleet().authority);
    await joinUntil({ ...deps, connect: () => impostor }, () => failures.length >= 2);
    expect(new Set(codes(failures))).toEqual(new Set(['E_AUTHORITY']));
    // Nothing that could be replayed elsewhere was given away.
    expect(new Set(impostor.calls)).toEqual(new Set(['authority']));
  });

  test('tells its token to no ledger of another fleet, also when it knows its own chain already', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, failures, node } = setUp(folder.path);
    // The chain is on disk; the enrolment itself fails.
    ledger.enrol = async () => {
      throw new HyphaError('E_UNAVAILABLE', 'ledger is away');
    };
    await joinUntil(deps, () => failures.length > 0);
    expect(await readFile(join(folder.path, 'authority.json'), 'utf8')).toContain('updates');
    const impostor = new MemoryLedger(createFleet().authority);
    await joinUntil({ ...deps, connect: () => impostor }, () => impostor.calls.length >= 3);
    expect(codes(failures)).toContain('E_AUTHORITY');
    expect(new Set(impostor.calls)).toEqual(new Set(['authority']));
    expect(impostor.nodes.has(node.id)).toBe(false);
  });

  test('takes addresses of its configuration over those of the token', async () => {
    await using folder = await openTempDir();
    const { deps, connected } = setUp(folder.path);
    const own = { ledgerUrl: 'http://10.0.0.1:1', coordinatorUrl: 'http://10.0.0.1:2' };
    const { membership } = await joinFleet({ ...deps, ...own }, never);
    expect(membership).toMatchObject({ ledger: own.ledgerUrl, coordinator: own.coordinatorUrl });
    expect(connected).toEqual([own.ledgerUrl]);
  });

  test.for([
    ['no token', undefined],
    ['half a token', 'hypha1.eyJzIjoi'],
  ] as const)('with %s throws at once, since waiting would not help', async ([, joinToken]) => {
    await using folder = await openTempDir();
    const { deps, ledger } = setUp(folder.path);
    await expect(joinFleet({ ...deps, joinToken }, never)).rejects.toMatchObject({
      code: 'E_TOKEN',
    });
    expect(ledger.calls).toEqual([]);
  });

  test('as one node does not make it another', async () => {
    await using folder = await openTempDir();
    await joinFleet(setUp(folder.path).deps, never);
    await expect(joinFleet(setUp(folder.path).deps, never)).rejects.toMatchObject({
      code: 'E_CONFLICT',
    });
  });

  test('with a membership that is garbage is a question for a person', async () => {
    await using folder = await openTempDir();
    const { deps } = setUp(folder.path);
    await writeFile(join(folder.path, 'membership.json'), '{', { mode: 0o600 });
    await expect(joinFleet(deps, never)).rejects.toMatchObject({ code: 'E_CONFLICT' });
  });

  test('with another token than before says which name it has', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, node, failures } = setUp(folder.path);
    await joinFleet(deps, never);
    await rm(join(folder.path, 'membership.json'));
    const other = { ...admitNode(fleet, { name: 'other' }), key: node.key };
    const joinToken = joinTokenOf(fleet, other, URLS);
    await joinUntil({ ...deps, joinToken }, () => failures.length >= 1);
    expect(codes(failures)).toContain('E_CONFLICT');
    expect(ledger.nodes.get(node.id)?.name).toBe('node-1');
  });
});

describe('joining without a token', () => {
  function setUpPending(folder: string) {
    const { ledger, deps, failures, clock, node } = setUp(folder);
    const pending: JoinDeps = {
      ...deps,
      joinToken: undefined,
      genesis: fleet.authority.genesisHash,
      ledgerUrl: URLS.ledger,
      coordinatorUrl: URLS.coordinator,
    };
    const admit = (place: { name: string; lifetimeSeconds?: number; admin?: Signer }) => {
      const { admin = fleet.admin, lifetimeSeconds = 600, name } = place;
      const draft = { name, labels: { zone: 'b' }, realms: ['lab'], lifetimeSeconds };
      const payload = buildNodeAdmissionPayload(node.id, draft, Date.now());
      ledger.admissions.push(signAdmission(payload, admin));
    };
    return { ledger, deps: pending, failures, clock, node, admit };
  }

  test('waits for its admission, finds it in the log and believes what it says', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, failures, clock, node, admit } = setUpPending(folder.path);
    const joining = joinFleet(deps, never);
    await waitFor(() => failures.length >= 8);
    expect(new Set(codes(failures))).toEqual(new Set(['E_PENDING']));
    expect((failures[0] as HyphaError).message).toContain(node.id);
    // Never longer: an admin has just admitted it and watches.
    expect(Math.max(...clock.slept)).toBe(10_000);
    admit({ name: 'attic' });
    expect((await joining).membership).toMatchObject({
      ...{ node: node.id, name: 'attic', labels: { zone: 'b' }, realms: ['lab'] },
      ...{ ...URLS, genesis: fleet.authority.genesisHash },
    });
    expect(ledger.nodes.get(node.id)?.name).toBe('attic');
  });

  test('takes no admission that no admin signed, that is over, or that is for another', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, failures, admit } = setUpPending(folder.path);
    admit({ name: 'forged', admin: createKey() });
    admit({ name: 'unfit', admin: fleet.operator });
    admit({ name: 'over', lifetimeSeconds: -10 });
    ledger.admissions.push(admitNode(fleet, { name: 'other' }).admission);
    const joining = joinFleet(deps, never);
    await waitFor(() => failures.length >= 2);
    expect(new Set(codes(failures))).toEqual(new Set(['E_PENDING']));
    admit({ name: 'attic' });
    expect((await joining).membership.name).toBe('attic');
  });

  test('after a crash before the membership was written finds what it was admitted as', async () => {
    await using folder = await openTempDir();
    const { deps, ledger, admit } = setUpPending(folder.path);
    admit({ name: 'attic', lifetimeSeconds: 2 });
    const first = await joinFleet(deps, never);
    await rm(join(folder.path, 'membership.json'));
    // Long after the admission has expired.
    const late = new ImpatientClock();
    late.nowMs = () => Date.now() + 3_600_000;
    const again = await joinFleet({ ...deps, clock: late }, never);
    expect(again.membership).toEqual(first.membership);
    expect(ledger.nodes.size).toBe(1);
  });

  test('trusts no ledger but that of the genesis it was given', async () => {
    await using folder = await openTempDir();
    const { deps, failures } = setUpPending(folder.path);
    const impostor = new MemoryLedger(createFleet().authority);
    await joinUntil({ ...deps, connect: () => impostor }, () => failures.length >= 2);
    expect(new Set(codes(failures))).toEqual(new Set(['E_AUTHORITY']));
    expect(new Set(impostor.calls)).toEqual(new Set(['authority']));
  });

  test('refuses a token of another fleet than the one to trust', async () => {
    await using folder = await openTempDir();
    const { deps, ledger } = setUp(folder.path);
    const joining = joinFleet({ ...deps, genesis: 'a'.repeat(64) }, never);
    await expect(joining).rejects.toMatchObject({ code: 'E_AUTHORITY' });
    expect(ledger.calls).toEqual([]);
  });

  test.for(['ledgerUrl', 'coordinatorUrl', 'genesis'] as const)(
    'without %s throws at once',
    async (missing) => {
      await using folder = await openTempDir();
      const { deps } = setUpPending(folder.path);
      await expect(joinFleet({ ...deps, [missing]: undefined }, never)).rejects.toMatchObject({
        code: 'E_TOKEN',
      });
    },
  );
});
