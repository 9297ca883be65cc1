import { fromUtf8 } from './encoding.ts';
import type { Json } from './json-value.ts';
import { LIMITS } from './limits.ts';

/** Why text is not strict JSON. `offset` counts UTF-16 units from the start. */
export class StrictJsonError extends Error {
  readonly offset: number;
  constructor(reason: string, offset: number) {
    super(`${reason} at offset ${offset}`);
    this.name = 'StrictJsonError';
    this.offset = offset;
  }
}

/**
 * JSON as RFC 8259 with the choices it leaves open closed: no duplicate key, no byte order mark, no
 * number that a double cannot hold exactly, no lone surrogate, no `__proto__` key, bounded depth.
 * `JSON.parse` accepts all of these silently, which would let two parties read one signature as two
 * different things (security notes §0.10). `integersOnly`: the rule of signed payloads (design §8).
 */
export function parseStrictJson(
  input: Uint8Array | string,
  options: { readonly integersOnly?: boolean } = {},
): Json {
  let text: string;
  try {
    text = typeof input === 'string' ? input : fromUtf8(input);
  } catch {
    throw new StrictJsonError('not UTF-8 without byte order mark', 0);
  }
  return new Reader(text, options.integersOnly ?? false).readDocument();
}

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
/**
 * Characters of a string, escapes among them. So many escapes at once, because the expression keeps a place
 * to come back to for each.
 */
const CHARACTERS =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what JSON forbids in strings
  /[^"\\\u0000-\u001f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\u0000-\u001f]*){0,1000}/y;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;

class Reader {
  readonly #text: string;
  readonly #integersOnly: boolean;
  #at = 0;
  #depth = 0;

  constructor(text: string, integersOnly: boolean) {
    this.#text = text;
    this.#integersOnly = integersOnly;
  }

  readDocument(): Json {
    const value = this.#value();
    this.#space();
    if (this.#at !== this.#text.length) this.#fail('text after the value');
    return value;
  }

  #fail(reason: string): never {
    throw new StrictJsonError(reason, this.#at);
  }

  #space(): void {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
      this.#at++;
    }
  }

  #value(): Json {
    this.#space();
    const first = this.#text[this.#at];
    if (first === '{') return this.#nested(() => this.#object());
    if (first === '[') return this.#nested(() => this.#array());
    if (first === '"') return this.#string();
    if (first === 't') return this.#word('true', true);
    if (first === 'f') return this.#word('false', false);
    if (first === 'n') return this.#word('null', null);
    return this.#number();
  }

  #nested(read: () => Json): Json {
    if (++this.#depth > LIMITS.jsonDepthMax)
      this.#fail(`nested deeper than ${LIMITS.jsonDepthMax}`);
    const value = read();
    this.#depth--;
    return value;
  }

  #word(word: string, value: Json): Json {
    if (!this.#text.startsWith(word, this.#at)) this.#fail('unexpected character');
    this.#at += word.length;
    return value;
  }

  #number(): number {
    NUMBER.lastIndex = this.#at;
    const match = NUMBER.exec(this.#text);
    if (match === null)
      this.#fail(this.#at >= this.#text.length ? 'unexpected end' : 'unexpected character');
    const value = Number(match[0]);
    if (!Number.isFinite(value)) this.#fail('number out of range');
    if (Number.isInteger(value) && !Number.isSafeInteger(value))
      this.#fail('integer beyond 2^53-1');
    if (Object.is(value, -0)) this.#fail('negative zero');
    // By its spelling: 1.0 and 1e3 are floats to other readers of the same signed bytes.
    if (this.#integersOnly && /[.eE]/.test(match[0])) this.#fail('not spelled as an integer');
    this.#at += match[0].length;
    return value;
  }

  #string(): string {
    const start = ++this.#at;
    for (;;) {
      const from = this.#at;
      CHARACTERS.lastIndex = from;
      CHARACTERS.test(this.#text);
      this.#at = CHARACTERS.lastIndex;
      const code = this.#text.charCodeAt(this.#at);
      if (code === QUOTE) break;
      if (code !== BACKSLASH)
        this.#fail(Number.isNaN(code) ? 'unterminated string' : 'control character in a string');
      if (this.#at === from) this.#fail('malformed escape');
    }
    const spelled = this.#text.slice(start, this.#at++);
    // The grammar was checked above, so the fast decoder has nothing left to choose.
    const value = spelled.includes('\\') ? (JSON.parse(`"${spelled}"`) as string) : spelled;
    if (!value.isWellFormed()) this.#fail('lone surrogate in a string');
    return value;
  }

  #array(): Json {
    this.#at++;
    const items: Json[] = [];
    this.#space();
    if (this.#text[this.#at] === ']') {
      this.#at++;
      return items;
    }
    for (;;) {
      items.push(this.#value());
      if (this.#closes(']')) return items;
    }
  }

  #object(): Json {
    this.#at++;
    const members: Record<string, Json> = {};
    this.#space();
    if (this.#text[this.#at] === '}') {
      this.#at++;
      return members;
    }
    for (;;) {
      this.#space();
      if (this.#text[this.#at] !== '"') this.#fail('expected a key');
      const key = this.#string();
      if (key === '__proto__') this.#fail('key "__proto__"');
      if (Object.hasOwn(members, key)) this.#fail(`duplicate key ${JSON.stringify(key)}`);
      this.#space();
      if (this.#text[this.#at] !== ':') this.#fail('expected ":"');
      this.#at++;
      members[key] = this.#value();
      if (this.#closes('}')) return members;
    }
  }

  /** After a member or item: true at the closing bracket, false after a comma. */
  #closes(bracket: ']' | '}'): boolean {
    this.#space();
    const next = this.#text[this.#at];
    if (next !== bracket && next !== ',') this.#fail(`expected "," or "${bracket}"`);
    this.#at++;
    return next === bracket;
  }
}
