import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const OPENSSL = '/usr/bin/openssl';
const OPENSSL_MS_MAX = 20_000;

/** Files (PEM) of a throw-away CA and of a certificate for 127.0.0.1 and `localhost` that it signed. */
export interface TestCa {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export function isOpensslInstalled(): boolean {
  return existsSync(OPENSSL);
}

/** @param name of its files in `folder` */
export async function createTestCa(folder: string, name: string): Promise<TestCa> {
  const file = (suffix: string) => join(folder, `${name}-${suffix}`);
  const [ca, caKey, cert, key] = [
    file('ca.pem'),
    file('ca.key'),
    file('cert.pem'),
    file('cert.key'),
  ];
  const [request, extensions] = [file('cert.csr'), file('cert.ext')];
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const days = ['-days', '1'];
  await openssl(
    'req',
    '-x509',
    ...newKey,
    ...days,
    '-keyout',
    caKey,
    '-out',
    ca,
    '-subj',
    '/CN=Test',
  );
  await openssl('req', ...newKey, '-keyout', key, '-out', request, '-subj', '/CN=localhost');
  await writeFile(extensions, 'subjectAltName=IP:127.0.0.1,DNS:localhost\n');
  const by = ['-CA', ca, '-CAkey', caKey, '-CAcreateserial', '-extfile', extensions];
  await openssl('x509', '-req', '-in', request, ...by, ...days, '-out', cert);
  return { ca, cert, key };
}

async function openssl(...argv: string[]): Promise<void> {
  await promisify(execFile)(OPENSSL, argv, { timeout: OPENSSL_MS_MAX });
}
