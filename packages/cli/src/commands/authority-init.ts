import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { buildGenesisPayload, HyphaError, signAuthority } from '@hypha/protocol';
import type { Command } from 'commander';
import { collect, parseInteger } from '../option-parsers.ts';
import { nameRootKeys } from '../root-keys.ts';
import { type Session, sessionOf } from '../session.ts';
import { countSignatures, describeGroup } from '../signature-count.ts';
import { reportSignatures, showReport } from '../signature-report.ts';
import { writeSigningFile } from '../signing-file.ts';
import { chooseKey } from '../signing-key.ts';

interface InitOptions {
  rootKey: string[];
  threshold: string;
  out: string;
  signOnly?: true;
}

export function initCommand(authority: Command): void {
  authority
    .command('init')
    .description('make a genesis from root keys, offline')
    .requiredOption(
      '--root-key <key>',
      'root key: a PEM file, a key of this state, or base64; private halves sign; repeat for more',
      collect,
    )
    .option('--threshold <t>', 'how many root keys must sign, the genesis too', '1')
    .option('--out <file>', 'where to write the genesis', 'genesis.json')
    .option('--sign-only', 'write it also when others still have to sign it (hypha cosign)')
    .action((options: InitOptions, command: Command) => makeGenesis(sessionOf(command), options));
}

function makeGenesis(session: Session, options: InitOptions): void {
  const keys = options.rootKey.map((key) => chooseKey(session, key));
  const payload = buildGenesisPayload({
    rootKeys: nameRootKeys(keys),
    threshold: parseInteger(options.threshold, '--threshold', { min: 1, max: keys.length }),
    nowSeconds: session.nowSeconds(),
  });
  const signers = keys.flatMap(({ signer }) => signer ?? []);
  const file = {
    submission: { envelope: signAuthority(payload, signers) },
    // As the ledger reads it.
    isBare: true,
  };
  const item = { kind: 'authority', payload } as const;
  const count = countSignatures(file.submission.envelope, item, undefined);
  if (count?.complete === false && options.signOnly !== true) {
    throw new HyphaError('E_SIG_THRESHOLD', 'the genesis has too few signatures', {
      details: count.groups.map(describeGroup),
      hint: 'give the private halves, or let the others sign: --sign-only, then hypha cosign FILE',
    });
  }
  const target = options.out === '-' ? '-' : resolve(options.out);
  // A genesis that is pinned somewhere must not be lost to a second try.
  if (existsSync(target)) {
    throw new HyphaError('E_CONFLICT', `there is something at ${target}`, {
      hint: 'name another file with --out',
    });
  }
  const report = reportSignatures(file, item, undefined, target);
  writeSigningFile(target, file);
  showReport(session.output, report, target);
}
