/**
 * What every service process is made of: configuration, log, HTTP server, life cycle.
 *
 * ```ts
 * loadConfig(schema, { argv, env, prefix }): Readonly<z.infer<schema>>        // throws ConfigError
 * createLogger({ name, level?, stream? }): Logger                             // pino
 * runService(async ({ signal, ready }) => { … }, name?): Promise<never>       // SIGTERM, exit codes
 *
 * const server = createServer({ name, version, log, findKey?, checkReady?, clock?, listener? });
 * server.route({ method, path, auth, summary, params?, query?, body?, bodyRefusal?, bodyBytesMax?, answer,
 *                status?, handle: ({ params, query, body, rawBody, caller, signal }) => answer });
 * server.stream({ path, auth, summary, params?, query?,
 *                 open: async ({ params, query, caller, signal, lastEventId }) => AsyncIterable<ServerEvent> });
 * server.gauge(name, help, () => number); server.metrics;
 * await server.listen({ host, port }) → url; await server.close();
 *
 * auth: 'public' | 'node' (by the key of the node `:id`) | { roles: ['admin', …, 'node'] }; READERS
 * findKey(keyid) → CallerKey | undefined, or a promise of it: grantedKey(authority, …), nodeKey(view)
 * mayRead(caller, realm); readableRealms(caller) → realms | undefined (all)
 * addRunRoutes(server, source)                       // `GET /v1/runs…`, at coordinator and node alike
 * queryInt({ min, max }), pageQuery                  // for `query` schemas (strict objects of strings)
 * type ServerEvent = { id?: string; event?: string; data: string }
 * ```
 * `listenerKeys` go into a service's configuration, and the configuration in as `listener`; readCa(file) → PEM
 * A process that serves no HTTP imports the first three from `@hypha/service/process`.
 */
export { addressKey } from './address-key.ts';
export {
  type Caller,
  type CallerKey,
  type CallerRole,
  type FindKey,
  grantedKey,
  mayRead,
  nodeKey,
  READERS,
  readableRealms,
} from './caller.ts';
export { formatEvent, type ServerEvent } from './event-stream.ts';
export { isLoopback, type ListenerConfig, listenerKeys, readCa } from './listener.ts';
export * from './process.ts';
export type { RouteAuth } from './request-auth.ts';
export {
  pageQuery,
  queryInt,
  type Route,
  type RouteInput,
  type StreamInput,
  type StreamRoute,
} from './route.ts';
export { addRunRoutes, eventNumber, type RunFilter, type RunSource } from './run-routes.ts';
export { createServer, type HyphaServer, type ServerOptions } from './server.ts';
