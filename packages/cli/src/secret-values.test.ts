import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isHyphaError, SECRET_BYTES_MAX } from '@hypha/protocol';
import { openTempDir } from '@hypha/testkit';
import { describe, expect, test } from 'vitest';
import { readSecretValues } from './secret-values.ts';

const VARIABLES = new Map([['TOKEN', 'hunter2']]);
const findVariable = (name: string) => VARIABLES.get(name);

function read(given: readonly string[], declared: readonly string[] = ['token']) {
  return readSecretValues(given, declared, findVariable);
}

async function refusalOf(given: readonly string[], declared?: readonly string[]): Promise<string> {
  const error = await read(given, declared).catch((thrown: unknown) => thrown);
  if (!isHyphaError(error, 'E_ARGUMENT')) throw new Error(`was not refused: ${String(error)}`);
  return `${error.message}; ${error.hint}`;
}

describe('--secret', () => {
  test('takes a variable as it is', async () => {
    expect(await read(['token=env:TOKEN'])).toEqual({ token: 'hunter2' });
  });

  test('takes a file with the line end it has', async () => {
    await using folder = await openTempDir();
    const file = join(folder.path, 'to=ken:x');
    await writeFile(file, 'grüß dich\n');
    expect(await read([`token=file:${file}`])).toEqual({ token: 'grüß dich\n' });
  });

  test('takes what a command prints, without the last line end', async () => {
    expect(await read([`token=cmd:printf 'a=b\\n\\n'`])).toEqual({ token: 'a=b\n' });
  });

  test('keeps what the nodes have', async () => {
    expect(await read(['token=keep'])).toEqual({ token: null });
  });

  test('reads nothing for a script that declares none', async () => {
    expect(await read([], [])).toEqual({});
  });

  test.for([
    ['none of those declared', [], 'secret token is missing; give it: --secret token='],
    ['one too few', ['token=keep'], 'secret other is missing'],
    ['one nobody declared', ['token=keep', 'other=keep', 'more=keep'], 'declares no secret more'],
    ['one twice', ['token=keep', 'token=keep'], 'secret token is given twice'],
    ['no source', ['token=', 'other=keep'], 'secret token: unknown source'],
    ['a source nobody knows', ['token=vault:x', 'other=keep'], 'unknown source'],
    ['a variable that is not set', ['token=env:NO', 'other=keep'], 'the variable NO is not set'],
    ['a command that fails', ['token=cmd:exit 3', 'other=keep'], 'its command ended with 3'],
    ['a command that prints nothing', ['token=cmd:true', 'other=keep'], 'secret token is empty'],
    ['an empty file', ['token=file:/dev/null', 'other=keep'], 'secret token is empty'],
    ['a file without end', ['token=file:/dev/zero', 'other=keep'], 'is over 64 KiB'],
    ['a command without end', ['token=cmd:yes 2>/dev/null', 'other=keep'], 'is over 64 KiB'],
    ['what is no UTF-8', [`token=cmd:printf '\\377'`, 'other=keep'], "cmd:'base64 FILE'"],
    ['a NUL', [`token=cmd:printf 'a\\000b'`, 'other=keep'], 'UTF-8 without NUL'],
  ] as const)('refuses %s', async ([, given, said]) => {
    expect(await refusalOf(given, ['token', 'other'])).toContain(said);
  });

  test.for([
    ['a value in place of its name', 'hunter2'],
    ['a value in place of its source', 'token=hunter2'],
    ['a value that is no text', `token=cmd:printf 'hunter2\\377'`],
    ['the output of a command that fails', 'token=cmd:echo hunter$((1+1)); exit 1'],
  ] as const)('never quotes %s', async ([, given]) => {
    expect(await refusalOf([given])).not.toContain('hunter2');
  });

  test('takes 64 KiB, and of a command a line end more', async () => {
    const command = `head -c ${SECRET_BYTES_MAX} /dev/zero | tr '\\0' x; echo`;
    const { token } = await read([`token=cmd:${command}`]);
    expect(token).toHaveLength(SECRET_BYTES_MAX);
  });
});
