import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { damaged } from './damage.js'

/**
 * Checks the checksums of a closed LevelDB's manifest and tables. LevelDB as classic-level builds it does not verify
 * table blocks at all, serves wrong bytes from some damaged ones and aborts the process on others; so this runs before
 * each open. Formats: leveldb's doc/log_format.md, doc/table_format.md and db/version_edit.cc.
 */
export async function checkLevel(path: string): Promise<void> {
  const names = await readdir(path)
  if (!names.includes('CURRENT')) {
    if (names.some((n) => /^MANIFEST-|\.ldb$/.test(n))) throw damaged(join(path, 'CURRENT'), 'the file', 'is missing')
    return
  }
  const current = await readFile(join(path, 'CURRENT'), 'latin1')
  const manifest = /^(MANIFEST-\d+)\n$/.exec(current)?.[1]
  if (manifest === undefined) throw damaged(join(path, 'CURRENT'), 'the file', `names ${JSON.stringify(current)}`)
  if (!names.includes(manifest)) throw damaged(join(path, 'CURRENT'), 'the file', `names ${manifest}, which is missing`)
  const live = readManifest(join(path, manifest), await readFile(join(path, manifest)))
  for (const [number, size] of live) {
    const name = names.find((n) => new RegExp(`^0*${number}\\.(ldb|sst)$`).test(n))
    if (name === undefined) throw damaged(join(path, `${number}.ldb`), 'the table', 'is missing')
    const bytes = await readFile(join(path, name))
    if (bytes.length !== size)
      throw damaged(join(path, name), 'the table', `has ${bytes.length} bytes instead of ${size}`)
    checkTable(join(path, name), bytes)
  }
}

// ---------------------------------------------------------------- manifest

const BLOCK_BYTES = 32 * 1024
const RECORD_HEAD_BYTES = 7

/** Numbers of the tables that count, with their sizes. A torn last record is as LevelDB leaves it after a crash. */
function readManifest(file: string, bytes: Buffer): Map<number, number> {
  const tables = new Map<number, number>()
  for (const record of logRecords(file, bytes)) {
    const r = new Reader(record)
    while (!r.done) {
      const tag = r.varint()
      if (tag === 1) r.slice()
      else if (tag === 2 || tag === 3 || tag === 4 || tag === 9) r.varint()
      else if (tag === 5) {
        r.varint()
        r.slice()
      } else if (tag === 6) {
        r.varint()
        tables.delete(r.varint())
      } else if (tag === 7) {
        r.varint()
        const number = r.varint()
        tables.set(number, r.varint())
        r.slice()
        r.slice()
      } else throw damaged(file, 'the manifest', `has the unknown tag ${tag}`)
    }
    if (r.overrun) throw damaged(file, 'the manifest', 'has a record that is cut short')
  }
  return tables
}

function* logRecords(file: string, bytes: Buffer): Generator<Buffer> {
  let parts: Buffer[] = []
  for (let at = 0; at + RECORD_HEAD_BYTES <= bytes.length; ) {
    const left = BLOCK_BYTES - (at % BLOCK_BYTES)
    if (left < RECORD_HEAD_BYTES) {
      at += left
      continue
    }
    const length = bytes.readUInt16LE(at + 4)
    const type = bytes[at + 6]!
    const end = at + RECORD_HEAD_BYTES + length
    if (end > bytes.length) return
    if (unmask(bytes.readUInt32LE(at)) !== crc32c(bytes.subarray(at + 6, end)))
      throw damaged(file, `the record at ${at}`, 'does not match its checksum')
    parts.push(bytes.subarray(at + RECORD_HEAD_BYTES, end))
    // 1 full, 2 first, 3 middle, 4 last.
    if (type === 1 || type === 4) {
      yield Buffer.concat(parts)
      parts = []
    }
    at = end
  }
}

// ---------------------------------------------------------------- tables

const FOOTER_BYTES = 48
const MAGIC = Buffer.from('57fb808b247547db', 'hex')
const TRAILER_BYTES = 5

interface Handle {
  readonly offset: number
  readonly size: number
}

