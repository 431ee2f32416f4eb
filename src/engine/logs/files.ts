import { type FileHandle, open, stat } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { LineCutter, type LineTest, type TailStart, tailBackwards, tailForwards } from './lines.js'

const BLOCK_BYTES = 64 * 1024
/** Files' times are those of the kernel's last tick. */
const CLOCK_TICK_MS = 1000

/** What tells a file from others of its log after it was compressed: an inode's number alone is given out again. */
interface Identity {
  readonly ino: bigint
  readonly size: bigint
  /** Of its last write. */
  readonly mtimeNs: bigint
}

/** One file of a log, held open: it is the same file whatever it is called by now, and can be read after it was removed. */
export abstract class LogFile {
  /** Where reading goes on, bytes of lines from the start. */
  at = 0
  /** What is wrong with it, once that was met; it ends there. */
  damage: string | null = null

  constructor(
    protected readonly handle: FileHandle,
    readonly dev: bigint,
    readonly ino: bigint,
  ) {}

  /** Null when there is no file of that name. */
  static async open(path: string): Promise<LogFile | null> {
    const handle = await open(path, 'r').catch(nullWhenGone)
    if (!handle) return null
    try {
      const { dev, ino } = await handle.stat({ bigint: true })
      if (!path.endsWith('.gz')) return new PlainFile(handle, dev, ino)
      return new CompressedFile(handle, dev, ino, await sourceOf(handle))
    } catch (caught) {
      await handle.close()
      throw caught
    }
  }

  /** Also one compressed and the other not. Both are held, so that neither's number can have been given to another file. */
  async isSame(other: LogFile): Promise<boolean> {
    if (this.dev === other.dev && this.ino === other.ino) return true
    if (this instanceof PlainFile && other instanceof PlainFile) return false
    const [a, b] = await Promise.all([this.identity(), other.identity()])
    return a !== null && b !== null && a.ino === b.ino && a.size === b.size && a.mtimeNs === b.mtimeNs
  }

  /** It was last written so long before that none of its lines, by the same clock, is younger. */
  async isBefore(ms: number): Promise<boolean> {
    const identity = await this.identity()
    return identity !== null && Number(identity.mtimeNs / 1_000_000n) + CLOCK_TICK_MS < ms
  }

  /** Reads on from where the last call stopped, to the present end, line by line. */
  abstract readToEnd(): AsyncGenerator<Buffer>

  abstract tail(count: number, matches: LineTest): Promise<TailStart>

  /** Is it the one called `path`? One that somebody cut short since is read from its start again. */
  abstract isAt(path: string): Promise<boolean>

  /** Null: not known. */
  protected abstract identity(): Promise<Identity | null>

  close(): Promise<void> {
    return this.handle.close()
  }
}

const isAmong = async (file: LogFile, files: readonly LogFile[]): Promise<boolean> =>
  (await Promise.all(files.map((f) => f.isSame(file)))).includes(true)

class PlainFile extends LogFile {
  #cutter = new LineCutter()

  async *readToEnd(): AsyncGenerator<Buffer> {
    for (;;) {
      const { bytesRead, buffer } = await this.handle.read(Buffer.allocUnsafe(BLOCK_BYTES), 0, BLOCK_BYTES, this.at)
      if (bytesRead === 0) return
      this.at += bytesRead
      yield* this.#cutter.push(buffer.subarray(0, bytesRead))
    }
  }

  /** Backwards, so that the tail of a large log costs no more than its last blocks. */
  async tail(count: number, matches: LineTest): Promise<TailStart> {
    const { size } = await this.handle.stat()
    const read = async (from: number, length: number): Promise<Buffer> => {
      const block = Buffer.alloc(length)
      await this.handle.read(block, 0, length, from)
      return block
    }
    return tailBackwards({ size, read, blockBytes: BLOCK_BYTES }, count, matches)
  }

  async isAt(path: string): Promise<boolean> {
    const there = await stat(path, { bigint: true }).catch(nullWhenGone)
    if (!there || there.dev !== this.dev || there.ino !== this.ino) return false
    if (there.size < this.at) {
      this.at = 0
      this.#cutter = new LineCutter()
    }
    return true
  }

  /** Of now: it is asked for when it may have been compressed, and then nothing is written to it any more. */
  protected async identity(): Promise<Identity> {
    const { ino, size, mtimeNs } = await this.handle.stat({ bigint: true })
    return { ino, size, mtimeNs }
  }
}

/** A rotated file as shoal-compress left it. Nothing is written to it any more. */
class CompressedFile extends LogFile {
  #isReadOut = false

  constructor(
    handle: FileHandle,
    dev: bigint,
    ino: bigint,
    private readonly source: Identity | null,
  ) {
    super(handle, dev, ino)
  }

