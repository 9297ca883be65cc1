/** The one place where the CLI reads its environment. */
export interface CliEnvironment {
  readonly HYPHA_STATE: string | undefined;
  readonly HYPHA_CONFIG: string | undefined;
  readonly HYPHA_CONTEXT: string | undefined;
  readonly HYPHA_CA: string | undefined;
  readonly HYPHA_JOIN_TOKEN?: string | undefined;
}

export function readEnvironment(): CliEnvironment {
  const { HYPHA_STATE, HYPHA_CONFIG, HYPHA_CONTEXT, HYPHA_CA, HYPHA_JOIN_TOKEN } = process.env;
  return { HYPHA_STATE, HYPHA_CONFIG, HYPHA_CONTEXT, HYPHA_CA, HYPHA_JOIN_TOKEN };
}

/** What the processes that `up` starts inherit, with what is theirs alone on top. No secret of ours goes on. */
export function childEnvironment(extra: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const { HYPHA_JOIN_TOKEN: _, ...inherited } = process.env;
  return { ...inherited, ...extra };
}

/** What the operator named: `--secret token=env:TOKEN`. */
export function findVariable(name: string): string | undefined {
  return process.env[name];
}
