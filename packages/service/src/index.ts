/**
 * What every service process is made of: configuration, log, HTTP server, life cycle.
 *
 * ```ts
 * loadConfig(schema, { argv, env, prefix }): Readonly<z.infer<schema>>        // throws ConfigError
 * createLogger({ name, level?, stream? }): Logger                             // pino
 * runService(async ({ signal, ready }) => { … }, name?): Promise<never>       // SIGTERM, exit codes
 *
 * const server = createServer({ name, version, log, findKey?, checkReady?, clock? });
 * server.route({ method, path, auth, summary, params?, query?, body?, bodyRefusal?, bodyBytesMax?, answer,
 *                status?, handle: ({ params, query, body, rawBody, caller, signal }) => answer });
 * server.stream({ path, auth, summary, params?, query?,
 *                 open: async ({ params, query, caller, signal, lastEventId }) => AsyncIterable<ServerEvent> });
 * server.gauge(name, help, () => number); server.metrics;
 * await server.listen({ host, port }) → url; await server.close();
 *
 * auth: 'public' | 'read' | 'node' (by the key of the node `:id`) | 'service' (any known key)
 * findKey(keyid) → raw public key bytes | undefined, or a promise of it
 * queryInt({ min, max }), pageQuery                  // for `query` schemas (strict objects of strings)
 * new EventQueue(max): push(event) end()             // a source that pushes, for `open` to return
 * type ServerEvent = { id?: string; event?: string; data: string }
 * ```
 * A process that serves no HTTP imports the first three from `@hypha/service/process`.
 */
export { EventQueue, formatEvent, type ServerEvent } from './event-stream.ts';
export * from './process.ts';
export type { Caller, FindKey, RouteAuth } from './request-auth.ts';
export {
  pageQuery,
  queryInt,
  type Route,
  type RouteInput,
  type StreamInput,
  type StreamRoute,
} from './route.ts';
export { createServer, type HyphaServer, type ServerOptions } from './server.ts';
