export { type CompiledScript, compileScript } from './compile-script.ts';
export type { DeploymentMeta } from './deployment-meta.ts';
export { parseInput } from './script-input.ts';
