/** The one place where the CLI reads its environment. */
export interface CliEnvironment {
  readonly HYPHA_STATE: string | undefined;
  readonly HYPHA_CONFIG: string | undefined;
  readonly HYPHA_CONTEXT: string | undefined;
}

export function readEnvironment(): CliEnvironment {
  const { HYPHA_STATE, HYPHA_CONFIG, HYPHA_CONTEXT } = process.env;
  return { HYPHA_STATE, HYPHA_CONFIG, HYPHA_CONTEXT };
}
