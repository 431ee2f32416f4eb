import { Writable } from 'node:stream'
import type { AttachedStreams, AttachRequest } from '../contract.js'
import type { ShimConnection } from './connection.js'
import { OUTPUT_HIGH_WATER_BYTES } from './options.js'

type Chunk = { readonly stream: 'stdout' | 'stderr'; readonly data: Uint8Array }

/**
 * Makes a connection into one client's view of a process. A reader that does not keep up stops the connection from being
 * read, so that the shim's own bounded buffer fills: the process and its log are never held up.
 */
export async function attachStreams(
  connection: ShimConnection,
  request: AttachRequest,
  process: {
    readonly exec?: string
    /** Calls back at the process's end; returns what unsubscribes. */
    readonly onEnded: (listener: () => void) => () => void
  },
): Promise<AttachedStreams> {
  const chunks: Chunk[] = []
  let heldBytes = 0
  let isOver = false
  let hasEnded = false
  let wake: (() => void) | null = null
  const over = (): void => {
    isOver = true
    wake?.()
  }
  connection.onData = (stream, data) => {
    chunks.push({ stream, data: Buffer.from(data) })
    heldBytes += data.length
    if (heldBytes > OUTPUT_HIGH_WATER_BYTES && !hasEnded) connection.pauseReading()
    wake?.()
  }
  connection.events.on((event) => {
    if (event.event === 'eof') {
      over()
      connection.close()
    }
  })
  // The shim goes soon after its process: what it still holds (1 MiB at most) is taken over at once.
  const off = process.onEnded(() => {
    hasEnded = true
    connection.resumeReading()
  })
  void connection.closed.then(() => {
    off()
    over()
  })
  try {
    await connection.request('attach', process.exec === undefined ? { ...request } : { ...request, exec: process.exec })
  } catch (caught) {
    connection.close()
    throw caught
  }

  async function* output(): AsyncGenerator<Chunk> {
    try {
      for (;;) {
        const chunk = chunks.shift()
        if (chunk) {
          const wasFull = heldBytes > OUTPUT_HIGH_WATER_BYTES
          heldBytes -= chunk.data.length
          if (wasFull && heldBytes <= OUTPUT_HIGH_WATER_BYTES) connection.resumeReading()
          yield chunk
          continue
        }
        if (isOver) return
        await new Promise<void>((resolve) => {
          wake = resolve
        })
        wake = null
      }
    } finally {
      connection.close()
    }
  }

  return {
    stdin: request.stdin
      ? new Writable({
          highWaterMark: 64 * 1024,
          write: (data: Buffer, _encoding, done) => {
            // What is typed after the end goes nowhere, as with a process that closed its stdin.
            if (isOver || connection.isClosed) done()
            else connection.sendInput(data, () => done())
          },
          final: (done) => connection.closeInput(() => done()),
        })
      : null,
    output: output(),
    close: () => connection.close(),
  }
}
