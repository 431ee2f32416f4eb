import { type FSWatcher, watch } from 'node:fs'
import { type FileHandle, open, stat } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import type { Clock, Timer } from '../../common/index.js'
import type { LogEntry, LogQuery } from '../contract.js'
import { parseEntry, parseTime } from './entry.js'
import { findTail, LineCutter, logFiles, readToEnd } from './files.js'

/** Whether the process still writes; `onEnd` calls back once it will write no more. */
export interface LogWriter {
  readonly isWriting: () => boolean
  onEnd(listener: () => void): () => void
}

const isGone = (caught: unknown): boolean => (caught as NodeJS.ErrnoException).code === 'ENOENT'

/**
 * A container's log, oldest first, then (follow) what comes, through any number of rotations. New lines are learnt of by
 * inotify. Ends with the process, at `untilMs`, or on abort.
 */
export async function* readLog(
  path: string,
  query: LogQuery,
  writer: LogWriter,
  modules: { readonly clock: Clock; readonly signal: AbortSignal },
): AsyncGenerator<LogEntry> {
  const { clock, signal } = modules
  if (query.tail === 0 && !query.follow) return
  const wants = (entry: LogEntry): boolean =>
    (entry.stream === 'stdout' ? query.stdout : query.stderr) &&
    (query.sinceMs === null || parseTime(entry.time) >= query.sinceMs)
  const isPast = (entry: LogEntry): boolean => query.untilMs !== null && parseTime(entry.time) > query.untilMs
  const parse = (line: Buffer): LogEntry | null => {
    const entry = parseEntry(line)
    return entry && wants(entry) ? entry : null
  }

  // Without a condition every whole line counts, and need not be taken apart to be counted.
  const isWanted =
    query.stdout && query.stderr && query.sinceMs === null && query.untilMs === null
      ? isWhole
      : (line: Buffer): boolean => {
          const entry = parse(line)
          return entry !== null && !isPast(entry)
        }

  // Before the first look, so that nothing written after it is missed.
  const bell = query.follow
    ? new Bell(path, writer, signal, query.untilMs === null ? null : { clock, ms: query.untilMs })
    : null
  let file: FileHandle | null = null
  try {
    const files = await logFiles(path)
    const from = query.tail === null ? { file: 0, at: 0 } : await findTail(files, query.tail, isWanted)
    const position = { at: from.at }
    let cutter = new LineCutter()
    for (const name of files.slice(from.file)) {
      await file?.close()
      file = null
      try {
        file = await open(name, 'r')
      } catch (caught) {
        if (isGone(caught)) continue // rotated away meanwhile
        throw caught
      }
      for await (const line of readToEnd(file, position, cutter)) {
        if (signal.aborted) return
        const entry = parse(line)
        if (!entry) continue
        if (isPast(entry)) return
        yield entry
      }
      if (name !== path) {
        position.at = 0
        cutter = new LineCutter()
      }
    }
    if (!bell) return
    for (;;) {
      if (signal.aborted) return
      const wasWriting = writer.isWriting()
      file ??= await openIfThere(path)
      // The old file is read out before it is left for the new one.
      const isRotated = file !== null && !(await isSame(file, path))
      if (file)
        for await (const line of readToEnd(file, position, cutter)) {
          const entry = parse(line)
          if (!entry) continue
          if (isPast(entry)) return
          yield entry
        }
      if (isRotated) {
        const next = await nextFile(file!, path)
        await file!.close()
        file = await openIfThere(next)
        position.at = 0
        cutter = new LineCutter()
        continue
      }
      if (!wasWriting) return
      if (query.untilMs !== null && clock.now() > query.untilMs) return
      await bell.wait()
    }
  } finally {
    bell?.close()
    await file?.close()
  }
}

/** A line that a crash did not cut short: `{…}`. */
const isWhole = (line: Buffer): boolean => line[0] === 0x7b && line[line.length - 1] === 0x7d

async function openIfThere(path: string): Promise<FileHandle | null> {
  try {
    return await open(path, 'r')
  } catch (caught) {
    if (isGone(caught)) return null
    throw caught
  }
}

/** The file that was begun after this one: usually `path`, an older one after several rotations at once. */
async function nextFile(file: FileHandle, path: string): Promise<string> {
  const mine = await file.stat()
  const files = await logFiles(path)
  for (let index = 0; index < files.length - 1; index++) {
    try {
      if ((await stat(files[index]!)).ino === mine.ino) return files[index + 1]!
    } catch (caught) {
      if (!isGone(caught)) throw caught
    }
  }
  // Ours was rotated out of existence: go on with the oldest there is.
  return files[0] ?? path
}

async function isSame(file: FileHandle, path: string): Promise<boolean> {
  try {
    const [mine, there] = await Promise.all([file.stat(), stat(path)])
    return mine.ino === there.ino && mine.dev === there.dev
  } catch (caught) {
    if (isGone(caught)) return true // between the two renames of a rotation
    throw caught
  }
}

/** Rings when the log's directory changes, the process ends, or the reader is told to stop. */
class Bell {
  readonly #watcher: FSWatcher
  readonly #off: () => void
  readonly #ring = (): void => {
    this.#rang = true
    this.#wake?.()
  }
  readonly #timer: Timer | null
  #rang = false
  #wake: (() => void) | null = null

  constructor(
    path: string,
    writer: LogWriter,
    private readonly signal: AbortSignal,
    until: { readonly clock: Clock; readonly ms: number } | null,
  ) {
    this.#timer = until ? until.clock.after(Math.max(0, until.ms - until.clock.now()) + 1, this.#ring) : null
    const name = basename(path)
    this.#watcher = watch(dirname(path), { persistent: false }, (_, changed) => {
      if (changed === null || changed.startsWith(name)) this.#ring()
    })
    this.#watcher.on('error', this.#ring) // the directory is gone: so is the container
    this.#off = writer.onEnd(this.#ring)
    signal.addEventListener('abort', this.#ring, { once: true })
  }

  async wait(): Promise<void> {
    if (!this.#rang)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    this.#wake = null
    this.#rang = false
  }

  close(): void {
    this.#watcher.close()
    this.#timer?.cancel()
    this.#off()
    this.signal.removeEventListener('abort', this.#ring)
  }
}
