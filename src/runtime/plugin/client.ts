import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { type Clock, internal, ShoalError } from '../../common/index.js'

/** Where a plugin answers. */
export type PluginAddress =
  | { readonly socket: string }
  | {
      readonly host: string
      readonly port: number
      readonly tls: {
        readonly ca: string | null
        readonly cert: string | null
        readonly key: string | null
        readonly insecure: boolean
      } | null
    }

export interface CallOptions {
  /** From the first attempt to the last byte of the answer. */
  readonly timeoutMs: number
  /** Tries again while nobody answers at the address (a plugin that is being restarted). */
  readonly retry?: boolean
}

/** docs: "plugin API", version 1.2. */
const MEDIA_TYPE = 'application/vnd.docker.plugins.v1.2+json'
const ANSWER_BYTES_MAX = 16 * 1024 * 1024
/** Waits between attempts, ms: dockerd's, which gives up once the next wait would end later than 30 s after the first attempt. */
export const RETRY_WAITS_MS = [1000, 2000, 4000, 8000]
/** Nobody there, or the connection broke before an answer began. */
const NOT_THERE = new Set(['ECONNREFUSED', 'ENOENT', 'ECONNRESET', 'EPIPE'])

const addressText = (a: PluginAddress): string =>
  'socket' in a ? `unix://${a.socket}` : `${a.tls ? 'https' : 'http'}://${a.host}:${a.port}`

/** dockerd reads no further than the first document, so there are plugins that go on after it, on another line. */
function firstDocument(text: string): unknown {
  const lines = text.trimStart().split('\n')
  try {
    return JSON.parse(text)
  } catch (e) {
    if (lines.length < 2) throw e
    return JSON.parse(lines[0]!)
  }
}

/**
 * A plugin that speaks the plugin API, version 1: each call is a POST of a JSON document to /SUBSYSTEM.METHOD. It is
 * activated before its first call, and says there what it implements.
 */
export class PluginClient {
  #implements: Promise<readonly string[]> | null = null

  constructor(
    readonly name: string,
    readonly address: PluginAddress,
    private readonly clock: Clock,
  ) {}

  /** Asks once; a failure is not remembered. */
  implements(options: CallOptions): Promise<readonly string[]> {
    this.#implements ??= this.call('Plugin.Activate', {}, options)
      .then((answer) => {
        const list = answer.Implements
        if (!Array.isArray(list)) throw this.#bad('Plugin.Activate', 'names nothing that it implements')
        return list.map(String)
      })
      .catch((caught: unknown) => {
        this.#implements = null
        throw caught
      })
    return this.#implements
  }

  /** The answer's fields. Throws internal `pluginFailed` with the plugin's own words, unavailable `pluginUnreachable`. */
  async call(method: string, body: object, options: CallOptions): Promise<Record<string, unknown>> {
    const deadline = this.clock.monotonic() + options.timeoutMs
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#once(method, body, deadline)
      } catch (caught) {
        const code = (caught as NodeJS.ErrnoException).code ?? ''
        const wait = RETRY_WAITS_MS[attempt]
        if (options.retry && NOT_THERE.has(code) && wait !== undefined && this.clock.monotonic() + wait < deadline) {
          await this.clock.sleep(wait)
          continue
        }
        if (caught instanceof ShoalError) throw caught
        throw new ShoalError(
          'unavailable',
          'pluginUnreachable',
          `plugin "${this.name}" does not answer at ${addressText(this.address)} (${method}: ${(caught as Error).message}); see whether it runs`,
          { plugin: this.name, method },
          { cause: caught },
        )
      }
    }
  }

  #once(method: string, body: object, deadline: number): Promise<Record<string, unknown>> {
    const data = Buffer.from(JSON.stringify(body))
    const { address } = this
    const options = {
      method: 'POST',
      path: `/${method}`,
      headers: { 'content-type': MEDIA_TYPE, accept: MEDIA_TYPE, host: 'plugin', 'content-length': data.length },
      ...('socket' in address
        ? { socketPath: address.socket }
        : {
            host: address.host,
            port: address.port,
            ...(address.tls
              ? {
                  ca: address.tls.ca ?? undefined,
                  cert: address.tls.cert ?? undefined,
                  key: address.tls.key ?? undefined,
                  rejectUnauthorized: !address.tls.insecure,
                }
              : {}),
          }),
    }
    return new Promise((resolve, reject) => {
      const isTls = 'host' in address && address.tls !== null
      const req = (isTls ? httpsRequest : httpRequest)(options, (res) => {
        const parts: Buffer[] = []
        let size = 0
        res.on('data', (b: Buffer) => {
          size += b.length
          if (size > ANSWER_BYTES_MAX)
            req.destroy(this.#bad(method, `answers with more than ${ANSWER_BYTES_MAX} bytes`))
          else parts.push(b)
        })
        // After the answer has begun nothing is tried again: the plugin may have done it.
        res.once('error', (e) => reject(e instanceof ShoalError ? e : this.#bad(method, `breaks off: ${e.message}`)))
        res.once('end', () => {
          try {
            resolve(this.#answer(method, res.statusCode ?? 0, Buffer.concat(parts).toString('utf8')))
          } catch (caught) {
            reject(caught)
          }
        })
      })
      const timer = this.clock.after(Math.max(0, deadline - this.clock.monotonic()), () =>
        req.destroy(
          new ShoalError('unavailable', 'pluginTimeout', `plugin "${this.name}" has not answered ${method} in time`, {
            plugin: this.name,
            method,
          }),
        ),
      )
      req.once('error', reject)
      req.once('close', () => timer.cancel())
      req.end(data)
    })
  }

  #answer(method: string, status: number, text: string): Record<string, unknown> {
    let answer: unknown
    try {
      answer = firstDocument(text || '{}')
    } catch {
      if (status === 200) throw this.#bad(method, `answers with what is no JSON: ${text.slice(0, 200)}`)
    }
    const fields = answer !== null && typeof answer === 'object' ? (answer as Record<string, unknown>) : {}
    const said = typeof fields.Err === 'string' ? fields.Err : ''
    if (status !== 200) throw this.#failed(method, said || text.trim().slice(0, 500) || `status ${status}`, status)
    if (said) throw this.#failed(method, said, status)
    return fields
  }

  #failed(method: string, said: string, status: number): ShoalError {
    return internal('pluginFailed', `${method}: ${said}`, { plugin: this.name, method, said, status })
  }

  #bad(method: string, what: string): ShoalError {
    return internal('pluginBroken', `plugin "${this.name}" ${what} (${method})`, { plugin: this.name, method })
  }
}
