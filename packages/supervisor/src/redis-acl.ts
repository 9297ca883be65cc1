/**
 * `hypha-redis-acl`: writes the ACL file of the Redis that serves the nodes of some state folders, and the
 * users into those. Run before that Redis starts, by `hypha up` and by its systemd unit. Makes node
 * keys where there are none yet, because a node's queue is named after its key.
 */
import { openNodeKeys } from '@hypha/identity';
import { writePrivateFile } from '@hypha/protocol/node';
import { createLogger, runService } from '@hypha/service/process';
import { systemClock } from './clock.ts';
import { readAclConfig } from './config.ts';
import { redisAcl } from './redis-users.ts';
import { ensureRedisUsers } from './redis-users-file.ts';
import { openStateFolder } from './state-folder.ts';

process.title = 'hypha-redis-acl';

await runService(async () => {
  const { states, aclFile, logLevel: level } = readAclConfig();
  const log = createLogger({ name: process.title, level });
  const nodes = await Promise.all(
    states.map(async (state) => {
      const folder = await openStateFolder(state);
      const { origin } = await openNodeKeys(folder.identity, () => systemClock.nowMs());
      return { node: origin, users: await ensureRedisUsers(folder.redisUsers, origin) };
    }),
  );
  await writePrivateFile(aclFile, redisAcl(nodes));
  log.info({ aclFile, nodes: nodes.map(({ node }) => node) }, 'Redis users written');
});
