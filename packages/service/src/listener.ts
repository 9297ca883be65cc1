import { readFileSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { BlockList, isIP, type Socket } from 'node:net';
import { createSecureContext } from 'node:tls';
import { z } from 'zod';
import { addressKey } from './address-key.ts';
import { ConfigError } from './configuration.ts';

/** Keys of a service's configuration that say how it listens: `z.strictObject({ ...listenerKeys, … })`. */
export const listenerKeys = {
  host: z.string().min(1).default('127.0.0.1'),
  /** File of the certificate chain (PEM). With `tlsKey` the service speaks HTTPS, and nothing else. */
  tlsCert: z.string().min(1).optional(),
  /** File of its private key (PEM). */
  tlsKey: z.string().min(1).optional(),
  /** Requests a second from one address, before their signature is looked at; twice as many in a burst. */
  ratePerAddress: z.int().min(1).max(1_000_000).default(5_000),
  /** Requests a second by one key, after its signature was verified; twice as many in a burst. */
  ratePerKey: z.int().min(1).max(1_000_000).default(4_000),
  /** Connections open at once from one address. A node holds about a handful, a follower of a run one. */
  connectionsPerAddress: z.int().min(1).max(1_000_000).default(8_192),
  /** Requests being answered at once, streams left out; one more is told to come again. */
  requestsAtOnce: z.int().min(1).max(1_000_000).default(4_096),
} as const;

export type ListenerConfig = Readonly<z.infer<z.ZodObject<typeof listenerKeys>>>;

export const LISTENER_DEFAULTS: ListenerConfig = z.strictObject(listenerKeys).parse({});

/** Bounds of one listener. Milliseconds end the names of times. */
const BOUNDS = {
  /** TLS handshake. */
  handshakeMs: 10_000,
  /** Head of a request on the wire; also the first byte of a new connection. */
  headersMs: 8_000,
  /** Whole request, headers and body, on the wire. */
  requestMs: 10_000,
  /** How often those two are looked at. */
  requestCheckMs: 1_000,
  /** A connection on which nothing moves; longer than a stream's heartbeat. */
  connectionMs: 60_000,
  /** Between two requests of one connection. */
  keepAliveMs: 20_000,
  connections: 40_000,
} as const;

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4');
LOOPBACK.addAddress('::1', 'ipv6');

interface Tls {
  readonly cert: Buffer;
  readonly key: Buffer;
}

/** How a service takes connections: plain or TLS, with bounds that a slow or greedy client runs into. */
export class Listener {
  readonly #tls: Tls | undefined;
  readonly #connectionsPerAddress: number;
  /** address → connections open now */
  readonly #open = new Map<string, number>();

  /** Throws `ConfigError` for a certificate or key that cannot be used. */
  constructor(config: ListenerConfig) {
    this.#tls = readTls(config);
    this.#connectionsPerAddress = config.connectionsPerAddress;
  }

  get scheme(): 'http' | 'https' {
    return this.#tls === undefined ? 'http' : 'https';
  }

  createServer(handler: RequestListener): Server {
    const options = {
      headersTimeout: BOUNDS.headersMs,
      requestTimeout: BOUNDS.requestMs,
      connectionsCheckingInterval: BOUNDS.requestCheckMs,
      keepAliveTimeout: BOUNDS.keepAliveMs,
      // Without this Node answers a request that names no host by itself, and not with a problem document.
      requireHostHeader: false,
    };
    const server: Server =
      this.#tls === undefined
        ? createServer(options, handler)
        : createSecureServer(
            {
              ...options,
              ...this.#tls,
              minVersion: 'TLSv1.2',
              handshakeTimeout: BOUNDS.handshakeMs,
            },
            handler,
          );
    server.setTimeout(BOUNDS.connectionMs);
    server.maxConnections = BOUNDS.connections;
    server.on('connection', (socket) => this.#count(socket));
    return server;
  }

  /** Whether what is said here can be read on the way. */
  isOpenTo(host: string): boolean {
    return this.#tls === undefined && !isLoopback(host);
  }

  #count(socket: Socket): void {
    const address = addressKey(socket.remoteAddress ?? '');
    const open = (this.#open.get(address) ?? 0) + 1;
    if (open > this.#connectionsPerAddress) {
      socket.destroy();
      return;
    }
    this.#open.set(address, open);
    socket.once('close', () => {
      const left = (this.#open.get(address) ?? 1) - 1;
      if (left === 0) this.#open.delete(address);
      else this.#open.set(address, left);
    });
  }
}

function readTls({ tlsCert, tlsKey }: ListenerConfig): Tls | undefined {
  if (tlsCert === undefined && tlsKey === undefined) return undefined;
  if (tlsCert === undefined || tlsKey === undefined) {
    const missing = tlsCert === undefined ? 'tls-cert' : 'tls-key';
    throw new ConfigError([`--${missing}: (not set): certificate and key come together`]);
  }
  const tls = { cert: readPem('tls-cert', tlsCert), key: readPem('tls-key', tlsKey) };
  try {
    createSecureContext(tls);
  } catch (error) {
    const reason = error instanceof Error ? error.message : 'cannot be used';
    throw new ConfigError([`--tls-cert: ${tlsCert}: not usable with ${tlsKey}: ${reason}`]);
  }
  return tls;
}

/**
 * Certificates (PEM) that a service trusts when it calls another over https; undefined: the system's.
 * Throws `ConfigError`.
 */
export function readCa(tlsCa: string | undefined): string | undefined {
  if (tlsCa === undefined) return undefined;
  const ca = readPem('tls-ca', tlsCa).toString();
  try {
    createSecureContext({ ca });
    if (/-----BEGIN CERTIFICATE-----/.test(ca)) return ca;
  } catch {
    // Said below: what the parser finds wrong tells nobody which file it was.
  }
  throw new ConfigError([`--tls-ca: ${tlsCa}: no certificates in PEM`]);
}

function readPem(flag: string, file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    const reason = error instanceof Error ? error.message : 'cannot be read';
    throw new ConfigError([`--${flag}: ${file}: ${reason}`]);
  }
}

/** Whether only this machine can reach the address. */
export function isLoopback(host: string): boolean {
  if (host === 'localhost') return true;
  const family = isIP(host);
  return family !== 0 && LOOPBACK.check(host, family === 6 ? 'ipv6' : 'ipv4');
}
