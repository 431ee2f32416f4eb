import { once } from 'node:events'
import { type Duplex, PassThrough, type Readable, type Writable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { invalid } from '../common/index.js'
import type { Attachment, OutputChunk } from '../engine/index.js'
import type { ApiModules } from './contract.js'
import { acceptKey, WebSocketStream } from './websocket.js'

/** Docker's frame: stream number, three zeros, big-endian length, then the bytes. */
export function frame(chunk: OutputChunk): Buffer {
  const out = Buffer.allocUnsafe(8 + chunk.data.length)
  out[0] = chunk.stream === 'stdout' ? 1 : 2
  out[1] = out[2] = out[3] = 0
  out.writeUInt32BE(chunk.data.length, 4)
  out.set(chunk.data, 8)
  return out
}

export const MULTIPLEXED = 'application/vnd.docker.multiplexed-stream'
export const RAW = 'application/vnd.docker.raw-stream'

/** From API 1.42 on framed streams have a content type of their own. */
export const streamType = (apiVersion: string, tty: boolean): string =>
  !tty && atLeast(apiVersion, '1.42') ? MULTIPLEXED : RAW

export function atLeast(version: string, wanted: string): boolean {
  const [a, b] = version.split('.').map(Number)
  const [c, d] = wanted.split('.').map(Number)
  return a! > c! || (a === c && b! >= d!)
}

/** Aborts when the client hangs up. */
export function clientGone(request: FastifyRequest): AbortSignal {
  const abort = new AbortController()
  const socket = request.raw.socket
  if (socket.destroyed) abort.abort()
  else socket.once('close', () => abort.abort())
  return abort.signal
}

/** Writes with back-pressure; resolves false when the reader is gone. */
export async function writeChunk(to: Writable, data: Uint8Array | string): Promise<boolean> {
  if (to.destroyed || to.writableEnded) return false
  if (to.write(data)) return true
  await Promise.race([once(to, 'drain'), once(to, 'close')]).catch(() => {})
  return !to.destroyed
}

const GATHER_BYTES = 64 * 1024

/** Joins small pieces that come within one turn of the event loop into one write, with back-pressure as `writeChunk`. */
export class Gatherer {
  #pieces: Uint8Array[] = []
  #bytes = 0

  constructor(private readonly to: Writable) {}

  /** Resolves false when the reader is gone. */
  async write(piece: Uint8Array): Promise<boolean> {
    if (this.#pieces.length === 0) setImmediate(() => void this.#flush())
    this.#pieces.push(piece)
    this.#bytes += piece.length
    if (this.#bytes < GATHER_BYTES) return !this.to.destroyed
    return this.#flush()
  }

  end(): void {
    void this.#flush()
    this.to.end()
  }

  #flush(): Promise<boolean> {
    if (this.#pieces.length === 0) return Promise.resolve(!this.to.destroyed)
    const all = Buffer.concat(this.#pieces, this.#bytes)
    this.#pieces = []
    this.#bytes = 0
    return writeChunk(this.to, all)
  }
}

/** A stream answer that Fastify must not touch any more; headers go out at once. */
export function startStream(request: FastifyRequest, reply: FastifyReply, contentType: string): Writable {
  reply.hijack()
  const res = reply.raw
  for (const [k, v] of Object.entries(reply.getHeaders())) if (v !== undefined) res.setHeader(k, v as string)
  res.writeHead(200, { 'Content-Type': contentType })
  res.flushHeaders()
  request.raw.socket.setNoDelay(true)
  return res
}

/** The request's body, for a reader that may give up half-way: the connection lives on, and what is left is read off it later. */
export function bodyOf(request: FastifyRequest): Readable {
  const body = new PassThrough()
  // A client may go before anybody reads; whoever reads then is told.
  body.on('error', () => {})
  request.raw.once('error', (e) => body.destroy(e)).pipe(body)
  return body
}

/**
 * Takes the connection over for raw bytes in both directions, with 101 when the client asked for an upgrade. The socket is
 * paused until `pump` joins it with a container's streams.
 */
export function hijack(request: FastifyRequest, reply: FastifyReply, contentType: string): Duplex {
  reply.hijack()
  const raw = request.raw as typeof request.raw & { isUpgraded?: boolean }
  const socket = raw.socket
  reply.raw.detachSocket(socket)
  socket.setNoDelay(true)
  // Node hands the socket over in an upgrade only. Else its parser would take what comes now for the next request.
  if (!raw.isUpgraded) {
    for (const event of ['data', 'end', 'drain', 'error']) socket.removeAllListeners(event)
    // A listener makes the parser let go of the socket's handle; it is to do so before the pause.
    const none = (): void => {}
    socket.on('data', none).off('data', none)
  }
  // From here on nobody else listens: a client that is gone already must not end the daemon.
  socket.on('error', () => socket.destroy())
  const extra = Object.entries(reply.getHeaders())
    .map(([k, v]) => `${k}: ${String(v)}\r\n`)
    .join('')
  socket.write(
    // Without "Connection: Upgrade" it is none for Node; dockerd looks at "Upgrade" alone.
    raw.headers.upgrade !== undefined
      ? `HTTP/1.1 101 UPGRADED\r\nContent-Type: ${contentType}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n${extra}\r\n`
      : `HTTP/1.1 200 OK\r\nContent-Type: ${contentType}\r\n${extra}\r\n`,
  )
  // Nobody reads yet: what the client types until `pump` waits in the socket.
  socket.pause()
  return socket
}

/** Takes the connection over as a websocket. Throws invalid `badWebSocket` when the client asked for something else. */
export function acceptWebSocket(request: FastifyRequest, reply: FastifyReply): Duplex {
  const { headers } = request.raw
  const raw = request.raw as typeof request.raw & { isUpgraded?: boolean }
  if (!raw.isUpgraded || headers.upgrade?.toLowerCase() !== 'websocket')
    throw invalid('badWebSocket', 'this is a websocket: ask for it with "Connection: Upgrade" and "Upgrade: websocket"')
  if (headers['sec-websocket-version'] !== '13')
    throw invalid(
      'badWebSocket',
      `websocket version "${headers['sec-websocket-version'] ?? ''}" is not spoken here; use 13`,
    )
  const accept = acceptKey(headers['sec-websocket-key'])
  reply.hijack()
  const { socket } = raw
  reply.raw.detachSocket(socket)
  socket.setNoDelay(true)
  const protocol = headers['sec-websocket-protocol']?.split(',')[0]?.trim()
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n${protocol ? `Sec-WebSocket-Protocol: ${protocol}\r\n` : ''}\r\n`,
  )
  return new WebSocketStream(socket, atLeast(request.apiVersion, '1.28'))
}

const HEAD_WAIT_MS = 200

/**
 * Waits until the client has read the head of the answer, for a fifth of a second at most. Docker's Python client reads the
 * head through a buffer and the rest from the bare socket: output that arrives together with the head would be lost to it.
 */
async function headWasRead(m: Pick<ApiModules, 'clock' | 'unreadBytes'>, socket: Duplex): Promise<void> {
  const { fd = -1 } = (socket as { _handle?: { fd?: number } | null })._handle ?? {}
  const deadline = m.clock.monotonic() + HEAD_WAIT_MS
  while (fd >= 0 && !socket.destroyed && m.clock.monotonic() < deadline) {
    if (socket.writableLength === 0 && m.unreadBytes(fd) === 0) return
    await m.clock.sleep(1)
  }
}

/** Joins a hijacked connection and a container's streams until the process ends, the client detaches or hangs up. */
export async function pump(
  m: Pick<ApiModules, 'clock' | 'unreadBytes'>,
  socket: Duplex,
  attachment: Attachment,
  isFramed = !attachment.tty,
): Promise<void> {
  const stdin = attachment.stdin
  if (socket.destroyed) return attachment.close()
  socket.on('error', () => socket.destroy())
  if (stdin) {
    stdin.on('error', () => {})
    socket.on('data', (b: Buffer) => {
      if (!stdin.write(b)) {
        socket.pause()
        stdin.once('drain', () => socket.resume())
      }
    })
    // A client that had nothing to say may have closed its half already: a paused socket ends all the same.
    if (socket.readableEnded) stdin.end()
    else socket.on('end', () => stdin.end())
    socket.resume()
  } else {
    socket.resume()
    socket.on('end', () => {})
  }
  socket.on('close', () => attachment.close())
  let isFirst = true
  try {
    for await (const chunk of attachment.output) {
      if (isFirst) await headWasRead(m, socket)
      isFirst = false
      if (!(await writeChunk(socket, isFramed ? frame(chunk) : chunk.data))) break
    }
  } finally {
    socket.end()
  }
  // The client closes its side when it has read ours; an idle half-open connection must not stay for ever.
  if (!socket.destroyed && stdin === null) socket.destroySoon?.call(socket)
}

declare module 'node:stream' {
  interface Duplex {
    destroySoon?(): void
  }
}
