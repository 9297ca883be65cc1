/** The part of WebAssembly that the sandbox uses: without the DOM, TypeScript does not know it. */
export interface WasmMemory {
  readonly buffer: ArrayBuffer;
}

export type WasmModule = WebAssembly.Module;

interface Wasm {
  readonly Memory: new (descriptor: { initial: number; maximum: number }) => WasmMemory;
  readonly compile: (code: Uint8Array) => Promise<WasmModule>;
}

export const wasm: Wasm = (globalThis as unknown as { WebAssembly: Wasm }).WebAssembly;
