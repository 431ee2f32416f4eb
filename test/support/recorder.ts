import { createServer, type IncomingHttpHeaders, type IncomingMessage, request } from 'node:http'
import { connect } from 'node:net'
import type { Duplex } from 'node:stream'

/** One call as it went over the wire. Of a stream that was taken over only the heads are kept. */
export interface Exchange {
  readonly method: string
  /** With its version prefix and query. */
  readonly url: string
  readonly requestBody: string
  readonly status: number
  readonly headers: IncomingHttpHeaders
  /** The first `KEPT_BYTES` of it. */
  readonly body: string
  /** The connection was taken over for raw bytes: 101, or 200 without a length. */
  readonly isUpgraded: boolean
  /** False: the client or the engine left in the middle of the answer. */
  readonly isWhole: boolean
}

const KEPT_BYTES = 4 * 1024 * 1024

/** Collects the beginning of a stream that is piped elsewhere. */
function keep(stream: { on(event: 'data', listener: (b: Buffer) => void): unknown }): () => string {
  const parts: Buffer[] = []
  let size = 0
  stream.on('data', (b) => {
    if (size >= KEPT_BYTES) return
    parts.push(b)
    size += b.length
  })
  return () => Buffer.concat(parts).toString('utf8')
}

/** A proxy between a client and an engine's unix socket that hands on every byte and tells `record` of each finished exchange. */
export class Recorder {
  readonly #server = createServer({ requestTimeout: 0 })

  private constructor(
    readonly path: string,
    private readonly engine: string,
    private readonly record: (exchange: Exchange) => void,
  ) {
    this.#server.on('request', (req, res) => {
      const requestBody = keep(req)
      const onward = request(
        { socketPath: engine, method: req.method, path: req.url, headers: req.headers },
        (answer) => {
          const body = keep(answer)
          res.writeHead(answer.statusCode ?? 502, answer.statusMessage, answer.rawHeaders)
          res.flushHeaders()
          answer.pipe(res)
          // A stream that its reader left is an exchange like any other: what came is kept.
          answer.once('close', () =>
            this.#done(req, requestBody(), answer.statusCode ?? 0, answer.headers, body(), {
              isUpgraded: false,
              isWhole: answer.complete,
            }),
          )
          res.once('close', () => answer.destroy())
        },
      )
      onward.once('error', () => res.destroy())
      res.once('close', () => onward.destroy())
      req.pipe(onward)
    })
    this.#server.on('upgrade', (req: IncomingMessage, socket: Duplex, head: Buffer) => this.#upgrade(req, socket, head))
  }

  static async start(path: string, engine: string, record: (exchange: Exchange) => void): Promise<Recorder> {
    const recorder = new Recorder(path, engine, record)
    await new Promise<void>((resolve, reject) => {
      recorder.#server.once('error', reject)
      recorder.#server.listen(path, resolve)
    })
    return recorder
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
  }

  #done(
    req: IncomingMessage,
    requestBody: string,
    status: number,
    headers: IncomingHttpHeaders,
    body: string,
    kind: Pick<Exchange, 'isUpgraded' | 'isWhole'>,
  ): void {
    this.record({ method: req.method ?? '', url: req.url ?? '', requestBody, status, headers, body, ...kind })
  }

  /** Bytes as they are in both directions; the heads are read on the side. */
  #upgrade(req: IncomingMessage, client: Duplex, head: Buffer): void {
    const engine = connect({ path: this.engine, allowHalfOpen: true })
    const lines = [`${req.method} ${req.url} HTTP/1.1`]
    for (let i = 0; i < req.rawHeaders.length; i += 2) lines.push(`${req.rawHeaders[i]}: ${req.rawHeaders[i + 1]}`)
    engine.write(`${lines.join('\r\n')}\r\n\r\n`)
    engine.write(head)
    const sent = keep(client)
    const received = keep(engine)
    client.pipe(engine)
    engine.pipe(client)
    const end = (): void => {
      client.destroy()
      engine.destroy()
    }
    client.once('error', end)
    engine.once('error', end)
    engine.once('close', () => {
      client.end()
      const text = received()
      const at = text.indexOf('\r\n\r\n')
      const [first = '', ...rest] = text.slice(0, at < 0 ? 0 : at).split('\r\n')
      const headers = Object.fromEntries(
        rest.map((l) => [l.slice(0, l.indexOf(':')).toLowerCase(), l.slice(l.indexOf(':') + 1).trim()]),
      )
      const status = Number(first.split(' ')[1] ?? 0)
      const isUpgraded = status === 101 || (status === 200 && headers['content-length'] === undefined)
      const length = Number(req.headers['content-length'] ?? 0)
      const body = (head.toString('utf8') + sent()).slice(0, length)
      this.#done(req, body, status, headers, isUpgraded ? '' : text.slice(at + 4), { isUpgraded, isWhole: true })
    })
  }
}
