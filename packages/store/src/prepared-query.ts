import type { Compilable, CompiledQuery } from 'kysely';

/** Stands in a query for a value that is known when the query is used. */
class Placeholder {
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }
}

/**
 * A query that is built and compiled once, and used with other values each time: for what runs with every step
 * of every run, where building costs more than running.
 */
export class PreparedQuery<P extends object> {
  readonly #build: (value: ValueOf<P>) => Compilable;
  #compiled: CompiledQuery | undefined;

  /** @param build a query with `value('name')` wherever a named value goes; never null while building */
  constructor(build: (value: ValueOf<P>) => Compilable) {
    this.#build = build;
  }

  with(values: P): Compilable {
    this.#compiled ??= this.#build(<K extends keyof P & string>(name: K) => {
      // Kysely passes parameters through untouched; it is replaced before the query is used.
      return new Placeholder(name) as unknown as P[K];
    }).compile();
    const { parameters, ...rest } = this.#compiled;
    const bound = parameters.map((parameter) =>
      parameter instanceof Placeholder ? Reflect.get(values, parameter.name) : parameter,
    );
    return { compile: () => ({ ...rest, parameters: bound }) };
  }
}

/** A whole row of named values: `values(rowOf(value, ['id', 'text']))`. */
export function rowOf<P, K extends keyof P & string>(
  value: ValueOf<P>,
  columns: readonly K[],
): Pick<P, K> {
  // Every column is there, by construction.
  return Object.fromEntries(columns.map((column) => [column, value(column)])) as Pick<P, K>;
}

type ValueOf<P> = <K extends keyof P & string>(name: K) => P[K];
