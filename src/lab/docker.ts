import { request } from 'node:http'
import type { Readable } from 'node:stream'
import { ShoalError } from '../common/index.js'

/** One call to an engine on a unix socket; JSON both ways, a stream as body where given. Errors carry the engine's message. */
export function call<T = unknown>(
  socket: string,
  method: string,
  path: string,
  options: {
    readonly body?: object
    readonly stream?: Readable
    readonly timeoutMs?: number
    readonly headers?: Record<string, string>
  } = {},
): Promise<T> {
  return new Promise((resolve, reject) => {
    const json = options.body === undefined ? null : JSON.stringify(options.body)
    const r = request(
      {
        socketPath: socket,
        method,
        path,
        timeout: options.timeoutMs ?? 60_000,
        headers: {
          ...options.headers,
          ...(json !== null ? { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(json) } : {}),
          ...(options.stream ? { 'Content-Type': 'application/x-tar' } : {}),
        },
      },
      (res) => {
        const parts: Buffer[] = []
        res.on('data', (b: Buffer) => parts.push(b))
        res.on('error', reject)
        res.on('end', () => {
          const text = Buffer.concat(parts).toString('utf8')
          if ((res.statusCode ?? 500) >= 400)
            return reject(
              new ShoalError(
                res.statusCode === 503 ? 'unavailable' : 'invalid',
                'engineAnswer',
                `${method} ${path}: ${messageOf(text) || res.statusCode}`,
                { status: res.statusCode },
              ),
            )
          const failure = /"error":"((?:[^"\\]|\\.)*)"/.exec(text.includes('"errorDetail"') ? text : '')
          if (failure) return reject(new ShoalError('invalid', 'engineAnswer', `${method} ${path}: ${failure[1]}`))
          try {
            resolve(
              (text === ''
                ? null
                : (res.headers['content-type'] ?? '').includes('json') && !text.includes('}\r\n{')
                  ? JSON.parse(text)
                  : text) as T,
            )
          } catch {
            resolve(text as T)
          }
        })
      },
    )
    r.on('timeout', () =>
      r.destroy(
        new ShoalError('unavailable', 'timeout', `${method} ${path}: no answer in ${options.timeoutMs ?? 60_000} ms`),
      ),
    )
    r.on('error', reject)
    if (options.stream) options.stream.pipe(r)
    else r.end(json ?? undefined)
  })
}

function messageOf(text: string): string {
  try {
    return (JSON.parse(text) as { message?: string }).message ?? text
  } catch {
    return text
  }
}
