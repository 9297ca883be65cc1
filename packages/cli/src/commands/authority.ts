import type { Command } from 'commander';
import { changeCommands } from './authority-changes.ts';
import { initCommand } from './authority-init.ts';
import { revokeCommands } from './authority-revoke.ts';
import { logCommand, showCommand } from './authority-show.ts';

export function authorityCommand(program: Command): void {
  const authority = program
    .command('authority')
    .description('who may do what: a signed chain that starts at genesis');
  for (const add of [initCommand, changeCommands, revokeCommands, showCommand, logCommand]) {
    add(authority);
  }
}
