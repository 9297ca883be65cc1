/**
 * The dependency table of arch.md, as a program: which package may import which. Run by the tests.
 * Also: SAL adapters are named only in composition roots, the environment is read only in `config.ts`,
 * and time and randomness come from their homes.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';

export const ROOMS: Readonly<Record<string, readonly string[]>> = {
  protocol: [],
  client: ['protocol'],
  store: ['protocol'],
  service: ['client', 'protocol'],
  ledger: ['protocol', 'service', 'store'],
  coordinator: ['client', 'protocol', 'service', 'store'],
  identity: ['client', 'protocol'],
  journal: ['protocol', 'store'],
  sal: ['protocol'],
  'sal-btrfs': ['protocol', 'sal'],
  'sal-container': ['protocol', 'sal', 'sal-btrfs'],
  'sal-host': ['protocol', 'sal', 'sal-btrfs', 'sal-container'],
  sandbox: ['protocol'],
  engine: ['protocol', 'sal'],
  runner: ['engine', 'journal', 'protocol', 'sal', 'sal-host', 'sandbox', 'service'],
  supervisor: ['client', 'identity', 'journal', 'protocol', 'sal', 'sal-host', 'service', 'store'],
  script: [],
  cli: ['client', 'engine', 'protocol', 'sal', 'sal-host', 'sandbox', 'script'],
  testkit: ['*'],
};

/** Files that read the clock or draw randomness for everybody else. */
const AMBIENT_HOMES = /(?:^|\/)(?:main|config|clock|[a-z-]*clock|identifiers)\.ts$/;

interface Rule {
  readonly pattern: RegExp;
  readonly message: string;
  readonly allowed: (path: string) => boolean;
}

const RULES: readonly Rule[] = [
  {
    pattern: /\bprocess\.env\b/,
    message: 'process.env is read only in config.ts',
    allowed: (path) => path.endsWith('/config.ts') || path.startsWith('packages/testkit/'),
  },
  {
    pattern: /\bMath\.random\(/,
    message:
      'Math.random is not for us: jitter and ids come from node:crypto or an injected source',
    allowed: (path) => AMBIENT_HOMES.test(path) || path.startsWith('packages/sandbox/'),
  },
  {
    pattern: /\bconsole\./,
    message: 'console is not a log',
    allowed: () => false,
  },
];

/** Every TypeScript file of the packages, relative to the root. */
export function sourceFiles(root: string): string[] {
  const packages = join(root, 'packages');
  const folders = readdirSync(packages).flatMap((room) => [
    join(packages, room, 'src'),
    join(packages, room, 'test'),
  ]);
  return folders
    .filter((folder) => existsSync(folder))
    .flatMap((folder) =>
      readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((path) => join(folder, path)),
    )
    .filter((path) => path.endsWith('.ts'))
    .map((path) => relative(root, path));
}

/** Every breach, as `path: what`. Empty when the rooms hold. */
export function findBreaches(root: string): string[] {
  const breaches: string[] = [];
  for (const path of sourceFiles(root)) {
    const room = path.split('/')[1] ?? '';
    const isTest = path.endsWith('.test.ts') || /\/(?:fixtures|testing|contract|test)\//.test(path);
    const text = readFileSync(join(root, path), 'utf8');
    const allowed = ROOMS[room];
    if (allowed === undefined) {
      breaches.push(`${path}: room ${room} is not in the table`);
      continue;
    }
    for (const [, target = ''] of text.matchAll(
      /(?:from|import)\s*\(?\s*'@hypha\/([a-z-]+)[^']*'/g,
    )) {
      const mayImport = target === room || allowed.includes(target) || allowed.includes('*');
      if (!mayImport && !isTest) breaches.push(`${path}: ${room} may not import ${target}`);
    }
    if (isTest) continue;
    for (const rule of RULES) {
      const code = text.replaceAll(/^\s*(?:\*|\/\/|\/\*).*$/gm, '');
      if (rule.pattern.test(code) && !rule.allowed(path)) breaches.push(`${path}: ${rule.message}`);
    }
  }
  return breaches;
}
