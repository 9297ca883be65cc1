import { type GuestLog, HyphaError, type Json, utf8 } from '@hypha/protocol';
import { ENGINE_LIMITS } from './engine-limits.ts';
import { jsonBytes, wellFormed } from './json-bounds.ts';
import type { SagaContext } from './saga-context.ts';
import { RunFailure } from './saga-error.ts';

/** What a script says: log lines, and in the end a value. Together they stay within `limits.outputBytes`. */
export class ScriptOutput {
  readonly #context: SagaContext;
  #lines = 0;
  #bytes = 0;
  #returned: string | undefined;

  constructor(context: SagaContext) {
    this.#context = context;
  }

  /** JSON text; undefined while the script runs. */
  get returned(): string | undefined {
    return this.#returned;
  }

  /** Records a line, unless a replay came by it. Throws `RunFailure` when it is too much. */
  async log(log: GuestLog): Promise<void> {
    this.#lines += 1;
    const line = this.#lines;
    const message = log.message.toWellFormed();
    const fields = recordedFields(log.fields);
    const bytes = jsonBytes({ message, fields });
    if (bytes > ENGINE_LIMITS.logBytesMax) {
      throw new RunFailure(
        new HyphaError('E_OUTPUT', `log line ${line} takes ${bytes} bytes`, {
          hint: `a log line holds at most ${ENGINE_LIMITS.logBytesMax} bytes`,
        }),
      );
    }
    this.#count(bytes);
    const { record, writer } = this.#context;
    if (line > record.logLines) await writer.buffer({ type: 'log', line, message, fields });
  }

  /** The script returned this JSON text; only the first time counts. Throws `RunFailure` when it is too much. */
  end(output: string): void {
    if (this.#returned !== undefined) return;
    this.#count(utf8(output).length);
    this.#returned = output;
  }

  #count(bytes: number): void {
    this.#bytes += bytes;
    const { outputBytes } = this.#context.grant.payload.limits;
    if (this.#bytes <= outputBytes) return;
    throw new RunFailure(
      new HyphaError(
        'E_OUTPUT',
        `log and output take ${this.#bytes} bytes, ${this.#bytes - outputBytes} more ` +
          `than limits.outputBytes of ${outputBytes}`,
      ),
    );
  }
}

function recordedFields(fields: Json): Json {
  try {
    return wellFormed(fields);
  } catch (error) {
    throw error instanceof HyphaError ? new RunFailure(error) : error;
  }
}
