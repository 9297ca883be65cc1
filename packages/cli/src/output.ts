import { stripVTControlCharacters, styleText } from 'node:util';
import type { HyphaError } from '@hypha/protocol';
import { stringify as toYaml } from 'yaml';
import { planDifferenceLines } from './plan-difference.ts';

export const FORMATS = ['table', 'json', 'yaml'] as const;
export type Format = (typeof FORMATS)[number];

export interface Column<T> {
  readonly title: string;
  readonly cell: (item: T) => string;
}

type Style = 'red' | 'green' | 'yellow' | 'dim' | 'bold';

/**
 * What a command says: answers on stdout, everything else on stderr, so that `-o json` is one document
 * a program can read. Colour only on a terminal that did not ask for none (`NO_COLOR`, design §12).
 */
export class Output {
  readonly format: Format;

  constructor(format: Format) {
    this.format = format;
  }

  /** A list: a table for people, the items for programs. */
  list<T>(items: readonly T[], columns: readonly Column<T>[], empty: string): void {
    if (this.#structured(items)) return;
    if (items.length === 0) {
      this.note(empty);
      return;
    }
    const rows = [columns.map((column) => column.title.toUpperCase())];
    for (const item of items) rows.push(columns.map((column) => column.cell(item)));
    const widths = columns.map((_, index) =>
      Math.max(...rows.map((row) => width(row[index] ?? ''))),
    );
    for (const row of rows) {
      const cells = row.map((cell, index) =>
        index === row.length - 1 ? cell : cell + ' '.repeat((widths[index] ?? 0) - width(cell)),
      );
      this.line(cells.join('  '));
    }
  }

  /** One thing: `key: value` lines for people, the value for programs. */
  item(value: unknown, fields: readonly (readonly [string, string])[]): void {
    if (this.#structured(value)) return;
    const widest = Math.max(...fields.map(([name]) => name.length));
    for (const [name, text] of fields) this.line(`${`${name}:`.padEnd(widest + 2)}${text}`);
  }

  /** A line of the answer. In a structured format nothing but the document goes to stdout. */
  line(text: string): void {
    if (this.format === 'table') process.stdout.write(`${text}\n`);
    else this.note(text);
  }

  /** One JSON value on one line whatever the format: for streams and for `up`. */
  jsonLine(value: unknown): void {
    process.stdout.write(`${JSON.stringify(value)}\n`);
  }

  /** Progress and remarks. */
  note(text: string): void {
    process.stderr.write(`${text}\n`);
  }

  style(style: Style, text: string): string {
    const stream = this.format === 'table' ? process.stdout : process.stderr;
    return styleText(style, text, { stream });
  }

  #structured(value: unknown): boolean {
    if (this.format === 'json') process.stdout.write(`${JSON.stringify(value)}\n`);
    if (this.format === 'yaml') process.stdout.write(toYaml(value));
    return this.format !== 'table';
  }
}

function width(text: string): number {
  return stripVTControlCharacters(text).length;
}

/** The error as a person reads it: code, what was tried, where, what to do next. */
export function describeError(error: HyphaError): string {
  const { file, line, column, path, step } = error.where ?? {};
  const place = [
    file === undefined && line === undefined
      ? undefined
      : `${file ?? 'script'}:${line ?? 0}:${column ?? 0}`,
    path,
    step === undefined ? undefined : `step ${step}`,
  ].filter((part) => part !== undefined && part !== '');
  const where = place.length === 0 ? '' : `\n  at ${place.join(', ')}`;
  const details = describeDetails(error.details);
  return `${error.code}: ${error.message}${where}${details}\n  hint: ${error.hint}`;
}

/** Reasons per node or both sides of a difference, a line each; bounded. */
function describeDetails(details: unknown): string {
  if (details === undefined || details === null) return '';
  return linesOf(details)
    .slice(0, DETAIL_LINES_MAX)
    .map((line) => `\n  ${line}`)
    .join('');
}

const DETAIL_LINES_MAX = 20;

function linesOf(details: unknown): string[] {
  if (Array.isArray(details)) return details.map(lineOf);
  if (typeof details === 'object' && details !== null) {
    if ('nodes' in details) return linesOf(details.nodes);
    if ('difference' in details) return planDifferenceLines(details.difference);
    // In lines of what was signed: the place above it is in lines of the operator's own file.
    if ('stack' in details) return [];
  }
  return [lineOf(details)];
}

function lineOf(detail: unknown): string {
  if (typeof detail === 'string') return detail;
  const { name, reason } = (detail ?? {}) as { name?: unknown; reason?: unknown };
  const isReason = typeof name === 'string' && typeof reason === 'string';
  return isReason ? `${name}: ${reason}` : JSON.stringify(detail);
}

/** `3 s ago`, for people. */
export function ago(atMs: number | null, nowMs: number): string {
  if (atMs === null) return 'never';
  const seconds = Math.max(0, Math.round((nowMs - atMs) / 1000));
  if (seconds < 120) return `${seconds} s ago`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86_400)} d ago`;
}

/** `2 d 3 h`, `4 min`, `1.5 s` or `80 ms`, for people. */
export function duration(ms: number): string {
  const parts = [
    [Math.floor(ms / 86_400_000), 'd'],
    [Math.floor(ms / 3_600_000) % 24, 'h'],
    [Math.floor(ms / 60_000) % 60, 'min'],
  ] as const;
  const long = parts.filter(([count]) => count > 0).slice(0, 2);
  if (long.length > 0) return long.map(([count, unit]) => `${count} ${unit}`).join(' ');
  return ms < 1000 ? `${Math.round(ms)} ms` : `${Math.round(ms / 100) / 10} s`;
}

/** `512 MiB`, for people. */
export function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[unit]}`;
}