function checkTable(file: string, bytes: Buffer): void {
  if (bytes.length < FOOTER_BYTES || !bytes.subarray(-MAGIC.length).equals(MAGIC))
    throw damaged(file, 'the footer', 'is not that of a table')
  const footer = new Reader(bytes.subarray(-FOOTER_BYTES))
  const meta = footer.handle()
  const index = checkBlock(file, bytes, footer.handle())
  if (footer.rest().some((b, i, all) => b !== 0 && i < all.length - MAGIC.length))
    throw damaged(file, 'the footer', 'has something in its padding')
  // Filters are no one's data, but a bad one hides records that are there.
  for (const filter of indexed(file, checkBlock(file, bytes, meta))) checkBlock(file, bytes, filter)
  let end = 0
  for (const handle of indexed(file, index)) {
    checkBlock(file, bytes, handle)
    end = handle.offset + handle.size + TRAILER_BYTES
  }
  if (end > meta.offset) throw damaged(file, 'the index', 'names blocks beyond the table')
}

function checkBlock(file: string, bytes: Buffer, { offset, size }: Handle): Buffer {
  const end = offset + size
  if (end + TRAILER_BYTES > bytes.length - FOOTER_BYTES)
    throw damaged(file, `the block at ${offset}`, 'lies outside the table')
  // The checksum covers the content and the type byte after it.
  if (unmask(bytes.readUInt32LE(end + 1)) !== crc32c(bytes.subarray(offset, end + 1)))
    throw damaged(file, `the block at ${offset}`, 'does not match its checksum')
  if (bytes[end] !== 0) throw damaged(file, `the block at ${offset}`, `is compressed (type ${bytes[end]})`)
  return bytes.subarray(offset, end)
}

/** Values of an index block: where other blocks are. */
function* indexed(file: string, block: Buffer): Generator<Handle> {
  const restarts = block.readUInt32LE(block.length - 4)
  const r = new Reader(block.subarray(0, block.length - 4 - 4 * restarts))
  while (!r.done) {
    r.varint()
    const key = r.varint()
    const length = r.varint()
    r.skip(key)
    const value = new Reader(r.take(length))
    if (r.overrun) throw damaged(file, 'the index', 'is cut short')
    yield value.handle()
  }
}

class Reader {
  #at = 0
  constructor(private readonly bytes: Buffer) {}

  get done(): boolean {
    return this.#at >= this.bytes.length
  }
  get overrun(): boolean {
    return this.#at > this.bytes.length
  }
  varint(): number {
    let value = 0
    for (let scale = 1; ; scale *= 128) {
      const b = this.bytes[this.#at++] ?? 0
      value += (b & 127) * scale
      if (b < 128) return value
    }
  }
  take(length: number): Buffer {
    const part = this.bytes.subarray(this.#at, this.#at + length)
    this.#at += length
    return part
  }
  skip(length: number): void {
    this.#at += length
  }
  slice(): Buffer {
    return this.take(this.varint())
  }
  rest(): Buffer {
    return this.bytes.subarray(this.#at)
  }
  handle(): Handle {
    const offset = this.varint()
    return { offset, size: this.varint() }
  }
}

// ---------------------------------------------------------------- CRC-32C (Castagnoli), reflected polynomial 0x82f63b78

/** TABLES[n][b]: the checksum's change by byte b with n bytes after it; so eight bytes are one step. */
const TABLES = [
  Int32Array.from({ length: 256 }, (_, n) => {
    let c = n
    for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1
    return c
  }),
]
for (let n = 1; n < 8; n++) TABLES.push(TABLES[n - 1]!.map((c) => (c >>> 8) ^ TABLES[0]![c & 255]!))

/** A start checks all of a log's tables with it: byte by byte 100 MB take 0.3 s. */
export function crc32c(bytes: Uint8Array): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = TABLES as unknown as Eight<Int32Array>
  const whole = bytes.length & ~7
  let c = ~0
  let i = 0
  for (; i < whole; i += 8)
    c =
      t7[(c ^ bytes[i]!) & 255]! ^
      t6[((c >>> 8) ^ bytes[i + 1]!) & 255]! ^
      t5[((c >>> 16) ^ bytes[i + 2]!) & 255]! ^
      t4[(c >>> 24) ^ bytes[i + 3]!]! ^
      t3[bytes[i + 4]!]! ^
      t2[bytes[i + 5]!]! ^
      t1[bytes[i + 6]!]! ^
      t0[bytes[i + 7]!]!
  for (; i < bytes.length; i++) c = t0[(c ^ bytes[i]!) & 255]! ^ (c >>> 8)
  return ~c >>> 0
}

type Eight<T> = readonly [T, T, T, T, T, T, T, T]

/** LevelDB stores checksums rotated and offset, because a checksum of data that holds checksums is weak. */
function unmask(stored: number): number {
  const rotated = (stored - 0xa282ead8) >>> 0
  return ((rotated >>> 17) | (rotated << 15)) >>> 0
}
