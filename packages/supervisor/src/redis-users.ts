/**
 * Who may do what in a node's Redis (security notes §2.6). Two users for each node, held to its keys and to
 * the commands their work was seen to use; nobody else may do anything. A Redis that is shared by nodes
 * keeps them apart by the same rules.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { queuePrefix } from './run-queue.ts';

const RedisUser = z.strictObject({
  name: z.string().regex(/^[a-z0-9_-]{1,64}$/),
  password: z.string().regex(/^[A-Za-z0-9_-]{32,128}$/),
});
export type RedisUser = Readonly<z.infer<typeof RedisUser>>;

/** The file that `--redis-users` names. */
export const RedisUsers = z.strictObject({ supervisor: RedisUser, runner: RedisUser });
export type RedisUsers = Readonly<z.infer<typeof RedisUsers>>;

type RedisRole = keyof RedisUsers;

/** What an ioredis connection sends by itself. `AUTH`, `HELLO` and `QUIT` need no permission. */
const CONNECT = ['info', 'client|setname'] as const;

/**
 * Commands inside of scripts count like others. Measured with `INFO commandstats` of a role alone at work
 * on BullMQ 6.7: jobs added twice, done, failed, strange, stalled after `kill -9`, put back, locks renewed,
 * Redis restarted. The second list of the runner is of branches a forged delayed job leads into, where a
 * refusal would stop the worker.
 */
const COMMANDS: Readonly<Record<RedisRole, readonly string[]>> = {
  supervisor: [
    // To empty a queue that hands out nothing.
    'del',
    ...['eval', 'evalsha', 'exists', 'hget', 'hmget', 'hmset', 'hset', 'incr', 'lpush'],
    ...['xadd', 'zadd'],
  ],
  runner: [
    ...['bzpopmin', 'del', 'eval', 'evalsha', 'exists', 'get', 'hget', 'hgetall', 'hincrby'],
    ...['hmget', 'hmset', 'llen', 'lrange', 'lrem', 'pttl', 'rpoplpush', 'rpush', 'sadd', 'scard'],
    ...['set', 'smembers', 'srem', 'xadd', 'xtrim', 'zadd', 'zcard', 'zpopmin', 'zrange'],
    ...['zrangebyscore'],
    ...['hexists', 'hset', 'incr', 'lpush', 'zrem', 'zscore'],
  ],
};

/** New users for a node, whose passwords nobody knows yet. */
export function createRedisUsers(
  node: string,
  randomBytes: (count: number) => Uint8Array,
): RedisUsers {
  const userOf = (role: RedisRole): RedisUser => ({
    name: `${queueOwner(node)}-${role}`,
    password: Buffer.from(randomBytes(32)).toString('base64url'),
  });
  return { supervisor: userOf('supervisor'), runner: userOf('runner') };
}

/** The lines of a Redis ACL file for these nodes. Passwords are in it as SHA-256 only. */
export function redisAcl(
  nodes: readonly { readonly node: string; readonly users: RedisUsers }[],
): string {
  const lines = nodes.flatMap(({ node, users }) =>
    (['supervisor', 'runner'] as const).map((role) => {
      const { name, password } = users[role];
      const digest = createHash('sha256').update(password).digest('hex');
      const commands = [...CONNECT, ...COMMANDS[role]].map((command) => `+${command}`).join(' ');
      return `user ${name} on #${digest} ~${queuePrefix(node)}:* resetchannels -@all ${commands}`;
    }),
  );
  return ['user default off resetpass resetchannels -@all', ...lines, ''].join('\n');
}

function queueOwner(node: string): string {
  return queuePrefix(node).slice(1, -1);
}
