import { type Json, type NodeId, type Rid, ridOf, type Signer } from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import type { Effects, ResourceRecord, Sals } from '@hypha/sal';
import { CONTAINERS, VOLUMES } from './crash-script.ts';

export const REALM = 'default';

/** The node that one file of crash points works on. */
export interface CrashWorld {
  readonly node: NodeId;
  readonly signer: Signer;
  /** `oci:…` */
  readonly image: string;
  /** The SALs as a fresh process opens them; nothing of the opening goes through `effects`. */
  open(effects: Effects): Promise<Sals>;
  /** What the deployment has, looked at from outside: `volume data`, `snapshot data/before`, `container web`. */
  list(deployment: string): Promise<readonly string[]>;
  /** Lines that `once` execs left. */
  readOnce(deployment: string): Promise<readonly string[]>;
  /** All that the deployment has on the machine, drafts included: without rid, run, process, time. */
  capture(deployment: string): Promise<Json>;
  close(): Promise<void>;
}

/** Another node in every process, so that no two tests share an address. */
export const nodeKey = generateKey().signer;

export interface Known {
  readonly kind: 'volume' | 'container';
  readonly name: string;
  readonly rid: Rid;
}

/** Everything the script may make. */
export function knownOf(deployment: string): readonly Known[] {
  const of = (kind: Known['kind'], name: string) => {
    return { kind, name, rid: ridOf(nodeVerifier, { realm: REALM, deployment, kind, name }) };
  };
  return [
    ...VOLUMES.map((name) => of('volume', name)),
    ...CONTAINERS.map((name) => of('container', name)),
  ];
}

/** Containers first: they hold volumes. */
export async function removeAll(sals: Sals, deployment: string): Promise<void> {
  for (const { kind, name, rid } of knownOf(deployment).toReversed()) {
    const record: ResourceRecord = {
      ...{ realm: REALM, deployment, kind, name, rid },
      ...{ spec: {}, specHash: '0'.repeat(64) },
    };
    const signal = AbortSignal.timeout(60_000);
    await sals.findKind(kind)?.remove(record, { deleteData: true, signal });
  }
}

/** The same text for every deployment, run and instance. */
export function withoutNames(text: string, deployment: string): string {
  const named = knownOf(deployment).reduce(
    (rest, { kind, name, rid }) => rest.replaceAll(rid, `${kind}-${name}`),
    text,
  );
  return (
    named
      .replaceAll(/run_[a-z2-7]{26}/g, 'RUN')
      // Handles in specs hold a rid.
      .replaceAll(/("mounts\.[^"]*":)"[0-9a-f]{16}"/g, '$1"HASH"')
      .replaceAll(new RegExp(`(container-(?:${CONTAINERS.join('|')}))-[0-9a-f]{8}`, 'g'), '$1-N')
  );
}

/** The label on a made thing, without what differs between deployments and who changed it last. */
export function readLabel(text: string, deployment: string): Json {
  const { lastOp, specHash, deployment: _, ...label } = JSON.parse(withoutNames(text, deployment));
  return label;
}
