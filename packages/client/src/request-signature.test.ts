import { createPrivateKey, createPublicKey, sign, verify } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { utf8 } from '@hypha/protocol';
import { generateKey, nodeVerifier } from '@hypha/protocol/node';
import { isInnerList, parseDictionary } from 'structured-headers';
import { describe, expect, test } from 'vitest';
import {
  canonicalAuthority,
  readRequestSignature,
  type SignableRequest,
  signatureBase,
  signRequest,
} from './request-signature.ts';

const { HYPHA_SHARED: SHARED = join(import.meta.dirname, '../../../../shared') } = process.env;
const VECTOR = join(SHARED, 'vectors/rfc9421/b26-ed25519.json');

test('builds the signature base of RFC 9421 B.2.6 and its signature', (context) => {
  if (!existsSync(VECTOR)) context.skip('needs the RFC 9421 vector (HYPHA_SHARED)');
  const vector = JSON.parse(readFileSync(VECTOR, 'utf8'));
  const [path, query] = vector.request.target.split('?');
  const headers = new Map(
    Object.entries<string>(vector.request.headers).map(([name, value]) => [
      name.toLowerCase(),
      value,
    ]),
  );
  const input = parseDictionary(vector.signatureInput).get('sig-b26');
  if (input === undefined || !isInnerList(input)) throw new Error('the vector has no input');
  const base = signatureBase(
    {
      scheme: 'http',
      method: vector.request.method,
      authority: headers.get('host') ?? '',
      path,
      query: `?${query}`,
      header: (name) => headers.get(name),
    },
    input,
  );
  expect(base).toBe(vector.signatureBase);
  const key = createPrivateKey({ key: vector.key, format: 'jwk' });
  const signature = sign(null, utf8(base), key);
  expect(`sig-b26=:${signature.toString('base64')}:`).toBe(vector.signature);
  expect(verify(null, utf8(base), createPublicKey(key), signature)).toBe(true);
  context.task.meta.vectors = { suite: 'RFC 9421 B.2.6', cases: 1 };
});

const signer = generateKey().signer;
const MOMENT = { nowMs: 1_700_000_000_000, nonce: 'AAAAAAAAAAAAAAAAAAAAAA' };

interface Sent extends Omit<SignableRequest, 'header'> {
  readonly headers: Readonly<Record<string, string>>;
}

function sent(target: string, method = 'POST'): Sent {
  const url = new URL(target, 'http://ledger.example:7401');
  return {
    scheme: 'http',
    method,
    authority: url.host,
    path: url.pathname,
    query: url.search,
    headers: signRequest({ method, url, body: utf8('{}') }, signer, MOMENT),
  };
}

function read(request: Sent, hasBody = true) {
  return readRequestSignature({ ...request, header: (name) => request.headers[name] }, hasBody);
}

function holds(request: Sent): boolean {
  const claim = read(request);
  return (
    claim !== undefined && nodeVerifier.verifyEd25519(signer.publicKey, claim.base, claim.signature)
  );
}