  async *readToEnd(): AsyncGenerator<Buffer> {
    if (this.#isReadOut) return
    const cutter = new LineCutter()
    let before = this.at
    for await (const block of this.#blocks()) {
      const skipped = Math.min(before, block.length)
      before -= skipped
      yield* cutter.push(block.subarray(skipped))
    }
    this.#isReadOut = true
  }

  tail(count: number, matches: LineTest): Promise<TailStart> {
    return tailForwards(this.#blocks(), count, matches)
  }

  isAt(): Promise<boolean> {
    return Promise.resolve(false)
  }

  protected identity(): Promise<Identity | null> {
    return Promise.resolve(this.source)
  }

  async *#blocks(): AsyncGenerator<Buffer> {
    const packed = Readable.from(this.#packed())
    const unpacked = createGunzip()
    packed.on('error', (e) => unpacked.destroy(e))
    try {
      for await (const block of packed.pipe(unpacked)) yield block as Buffer
    } catch (caught) {
      if (!(caught as NodeJS.ErrnoException).code?.startsWith('Z_')) throw caught
      this.damage = (caught as Error).message
    } finally {
      packed.destroy()
      unpacked.destroy()
    }
  }

  async *#packed(): AsyncGenerator<Buffer> {
    for (let at = 0; ; ) {
      const { bytesRead, buffer } = await this.handle.read(Buffer.allocUnsafe(BLOCK_BYTES), 0, BLOCK_BYTES, at)
      if (bytesRead === 0) return
      at += bytesRead
      yield buffer.subarray(0, bytesRead)
    }
  }
}

/** Fixed part of a gzip header with an extra field, and shoal-compress's field (RFC 1952, 2.3.1). */
const HEADER_BYTES = 40
const FIELD_AT = 12

/** The file that a compressed one was made of; null where something else made it. */
async function sourceOf(handle: FileHandle): Promise<Identity | null> {
  const { bytesRead, buffer } = await handle.read(Buffer.alloc(HEADER_BYTES), 0, HEADER_BYTES, 0)
  const hasExtra = bytesRead === HEADER_BYTES && buffer[0] === 0x1f && buffer[1] === 0x8b && (buffer[3]! & 4) !== 0
  if (!hasExtra || buffer.toString('latin1', FIELD_AT, FIELD_AT + 4) !== 'SH\x18\0') return null
  const [ino, size, mtimeNs] = [4, 12, 20].map((at) => buffer.readBigUInt64LE(FIELD_AT + at))
  return { ino: ino!, size: size!, mtimeNs: mtimeNs! }
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
    const unseen: LogFile[] = []
    for (const file of removed)
      if (await isAmong(file, seen.files)) await file.close()
      else unseen.push(file)
    const files = [...unseen, ...seen.files]
    if (seen.isSteady || look === LOOKS_MAX) return { files, isFound: seen.isFound }
    removed = files
  }
}

/**
 * From `path` upwards, of each number first the file, then the compressed one. A file only ever moves on in that order, the oldest
 * first, so that this meets each that stays, some twice, and `than` before any that is older. A number without a file is a
 * rotation seen half-way, not the end. Only a file that was begun meanwhile may come in the wrong place: not `isSteady`.
 */
async function lookThrough(
  path: string,
  maxFiles: number,
  than: LogFile | null,
): Promise<{ readonly files: LogFile[]; readonly isFound: boolean; readonly isSteady: boolean }> {
  const files: LogFile[] = []
  let current: LogFile | null = null
  let isFound = false
  const names = [path]
  for (let n = 1; n < maxFiles; n++) names.push(`${path}.${n}`, `${path}.${n}.gz`)
  try {
    for (const name of names) {
      const file = await LogFile.open(name)
      if (name === path) current = file
      if (!file) continue
      isFound = than !== null && (await than.isSame(file))
      if (isFound || (await isAmong(file, files))) await file.close()
      else files.unshift(file)
      if (isFound) break
    }
    const there = await stat(path, { bigint: true }).catch(nullWhenGone)
    // Gone: half-way, and nothing new is there yet.
    return { files, isFound, isSteady: !there || (current?.dev === there.dev && current.ino === there.ino) }
  } catch (caught) {
    for (const file of files) await file.close()
    throw caught
  }
}

const nullWhenGone = (caught: unknown): null => {
  if ((caught as NodeJS.ErrnoException).code === 'ENOENT') return null
  throw caught
}

/** Where the last `count` matching lines of a log begin: file index and offset. */
export async function findTail(
  files: readonly LogFile[],
  count: number,
  matches: LineTest,
): Promise<{ readonly file: number; readonly at: number }> {
  let left = count
  for (let index = files.length - 1; index >= 0; index--) {
    const tail = await files[index]!.tail(left, matches)
    if (tail.missing === 0) return { file: index, at: tail.at }
    left = tail.missing
  }
  return { file: 0, at: 0 }
}
