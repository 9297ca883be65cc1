import { randomBytes } from 'node:crypto';
import { HyphaError, parseStrictJson } from '@hypha/protocol';
import { findPrivateFile, writePrivateFile } from '@hypha/protocol/node';
import { createRedisUsers, RedisUsers } from './redis-users.ts';

const FILE_BYTES_MAX = 4096;

/**
 * Undefined when there is no file.
 * @throws OpenFileError when others may read it; HyphaError `E_CONFLICT` when it holds no users
 */
export async function findRedisUsers(file: string): Promise<RedisUsers | undefined> {
  const text = await findPrivateFile(file);
  if (text === undefined) return undefined;
  try {
    return RedisUsers.parse(parseStrictJson(text.slice(0, FILE_BYTES_MAX)));
  } catch (cause) {
    throw new HyphaError('E_CONFLICT', `cannot read the Redis users in ${file}`, {
      cause,
      hint: 'remove the file, then make it and the ACL file again: packaging/README.md',
    });
  }
}

/**
 * The node's users, made when there are none. Kept: a Redis, a supervisor and runners that start at
 * different times have to agree.
 */
export async function ensureRedisUsers(file: string, node: string): Promise<RedisUsers> {
  const found = await findRedisUsers(file);
  if (found !== undefined) return found;
  const users = createRedisUsers(node, (count) => randomBytes(count));
  await writePrivateFile(file, `${JSON.stringify(users)}\n`);
  return users;
}
