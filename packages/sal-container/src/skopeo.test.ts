import { HyphaError, isHyphaError } from '@hypha/protocol';
import { expect, test } from 'vitest';
import { pullFailure } from './skopeo.ts';

/** As skopeo 1.9 words it. */
const failed = (stderr: string, timedOut = false) =>
  new HyphaError('E_SAL', 'cannot pull', {
    details: { tool: '/usr/bin/skopeo', argv: [], exitCode: 1, signal: null, timedOut, stderr },
  });

const judge = (cause: unknown) => {
  const error = pullFailure(cause, 'quay.io/a/b@sha256:00');
  if (!isHyphaError(error)) throw new Error('no HyphaError');
  return error;
};

test.each([
  'reading manifest sha256:00 in quay.io/a/b: manifest unknown: manifest unknown',
  'reading manifest sha256:00 in quay.io/a/b: name unknown: repository name not known to registry',
  'reading manifest sha256:00: unauthorized: access to the requested resource is not authorized',
  'requested access to the resource is denied',
  'no image found in manifest list for architecture amd64, variant "", OS linux',
  'pinging container registry 127.0.0.1:5000: Get "https://127.0.0.1:5000/v2/": http: server gave HTTP response to HTTPS client',
  'something nobody has ever seen',
])('will not get better by itself: %s', (stderr) => {
  expect(judge(failed(stderr))).toMatchObject({ code: 'E_IMAGE', retryable: false });
});

test.each([
  'pinging container registry quay.io: Get "https://quay.io/v2/": dial tcp 1.2.3.4:443: connect: connection refused',
  'dial tcp: lookup quay.io on 1.1.1.1:53: no such host',
  'net/http: TLS handshake timeout',
  'dial tcp 1.2.3.4:443: i/o timeout',
  'reading blob sha256:00: unexpected EOF',
  'read tcp 10.0.0.1:1->1.2.3.4:443: read: connection reset by peer',
  'received unexpected HTTP status: 503 Service Unavailable',
  'toomanyrequests: You have reached your pull rate limit',
])('may get better: %s', (stderr) => {
  expect(judge(failed(stderr))).toMatchObject({ code: 'E_IMAGE', retryable: true });
});

test('a registry that takes too long may be faster next time', () => {
  expect(judge(failed('', true))).toMatchObject({ code: 'E_IMAGE', retryable: true });
});

test('a full pool is about storage', () => {
  const stderr = 'writing blob: write /pool/images/x: no space left on device';
  expect(judge(failed(stderr))).toMatchObject({ code: 'E_STORAGE' });
});

test('what is no failed command is passed on', () => {
  const cause = new Error('aborted');
  expect(pullFailure(cause, 'x')).toBe(cause);
});
