import { createHash } from 'node:crypto'
import { Duplex } from 'node:stream'
import { invalid } from '../common/index.js'

/** RFC 6455 §1.3. */
const ACCEPT_SUFFIX = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
const TEXT = 1
const BINARY = 2
const CLOSE = 8
const PING = 9
const PONG = 10
/** Of one frame from a client; terminals type less, and a larger one is refused with status 1009. */
const MAX_FRAME_BYTES = 1024 * 1024

/** Value of Sec-WebSocket-Accept. Throws invalid `badWebSocket` for a key that is none. */
export function acceptKey(key: unknown): string {
  if (typeof key !== 'string' || Buffer.from(key, 'base64').length !== 16)
    throw invalid('badWebSocket', 'Sec-WebSocket-Key must be 16 bytes in base64')
  return createHash('sha1')
    .update(key + ACCEPT_SUFFIX)
    .digest('base64')
}

export function encodeFrame(opcode: number, data: Uint8Array): Buffer {
  const head =
    data.length < 126
      ? Buffer.from([0x80 | opcode, data.length])
      : data.length < 65536
        ? Buffer.from([0x80 | opcode, 126, data.length >> 8, data.length & 0xff])
        : Buffer.concat([Buffer.from([0x80 | opcode, 127, 0, 0, 0, 0]), uint32(data.length)])
  return Buffer.concat([head, data])
}

const uint32 = (n: number): Buffer => {
  const b = Buffer.alloc(4)
  b.writeUInt32BE(n)
  return b
}

/**
 * The server's end of a websocket as a plain stream of bytes: reading gives the payloads of the client's frames, each write
 * becomes one frame. The connection ends with a close frame from either side.
 */
export class WebSocketStream extends Duplex {
  #pending: Buffer = Buffer.alloc(0)
  #hasClosed = false

  constructor(
    private readonly socket: Duplex,
    /** Binary frames from API 1.28 on, text before. */
    private readonly isBinary: boolean,
  ) {
    super({ allowHalfOpen: true })
    socket.on('data', (chunk: Buffer) => this.#receive(chunk))
    socket.on('drain', () => this.#resume())
    // Whoever reads sees the end; that the connection broke tells it no more than that.
    socket.on('error', () => socket.destroy())
    socket.on('close', () => {
      this.push(null)
      this.destroy()
    })
  }

  #continue: (() => void) | null = null
  #resume(): void {
    const go = this.#continue
    this.#continue = null
    go?.()
  }

  override _read(): void {
    this.socket.resume()
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    if (this.#hasClosed || this.socket.write(encodeFrame(this.isBinary ? BINARY : TEXT, chunk))) done()
    else this.#continue = done
  }

  override _final(done: () => void): void {
    this.#close(1000)
    done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#resume()
    this.#close(1000)
    done(error)
  }

  #close(status: number): void {
    if (this.#hasClosed) return
    this.#hasClosed = true
    if (this.socket.destroyed) return
    this.socket.end(encodeFrame(CLOSE, Buffer.from([status >> 8, status & 0xff])))
  }

  #receive(chunk: Buffer): void {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk])
    for (;;) {
      const frame = this.#next()
      if (!frame) return
      if (frame.opcode === CLOSE) {
        this.push(null)
        this.#close(1000)
      } else if (frame.opcode === PING) {
        if (!this.#hasClosed) this.socket.write(encodeFrame(PONG, frame.data))
      } else if (frame.opcode !== PONG && frame.data.length > 0 && !this.readableEnded && !this.push(frame.data))
        this.socket.pause()
    }
  }

  /** The first whole frame of what came. Continuations are data like any other: messages have no meaning here. */
  #next(): { readonly opcode: number; readonly data: Buffer } | null {
    const b = this.#pending
    if (b.length < 2) return null
    const short = b[1]! & 0x7f
    const extra = short === 126 ? 2 : short === 127 ? 8 : 0
    if (b.length < 2 + extra + 4) return null
    const length = extra === 0 ? short : extra === 2 ? b.readUInt16BE(2) : Number(b.readBigUInt64BE(2))
    // A client that does not mask, or sends what no terminal would, breaks the protocol (§5.1, §7.4.1).
    if ((b[1]! & 0x80) === 0 || length > MAX_FRAME_BYTES) {
      this.#pending = Buffer.alloc(0)
      this.#close(length > MAX_FRAME_BYTES ? 1009 : 1002)
      return null
    }
    const at = 2 + extra + 4
    if (b.length < at + length) return null
    const data = Buffer.from(b.subarray(at, at + length))
    for (let i = 0; i < length; i++) data[i]! ^= b[2 + extra + (i & 3)]!
    this.#pending = b.subarray(at + length)
    return { opcode: b[0]! & 0x0f, data }
  }
}
