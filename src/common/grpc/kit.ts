import type { Socket } from 'node:net'
import { createSecureContext, createServer, type Server as TlsServer } from 'node:tls'
import * as grpc from '@grpc/grpc-js'
import type { Codec, Method } from '#proto'
import { type ErrorKind, ShoalError } from '../errors.js'

const TO_STATUS: Record<ErrorKind, grpc.status> = {
  notFound: grpc.status.NOT_FOUND,
  invalid: grpc.status.INVALID_ARGUMENT,
  conflict: grpc.status.ALREADY_EXISTS,
  unavailable: grpc.status.UNAVAILABLE,
  forbidden: grpc.status.PERMISSION_DENIED,
  unauthorized: grpc.status.UNAUTHENTICATED,
  unimplemented: grpc.status.UNIMPLEMENTED,
  notModified: grpc.status.FAILED_PRECONDITION,
  cancelled: grpc.status.CANCELLED,
  internal: grpc.status.INTERNAL,
}
const FROM_STATUS = new Map<number, ErrorKind>([
  ...Object.entries(TO_STATUS).map(([kind, status]) => [status, kind as ErrorKind] as const),
  [grpc.status.DEADLINE_EXCEEDED, 'unavailable'],
  [grpc.status.ABORTED, 'unavailable'],
  [grpc.status.FAILED_PRECONDITION, 'unavailable'],
  [grpc.status.OUT_OF_RANGE, 'invalid'],
  [grpc.status.RESOURCE_EXHAUSTED, 'unavailable'],
  [grpc.status.UNKNOWN, 'internal'],
])

/** ShoalError → gRPC error; kind and code travel in metadata, so that the other side rebuilds the same error. */
export function toServiceError(caught: unknown): Partial<grpc.ServiceError> {
  const e = ShoalError.from(caught)
  const metadata = new grpc.Metadata()
  metadata.set('shoal-kind', e.kind)
  metadata.set('shoal-code', e.code)
  return { code: TO_STATUS[e.kind], details: e.message, metadata }
}

/** gRPC error → ShoalError. */
export function fromServiceError(caught: unknown): ShoalError {
  const e = caught as grpc.ServiceError
  if (caught instanceof ShoalError || typeof e?.code !== 'number') return ShoalError.from(caught)
  const sent = e.metadata?.get('shoal-kind')[0]
  const kind = (
    typeof sent === 'string' && sent in TO_STATUS ? sent : (FROM_STATUS.get(e.code) ?? 'internal')
  ) as ErrorKind
  const code = e.metadata?.get('shoal-code')[0]
  return new ShoalError(
    kind,
    typeof code === 'string' ? code : `grpc${e.code}`,
    e.details || e.message,
    {},
    { cause: caught },
  )
}

/** Key, certificate chain and trusted roots, all PEM. */
export interface TlsIdentity {
  readonly key: string
  readonly cert: string
  readonly ca: string
}

/** Who is at the other end, from its verified certificate; null for a caller without one. */
export interface Peer {
  readonly nodeId: string
  readonly role: 'manager' | 'worker'
  readonly clusterId: string
  /** IP address as seen here. */
  readonly address: string
}

/** Present when the certificate was verified against our roots; only CN, OU and O of the subject are looked at. */
export function peerOf(
  call:
    | grpc.ServerUnaryCall<unknown, unknown>
    | grpc.ServerDuplexStream<unknown, unknown>
    | grpc.ServerReadableStream<unknown, unknown>
    | grpc.ServerWritableStream<unknown, unknown>,
): Peer | null {
  const context = call.getAuthContext()
  const subject = context.sslPeerCertificate?.subject as { CN?: string; OU?: string; O?: string } | undefined
  if (!subject?.CN || !subject.O) return null
  const role = subject.OU === 'swarm-manager' ? 'manager' : subject.OU === 'swarm-worker' ? 'worker' : null
  if (role === null) return null
  return { nodeId: subject.CN, role, clusterId: subject.O, address: addressOf(call.getPeer()) }
}

