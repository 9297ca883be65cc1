import { existsSync, readdirSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { base64, HyphaError, Name } from '@hypha/protocol';
import { generateKey, readKeyFile, writeKeyFile } from '@hypha/protocol/node';
import type { Command } from 'commander';
import { keyDirOf } from '../context.ts';
import { makeFolder } from '../make-folder.ts';
import { type Session, sessionOf } from '../session.ts';

interface KeyView {
  readonly name: string;
  readonly keyid: string;
  readonly publicKey: string;
  readonly file: string;
}

function keyDir(session: Session): string {
  return keyDirOf(session.flags, session.env);
}

function viewKey(file: string): KeyView {
  const { keyid, publicKey } = readKeyFile(file);
  return { name: basename(file, '.pem'), keyid, publicKey: base64(publicKey), file };
}

function show(session: Session, key: KeyView): void {
  session.output.item(key, [
    ['name', key.name],
    ['keyid', key.keyid],
    ['public key', key.publicKey],
    ['file', key.file],
  ]);
}

export function keyCommand(program: Command): void {
  const key = program.command('key').description('keys that sign: Ed25519, PKCS#8 PEM files');
  key
    .command('new <name>')
    .description('make a key; it may do nothing until an admin grants it something')
    .option('--out <file>', 'where to write it, instead of the state folder')
    .action((name: string, options: { out?: string }, command: Command) => {
      const session = sessionOf(command);
      if (!Name.safeParse(name).success) {
        throw new HyphaError('E_NAME', `not a valid key name: ${JSON.stringify(name)}`);
      }
      const file = resolve(options.out ?? join(keyDir(session), `${name}.pem`));
      if (existsSync(file)) {
        throw new HyphaError('E_CONFLICT', `there is a key at ${file}`, {
          hint: 'choose another name',
        });
      }
      makeFolder(dirname(file));
      writeKeyFile(file, generateKey().pem);
      show(session, viewKey(file));
    });
  key
    .command('show <file-or-name>')
    .description('keyid and public key; the private half is never shown')
    .action((name: string, _options: unknown, command: Command) => {
      const session = sessionOf(command);
      show(session, viewKey(session.keyFileOf(name)));
    });
  key
    .command('list')
    .description('keys in the state folder')
    .action((_options: unknown, command: Command) => {
      const session = sessionOf(command);
      const dir = keyDir(session);
      const files = existsSync(dir) ? readdirSync(dir).filter((file) => file.endsWith('.pem')) : [];
      session.output.list(
        files.sort().map((file) => viewKey(join(dir, file))),
        [
          { title: 'name', cell: (item) => item.name },
          { title: 'keyid', cell: (item) => item.keyid },
          { title: 'file', cell: (item) => item.file },
        ],
        `no keys in ${dir}; make one: hypha key new NAME`,
      );
    });
}