describe('a signed request', () => {
  test.for(['/', '/v1/nodes', '/v1/nodes?', '/a%20b/%C3%A9?x=1&y=%20', '/v1/runs?a=1&a=2'])(
    'is read back as it was sent: %s',
    (target) => {
      const request = sent(target);
      expect(holds(request)).toBe(true);
      expect(read(request)).toMatchObject({
        keyid: signer.keyid,
        nonce: MOMENT.nonce,
        created: 1_700_000_000,
        expires: 1_700_000_060,
      });
    },
  );

  test.for([
    ['method', { method: 'GET' }],
    ['authority', { authority: 'other.example:7401' }],
    ['path', { path: '/v1/other' }],
    ['query', { query: '?x=2' }],
    ['query left out', { query: '' }],
  ] as const)('does not hold with another %s', ([, change]) => {
    expect(holds({ ...sent('/v1/nodes?x=1'), ...change })).toBe(false);
  });

  test('does not hold with another content-digest', () => {
    const request = sent('/v1/nodes');
    const other = 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:';
    expect(holds({ ...request, headers: { ...request.headers, 'content-digest': other } })).toBe(
      false,
    );
  });

  test.for([
    ['http', 'ledger.example:80', 'http', 'ledger.example', true],
    ['https', 'ledger.example:443', 'https', 'ledger.example', true],
    ['https', 'ledger.example:80', 'https', 'ledger.example', false],
    ['http', 'ledger.example:443', 'http', 'ledger.example', false],
  ] as const)(
    '%s leaves out its own default port: %s',
    ([scheme, authority, otherScheme, other, isSame]) => {
      const same = canonicalAuthority(authority, scheme) === canonicalAuthority(other, otherScheme);
      expect(same).toBe(isSame);
    },
  );

  test('holds whatever case the host is spelt in', () => {
    expect(holds({ ...sent('/v1/nodes'), authority: 'LEDGER.example:7401' })).toBe(true);
  });
});

describe('reading', () => {
  const good = sent('/v1/nodes');
  const { 'signature-input': input = '', signature = '' } = good.headers;
  const withHeaders = (headers: Record<string, string>) => ({
    ...good,
    headers: { ...good.headers, ...headers },
  });

  test('takes a signature that does not say what it is for', () => {
    const untagged = withHeaders({ 'signature-input': input.replace(';tag="hypha-v1"', '') });
    expect(read(untagged)?.keyid).toBe(signer.keyid);
  });

  test('finds nothing in an unsigned request', () => {
    expect(read({ ...good, headers: {} })).toBeUndefined();
  });

  test('lets content-digest be left out only where there is no body', () => {
    const without = withHeaders({ 'signature-input': input.replace(' "content-digest"', '') });
    expect(() => read(without)).toThrow('content-digest is not covered');
    expect(read(without, false)?.covered).not.toContain('content-digest');
  });

  test.for([
    ['half of it', { 'signature-input': '' }],
    ['text that is no dictionary', { 'signature-input': 'sig1=(' }],
    ['an item instead of components', { 'signature-input': 'sig1=1' }],
    ['two signatures', { 'signature-input': `${input}, sig2=${input.slice(5)}` }],
    ['two values', { signature: `${signature}, sig2=:AAAA:` }],
    ['another label', { signature: signature.replace('sig1', 'sig2') }],
    ['a short value', { signature: 'sig1=:AAAA:' }],
    ['a text value', { signature: 'sig1="text"' }],
    ['a component twice', { 'signature-input': input.replace('"@path"', '"@path" "@path"') }],
    ['no path', { 'signature-input': input.replace(' "@path"', '') }],
    ['no method', { 'signature-input': input.replace('"@method" ', '') }],
    ['an unknown component', { 'signature-input': input.replace('"@path"', '"@path" "@scheme"') }],
    ['a header that is not there', { 'signature-input': input.replace('"@path"', '"@path" "x"') }],
    ['a component of the answer', { 'signature-input': input.replace('"@path"', '"@path";req') }],
    ['another algorithm', { 'signature-input': input.replace('"ed25519"', '"hmac-sha256"') }],
    ['a signature for something else', { 'signature-input': input.replace('hypha-v1', 'other') }],
    ['no nonce', { 'signature-input': input.replace(/;nonce="[^"]*"/, '') }],
    ['a short nonce', { 'signature-input': input.replace(/nonce="[^"]*"/, 'nonce="AAAA"') }],
    ['no keyid', { 'signature-input': input.replace(/;keyid="[^"]*"/, '') }],
    ['no creation', { 'signature-input': input.replace(/;created=\d+/, '') }],
    ['no expiry', { 'signature-input': input.replace(/;expires=\d+/, '') }],
  ] as const)('refuses %s', ([, headers]) => {
    expect(() => read(withHeaders(headers))).toThrow(
      expect.objectContaining({ code: 'E_UNAUTHENTICATED' }),
    );
  });
});
