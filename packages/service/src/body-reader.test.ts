import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { expect, test } from 'vitest';
import { BodyReader } from './body-reader.ts';

const BYTES_MAX = 1000;

test('a body is read whole, and its share is free again', async () => {
  const reader = new BodyReader(10);
  for (let n = 0; n < 3; n++) {
    const body = new PassThrough();
    const read = reader.read(body, BYTES_MAX);
    body.write('12345');
    body.end('67890');
    expect((await read).toString()).toBe('1234567890');
  }
});

test('a body over its own bound is refused, and the rest of it is let go', async () => {
  const reader = new BodyReader();
  const body = new PassThrough();
  const read = reader.read(body, 4);
  body.write('12345');
  await expect(read).rejects.toMatchObject({ code: 'E_SIZE' });
  const ended = once(body, 'end');
  body.end('rest');
  await ended;
});

test('bodies that together are too much are refused until one has gone', async () => {
  const reader = new BodyReader(10);
  const [slow, large] = [new PassThrough(), new PassThrough()];
  const reading = reader.read(slow, BYTES_MAX);
  slow.write('12345678');
  await expect.poll(() => slow.readableLength).toBe(0);
  const refused = reader.read(large, BYTES_MAX);
  large.write('123');
  await expect(refused).rejects.toMatchObject({
    code: 'E_UNAVAILABLE',
    details: { retryAfterMs: expect.any(Number) },
  });
  slow.destroy();
  await expect(reading).rejects.toMatchObject({ code: 'E_REQUEST' });
  const next = new PassThrough();
  next.end('1234567890');
  expect((await reader.read(next, BYTES_MAX)).length).toBe(10);
});
