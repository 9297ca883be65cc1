import { type DestinationStream, destination, type Logger, pino, stdTimeFunctions } from 'pino';

export type { Logger } from 'pino';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Members that never reach a log, at any of the depths we log at. */
const SECRET_MEMBERS = ['token', 'secret', 'secrets', 'password', 'pem', 'privateKey', 'signature'];

/**
 * JSON lines on stderr, or on `stream`. Written at once: a line that explains a crash must not be lost in
 * a buffer. Messages are constant phrases, data is in fields, errors are under `err`.
 */
export function createLogger(options: {
  readonly name: string;
  readonly level?: LogLevel;
  readonly stream?: DestinationStream;
}): Logger {
  const { name, level = 'info', stream = destination({ dest: 2, sync: true }) } = options;
  return pino(
    {
      level,
      base: { name },
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: {
        paths: ['', '*.', '*.*.'].flatMap((depth) => SECRET_MEMBERS.map((m) => `${depth}${m}`)),
        censor: '(hidden)',
      },
    },
    stream,
  );
}
