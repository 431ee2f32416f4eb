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
    readonly status: number,
  ) {
    super(message)
  }
}

const VERSION = '/v1.50'

/** The Engine API of one host, through docker-modem (the transport of dockerode). */
export class Api {
  readonly #modem: Modem
  readonly host: string

  constructor(target: Target) {
    this.host = target.host
    this.#modem = new Modem(modemOptions(target))
  }

  static fromFlags(flags: { host?: string; context?: string; tlsverify?: boolean }): Api {
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

  /** The answer's body as it comes. */
  stream(method: 'GET' | 'POST', path: string, options: CallOptions = {}): Promise<Readable> {
    return this.#dial(method, path, options, { isStream: true }) as Promise<Readable>
  }

  /** Takes the connection over: both directions raw from the answer on. */
  hijack(path: string, options: CallOptions & { readonly stdin: boolean }): Promise<Duplex> {
    return this.#dial('POST', path, options, {
      isStream: true,
      hijack: true,
      openStdin: options.stdin,
    }) as Promise<Duplex>
  }

  /** Joins the frames of a stream without tty back into two. */
  demux(from: Readable, stdout: NodeJS.WritableStream, stderr: NodeJS.WritableStream): void {
    this.#modem.demuxStream(from, stdout, stderr)
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
          options: o.body,
          ...(o.stream ? { file: o.stream.pipe(new PassThrough()) } : {}),
          headers: o.headers,
          statusCodes: true,
          ...more,
        } as never,
        (
          error: (Error & { statusCode?: number; json?: { message?: string }; code?: string }) | null,
          data: unknown,
        ) => {
          if (!error) return resolve(data)
          reject(this.#explain(error))
        },
      )
    })
  }

  #explain(error: Error & { statusCode?: number; json?: { message?: string }; code?: string }): Error {
    if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT')
      return new ApiError(`Cannot connect to the Shoal daemon at ${this.host}. Is shoald running?`, 0)
    if (error.code === 'EACCES')
      return new ApiError(`permission denied while trying to connect to the Shoal daemon socket at ${this.host}`, 0)
    if (error.statusCode === undefined) return error
    return new ApiError(`Error response from daemon: ${error.json?.message ?? error.message}`, error.statusCode)
  }
}

function modemOptions(t: Target): Modem.ConstructorOptions {
  const unix = /^unix:\/\/(.*)$/.exec(t.host)
  if (unix) return { socketPath: unix[1] }
  const tcp = /^(?:tcp|http|https):\/\/\[?([^\]]*?)\]?(?::(\d+))?\/?$/.exec(t.host)
  if (!tcp) throw new ApiError(`unable to parse docker host "${t.host}": use unix://PATH or tcp://ADDRESS:PORT`, 0)
  const secure = t.tls !== null || t.host.startsWith('https://')
  return {
    host: tcp[1],
    port: Number(tcp[2] ?? (secure ? 2376 : 2375)),
    protocol: secure ? 'https' : 'http',
    ...(t.tls ? { ca: t.tls.ca, cert: t.tls.cert, key: t.tls.key } : {}),
  }
}
