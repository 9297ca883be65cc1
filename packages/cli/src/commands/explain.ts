import { errorInfo, HyphaError, isErrorCode } from '@hypha/protocol';
import type { Command } from 'commander';
import { sessionOf } from '../session.ts';

export function explainCommand(program: Command): void {
  program
    .command('explain <code>')
    .description('what an error code means and what to do')
    .action((text: string, _options: unknown, command: Command) => {
      const code = text.toUpperCase();
      if (!isErrorCode(code))
        throw new HyphaError('E_NOT_FOUND', `no error code ${code}`, {
          hint: 'copy it whole, like E_SIG_INVALID',
        });
      const { title, hint, status, retryable = false } = errorInfo(code);
      sessionOf(command).output.item({ code, title, hint, status, retryable }, [
        ['code', code],
        ['means', title],
        ['do', hint],
        ['http', String(status)],
        ['try again', retryable ? 'yes, unchanged' : 'only after changing something'],
      ]);
    });
}
