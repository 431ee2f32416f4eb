import { connect } from 'node:net'

/** Bytes onto a host's socket, and all that comes back until the other side closes, or for `timeoutMs`. */
export function raw(
  socket: string,
  bytes: string | Buffer,
  options: { half?: boolean; timeoutMs?: number } = {},
): Promise<string> {
  return new Promise((resolve) => {
    const s = connect(socket)
    let out = ''
    const end = (): void => {
      clearTimeout(timer)
      s.destroy()
      resolve(out)
    }
    const timer = setTimeout(end, options.timeoutMs ?? 5000)
    s.on('data', (b) => {
      out += b.toString('latin1')
    })
    s.on('close', end)
    s.on('error', end)
    s.write(bytes)
    if (options.half) s.end()
  })
}

export interface Answer {
  readonly status: number
  readonly message: string | null
  readonly text: string
}

/** One request with a body of exactly these bytes; the connection is closed after the answer. */
export async function ask(
  socket: string,
  method: string,
  path: string,
  body = '',
  headers = 'Content-Type: application/json\r\n',
): Promise<Answer> {
  const text = await raw(
    socket,
    `${method} ${path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n${headers}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  )
  return answer(text)
}

export function answer(text: string): Answer {
  const message = /\{"message":("(?:[^"\\]|\\.)*")/.exec(text)
  return {
    status: Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1] ?? 0),
    message: message ? (JSON.parse(message[1]!) as string) : null,
    text,
  }
}
