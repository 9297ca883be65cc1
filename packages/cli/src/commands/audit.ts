import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { AuditBundle, foldRun, HyphaError, parseStrictJson, verifyBundle } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import type { Command } from 'commander';
import { collectBundle } from '../audit-bundle.ts';
import { type LogFlags, parseLogFilter } from '../audit-log/log-filter.ts';
import { reportLog } from '../audit-log/log-report.ts';
import { EXIT } from '../exit-code.ts';
import { parseRunId } from '../option-parsers.ts';
import { type Session, sessionOf } from '../session.ts';
import { readerOf, type ViaFlags, viaOptions } from '../via.ts';

/** Says what held, then the verdict. Answers the exit code. */
export function reportVerdict(session: Session, bundle: unknown, genesisHash: string): number {
  const verdict = verifyBundle(nodeVerifier, { bundle, genesisHash });
  const { output } = session;
  const simulated = verdict.failure === null && isSimulated(bundle);
  if (output.format !== 'table') output.item({ ...verdict, simulated }, []);
  for (const check of verdict.checks) output.line(`  ${output.style('green', 'ok')}  ${check}`);
  for (const remark of verdict.remarks) output.line(`  ${output.style('yellow', '--')}  ${remark}`);
  if (simulated) output.line(`  ${output.style('yellow', 'simulated')}: steps made nothing real`);
  if (verdict.failure === null) {
    output.line(output.style('green', 'receipt verified'));
    return EXIT.ok;
  }
  const { check, code, message } = verdict.failure;
  output.line(`  ${output.style('red', 'NO')}  ${check}: ${code}: ${message}`);
  output.line(output.style('red', 'receipt NOT verified'));
  return EXIT.refused;
}

/** Of a bundle that holds. */
function isSimulated(bundle: unknown): boolean {
  return foldRun(AuditBundle.parse(bundle).journal).simulated;
}

export function auditCommand(program: Command): void {
  const audit = program.command('audit').description('who did what, provable offline');
  audit
    .command('log')
    .description(
      'who did what, a sentence per entry of the ledger’s log, and whether that is all of it',
    )
    .option('--since <time>', 'from then on: 2026-11-21T10:00:00Z, or how long ago: 30m, 2h, 3d')
    .option('--until <time>', 'up to then')
    .option('--by <name-or-id>', 'signed by this key or node')
    .option('--deployment <name>', 'runs of this one: NAME or REALM/NAME')
    .action(async (flags: LogFlags, command: Command) => {
      const session = sessionOf(command);
      process.exitCode = await reportLog(session, parseLogFilter(flags, session.nowMs()));
    });
  viaOptions(audit.command('export <run>'))
    .description('a bundle that proves one run down to genesis')
    .option('--out <file>', 'where to write it; default: stdout')
    .action(async (run: string, options: ViaFlags & { out?: string }, command: Command) => {
      const session = sessionOf(command);
      const bundle = await collectBundle(session, readerOf(session, options), parseRunId(run));
      if (options.out === undefined) return session.output.jsonLine(bundle);
      const file = resolve(options.out);
      writeFileSync(file, `${JSON.stringify(bundle)}\n`);
      session.output.item({ file }, [['bundle', file]]);
    });
  audit
    .command('verify <file>')
    .description('check a bundle offline; needs nothing but the file and the genesis hash')
    .option('--genesis <hash>', 'what to trust; default: the pin of this context')
    .action((file: string, options: { genesis?: string }, command: Command) => {
      const session = sessionOf(command);
      let bundle: unknown;
      try {
        bundle = parseStrictJson(new Uint8Array(readFileSync(file)));
      } catch (cause) {
        throw new HyphaError('E_ARGUMENT', `cannot read a bundle from ${file}`, {
          cause,
          hint: 'make one: hypha audit export RUN --out FILE',
        });
      }
      const genesis = options.genesis ?? session.context.genesis;
      process.exitCode = reportVerdict(session, bundle, genesis);
    });
}
