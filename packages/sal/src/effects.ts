import { type RunCommand, runCommand } from './command.ts';

/**
 * Every way an adapter changes the machine goes through here, so that the contract suites can end it
 * after any single effect, as a crash would.
 */
export interface Effects {
  readonly run: RunCommand;
  /** One change that is not a command: a rename, a label written. Atomic, or harmless when cut. */
  change<T>(change: () => Promise<T>): Promise<T>;
}

export const EFFECTS: Effects = { run: runCommand, change: (change) => change() };
