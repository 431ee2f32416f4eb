import { RecordDatabase } from '../../common/index.js'
import type { Descriptor, Digest } from '../contract.js'

/** An unpacked layer on disk, under its chain id (image-spec config.md, Layer ChainID). */
export interface LayerRecord {
  readonly chainId: Digest
  readonly diffId: Digest
  readonly parent: Digest | null
  readonly sizeBytes: number
}

export interface ImageRecord {
  readonly id: Digest
  /** The platform's manifest, never an index. */
  readonly manifest: Descriptor
  /** Chain ids, bottom first. */
  readonly layers: readonly Digest[]
  /** The packed layers, bottom first, as the manifest lists them. */
  readonly blobs: readonly Descriptor[]
  readonly parent: Digest | null
  readonly lastTaggedMs: number
}

/** `name` is canonical: "docker.io/library/busybox:latest" or "...@sha256:...". */
export interface ReferenceRecord {
  readonly name: string
  readonly image: Digest
  /** What the registry has under the name, an index perhaps; null for names given here. */
  readonly manifest: Descriptor | null
}

/** A container's writable layer. */
export interface SnapshotRecord {
  readonly container: string
  readonly image: Digest | null
  readonly layers: readonly Digest[]
  readonly isBare?: boolean
}

/** Repositories that were seen to have a blob, newest first, for mounting across repositories. */
export interface SourceRecord {
  readonly digest: Digest
  readonly repositories: readonly string[]
}

interface Tables {
  image: ImageRecord
  reference: ReferenceRecord
  layer: LayerRecord
  snapshot: SnapshotRecord
  source: SourceRecord
}
type Table = keyof Tables

export type Change =
  | { [T in Table]: { readonly put: T; readonly record: Tables[T] } }[Table]
  | { readonly delete: Table; readonly key: string }

const keyOf = (put: Table, record: Tables[Table]): string => {
  switch (put) {
    case 'image':
      return (record as ImageRecord).id
    case 'reference':
      return (record as ReferenceRecord).name
    case 'layer':
      return (record as LayerRecord).chainId
    case 'snapshot':
      return (record as SnapshotRecord).container
    case 'source':
      return (record as SourceRecord).digest
  }
}

/**
 * All records in memory, each change on disk before it shows. A batch is one atomic, synced write: what `commit` resolved
 * for survives a crash, and half of it is never seen.
 */
export class ImageDatabase {
  readonly images = new Map<Digest, ImageRecord>()
  readonly references = new Map<string, ReferenceRecord>()
  readonly layers = new Map<Digest, LayerRecord>()
  readonly snapshots = new Map<string, SnapshotRecord>()
  readonly sources = new Map<Digest, SourceRecord>()
  readonly #database: RecordDatabase<unknown>

  constructor(options: { readonly path: string; readonly scratchDir: string }) {
    this.#database = new RecordDatabase(options)
  }

  async open(): Promise<void> {
    for (const [key, record] of await this.#database.open()) {
      const at = key.indexOf('!')
      this.#map(key.slice(0, at) as Table)?.set(key.slice(at + 1), record)
    }
  }

  async close(): Promise<void> {
    await this.#database.close()
  }

  async commit(changes: readonly Change[]): Promise<void> {
    if (changes.length === 0) return
    await this.#database.write(
      changes.map((c) =>
        'put' in c ? { key: `${c.put}!${keyOf(c.put, c.record)}`, value: c.record } : { key: `${c.delete}!${c.key}` },
      ),
      true,
    )
    for (const c of changes) {
      if ('put' in c) this.#map(c.put)?.set(keyOf(c.put, c.record), c.record)
      else this.#map(c.delete)?.delete(c.key)
    }
  }

  #map(table: Table): Map<string, unknown> | undefined {
    switch (table) {
      case 'image':
        return this.images
      case 'reference':
        return this.references
      case 'layer':
        return this.layers
      case 'snapshot':
        return this.snapshots
      case 'source':
        return this.sources
      default:
        return undefined
    }
  }
}
