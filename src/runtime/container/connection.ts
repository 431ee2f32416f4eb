import { open } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { constants } from 'node:os'
import { basename, dirname } from 'node:path'
import { type Clock, Emitter, internal, type ShoalError, unavailable } from '../../common/index.js'
import { encodeJson, FrameError, FrameReader, frameHeader, MAX_PAYLOAD_BYTES } from './frames.js'
import { REQUEST_TIMEOUT_MS } from './options.js'

/** What the shim says went wrong, natively. */
export interface NativeFailure {
  readonly stage?: string
  readonly syscall?: string
  /** The number, or its name. */
  readonly errno?: number | string
  readonly path?: string
  readonly message?: string
}

const ERRNO_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(constants.errno).map(([name, number]) => [number, name]),
)

/** Kind internal: the engine, which knows what was wanted, gives the user's kind. */
export function nativeError(what: string, failure: NativeFailure): ShoalError {
  const { stage = '', syscall = '', path = '', message = '' } = failure
  const errno = typeof failure.errno === 'number' ? (ERRNO_NAMES.get(failure.errno) ?? '') : (failure.errno ?? '')
  const detail = message || [syscall, path, errno].filter(Boolean).join(' ')
  return internal('nativeFailure', `${what}: ${stage ? `${stage}: ` : ''}${detail}`, {
    stage,
    syscall,
    errno,
    path,
    detail: message,
  })
}

export interface ShimEvent {
  readonly event: string
  readonly [field: string]: unknown
}

interface Pending {
  resolve(answer: Record<string, unknown>): void
  reject(error: ShoalError): void
}

const MAX_ADDRESS_BYTES = 107

const connectTo = (address: string): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = connect(address)
    socket.once('error', reject)
    socket.once('connect', () => {
      socket.removeListener('error', reject)
      resolve(socket)
    })
  })

/** One connection to a shim's control socket: requests with deadlines, events, and stream frames. */
export class ShimConnection {
  readonly #pending = new Map<number, Pending>()
  readonly #reader = new FrameReader()
  #nextId = 1
  #isClosed = false
  /** Bytes of a process; the buffer is the listener's own until it returns. */
  onData: ((stream: 'stdout' | 'stderr', data: Buffer) => void) | null = null
  readonly events = new Emitter<ShimEvent>()
  /** Resolves when the connection is over, for whatever reason. */
  readonly closed: Promise<void>

  private constructor(
    private readonly socket: Socket,
    private readonly clock: Clock,
    private readonly containerId: string,
  ) {
    this.closed = new Promise((resolve) => {
      socket.on('close', () => {
        this.#isClosed = true
        this.#failPending()
        resolve()
      })
    })
    socket.on('error', () => {}) // 'close' follows and tells everybody
    socket.on('data', (chunk: Buffer) => this.#receive(chunk))
  }

  /** A path may be longer than an address can hold (unix(7): 107 bytes): then it is reached through its directory's descriptor. */
  static async connect(path: string, clock: Clock, containerId: string): Promise<ShimConnection> {
    try {
      if (Buffer.byteLength(path) <= MAX_ADDRESS_BYTES)
        return new ShimConnection(await connectTo(path), clock, containerId)
      const dir = await open(dirname(path), 'r')
      try {
        return new ShimConnection(await connectTo(`/proc/self/fd/${dir.fd}/${basename(path)}`), clock, containerId)
      } finally {
        await dir.close()
      }
    } catch (cause) {
      throw unavailable(
        'shimUnreachable',
        `container ${containerId}: its shim does not answer on ${path}: ${(cause as Error).message}`,
        { id: containerId },
        { cause },
      )
    }
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  /** @throws ShoalError internal `nativeFailure` with the shim's fields, unavailable when it is gone or late. */
  request(
    op: string,
    args: Readonly<Record<string, unknown>> = {},
    timeoutMs = REQUEST_TIMEOUT_MS,
  ): Promise<Record<string, unknown>> {
    if (this.#isClosed) return Promise.reject(this.#gone(op))
    const id = this.#nextId++
    return new Promise((resolve, reject) => {
      const timer = this.clock.after(timeoutMs, () => {
        this.#pending.delete(id)
        reject(
          unavailable(
            'shimTimeout',
            `container ${this.containerId}: its shim did not answer ${op} in ${timeoutMs} ms`,
            {
              op,
            },
          ),
        )
      })
      this.#pending.set(id, {
        resolve: (answer) => {
          timer.cancel()
          resolve(answer)
        },
        reject: (error) => {
          timer.cancel()
          reject(error)
        },
      })
      this.#ops.set(id, op)
      this.socket.write(encodeJson({ id, op, ...args }))
    })
  }
  readonly #ops = new Map<number, string>()

  /** Sends stdin bytes; calls back when the socket took them (that is the back-pressure). */
  sendInput(data: Uint8Array, done: (error?: Error | null) => void): void {
    if (this.#isClosed) {
      done(this.#gone('stdin'))
      return
    }
    this.socket.cork()
    for (let at = 0; at < data.length; at += MAX_PAYLOAD_BYTES) {
      const piece = data.subarray(at, at + MAX_PAYLOAD_BYTES)
      this.socket.write(frameHeader('i', piece.length))
      const isLast = at + MAX_PAYLOAD_BYTES >= data.length
      this.socket.write(piece, isLast ? done : undefined)
    }
    this.socket.uncork()
  }

  closeInput(done: (error?: Error | null) => void): void {
    if (this.#isClosed) done()
    else this.socket.write(frameHeader('i', 0), () => done())
  }

  pauseReading(): void {
    this.socket.pause()
  }

  resumeReading(): void {
    this.socket.resume()
  }

  close(): void {
    this.socket.destroy()
  }

  #receive(chunk: Buffer): void {
    try {
      for (const frame of this.#reader.push(chunk)) {
        if (frame.type === 'o') this.onData?.('stdout', frame.payload)
        else if (frame.type === 'e') this.onData?.('stderr', frame.payload)
        else if (frame.type === 'J') this.#receiveJson(frame.payload)
        else throw new FrameError('the shim sent an input frame')
      }
    } catch (caught) {
      // A shim that talks nonsense is as good as gone: whoever waits is told by the closing.
      if (!(caught instanceof FrameError) && !(caught instanceof SyntaxError)) throw caught
      this.socket.destroy()
    }
  }

  #receiveJson(payload: Buffer): void {
    const message = JSON.parse(payload.toString('utf8')) as Record<string, unknown>
    if (typeof message.event === 'string') {
      this.events.emit(message as ShimEvent)
      return
    }
    const id = Number(message.id)
    const pending = this.#pending.get(id)
    const op = this.#ops.get(id) ?? '?'
    this.#pending.delete(id)
    this.#ops.delete(id)
    if (!pending) return // its deadline has passed
    if (message.error)
      pending.reject(nativeError(`container ${this.containerId}: ${op}`, message.error as NativeFailure))
    else pending.resolve(message)
  }

  #failPending(): void {
    for (const [id, pending] of this.#pending) pending.reject(this.#gone(this.#ops.get(id) ?? '?'))
    this.#pending.clear()
    this.#ops.clear()
  }

  #gone(op: string): ShoalError {
    return unavailable('shimGone', `container ${this.containerId}: its shim is gone, so ${op} cannot be done`, {
      id: this.containerId,
      op,
    })
  }
}