/** "10.0.0.1:55" or "[::1]:55" → address. */
export function addressOf(peer: string): string {
  const m = /^\[?(.*?)\]?:\d+$/.exec(peer)
  return (m ? m[1]! : peer).replace(/^::ffff:/, '')
}

function definition<Q, S>(m: Method<Q, S>): grpc.MethodDefinition<Q, S> {
  const bytes =
    <T>(c: Codec<T>) =>
    (v: T) => {
      const b = c.encode(v)
      return Buffer.from(b.buffer, b.byteOffset, b.length)
    }
  return {
    path: m.path,
    requestStream: m.requestStream,
    responseStream: m.responseStream,
    requestSerialize: bytes(m.request),
    requestDeserialize: (b) => m.request.decode(b),
    responseSerialize: bytes(m.response),
    responseDeserialize: (b) => m.response.decode(b),
  }
}

type AnyService = Readonly<Record<string, Method<never, never>>>

/** Adapts one generated service descriptor (from #proto) for grpc-js. */
export function serviceDefinition(service: object): grpc.ServiceDefinition {
  return Object.fromEntries(
    Object.entries(service as AnyService).map(([name, m]) => [name, definition(m)]),
  ) as unknown as grpc.ServiceDefinition
}

/** Unary handler from an async function: its rejection becomes the call's status. */
export function unary<Q, S>(
  fn: (request: Q, call: grpc.ServerUnaryCall<Q, S>) => Promise<S>,
): grpc.handleUnaryCall<Q, S> {
  return (call, callback) => {
    fn(call.request, call).then(
      (v) => callback(null, v),
      (e) => callback(toServiceError(e)),
    )
  }
}

export interface GrpcServer {
  readonly grpc: grpc.Server
  /** Port bound, of use after listening on 0. */
  readonly port: number
  /** A renewed certificate, for new connections; open ones keep the old identity. */
  setIdentity(identity: TlsIdentity): void
  /** Ends calls that have not ended after `graceMs`, then closes. */
  close(graceMs?: number): Promise<void>
}

/**
 * TLS 1.3 listener in front of grpc-js. Callers without a certificate are let through as anonymous (joining nodes);
 * each handler must look at peerOf. A certificate from a foreign root is refused before any call.
 */
export async function listenGrpc(options: {
  readonly host: string
  readonly port: number
  readonly identity: TlsIdentity
  readonly register: (server: grpc.Server) => void
  readonly maxMessageBytes?: number
}): Promise<GrpcServer> {
  const max = options.maxMessageBytes ?? 8 * 1024 * 1024
  const server = new grpc.Server({
    'grpc.max_receive_message_length': max,
    'grpc.max_send_message_length': max,
    'grpc.keepalive_permit_without_calls': 1,
  })
  options.register(server)
  const injector = server.createConnectionInjector(grpc.ServerCredentials.createInsecure())
  const context = (i: TlsIdentity) => ({
    key: i.key,
    cert: i.cert,
    ca: i.ca,
    minVersion: 'TLSv1.3' as const,
    ALPNProtocols: ['h2'],
    requestCert: true,
    rejectUnauthorized: false,
  })
  const tls: TlsServer = createServer(context(options.identity), (socket) => {
    // A certificate that does not verify is worse than none: its subject must never be looked at.
    if (!socket.authorized && socket.getPeerX509Certificate() !== undefined) {
      socket.destroy()
      return
    }
    socket.setNoDelay(true)
    injector.injectConnection(socket)
  })
  tls.on('tlsClientError', () => {})
  const sockets = new Set<Socket>()
  tls.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve, reject) => {
    tls.once('error', reject)
    tls.listen(options.port, options.host, () => {
      tls.removeListener('error', reject)
      resolve()
    })
  })
  const address = tls.address()
  return {
    grpc: server,
    port: typeof address === 'object' && address ? address.port : options.port,
    setIdentity: (i) => tls.setSecureContext(context(i)),
    close: async (graceMs = 500) => {
      const closed = new Promise<void>((resolve) => tls.close(() => resolve()))
      injector.drain(graceMs)
      injector.destroy()
      server.forceShutdown()
      // Connections whose client went away in the handshake belong to no call, and would keep the listener open for ever.
      const rest = setTimeout(() => {
        for (const s of sockets) s.destroy()
      }, graceMs)
      await closed
      clearTimeout(rest)
    },
  }
}

