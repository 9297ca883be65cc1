import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { AuditBundle, foldRun, HyphaError, parseStrictJson, verifyBundle } from '@hypha/protocol';
import { nodeVerifier } from '@hypha/protocol/node';
import type { Command } from 'commander';
import { collectBundle } from '../audit-bundle.ts';
import { EXIT } from '../exit-code.ts';
import { describeEntry } from '../log-narrative.ts';
import { allPages, type Session, sessionOf } from '../session.ts';
import { readerOf, type ViaFlags, viaOptions } from '../via.ts';
import { parseRunId } from './run.ts';

/** Says what held, then the verdict. Answers the exit code. */
export function reportVerdict(session: Session, bundle: unknown, genesisHash: string): number {
  const verdict = verifyBundle(nodeVerifier, { bundle, genesisHash });
  const { output } = session;
  const simulated = verdict.failure === null && isSimulated(bundle);
  if (output.format !== 'table') output.item({ ...verdict, simulated }, []);
  for (const check of verdict.checks) output.line(`  ${output.style('green', 'ok')}  ${check}`);
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
    .description('what the ledger holds, a sentence per entry')
    .action(async (_options: unknown, command: Command) => {
      const session = sessionOf(command);
      const ledger = session.ledger();
      const entries = await allPages((cursor) => ledger.listEntries({ cursor, limit: 500 }));
      session.output.list(
        entries,
        [
          { title: 'at', cell: (entry) => new Date(entry.at).toISOString() },
          { title: 'index', cell: (entry) => String(entry.index) },
          { title: 'what', cell: describeEntry },
        ],
        'empty',
      );
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
