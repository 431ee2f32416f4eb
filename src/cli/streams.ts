import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import type { Duplex, Readable } from 'node:stream'
import { Exit } from './command.js'
import { readConfig } from './config-file.js'

export interface Session {
  readonly socket: Duplex
  readonly tty: boolean
  readonly stdin: boolean
  /** "ctrl-p,ctrl-q"; empty for the configured or the usual ones. */
  readonly detachKeys: string
}

/**
 * Writes the frames of a stream without tty to where they belong: a frame is 8 bytes (kind, three zeros, length in
 * big-endian order) and its bytes. Ends when the stream does.
 */
export async function demux(
  from: Readable,
  stdout: NodeJS.WritableStream,
  stderr: NodeJS.WritableStream,
): Promise<void> {
  let header = Buffer.alloc(0)
  let left = 0
  let to = stdout
  for await (const piece of from) {
    let chunk = piece as Buffer
    while (chunk.length > 0) {
      if (left === 0) {
        const wanted = 8 - header.length
        header = Buffer.concat([header, chunk.subarray(0, wanted)])
        chunk = chunk.subarray(wanted)
        if (header.length < 8) break
        if (header[0]! > 3) throw new Exit(1, `Unrecognized input header: ${header[0]}`)
        to = header[0] === 2 || header[0] === 3 ? stderr : stdout
        left = header.readUInt32BE(4)
        header = Buffer.alloc(0)
        continue
      }
      const part = chunk.subarray(0, left)
      left -= part.length
      chunk = chunk.subarray(part.length)
      if (!to.write(part)) await once(to, 'drain')
    }
  }
}

/** "ctrl-p,ctrl-q" or "a,b" in bytes. */
export function detachBytes(keys: string): number[] {
  return keys.split(',').map((k) => {
    const ctrl = /^ctrl-([a-z@[\\\]^_])$/.exec(k)
    if (ctrl) return ctrl[1]!.toUpperCase().charCodeAt(0) - 64
    if (k.length === 1 && k.charCodeAt(0) < 128) return k.charCodeAt(0)
    throw new Exit(125, `invalid detach keys (${keys}) provided: Unknown character: '${k}'`)
  })
}

/**
 * Passes typed bytes on and watches for the detach keys. Bytes that may be the beginning of them wait; they are passed on
 * when it turns out that they are not.
 */
export function detachWatch(keys: readonly number[]): (typed: Buffer) => { pass: Buffer; detached: boolean } {
  let matched = 0
  return (typed) => {
    const pass: number[] = []
    for (const byte of typed) {
      if (byte === keys[matched]) {
        matched++
        if (matched === keys.length) return { pass: Buffer.from(pass), detached: true }
        continue
      }
      pass.push(...keys.slice(0, matched))
      matched = 0
      if (byte === keys[0] && keys.length > 1) matched = 1
      else pass.push(byte)
    }
    return { pass: Buffer.from(pass), detached: false }
  }
}

/**
 * Joins a hijacked connection with this terminal until the far side ends, or the detach keys are typed. With a tty the
 * terminal is raw and its size follows.
 */
export async function converse(
  s: Session,
  resize: (width: number, height: number) => Promise<unknown>,
): Promise<'ended' | 'detached'> {
  const keys = detachBytes(s.detachKeys || readConfig().detachKeys || 'ctrl-p,ctrl-q')
  const raw = s.tty && s.stdin && process.stdin.isTTY === true
  if (raw) {
    process.stdin.setRawMode(true)
    // Node leaves line ends to be translated here, and the far terminal did that already. Without stty it only looks odd.
    spawnSync('stty', ['-opost'], { stdio: ['inherit', 'ignore', 'ignore'] })
  }
  const resized = (): void => {
    const { columns, rows } = process.stdout
    if (columns && rows) resize(columns, rows).catch(() => {}) // The process may be gone already; its end tells.
  }
  if (s.tty && process.stdout.isTTY) {
    resized()
    process.stdout.on('resize', resized)
  }
  const watch = s.tty ? detachWatch(keys) : null
  let detach = (): void => {}
  const detached = new Promise<'detached'>((resolve) => {
    detach = () => resolve('detached')
  })
  const typed = (chunk: Buffer): void => {
    const { pass, detached: left } = watch ? watch(chunk) : { pass: chunk, detached: false }
    if (pass.length > 0 && !s.socket.write(pass)) {
      process.stdin.pause()
      s.socket.once('drain', () => process.stdin.resume())
    }
    // What was typed before the keys goes out first.
    if (left) s.socket.write('', () => detach())
  }
  const typedAll = (): void => void s.socket.end()
  if (s.stdin) process.stdin.on('data', typed).once('end', typedAll).once('error', typedAll)
  // A reset after the far side's last byte is an end too: the status is asked for separately.
  s.socket.on('error', () => {})
  const output = (async (): Promise<'ended'> => {
    if (s.tty) {
      for await (const chunk of s.socket) if (!process.stdout.write(chunk)) await once(process.stdout, 'drain')
    } else await demux(s.socket, process.stdout, process.stderr)
    return 'ended'
  })().catch((e: NodeJS.ErrnoException): 'ended' => {
    if (e.code === 'ERR_STREAM_PREMATURE_CLOSE' || e.code === 'ECONNRESET' || e.code === 'EPIPE') return 'ended'
    throw e
  })
  try {
    return await Promise.race([output, detached])
  } finally {
    process.stdout.off('resize', resized)
    if (raw) process.stdin.setRawMode(false)
    if (s.stdin) {
      process.stdin.off('data', typed)
      process.stdin.pause()
    }
  }
}

/** Signals that this program gets are passed to the container (--sig-proxy). */
export function proxySignals(kill: (signal: string) => Promise<unknown>): () => void {
  const passed = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGCONT', 'SIGALRM'] as const
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