export interface ClientOptions {
  /** host:port */
  readonly address: string
  /** Null: anonymous, and the server is not verified (the caller checks the root's digest itself). */
  readonly identity: TlsIdentity | null
  /** Roots to trust when identity is null; absent: any. */
  readonly ca?: string
  readonly maxMessageBytes?: number
}

/** A connection to one manager. Its certificate must be a manager's of our root; host names are not compared. */
export function dialGrpc(options: ClientOptions): grpc.Client {
  const max = options.maxMessageBytes ?? 8 * 1024 * 1024
  const id = options.identity
  const context = createSecureContext({
    ...(id ? { key: id.key, cert: id.cert, ca: id.ca } : options.ca ? { ca: options.ca } : {}),
    minVersion: 'TLSv1.3',
  })
  const trusted = id !== null || options.ca !== undefined
  const credentials = grpc.credentials.createFromSecureContext(context, {
    checkServerIdentity: (_host, cert) =>
      trusted && (cert.subject as { OU?: string }).OU !== 'swarm-manager'
        ? new Error(`${options.address} does not present a manager's certificate`)
        : undefined,
    rejectUnauthorized: trusted,
  })
  return new grpc.Client(options.address, credentials, {
    'grpc.max_receive_message_length': max,
    'grpc.max_send_message_length': max,
    // A host that was switched off sends no reset: found within 4 s, half of what makes a node Down.
    'grpc.keepalive_time_ms': 1500,
    'grpc.keepalive_timeout_ms': 2500,
    'grpc.keepalive_permit_without_calls': 1,
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.min_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 2000,
    'grpc.use_local_subchannel_pool': 1,
    // Managers are dialled by address, which TLS does not allow as a server name; every manager's certificate has this one.
    'grpc.ssl_target_name_override': 'swarm-manager',
  })
}

/** True once there is a connection; false when none came about in time. */
export const connected = (client: grpc.Client, ms: number): Promise<boolean> =>
  new Promise((resolve) => client.waitForReady(Date.now() + ms, (e) => resolve(!e)))

/** One unary call; rejects with a ShoalError. */
export function callUnary<Q, S>(
  client: grpc.Client,
  m: Method<Q, S>,
  request: Q,
  options: { readonly deadlineMs: number; readonly metadata?: grpc.Metadata; readonly signal?: AbortSignal },
): Promise<S> {
  const d = definition(m)
  return new Promise((resolve, reject) => {
    const call = client.makeUnaryRequest(
      d.path,
      d.requestSerialize,
      d.responseDeserialize,
      request,
      options.metadata ?? new grpc.Metadata(),
      { deadline: Date.now() + options.deadlineMs },
      (error, value) => (error ? reject(fromServiceError(error)) : resolve(value as S)),
    )
    options.signal?.addEventListener('abort', () => call.cancel(), { once: true })
  })
}

export const openBidi = <Q, S>(
  client: grpc.Client,
  m: Method<Q, S>,
  metadata = new grpc.Metadata(),
): grpc.ClientDuplexStream<Q, S> => {
  const d = definition(m)
  return client.makeBidiStreamRequest(d.path, d.requestSerialize, d.responseDeserialize, metadata)
}

export const openServerStream = <Q, S>(
  client: grpc.Client,
  m: Method<Q, S>,
  request: Q,
  metadata = new grpc.Metadata(),
): grpc.ClientReadableStream<S> => {
  const d = definition(m)
  return client.makeServerStreamRequest(d.path, d.requestSerialize, d.responseDeserialize, request, metadata)
}

export const openClientStream = <Q, S>(
  client: grpc.Client,
  m: Method<Q, S>,
  done: (error: ShoalError | null, value?: S) => void,
): grpc.ClientWritableStream<Q> => {
  const d = definition(m)
  return client.makeClientStreamRequest(
    d.path,
    d.requestSerialize,
    d.responseDeserialize,
    new grpc.Metadata(),
    {},
    (error, value) => (error ? done(fromServiceError(error)) : done(null, value as S)),
  )
}
