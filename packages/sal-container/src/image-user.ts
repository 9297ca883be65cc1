import { constants } from 'node:fs';
import { lstat, open } from 'node:fs/promises';
import { join } from 'node:path';
import { HyphaError } from '@hypha/protocol';
import { z } from 'zod';

/** Who a container's process runs as, in numbers. */
export const ProcessUser = z.strictObject({
  uid: z.int().nonnegative(),
  gid: z.int().nonnegative(),
  additionalGids: z.array(z.int().nonnegative()),
});
export type ProcessUser = z.infer<typeof ProcessUser>;

const ACCOUNT_FILE_BYTES_MAX = 1024 * 1024;

/** `uid` or `uid:gid` of a spec. The group is 0 when it is not named, as with other runtimes. */
export function numericUser(text: string): ProcessUser {
  const [uid = '0', gid = '0'] = text.split(':');
  return { uid: Number(uid), gid: Number(gid), additionalGids: [] };
}

/**
 * The user an image asks for: empty, `user` or `user:group`, each a number or a name of the image's own
 * passwd and group files. Throws `E_IMAGE` for a name that is not there.
 * @param root the image's root file system, never a container's: its files are not to be trusted
 */
export async function resolveImageUser(root: string, user: string): Promise<ProcessUser> {
  const [account = '', group] = user.split(':');
  const accounts = await readAccounts(root, 'passwd');
  const groups = await readAccounts(root, 'group');
  const isNumber = /^\d{1,10}$/.test(account);
  const entry = accounts.find(
    (fields) => (isNumber ? fields[2] : fields[0]) === (account || 'root'),
  );
  const uid = isNumber
    ? Number(account)
    : (numberOf(entry?.[2]) ?? (account === '' ? 0 : undefined));
  const gid =
    group === undefined
      ? (numberOf(entry?.[3]) ?? 0)
      : (numberOf(group) ?? numberOf(groups.find((fields) => fields[0] === group)?.[2]));
  if (uid === undefined || gid === undefined) {
    throw new HyphaError('E_IMAGE', `image runs as ${user}, which it has no entry for`, {
      hint: 'set user to a number in the spec',
    });
  }
  const name = entry?.[0];
  const additionalGids = groups
    .filter((fields) => name !== undefined && (fields[3] ?? '').split(',').includes(name))
    .flatMap((fields) => numberOf(fields[2]) ?? []);
  return { uid, gid, additionalGids: group === undefined ? additionalGids : [] };
}

function numberOf(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,10}$/.test(text) ? Number(text) : undefined;
}

/** Fields of the lines of `etc/passwd` or `etc/group`; nothing when a link could lead out of the image. */
async function readAccounts(root: string, name: string): Promise<readonly string[][]> {
  const folder = await lstat(join(root, 'etc')).catch(() => undefined);
  if (folder?.isDirectory() !== true) return [];
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const file = await open(join(root, 'etc', name), flags).catch(() => undefined);
  if (file === undefined) return [];
  try {
    const info = await file.stat();
    if (!info.isFile() || info.size > ACCOUNT_FILE_BYTES_MAX) return [];
    const text = await file.readFile('utf8');
    return text.split('\n').map((line) => line.split(':'));
  } finally {
    await file.close();
  }
}
