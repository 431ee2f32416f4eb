import { type FSWatcher, watch } from 'node:fs'
import { basename, dirname } from 'node:path'
import type { Clock, Timer } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import type { LogEntry, LogQuery } from '../contract.js'
import { parseEntry, parseTime } from './entry.js'
import { findTail, type LogFile, openNewer } from './files.js'

/** Whether the process still writes; `onEnd` calls back once it will write no more. */
export interface LogWriter {
  readonly isWriting: () => boolean
  onEnd(listener: () => void): () => void
}

/** Where a log is, and of how many files it consists at most. */
export interface LogPlace {
  readonly path: string
  readonly maxFiles: number
}

/**
 * A container's log, oldest first, then (follow) what comes, through any number of rotations. New lines are learnt of by
 * inotify. Ends with the process, at `untilMs`, or on abort.
 *
 * Files are held open from when they are seen to when they are read out, so that neither a new name nor a removal takes
 * them away from the reader. What comes after the last one is looked for before that one is read: once there is a newer
 * file, nothing is written to the older any more, and its end is its end.
 */
export async function* readLog(
  { path, maxFiles }: LogPlace,
  query: LogQuery,
  writer: LogWriter,
  modules: { readonly clock: Clock; readonly signal: AbortSignal; readonly logger: Logger },
): AsyncGenerator<LogEntry> {
  const { clock, signal, logger } = modules
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
  let files: LogFile[] = []
  try {
    files = (await openNewer(path, maxFiles, null)).files
    // Whole files that are too old need not be read: compressed ones above all.
    if (query.sinceMs !== null)
      while (files.length > 1 && (await files[0]!.isBefore(query.sinceMs))) await files.shift()!.close()
    if (query.tail !== null) {
      const from = await findTail(files, query.tail, isWanted)
      for (const unwanted of files.splice(0, from.file)) await unwanted.close()
      if (files[0]) files[0].at = from.at
    }
    for (;;) {
      const wasWriting = bell !== null && writer.isWriting()
      const last = files.at(-1) ?? null
      if (bell && !(await last?.isAt(path))) {
        const newer = await openNewer(path, maxFiles, last)
        files.push(...newer.files)
        if (last && !newer.isFound && newer.files.length > 0)
          logger.warn('a reader of a log fell behind its rotation: lines that were removed unread are skipped', {
            path,
          })
      }
      for (;;) {
        const file = files[0]
        if (!file) break
        for await (const line of file.readToEnd()) {
          if (signal.aborted) return
          const entry = parse(line)
          if (!entry) continue
          if (isPast(entry)) return
          yield entry
        }
        if (file.damage !== null)
          logger.warn('a compressed file of a log is damaged: it is read as far as it goes', {
            path,
            error: file.damage,
          })
        if (files.length === 1) break
        files.shift()
        await file.close()
      }
      if (signal.aborted || !bell) return
      // Read out to the last one that was seen: are there newer ones by now?
      if (files[0] !== undefined && files[0] !== last) continue
      if (!wasWriting) return
      if (query.untilMs !== null && clock.now() > query.untilMs) return
      await bell.wait()
    }
  } finally {
    bell?.close()
    for (const file of files) await file.close()
  }
}

/** A line that a crash did not cut short: `{…}`. */
const isWhole = (line: Buffer): boolean => line[0] === 0x7b && line[line.length - 1] === 0x7d

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
