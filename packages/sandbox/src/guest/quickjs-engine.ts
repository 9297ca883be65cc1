/**
 * QuickJS in WebAssembly: the module is compiled once, every guest is a fresh instance with its own
 * memory, which costs about a millisecond. The maximum of that memory is the real cap: the engine's own
 * memory limit counts nothing in this build (quickjs-emscripten issue 255).
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import releaseSync from '@jitl/quickjs-wasmfile-release-sync';
import {
  newQuickJSWASMModuleFromVariant,
  newVariant,
  type QuickJSSyncVariant,
} from 'quickjs-emscripten-core';
import { SANDBOX_LIMITS } from '../limits.ts';
import { QuickJsGuest } from './quickjs-guest.ts';
import type { ScriptEngine } from './script-engine.ts';
import { wasm } from './wasm.ts';

const PAGE_BYTES = 65_536;

/** Its types describe the CommonJS door, where the default export is one level deeper. */
const RELEASE_SYNC = releaseSync as unknown as QuickJSSyncVariant;

/**
 * How the published engine imports its memory: as "a"."a", of at least 256 and at most 32,768 pages. Half of the
 * least is enough to start with, and V8 collects garbage after so many bytes of new memory, touched or not: with
 * 16 MiB a script, after every fourth one.
 */
const MEMORY_IMPORT = Buffer.from([1, 0x61, 1, 0x61, 2, 1, 0x80, 2, 0x80, 0x80, 2]);
/** Of the least number of pages, a LEB128 integer of two bytes, in that. */
const PAGES_AT = 6;
const INITIAL_PAGES = SANDBOX_LIMITS.memoryBytesMin / PAGE_BYTES;

const ENGINE_FILE = import.meta.resolve('@jitl/quickjs-wasmfile-release-sync/wasm');

export async function compileQuickJs(): Promise<ScriptEngine> {
  const wasmModule = await wasm.compile(withInitialPages(readFileSync(fileURLToPath(ENGINE_FILE))));
  const prelude = readFileSync(new URL('./prelude.js', import.meta.url), 'utf8');
  return {
    async open(memoryBytes) {
      const maximum = Math.max(INITIAL_PAGES, Math.ceil(memoryBytes / PAGE_BYTES));
      const memory = new wasm.Memory({ initial: INITIAL_PAGES, maximum });
      const variant = newVariant(RELEASE_SYNC, { wasmModule, wasmMemory: memory });
      const engine = await newQuickJSWASMModuleFromVariant(variant);
      return new QuickJsGuest({ engine, memory, memoryBytesMax: maximum * PAGE_BYTES, prelude });
    },
  };
}

/** Throws when the engine is not the one this was written for. */
function withInitialPages(code: Buffer): Buffer {
  const at = code.indexOf(MEMORY_IMPORT);
  if (at < 0 || code.includes(MEMORY_IMPORT, at + 1)) {
    throw new Error('the engine imports its memory in another way');
  }
  const changed = Buffer.from(code);
  changed[at + PAGES_AT] = 0x80 | (INITIAL_PAGES & 0x7f);
  changed[at + PAGES_AT + 1] = INITIAL_PAGES >> 7;
  return changed;
}
