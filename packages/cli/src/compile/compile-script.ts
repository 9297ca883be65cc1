import { createHash } from 'node:crypto';
import { basename } from 'node:path';
import { HyphaError, isHyphaError } from '@hypha/protocol';
import { SandboxPool } from '@hypha/sandbox';
import { type DeploymentMeta, parseDeploymentMeta } from './deployment-meta.ts';
import { bundleScript, type ScriptBundle } from './script-bundle.ts';
import { readCapabilities } from './script-exports.ts';
import { findSecretVariables } from './secret-variables.ts';
import { mapPlace } from './source-map.ts';

export interface CompiledScript extends ScriptBundle {
  readonly deployment: DeploymentMeta;
  /** What the script imports from 'hypha' takes these. */
  readonly caps: readonly string[];
  /** Variables of containers that get a secret, for a warning. */
  readonly secretVariables: readonly string[];
  /** Hex, of the UTF-8 bytes of `source`. */
  readonly sha256: string;
}

/** Until a script's `deployment` has been read, the sandbox's start included. */
const READ_MS_MAX = 30_000;

/**
 * From the operator's file to what they will sign. The script is loaded in the sandbox, as a node would,
 * to read its `deployment`; its default function does not run. Errors have `where` in the operator's own
 * file, relative to the script's folder.
 * @param file absolute path
 */
export async function compileScript(file: string): Promise<CompiledScript> {
  const bundle = await bundleScript(file);
  const caps = readCapabilities(bundle, basename(file));
  const deployment = parseDeploymentMeta(await readDeployment(bundle));
  const sha256 = createHash('sha256').update(bundle.source).digest('hex');
  return {
    ...bundle,
    deployment,
    caps,
    secretVariables: findSecretVariables(bundle.source),
    sha256,
  };
}

async function readDeployment({ source, sourceMap }: ScriptBundle) {
  await using pool = new SandboxPool();
  try {
    return await pool.readExport(source, 'deployment', AbortSignal.timeout(READ_MS_MAX));
  } catch (error) {
    const { line, column } = (isHyphaError(error) && error.where) || {};
    if (!isHyphaError(error) || line === undefined || column === undefined) throw error;
    const place = mapPlace(sourceMap, { line, column });
    if (place === undefined) throw error;
    throw new HyphaError(error.code, error.message, { where: place, cause: error });
  }
}
