import { type FileHandle, open, stat } from 'node:fs/promises'

const BLOCK_BYTES = 64 * 1024
const NEWLINE = 10

/** One file of a log, held open: it is the same file whatever it is called by now, and can be read after it was removed. */
export class LogFile {
  /** Where reading goes on, bytes from the start. */
  at = 0
  #cutter = new LineCutter()

  private constructor(
    readonly handle: FileHandle,
    readonly dev: bigint,
    readonly ino: bigint,
  ) {}

  /** Null when there is no file of that name. */
  static async open(path: string): Promise<LogFile | null> {
    const handle = await open(path, 'r').catch(nullWhenGone)
    if (!handle) return null
    const { dev, ino } = await handle.stat({ bigint: true })
    return new LogFile(handle, dev, ino)
  }

  /** It is held, so that its number cannot have been given to another file. */
  isSame(other: { readonly dev: bigint; readonly ino: bigint }): boolean {
    return this.dev === other.dev && this.ino === other.ino
  }

  /** Reads on from where the last call stopped, to the present end, line by line. */
  async *readToEnd(): AsyncGenerator<Buffer> {
    for (;;) {
      const { bytesRead, buffer } = await this.handle.read(Buffer.allocUnsafe(BLOCK_BYTES), 0, BLOCK_BYTES, this.at)
      if (bytesRead === 0) return
      this.at += bytesRead
      yield* this.#cutter.push(buffer.subarray(0, bytesRead))
    }
  }

  /** Is it the one called `path`? One that somebody cut short since is read from its start again. */
  async isAt(path: string): Promise<boolean> {
    const there = await stat(path, { bigint: true }).catch(nullWhenGone)
    if (!there || !this.isSame(there)) return false
    if (there.size < this.at) {
      this.at = 0
      this.#cutter = new LineCutter()
    }
    return true
  }

  close(): Promise<void> {
    return this.handle.close()
  }
}

/** A log that rotates faster than its files are looked through is looked through so often. */
const LOOKS_MAX = 20

/**
 * The files of a log that are newer than `than` (all of them without one), oldest first; `isFound`: `than` itself is among
 * them still. The writer may rotate at the same time; a look during which a new file took the current one's place is
 * made again, and what an earlier look saw and the last one does not was removed, as the oldest.
 */
export async function openNewer(
  path: string,
  maxFiles: number,
  than: LogFile | null,
): Promise<{ readonly files: LogFile[]; readonly isFound: boolean }> {
  let removed: LogFile[] = []
  for (let look = 1; ; look++) {
    const seen = await lookThrough(path, maxFiles, than).catch(async (caught) => {
      for (const file of removed) await file.close()
      throw caught
    })
    const isNew = (file: LogFile): boolean => !seen.files.some((f) => f.isSame(file))
    for (const file of removed) if (!isNew(file)) await file.close()
    const files = [...removed.filter(isNew), ...seen.files]
    if (seen.isSteady || look === LOOKS_MAX) return { files, isFound: seen.isFound }
    removed = files
  }
}

/**
 * From `path` upwards. A file only ever moves to higher numbers, the oldest first, so that this meets each that stays, some
 * twice, and `than` before any that is older. A number without a file is a rotation seen half-way, not the end. Only a file
 * that was begun meanwhile may come in the wrong place: not `isSteady`.
 */
async function lookThrough(
  path: string,
  maxFiles: number,
  than: LogFile | null,
): Promise<{ readonly files: LogFile[]; readonly isFound: boolean; readonly isSteady: boolean }> {
  const files: LogFile[] = []
  let current: LogFile | null = null
  let isFound = false
  try {
    for (let n = 0; n < maxFiles && !isFound; n++) {
      const file = await LogFile.open(n === 0 ? path : `${path}.${n}`)
      if (n === 0) current = file
      if (!file) continue
      isFound = than?.isSame(file) === true
      if (isFound || files.some((f) => f.isSame(file))) await file.close()
      else files.unshift(file)
    }
    const there = await stat(path, { bigint: true }).catch(nullWhenGone)
    // Gone: half-way, and nothing new is there yet.
    return { files, isFound, isSteady: !there || current?.isSame(there) === true }
  } catch (caught) {
    for (const file of files) await file.close()
    throw caught
  }
}

const nullWhenGone = (caught: unknown): null => {
  if ((caught as NodeJS.ErrnoException).code === 'ENOENT') return null
  throw caught
}

/** Cuts appended bytes into lines; the unfinished rest waits for more. */
class LineCutter {
  #rest: Buffer = Buffer.alloc(0);

  *push(chunk: Buffer): Generator<Buffer> {
    let bytes = this.#rest.length > 0 ? Buffer.concat([this.#rest, chunk]) : chunk
    for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE)) {
      yield bytes.subarray(0, end)
      bytes = bytes.subarray(end + 1)
    }
    this.#rest = Buffer.from(bytes)
  }
}

/**
 * Where the last `count` matching lines of a log begin: file index and offset. Reads backwards, so that the tail of a
 * large log costs no more than its last blocks.
 */
export async function findTail(
  files: readonly LogFile[],
  count: number,
  matches: (line: Buffer) => boolean,
): Promise<{ readonly file: number; readonly at: number }> {
  let left = count
  for (let index = files.length - 1; index >= 0; index--) {
    const { handle } = files[index]!
    let end = (await handle.stat()).size
    if (left <= 0) return { file: index, at: end }
    let tail: Buffer = Buffer.alloc(0)
    while (end > 0) {
      const start = Math.max(0, end - BLOCK_BYTES)
      const block = Buffer.alloc(end - start)
      await handle.read(block, 0, block.length, start)
      let bytes: Buffer = tail.length > 0 ? Buffer.concat([block, tail]) : block
      // Lines that begin in `bytes` and are whole; what is before the first newline may begin earlier.
      let lineEnd = bytes.length
      if (bytes[lineEnd - 1] === NEWLINE) lineEnd--
      for (;;) {
        const newline = bytes.lastIndexOf(NEWLINE, lineEnd - 1)
        if (newline < 0 || lineEnd <= 0) break
        if (matches(bytes.subarray(newline + 1, lineEnd)) && --left === 0)
          return { file: index, at: start + newline + 1 }
        lineEnd = newline
      }
      if (start === 0) {
        if (lineEnd > 0 && matches(bytes.subarray(0, lineEnd)) && --left === 0) return { file: index, at: 0 }
        bytes = Buffer.alloc(0)
      }
      tail = Buffer.from(bytes.subarray(0, lineEnd))
      if (tail.length > 0) tail = Buffer.concat([tail, Buffer.from('\n')])
      end = start
    }
  }
  return { file: 0, at: 0 }
}
