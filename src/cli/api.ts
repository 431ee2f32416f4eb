import { Agent, type AgentOptions } from 'node:http'
import type { Duplex, Readable } from 'node:stream'
import { PassThrough } from 'node:stream'
import Modem from 'docker-modem'
import { resolveTarget, type Target } from './host.js'

export type QueryValue = string | number | boolean | readonly string[] | Readonly<Record<string, unknown>> | undefined
export interface CallOptions {
  readonly query?: Readonly<Record<string, QueryValue>>
  readonly body?: object
  readonly headers?: Readonly<Record<string, string>>
  readonly stream?: Readable
}

/** What an engine refused: its message and status. Its text is what the user sees. */
export class ApiError extends Error {
  override readonly name = 'ApiError'
  constructor(
    message: string,
    /** HTTP status; 0 when there was no answer. */
    readonly status: number,
  ) {
    super(message)
  }
}

const VERSION = '/v1.50'

/** Statuses that are answers; 304 says that the thing was so already. */
const ACCEPTED: Readonly<Record<number, true>> = { 101: true, 200: true, 201: true, 202: true, 204: true, 304: true }

interface ModemError extends Error {
  statusCode?: number
  json?: { message?: string } | null
  code?: string
}

/** The Engine API of one host, through docker-modem (the transport of dockerode). */
export class Api {
  readonly #modem: Modem
  readonly host: string

  constructor(target: Target) {
    this.host = target.host
    this.#modem = modemFor(target)
  }

  static fromFlags(flags: Parameters<typeof resolveTarget>[0]): Api {
    return new Api(resolveTarget(flags))
  }

  get<T>(path: string, query?: CallOptions['query']): Promise<T> {
    return this.#dial('GET', path, { query }) as Promise<T>
  }

  post<T>(path: string, options: CallOptions = {}): Promise<T> {
    return this.#dial('POST', path, options) as Promise<T>
  }

  delete<T>(path: string, query?: CallOptions['query']): Promise<T> {
    return this.#dial('DELETE', path, { query }) as Promise<T>
  }

  put(path: string, options: CallOptions): Promise<unknown> {
    return this.#dial('PUT', path, options)
  }

  /** The answer's headers alone. */
  async head(path: string, query?: CallOptions['query']): Promise<Readonly<Record<string, string>>> {
    const answer = await this.stream('HEAD', path, { query })
    answer.resume()
    return (answer as unknown as { headers: Record<string, string> }).headers
  }

  /** The answer's body as it comes. */
  stream(method: 'GET' | 'POST' | 'HEAD', path: string, options: CallOptions = {}): Promise<Readable> {
    return this.#dial(method, path, options, { isStream: true }) as Promise<Readable>
  }

  /** Takes the connection over: both directions raw from the answer on. */
  hijack(path: string, options: CallOptions & { readonly stdin: boolean }): Promise<Duplex> {
    return this.#dial('POST', path, options, {
      isStream: true,
      hijack: true,
      // Without a body the modem would hold the request back until something is typed.
      allowEmpty: true,
      openStdin: options.stdin,
    }) as Promise<Duplex>
  }

  #dial(method: string, path: string, o: CallOptions, more: object = {}): Promise<unknown> {
    const query = Object.entries(o.query ?? {}).filter(([, v]) => v !== undefined && v !== '' && v !== false)
    const search = query.flatMap(([k, v]): [string, string][] =>
      Array.isArray(v)
        ? v.map((x) => [k, String(x)])
        : [[k, typeof v === 'object' ? JSON.stringify(v) : v === true ? '1' : String(v)]],
    )
    const qs = new URLSearchParams(search).toString()
    return new Promise((resolve, reject) => {
      this.#modem.dial(
        {
          path: `${VERSION}${path}${qs ? `?${qs}` : ''}`,
          method,
          // The modem would make a query of the body and a body of the query, unless each is named.
          options: { _query: {}, _body: o.body ?? {} },
          ...(o.stream ? { file: o.stream.pipe(new PassThrough()) } : {}),
          headers: { ...o.headers },
          statusCodes: ACCEPTED,
          ...more,
        } as never,
        (error: ModemError | null, answer: unknown) => {
          if (error) reject(this.#explain(error, `${method} ${path}`))
          // An empty body comes as an empty buffer.
          else resolve(Buffer.isBuffer(answer) && answer.length === 0 ? null : answer)
        },
      )
    })
  }

  #explain(error: ModemError, what: string): Error {
    if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT')
      return new ApiError(`Cannot connect to the Shoal daemon at ${this.host}. Is shoald running?`, 0)
    if (error.code === 'EACCES')
      return new ApiError(`permission denied while trying to connect to the Shoal daemon socket at ${this.host}`, 0)
    if (error.statusCode === undefined)
      return new ApiError(`error during connect: ${what} at ${this.host}: ${error.message}`, 0)
    // Streams carry their message only within the modem's frame.
    const framed = /^\(HTTP code \d+\) unexpected - (.*) $/s.exec(error.message)?.[1]
    const message = (error.json?.message ?? framed ?? error.message).trim()
    return new ApiError(
      message === '[object Object]' || message === ''
        ? `request returned ${error.statusCode} for ${what}`
        : `Error response from daemon: ${message}`,
      error.statusCode,
    )
  }
}

/** The target is decided here alone: the modem's own reading of DOCKER_HOST is kept out. */
function modemFor(target: Target): Modem {
  const options = modemOptions(target)
  const outer = process.env.DOCKER_HOST
  delete process.env.DOCKER_HOST
  try {
    return new Modem(options)
  } finally {
    if (outer !== undefined) process.env.DOCKER_HOST = outer
  }
}

function modemOptions(t: Target): Modem.ConstructorOptions {
  const unix = /^unix:\/\/(.*)$/.exec(t.host)
  // A socket has no name for TLS; that it is none is found with a regular expression, whose compilation takes 2 ms.
  if (unix) return { socketPath: unix[1], agent: new Agent({ keepAlive: true, servername: '' } as AgentOptions) }
  if (t.host.startsWith('ssh://'))
    throw new ApiError(
      `docker host "${t.host}": ssh:// is not built in: forward the socket (ssh -L /tmp/shoal.sock:/var/run/shoal/shoal.sock HOST) and use unix:///tmp/shoal.sock`,
      0,
    )
  const tcp = /^(?:tcp|http|https):\/\/\[?([^\]/]*?)\]?(?::(\d+))?\/?$/.exec(t.host)
  if (!tcp?.[1]) throw new ApiError(`unable to parse docker host "${t.host}": use unix://PATH or tcp://ADDRESS:PORT`, 0)
  const secure = t.tls !== null || t.host.startsWith('https://')
  return {
    host: tcp[1],
    port: Number(tcp[2] ?? (secure ? 2376 : 2375)),
    protocol: secure ? 'https' : 'http',
    ...(t.tls ? { ca: t.tls.ca, cert: t.tls.cert, key: t.tls.key } : {}),
  }
}
