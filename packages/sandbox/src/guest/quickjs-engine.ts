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

const ENGINE_FILE = import.meta.resolve('@jitl/quickjs-wasmfile-release-sync/wasm');

export async function compileQuickJs(): Promise<ScriptEngine> {
  const wasmModule = await wasm.compile(readFileSync(fileURLToPath(ENGINE_FILE)));
  const prelude = readFileSync(new URL('./prelude.js', import.meta.url), 'utf8');
  return {
    async open(memoryBytes) {
      const initial = SANDBOX_LIMITS.memoryBytesMin / PAGE_BYTES;
      const maximum = Math.max(initial, Math.ceil(memoryBytes / PAGE_BYTES));
      const memory = new wasm.Memory({ initial, maximum });
      const variant = newVariant(RELEASE_SYNC, { wasmModule, wasmMemory: memory });
      const engine = await newQuickJSWASMModuleFromVariant(variant);
      return new QuickJsGuest({ engine, memory, memoryBytesMax: maximum * PAGE_BYTES, prelude });
    },
  };
}
