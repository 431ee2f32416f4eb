import { createHash } from 'node:crypto'
import { internal } from '../../common/index.js'
import { damaged } from './damage.js'
import type { Disk, FileSink } from './disk.js'
import { ZERO_TAG } from './records.js'
import { getUint, putUint, type Sealer } from './seal.js'

const LENGTH_BYTES = 4
const CHUNK_BYTES_MAX = 4 * 1024 * 1024

export interface SnapshotDigest {
  readonly size: number
  /** Hex. */
  readonly sha256: string
}

/**
 * Writes one snapshot as sealed, chained chunks, each with its length before it. The last is an empty-handed end mark
 * with the size, so that a file cut at a chunk's border is noticed.
 */
export class SnapshotWriter {
  readonly #hash = createHash('sha256')
  #chain: Uint8Array = ZERO_TAG
  #size = 0

  private constructor(
    private readonly sink: FileSink,
    private readonly sealer: Sealer,
    private readonly place: Buffer,
    private readonly term: number,
    private readonly index: number,
  ) {}

  static async create(
    disk: Disk,
    directory: string,
    sealer: Sealer,
    term: number,
    index: number,
  ): Promise<SnapshotWriter> {
    const name = snapshotName(term, index)
    const sink = await disk.createFile(`${directory}/${name}`)
    return new SnapshotWriter(sink, sealer, Buffer.from(`snap ${name}`), term, index)
  }

  get epoch(): number {
    return this.sealer.epoch
  }

  async write(piece: Uint8Array): Promise<void> {
    if (piece.length > CHUNK_BYTES_MAX)
      throw internal(
        'chunkTooLarge',
        `snapshot piece of ${piece.length} bytes is above the limit of ${CHUNK_BYTES_MAX}`,
      )
    this.#hash.update(piece)
    this.#size += piece.length
    await this.#put('chunk', piece)
  }

  async #put(type: 'chunk' | 'chunkEnd', plain: Uint8Array): Promise<void> {
    const { value, tag } = this.sealer.seal(
      this.place,
      { type, term: this.term, index: this.index, chain: this.#chain },
      plain,
      LENGTH_BYTES,
    )
    this.#chain = tag
    value.writeUInt32BE(value.length - LENGTH_BYTES)
    await this.sink.write(value)
  }

  /** What was written so far; the caller may compare it before the commit. */
  digest(): SnapshotDigest {
    return { size: this.#size, sha256: this.#hash.copy().digest('hex') }
  }

  /** Durable once it resolves. */
  async commit(): Promise<SnapshotDigest> {
    const size = Buffer.alloc(8)
    putUint(size, this.#size, 0)
    await this.#put('chunkEnd', size)
    await this.sink.commit()
    return this.digest()
  }

  abort(): Promise<void> {
    return this.sink.abort()
  }
}

export const snapshotName = (term: number, index: number): string => `${term}-${index}`

/** The plain pieces, each checked before it is handed out; the total size at the end. */
export async function* readSnapshot(
  disk: Disk,
  directory: string,
  sealer: Sealer,
  term: number,
  index: number,
): AsyncGenerator<Uint8Array> {
  const name = snapshotName(term, index)
  const path = `${directory}/${name}`
  const place = Buffer.from(`snap ${name}`)
  let source: Awaited<ReturnType<Disk['openFile']>>
  try {
    source = await disk.openFile(path)
  } catch (e) {
    throw damaged(path, 'the snapshot', 'cannot be opened', e)
  }
  try {
    let chain: Uint8Array = ZERO_TAG
    let size = 0
    let length = await source.read(LENGTH_BYTES)
    for (let n = 0; ; n++) {
      if (length.length < LENGTH_BYTES) throw damaged(path, `chunk ${n}`, 'is missing')
      const want = Buffer.from(length).readUInt32BE()
      if (want > CHUNK_BYTES_MAX + 4096) throw damaged(path, `chunk ${n}`, `has the impossible length ${want}`)
      // With the next one's length: one trip to the disk for each chunk.
      const bytes = await source.read(want + LENGTH_BYTES)
      const value = bytes.subarray(0, want)
      length = bytes.subarray(want)
      const chunk = value.length < want ? 'is cut short' : sealer.open(place, value)
      if (typeof chunk === 'string') throw damaged(path, `chunk ${n}`, chunk)
      if (chunk.index !== index || chunk.term !== term || !Buffer.from(chunk.chain).equals(chain))
        throw damaged(path, `chunk ${n}`, 'does not follow from the one before it')
      chain = chunk.tag
      if (chunk.type === 'chunkEnd') {
        if (getUint(Buffer.from(chunk.plain), 0) !== size)
          throw damaged(path, `chunk ${n}`, `does not end ${size} bytes`)
        if (length.length > 0) throw damaged(path, `chunk ${n}`, 'is not the last thing in the file')
        return
      }
      size += chunk.plain.length
      yield chunk.plain
    }
  } finally {
    await source.close()
  }
}
