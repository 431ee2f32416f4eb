import { type IncomingMessage, request } from 'node:http'
import { clock } from './support.js'

/** After this time a call hangs. */
export const HANG_MS = 60_000

/** A call on a connection of its own; status 0, with the reason, where no answer came. A stream tells its status by `onBegin`. */
export function send(
  socketPath: string,
  method: string,
  path: string,
  body?: object | Buffer,
  stream: { readonly onBegin?: (status: number) => void; readonly isUpgrade?: boolean } = {},
): Promise<{ status: number; text: string }> {
  return new Promise((resolve) => {
    const data = body === undefined ? undefined : Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body))
    let status = 0
    let text = ''
    const done = (): void => {
      hang?.cancel()
      r.destroy()
      resolve({ status, text })
    }
    const hang = stream.onBegin
      ? null
      : clock.after(HANG_MS, () => {
          status = 0
          text = `no end in ${HANG_MS} ms`
          done()
        })
    const r = request({
      socketPath,
      method,
      path,
      agent: false,
      headers: {
        ...(data
          ? {
              'Content-Type': Buffer.isBuffer(body) ? 'application/x-tar' : 'application/json',
              'Content-Length': data.length,
            }
          : {}),
        ...(stream.isUpgrade ? { Connection: 'Upgrade', Upgrade: 'tcp' } : {}),
      },
    })
    const begin = (res: IncomingMessage): void => {
      status = res.statusCode ?? 0
      stream.onBegin?.(status)
    }
    r.on('error', (e) => {
      text ||= e.message
      done()
    })
    r.on('upgrade', (res, socket) => {
      begin(res)
      socket.on('data', () => {})
      socket.on('error', done)
      socket.on('close', done)
      socket.on('end', done)
    })
    r.on('response', (res) => {
      begin(res)
      res.on('data', (b) => {
        if (text.length < 1 << 20) text += b
      })
      res.on('error', done)
      res.on('end', done)
    })
    r.end(data)
  })
}
