/** What tests are built from. Nothing outside of tests imports it. */
export {
  type BadScript,
  badScripts,
  withChangedByte,
  withOtherSpelling,
} from './bad-scripts.ts';
export { FaultProxy, type Faults } from './fault-proxy.ts';
export {
  admitNode,
  createFleet,
  createKey,
  enrolmentOf,
  entropyAt,
  FACTS,
  grantOf,
  joinTokenOf,
  type ScriptOptions,
  scriptPayloadOf,
  signedScript,
  signUpdate,
  type TestFleet,
  type TestKey,
  type TestNode,
} from './fleet.ts';
export { findPortBase } from './free-ports.ts';
export { findLeftovers, type LeftoverQuery } from './leftovers.ts';
export { isReadableByAll } from './readable-by-all.ts';
export { isRedisInstalled, type RedisServer, startRedis } from './redis-server.ts';
export { SeededRandom } from './seeded-random.ts';
export { openTempDir, type TempDir } from './temp-dir.ts';
export { createTestCa, isOpensslInstalled, type TestCa } from './test-ca.ts';
export { TestLog } from './test-log.ts';
export { waitFor } from './wait-for.ts';
