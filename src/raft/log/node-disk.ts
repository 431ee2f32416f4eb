import { closeSync, constants, openSync, writeSync } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { AbstractBatchOperation } from 'abstract-level'
import { Level } from 'level'
import type { Disk, FileSink, FileSource, KeyValueStore, StoreOp } from './disk.js'
import { checkLevel } from './level-check.js'

async function syncDirectory(path: string): Promise<void> {
  const d = await open(path, 'r')
  try {
    await d.sync()
  } finally {
    await d.close()
  }
}

/** A trip to the thread pool fetches so much at once; LevelDB's binding would make one for each 16 KiB. */
const READ_BYTES = 1024 * 1024

class LevelStore implements KeyValueStore {
  constructor(private readonly db: Level<Buffer, Buffer>) {}

  async *records(): AsyncGenerator<readonly [Uint8Array, Uint8Array]> {
    for await (const [key, value] of this.db.iterator({ highWaterMarkBytes: READ_BYTES })) yield [key, value]
  }

  batch(ops: readonly StoreOp[]): Promise<void> {
    // LevelDB appends the whole batch as one record of its write-ahead file, then fsyncs that.
    return this.db.batch(ops as AbstractBatchOperation<typeof this.db, Buffer, Buffer>[], { sync: true })
  }

  discard(from: Uint8Array, to: Uint8Array): Promise<void> {
    return this.db.clear({ gte: Buffer.from(from), lt: Buffer.from(to) })
  }

  close(): Promise<void> {
    return this.db.close()
  }
}

class NodeFileSink implements FileSink {
  constructor(
    private readonly path: string,
    private readonly file: FileHandle,
  ) {}

  async write(bytes: Uint8Array): Promise<void> {
    let done = 0
    while (done < bytes.length) done += (await this.file.write(bytes, done)).bytesWritten
  }

  async commit(): Promise<void> {
    await this.file.sync()
    await this.file.close()
    await rename(`${this.path}.tmp`, this.path)
    await syncDirectory(dirname(this.path))
  }

  async abort(): Promise<void> {
    await this.file.close()
    await rm(`${this.path}.tmp`, { force: true })
  }
}

class NodeFileSource implements FileSource {
  constructor(private readonly file: FileHandle) {}

  async read(length: number): Promise<Uint8Array> {
    const bytes = Buffer.allocUnsafe(length)
    let done = 0
    while (done < length) {
      const { bytesRead } = await this.file.read(bytes, done, length - done)
      if (bytesRead === 0) break
      done += bytesRead
    }
    return bytes.subarray(0, done)
  }

  close(): Promise<void> {
    return this.file.close()
  }
}

const isAbsent = (e: unknown): boolean => (e as NodeJS.ErrnoException).code === 'ENOENT'

/** LevelDB and the file system. One lock file per database keeps a second process out. */
export function nodeDisk(): Disk {
  return {
    async makeDirectory(path) {
      const first = await mkdir(path, { recursive: true, mode: 0o700 })
      if (first !== undefined) await syncDirectory(dirname(first))
    },
    async openStore(path) {
      await checkLevel(path)
      const db = new Level<Buffer, Buffer>(path, { keyEncoding: 'buffer', valueEncoding: 'buffer', compression: false })
      await db.open()
      return new LevelStore(db)
    },
    readFile: (path) =>
      readFile(path).catch((e) => {
        if (isAbsent(e)) return null
        throw e
      }),
    async replaceFile(path, bytes) {
      const sink = new NodeFileSink(path, await open(`${path}.tmp`, 'w', 0o600))
      await sink.write(bytes)
      await sink.commit()
    },
    createFile: async (path) => new NodeFileSink(path, await open(`${path}.tmp`, 'w', 0o600)),
    openFile: async (path) => new NodeFileSource(await open(path, 'r')),
    async openInPlace(path) {
      const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600)
      return {
        // A write of some bytes to the page cache is quicker than a trip to the thread pool.
        write: (bytes) => {
          writeSync(fd, bytes, 0, bytes.length, 0)
        },
        close: () => closeSync(fd),
      }
    },
    list: (path) =>
      readdir(path).then(
        (names) => names.sort(),
        (e) => {
          if (isAbsent(e)) return []
          throw e
        },
      ),
    remove: (path) => rm(path, { recursive: true, force: true }),
    async freeBytes(path) {
      const s = await statfs(path)
      return s.bavail * s.bsize
    },
  }
}
