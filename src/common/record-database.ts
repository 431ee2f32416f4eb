import { randomBytes, randomUUID } from 'node:crypto'
import { access, copyFile, mkdir, readdir, rm, statfs, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Level } from 'level'
import { isOutOfSpace } from './errors.js'

export interface RecordDatabaseOptions {
  /** Directory of the database. */
  readonly path: string
  /** Directory on another file system, memory best: the database is read there while its own disk has no room to open it. */
  readonly scratchDir: string
  /** "view": values are bytes. Default "json". */
  readonly valueEncoding?: 'json' | 'view'
}

/** `value` absent: the key goes. */
export interface RecordChange<V> {
  readonly key: string
  readonly value?: V
}

interface Group<V> {
  readonly changes: readonly RecordChange<V>[]
  readonly sync: boolean
  /** Nothing but new records and new values. */
  readonly isGrowth: boolean
}

/** Put aside on the disk; enough to open the database and to write some thousand removals. */
const RESERVE_BYTES = 2 << 20
/** LevelDB's log is at most so long before it becomes a table, which opening may have to write: less than the reserve. */
const WRITE_BUFFER_BYTES = 1 << 20
/** The reserve is put aside (again) when so much is free. */
const RESERVE_FREE_BYTES = 1.5 * RESERVE_BYTES

/**
 * Records by key in LevelDB, for a disk that may be full. LevelDB needs room to open, and what follows a write that failed
 * may be lost with it (its log is torn there, and reading ends at the tear). So
 *
 *     closed ──open──> open ──a write fails──> closed: opened again, with a log of its own, before the next write
 *        └── open, no room ──> contents are read from a copy; a write opens the database first, or fails
 *
 * and opening, removals and states may take up a reserve of its own; new records may not. A write that failed may be there all the same, as after a crash before
 * its answer. Writes that come while one is under way go to the disk together, with one flush.
 */
export class RecordDatabase<V> {
  readonly #level: Level<string, V>
  readonly #reserve: string
  #hasReserve = true
  #isClosed = false
  /** What `writeState` could not write: goes with the next write. */
  readonly #unwritten = new Map<string, V>()
  #waiting: (Group<V> & { done: () => void; failed: (e: unknown) => void })[] = []
  #writing: Promise<void> | null = null

  constructor(private readonly options: RecordDatabaseOptions) {
    this.#level = levelAt(options.path, options)
    this.#reserve = `${options.path}.reserve`
  }

  /** All records, by key. May be called when nothing can be written. */
  async open(): Promise<readonly (readonly [string, V])[]> {
    await mkdir(dirname(this.options.path), { recursive: true, mode: 0o710 })
    this.#hasReserve = await access(this.#reserve).then(
      () => true,
      () => false,
    )
    try {
      await this.#withReserve(() => this.#level.open())
    } catch (caught) {
      if (!isOutOfSpace(caught)) throw caught
      return this.#readCopy()
    }
    await this.#fillReserve()
    return this.#level.iterator().all()
  }

  async #readCopy(): Promise<[string, V][]> {
    const { path, scratchDir } = this.options
    const copy = join(scratchDir, `database-${randomUUID()}`)
    await mkdir(copy, { recursive: true, mode: 0o700 })
    try {
      for (const file of await readdir(path)) if (file !== 'LOCK') await copyFile(join(path, file), join(copy, file))
      const level = levelAt<V>(copy, this.options)
      await level.open()
      const entries = await level.iterator().all()
      await level.close()
      return entries
    } finally {
      await rm(copy, { recursive: true, force: true })
    }
  }

  /** All or nothing. `sync`: survives a power failure once it resolved; otherwise the end of this process. */
  write(changes: readonly RecordChange<V>[], sync: boolean): Promise<void> {
    return this.#write({ changes, sync, isGrowth: changes.every((c) => c.value !== undefined) })
  }

  #write(change: Group<V>): Promise<void> {
    const written = new Promise<void>((done, failed) => this.#waiting.push({ ...change, done, failed }))
    this.#writing ??= this.#writeAll()
    return written
  }

  /**
   * For what has happened already, whether it can be written or not: without room it is kept and goes to the disk with the
   * next write that finds some. What is found out again after a crash loses nothing by that.
   */
  async writeState(key: string, value: V, sync: boolean): Promise<void> {
    try {
      await this.#write({ changes: [{ key, value }], sync, isGrowth: false })
    } catch (caught) {
      if (!isOutOfSpace(caught)) throw caught
      this.#unwritten.set(key, value)
    }
  }

  async #writeAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      const group = this.#waiting.splice(0)
      try {
        if (group.every((w) => w.isGrowth)) await this.#writeOnce(group)
        else await this.#withReserve(() => this.#writeOnce(group))
        for (const w of group) w.done()
      } catch (caught) {
        for (const w of group) w.failed(caught)
      }
      await this.#fillReserve()
    }
    this.#writing = null // in the same turn as the look: who comes after finds nobody writing
  }

  async #writeOnce(group: readonly Group<V>[]): Promise<void> {
    if (this.#level.status !== 'open' && !this.#isClosed) await this.#level.open()
    const kept = [...this.#unwritten].map(([key, value]) => ({ key, value }))
    const operations = [...kept, ...group.flatMap((w) => w.changes)].map(({ key, value }) =>
      value === undefined ? { type: 'del' as const, key } : { type: 'put' as const, key, value },
    )
    try {
      await this.#level.batch(operations, { sync: group.some((w) => w.sync) })
    } catch (caught) {
      await this.#level.close()
      throw caught
    }
    this.#unwritten.clear()
  }

  /** Tries again with the room that was put aside, when there is no other. */
  async #withReserve(run: () => Promise<void>): Promise<void> {
    try {
      await run()
    } catch (caught) {
      if (!isOutOfSpace(caught) || !this.#hasReserve) throw caught
      this.#hasReserve = false
      await rm(this.#reserve, { force: true })
      await run()
    }
  }

  async #fillReserve(): Promise<void> {
    if (this.#hasReserve || this.#isClosed) return
    try {
      const { bavail, bsize } = await statfs(this.options.path)
      if (bavail * bsize < RESERVE_FREE_BYTES) return
      // Random: a file system that compresses would put nothing aside for zeros.
      await writeFile(this.#reserve, randomBytes(RESERVE_BYTES), { mode: 0o600 })
      this.#hasReserve = true
    } catch {
      // Somebody else took the room. The next write tries again.
      await rm(this.#reserve, { force: true }).catch(() => {})
    }
  }

  /** After `close`. */
  async remove(): Promise<void> {
    await rm(this.options.path, { recursive: true, force: true })
    await rm(this.#reserve, { force: true })
  }

  /** What was asked for before is written. */
  async close(): Promise<void> {
    while (this.#writing) await this.#writing
    if (this.#unwritten.size > 0) await this.write([], true).catch(() => {}) // still no room: as after a crash
    this.#isClosed = true
    await this.#level.close()
  }
}

const levelAt = <V>(path: string, { valueEncoding = 'json' }: RecordDatabaseOptions): Level<string, V> =>
  new Level(path, { valueEncoding, writeBufferSize: WRITE_BUFFER_BYTES, cacheSize: 1 << 20 })
