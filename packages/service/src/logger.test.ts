import { HyphaError } from '@hypha/protocol';
import { expect, test } from 'vitest';
import { createLogger, type LogLevel } from './logger.ts';

function logged(write: (log: ReturnType<typeof createLogger>) => void, level: LogLevel = 'info') {
  const lines: string[] = [];
  write(createLogger({ name: 'test', level, stream: { write: (line) => lines.push(line) } }));
  return lines.map((line) => JSON.parse(line));
}

test('writes one JSON line with level, time and name', () => {
  const [line] = logged((log) => log.info({ node: 'node_x' }, 'node enrolled'));
  expect(line).toMatchObject({ level: 'info', name: 'test', node: 'node_x', msg: 'node enrolled' });
  expect(Date.parse(line.time)).toBeGreaterThan(0);
});

test('leaves out what is below its level', () => {
  expect(logged((log) => log.debug('detail'))).toEqual([]);
});

test('hides secrets at every depth it is given them', () => {
  const [line] = logged((log) =>
    log.info({ token: 's3cret', a: { secret: 's3cret', b: { pem: 's3cret' } } }, 'x'),
  );
  expect(JSON.stringify(line)).not.toContain('s3cret');
});

test('tells code, hint and cause of an error', () => {
  const err = new HyphaError('E_STORAGE', 'cannot write', { cause: new Error('SQLite 13') });
  const [line] = logged((log) => log.error({ err }, 'failed'));
  expect(line.err).toMatchObject({ code: 'E_STORAGE', hint: expect.any(String) });
  expect(line.err.stack).toContain('SQLite 13');
});
