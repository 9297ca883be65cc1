/** What is about to be signed, for a person to read: said by the bytes themselves and by nothing around them. */
import type { Authority, ScriptPayload } from '@hypha/protocol';
import { describeChange } from './authority-change.ts';
import { bytes } from './output.ts';
import type { SignedPayload } from './signed-payload.ts';

type Field = readonly [name: string, text: string];

const NODES_SHOWN_MAX = 20;

/** What the payload alone does not say. */
export interface SummaryContext {
  /** As the script declares them. */
  readonly secretNames: readonly string[];
  /** As the file carries it, to call keys by their names. */
  readonly authority: Authority | undefined;
}

export function summarizePayload(item: SignedPayload, context: SummaryContext): Field[] {
  return fieldsOf(item, context).map(([name, text]) => [name, visible(text)]);
}

/**
 * Text by a stranger with all that a terminal would act on, or that reads otherwise than it is, spelled out:
 * escape sequences, bidirectional marks, zero-width characters. Line ends and tabs stay.
 */
export function visible(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (char) =>
    char === '\n' || char === '\t' ? char : `\\u{${char.codePointAt(0)?.toString(16)}}`,
  );
}

function fieldsOf(item: SignedPayload, { secretNames, authority }: SummaryContext): Field[] {
  switch (item.kind) {
    case 'script':
      return scriptFields(item.payload, secretNames);
    case 'authority': {
      const { seq, prev, iat, change } = item.payload;
      return [
        ['what', `authority update ${seq}`],
        ['change', describeChange(change)],
        ...(change.type === 'revoke' ? [['whose', ownerOf(change.keyid, authority)] as const] : []),
        ['follows', prev ?? 'nothing: it starts a fleet'],
        ['dated', timeOf(iat)],
      ];
    }
    case 'admission': {
      const { name, node, replaces, realms, labels, exp } = item.payload;
      const pairs = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
      return [
        ['what', `admission of a node as ${name}`],
        ['machine', node ?? 'whichever shows the join token'],
        ...(replaces === undefined ? [] : [['replaces', replaces] as const]),
        ['realms', realms.join(', ')],
        ['labels', pairs.join(', ') || 'none'],
        ['until', timeOf(exp)],
      ];
    }
  }
}

function scriptFields(payload: ScriptPayload, secretNames: readonly string[]): Field[] {
  const { realm, deployment, generation, mode, aud, script, limits, secrets } = payload;
  const { milliCpus, memoryBytes, storageBytes } = limits.resources;
  const sealed = Object.keys(secrets).length;
  return [
    ['what', `${mode} of ${realm}/${deployment} generation ${generation}`],
    ['revision', payload.id],
    ['nodes', `${aud.count} of ${aud.nodes.length}: ${shortened(aud.nodes)}`],
    ['caps', payload.caps.join(', ') || 'none'],
    [
      'within',
      `${milliCpus / 1000} cpu, ${bytes(memoryBytes)} memory, ${bytes(storageBytes)} storage`,
    ],
    ['input', JSON.stringify(payload.input)],
    ...(payload.deleteData.length === 0
      ? []
      : [['DELETES', `the data of ${payload.deleteData.join(', ')}`] as const]),
    ['on failure', payload.onFailure],
    [
      'secrets',
      sealed === 0 && secretNames.length === 0
        ? 'none'
        : `${secretNames.join(', ') || 'unnamed'}, sealed for ${sealed} nodes`,
    ],
    ...(script === undefined
      ? []
      : [['source', `sha256 ${script.sha256}, ${lineCount(script.source)} lines`] as const]),
    ['message', payload.message || '-'],
    ['valid', `${timeOf(payload.nbf)} to ${timeOf(payload.exp)}`],
  ];
}

function ownerOf(keyid: string, authority: Authority | undefined): string {
  const grant = authority?.findKey(keyid)?.grant;
  return grant === undefined ? 'nobody this file knows' : `${grant.name}, ${grant.role}`;
}

function shortened(nodes: readonly string[]): string {
  const shown = nodes.slice(0, NODES_SHOWN_MAX).join(', ');
  return nodes.length > NODES_SHOWN_MAX ? `${shown}, …` : shown;
}

function lineCount(source: string): number {
  return source.split('\n').length;
}

function timeOf(seconds: number): string {
  return new Date(seconds * 1000).toISOString();
}
