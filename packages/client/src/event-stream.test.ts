import { LIMITS, utf8 } from '@hypha/protocol';
import { describe, expect, test } from 'vitest';
import { EventStreamParser, type StreamEvent } from './event-stream.ts';

function parse(...chunks: readonly Uint8Array[]): StreamEvent[] {
  const parser = new EventStreamParser();
  return chunks.flatMap((chunk) => parser.push(chunk));
}

const STREAM =
  '\uFEFF: welcome\r\n\r\nid: 1\r\nevent: tick\r\ndata: é😀\r\n\r\ndata:a\ndata\ndata:  b\n\n:\n\n' +
  'id: 2\rdata: c\r\rretry: 5\nunknown: x\ndata: d\n\nid\ndata: e\n\nevent: lonely\n\ndata: f\n\n';
const EVENTS: readonly StreamEvent[] = [
  { id: '1', event: 'tick', data: 'é😀' },
  { id: '1', event: 'message', data: 'a\n\n b' },
  { id: '2', event: 'message', data: 'c' },
  { id: '2', event: 'message', data: 'd' },
  { id: '', event: 'message', data: 'e' },
  { id: '', event: 'message', data: 'f' },
];

describe('an event stream', () => {
  test('is read by the rules of the standard', () => {
    expect(parse(utf8(STREAM))).toEqual(EVENTS);
  });

  test('is the same wherever a chunk ends', () => {
    const bytes = utf8(STREAM);
    for (let cut = 0; cut <= bytes.length; cut++) {
      expect(parse(bytes.subarray(0, cut), bytes.subarray(cut))).toEqual(EVENTS);
    }
  });

  test('is the same byte by byte, empty chunks between', () => {
    const chunks = [...utf8(STREAM)].flatMap((byte) => [new Uint8Array([byte]), new Uint8Array()]);
    expect(parse(...chunks)).toEqual(EVENTS);
  });

  test('drops what its end cuts off', () => {
    expect(parse(utf8('data: whole\n\ndata: half\n'))).toEqual([
      { id: '', event: 'message', data: 'whole' },
    ]);
  });

  test('goes on from the id it was resumed with', () => {
    expect(new EventStreamParser('7').push(utf8('data: x\n\n'))[0]?.id).toBe('7');
  });

  test('takes no id with NUL', () => {
    expect(parse(utf8('id: 1\n\nid: a\0b\ndata: x\n\n'))[0]?.id).toBe('1');
  });

  test.for([
    ['one line', 'x'.repeat(1024 * 1024)],
    ['many lines', `data: ${'x'.repeat(1023)}\n`.repeat(1024)],
  ] as const)('is refused when an event of %s grows past its bound', ([, mebibyte]) => {
    const parser = new EventStreamParser();
    const mebibytes = LIMITS.bodyBytesMax / (1024 * 1024);
    parser.push(utf8('data: '));
    expect(() => {
      for (let n = 0; n <= mebibytes; n++) parser.push(utf8(mebibyte));
    }).toThrow(expect.objectContaining({ code: 'E_UNAVAILABLE' }));
  });

  test('is refused when it is not UTF-8', () => {
    expect(() => parse(new Uint8Array([0x64, 0xff, 0x0a]))).toThrow('not UTF-8');
  });
});
