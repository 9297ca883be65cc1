import { resolve } from 'node:path';
import { HyphaError } from '@hypha/protocol';
import type { Command } from 'commander';
import type { CompiledScript } from './compile/index.ts';
import { findVariable } from './config.ts';
import { collect } from './option-parsers.ts';
import type { ScriptValues } from './revision-draft.ts';
import { readSecretValues } from './secret-values.ts';
import type { Session } from './session.ts';

export interface ScriptFlags {
  readonly input?: readonly string[];
  readonly secret?: readonly string[];
}

/** For every command that signs a script of the operator's. */
export function scriptOptions(command: Command): Command {
  return command
    .option('-i, --input <k=v>', 'input of the script; repeat for more', collect, [])
    .option(
      '--secret <name=source>',
      'value of a secret: env:X, file:P, cmd:COMMAND or keep; repeat for more',
      collect,
      [],
    )
    .option('--name <deployment>', 'instead of the name in the script');
}

/** Compiles it and reads what it is given. Warns of secrets in variables. */
export async function readScript(
  session: Session,
  file: string,
  flags: ScriptFlags,
): Promise<{ readonly script: CompiledScript; readonly values: ScriptValues }> {
  // Only here: the bundler and the sandbox would slow every other command down.
  const { compileScript, parseInput } = await import('./compile/index.ts');
  const script = await compileScript(resolve(file));
  const { deployment, secretVariables } = script;
  const input = parseInput(deployment.input, flags.input ?? []);
  const secrets = await readSecretValues(flags.secret ?? [], deployment.secrets, findVariable);
  for (const variable of secretVariables) session.output.note(warningOf(variable));
  return { script, values: { input, secrets } };
}

/** Whose names belong to: what a script is simulated as. Throws `E_ARGUMENT` when it has no name. */
export function deploymentOf(
  { deployment }: CompiledScript,
  flags: { readonly name?: string; readonly realm?: string },
): { readonly realm: string; readonly deployment: string } {
  const name = flags.name ?? deployment.name;
  if (name !== undefined) {
    return { realm: flags.realm ?? deployment.realm ?? 'default', deployment: name };
  }
  throw new HyphaError('E_ARGUMENT', 'the script names no deployment', {
    hint: "export const deployment = { name: 'web' }, or say --name",
  });
}

function warningOf(variable: string): string {
  return `warning: the secret in env ${variable} can be read by every process of its container; files are safer`;
}
