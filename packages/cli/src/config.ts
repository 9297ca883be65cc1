/** The one place where the CLI reads its environment. */
export interface CliEnvironment {
  readonly HYPHA_STATE: string | undefined;
  readonly HYPHA_CONFIG: string | undefined;
  readonly HYPHA_CONTEXT: string | undefined;
  readonly HYPHA_CA: string | undefined;
}

export function readEnvironment(): CliEnvironment {
  const { HYPHA_STATE, HYPHA_CONFIG, HYPHA_CONTEXT, HYPHA_CA } = process.env;
  return { HYPHA_STATE, HYPHA_CONFIG, HYPHA_CONTEXT, HYPHA_CA };
}

/** What the processes that `up` starts inherit, with what is theirs alone on top. */
export function childEnvironment(extra: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  return { ...process.env, ...extra };
}

/** What the operator named: `--secret token=env:TOKEN`. */
export function findVariable(name: string): string | undefined {
  return process.env[name];
}
