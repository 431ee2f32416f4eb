import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import type { Api } from './api.js'

export interface Session {
  readonly socket: Duplex
  readonly tty: boolean
  readonly stdin: boolean
}

/**
 * Joins a hijacked connection with this terminal until the far side ends. With a tty the terminal is raw and its size
 * follows; what was typed before the connection stood is not lost.
 */
export async function converse(
  api: Api,
  s: Session,
  resize: (width: number, height: number) => Promise<unknown>,
): Promise<void> {
  const raw = s.tty && s.stdin && process.stdin.isTTY === true
  if (raw) process.stdin.setRawMode(true)
  const resized = (): void => {
    const { columns, rows } = process.stdout
    if (columns && rows) resize(columns, rows).catch(() => {}) // The process may be gone already; its end tells.
  }
  if (s.tty && process.stdout.isTTY) {
    resized()
    process.stdout.on('resize', resized)
  }
  try {
    if (s.tty) s.socket.pipe(process.stdout, { end: false })
    else api.demux(s.socket, process.stdout, process.stderr)
    if (s.stdin) {
      process.stdin.pipe(s.socket)
      process.stdin.on('error', () => s.socket.end())
    }
    if (!s.socket.readableEnded) await Promise.race([once(s.socket, 'end'), once(s.socket, 'close')])
  } finally {
    process.stdout.off('resize', resized)
    if (raw) process.stdin.setRawMode(false)
    process.stdin.unpipe(s.socket)
    process.stdin.pause()
    process.stdin.unref?.()
  }
}

/** Signals that this program gets are passed to the container (--sig-proxy). */
export function proxySignals(kill: (signal: string) => Promise<unknown>): () => void {
  const passed = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const
  const handlers = passed.map((signal) => {
    const handler = (): void => {
      kill(signal).catch(() => {}) // It ended before the signal came.
    }
    process.on(signal, handler)
    return () => process.off(signal, handler)
  })
  return () => {
    for (const off of handlers) off()
  }
}
