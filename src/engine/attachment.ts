import { Writable } from 'node:stream'
import type { AttachedStreams } from '../runtime/index.js'
import type { Attachment, OutputChunk } from './contract.js'
import { DetachFilter, parseDetachKeys } from './detach-keys.js'

/**
 * A client's attachment over streams that may come later. `before` is delivered first (the log so far). Detaching by keys
 * closes the client's streams only.
 */
export function makeAttachment(options: {
  readonly tty: boolean
  readonly wantsStdin: boolean
  /** The end of the client's input is the end of the process's. */
  readonly closesStdin: boolean
  readonly detachKeys: string
  readonly streams: Promise<AttachedStreams | null>
  readonly before?: AsyncIterable<OutputChunk>
  readonly onDetach: () => void
  readonly onClose: () => void
  /** The output does not end before it, though nothing may come any more. */
  readonly ended?: Promise<unknown>
}): Attachment {
  const { streams } = options
  const keys = parseDetachKeys(options.detachKeys)
  let isClosed = false
  let isDetached = false
  let resolveDetached!: (detached: boolean) => void
  const detached = new Promise<boolean>((resolve) => {
    resolveDetached = resolve
  })
  let stopOutput!: () => void
  const stopped = new Promise<null>((resolve) => {
    stopOutput = () => resolve(null)
  })

  const close = (): void => {
    if (isClosed) return
    isClosed = true
    options.onClose()
    void streams.then(
      (s) => s?.close(),
      () => {},
    )
    resolveDetached(isDetached)
    stopOutput()
  }
  const detach = (): void => {
    isDetached = true
    options.onDetach()
    close()
  }

  async function* output(): AsyncGenerator<OutputChunk> {
    try {
      if (options.before) for await (const chunk of options.before) yield { stream: chunk.stream, data: chunk.data }
      const live = await Promise.race([streams, stopped])
      if (live && !isClosed) yield* live.output
      if (options.ended && !isClosed) await Promise.race([options.ended, stopped])
    } finally {
      close()
    }
  }

  return {
    tty: options.tty,
    stdin: options.wantsStdin
      ? stdinOf(streams, options.tty ? new DetachFilter(keys) : null, detach, options.closesStdin)
      : null,
    output: output(),
    detached,
    close,
  }
}

function stdinOf(
  streams: Promise<AttachedStreams | null>,
  filter: DetachFilter | null,
  detach: () => void,
  closes: boolean,
): Writable {
  return new Writable({
    highWaterMark: 64 * 1024,
    write(data: Buffer, _encoding, done) {
      streams.then((live) => {
        if (!live?.stdin) return done()
        const { pass, detached } = filter ? filter.push(data) : { pass: data, detached: false }
        if (detached) {
          if (pass.length > 0) live.stdin.write(pass)
          detach()
          return done()
        }
        if (pass.length === 0) return done()
        live.stdin.write(pass, () => done())
      }, done)
    },
    final(done) {
      streams.then((live) => {
        if (closes) live?.stdin?.end()
        done()
      }, done)
    },
  })
}
