import type { GuestFailure } from '@hypha/protocol';

/** The file a script's frames carry on its stack. */
export const SCRIPT_FILE = 'script.js';

const FRAME = /^ {4}at (?:(.*) \()?([^()\s]+?):(\d+):(\d+)\)?$/;
const TEXT_CHARS_MAX = 4096;
const FRAMES_MAX = 32;

export interface ThrownValue {
  readonly code: string;
  readonly message: string;
  readonly stack: string;
}

/**
 * What an operator sees of an error in a script: only frames of the script, and the place of the first.
 * Everything in `thrown` comes from the guest.
 */
export function toGuestFailure(thrown: ThrownValue): GuestFailure {
  const frames = scriptFrames(thrown.stack);
  const first = frames[0];
  return {
    code: codeFor(thrown),
    message: thrown.message.slice(0, TEXT_CHARS_MAX),
    place: first === undefined ? null : { line: first.line, column: first.column },
    stack: frames.map((frame) => frame.text).join('\n'),
  };
}

/** The place of the script's own innermost frame on a stack; undefined when it has none. */
export function findPlace(stack: string): { line: number; column: number } | undefined {
  const [first] = scriptFrames(stack);
  return first === undefined ? undefined : { line: first.line, column: first.column };
}

interface Frame {
  readonly text: string;
  readonly line: number;
  readonly column: number;
}

function scriptFrames(stack: string): Frame[] {
  const frames: Frame[] = [];
  for (const text of stack.slice(0, 4 * TEXT_CHARS_MAX).split('\n')) {
    const match = FRAME.exec(text);
    if (match === null || match[2] !== SCRIPT_FILE) continue;
    const line = Number(match[3]);
    const column = Number(match[4]);
    // A script may write any stack it likes.
    if (!Number.isSafeInteger(line) || !Number.isSafeInteger(column)) continue;
    frames.push({ text: text.slice(0, 300), line, column });
    if (frames.length === FRAMES_MAX) break;
  }
  return frames;
}

/** The engine's own errors have no codes, only fixed texts. */
function codeFor({ code, message }: ThrownValue): string {
  if (code !== 'E_SCRIPT') return code;
  if (message === 'InternalError: out of memory') return 'E_MEMORY';
  if (message === 'InternalError: interrupted') return 'E_CPU';
  return code;
}

/** What the prelude wrote of a thrown value. Anything else means that the script broke the prelude. */
export function readThrown(text: string | null): ThrownValue {
  const unknown = { code: 'E_SCRIPT', message: 'the script failed and cannot say why', stack: '' };
  if (text === null) return unknown;
  try {
    const { code, message, stack } = { ...JSON.parse(text) };
    const isWhole = [code, message, stack].every((field) => typeof field === 'string');
    return isWhole ? { code, message, stack } : unknown;
  } catch {
    return unknown;
  }
}
