import { setMaxListeners } from 'node:events'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { Emitter, invalid, isOutOfSpace, notFound, ShoalError } from '../../common/index.js'
import { BlobStore } from '../content/blob-store.js'
import { type Change, ImageDatabase, type ImageRecord, type ReferenceRecord } from '../content/database.js'
import { KeyedMutex, Limiter, Mutex } from '../content/mutex.js'
import type { Descriptor, Digest, Image, ImageConfig, ImageService } from '../contract.js'
import type { ResolvedImageOptions, RuntimeModules } from '../options.js'
import {
  canonicalString,
  familiarString,
  parseReference,
  type Reference,
  withDefaultTag,
} from '../registry/reference.js'
import { LayerStore } from '../snapshot/layer-store.js'
import { LayerTool } from '../snapshot/layer-tool.js'

export type ImageEvent = Parameters<Parameters<ImageService['onEvent']>[0]>[0]

/** What an operation under way needs and no record names yet. The collector spares it. */
export class Lease {
  readonly keys = new Set<Digest>()

  constructor(private readonly exclusive: (fn: () => Promise<void>) => Promise<void>) {}

  /** Only what is looked for after this resolved is sure to stay: a collection under way has ended by then. */
  async pin(...digests: readonly Digest[]): Promise<void> {
    await this.exclusive(async () => {
      for (const d of digests) this.keys.add(d)
    })
  }
}

/** Repositories remembered for a blob. */
const SOURCES_MAX = 8
/** How long `close` waits for operations under way. */
const STOP_WAIT_MS = 5000

/**
 * What the parts of the image room share: blobs, layers, records, and who may touch them when. Records change only inside
 * `exclusive`; so does the collector work.
 */
export class ImageStore {
  readonly blobs: BlobStore
  readonly layers: LayerStore
  readonly db: ImageDatabase
  readonly tool: LayerTool
  readonly events = new Emitter<ImageEvent>()
  /** By blob digest: one transfer at a time. */
  readonly transfers = new KeyedMutex()
  /** By image id: two pulls of one image go one after the other, and the second finds everything. */
  readonly imports = new KeyedMutex()
  readonly downloads: Limiter
  readonly uploads: Limiter
  readonly #exclusive = new Mutex()
  readonly #leases = new Set<Lease>()
  readonly #running = new Set<Promise<unknown>>()
  readonly #stopping = new AbortController()
  readonly #configs = new Map<Digest, { config: ImageConfig; raw: Uint8Array }>()

  constructor(
    readonly options: ResolvedImageOptions,
    readonly modules: RuntimeModules,
  ) {
    this.tool = new LayerTool(options.layerTool)
    this.blobs = new BlobStore(options.root, modules)
    this.layers = new LayerStore(options.root, this.tool, options)
    this.db = new ImageDatabase({ path: join(options.root, 'images.db'), scratchDir: options.scratchDir })
    this.downloads = new Limiter(options.downloadsMax)
    this.uploads = new Limiter(options.uploadsMax)
  }

  async open(): Promise<void> {
    await mkdir(this.options.root, { recursive: true, mode: 0o710 })
    // First: its lock keeps a second daemon from the same directory.
    await this.db.open()
    await this.blobs.open(this.options.partialKeepMs)
    await this.layers.open()
    try {
      await this.#dropBroken()
      await this.exclusive(() => this.collect())
    } catch (caught) {
      // What is not named any more goes with the next removal, or at the next start.
      if (!isOutOfSpace(caught)) throw caught
    }
  }

  /** Transfers end with a reason, and what is being written gets a little time to come to its end. May be called twice. */
  async close(): Promise<void> {
    this.#stopping.abort(new ShoalError('unavailable', 'stopping', 'the image service is stopping'))
    const settled = Promise.allSettled([...this.#running])
    // Somebody who sends a tar for ever must not hold the daemon; what he sent is collected at the next start.
    await Promise.race([settled, this.modules.clock.sleep(STOP_WAIT_MS)])
    await this.exclusive(() => this.db.close())
  }

  /** Aborts with the caller's wish or with the service's end. */
  untilStop(signal: AbortSignal | undefined): AbortSignal {
    const both = AbortSignal.any(signal ? [signal, this.#stopping.signal] : [this.#stopping.signal])
    // A listener for each request; there are some for every layer.
    setMaxListeners(0, both)
    return both
  }

  exclusive<T>(fn: () => Promise<T>): Promise<T> {
    return this.#exclusive.run(fn)
  }

  /** Must be released, whatever happens. */
  lease(): Lease {
    const lease = new Lease((fn) => this.exclusive(fn))
    this.#leases.add(lease)
    return lease
  }

  release(lease: Lease): void {
    this.#leases.delete(lease)
  }

  async leased<T>(fn: (lease: Lease) => Promise<T>): Promise<T> {
    const lease = this.lease()
    const running = fn(lease)
    this.#running.add(running)
    try {
      return await running
    } finally {
      this.#running.delete(running)
      this.release(lease)
    }
  }

  /** Records whose config or layers are not on disk would fail at every use; they are told of and dropped. */
  async #dropBroken(): Promise<void> {
    const log = this.modules.logger
    const changes: Change[] = []
    const gone = new Set<Digest>()
    for (const layer of this.db.layers.values())
      if (!(await this.layers.has(layer.chainId))) {
        log.error('a layer of the database is not on disk', { chainId: layer.chainId })
        gone.add(layer.chainId)
        changes.push({ delete: 'layer', key: layer.chainId })
      }
    for (const image of this.db.images.values()) {
      const readable = await this.config(image.id).then(
        () => true,
        () => false,
      )
      if (readable && !image.layers.some((l) => gone.has(l))) continue
      log.error('an image is not complete on disk and was dropped; pull it again', { image: image.id })
      changes.push({ delete: 'image', key: image.id })
      for (const r of this.db.references.values())
        if (r.image === image.id) changes.push({ delete: 'reference', key: r.name })
    }
    await this.db.commit(changes)
  }

  /**
   * Removes what nothing names, files first: on a full disk this makes the room that the records' removal needs. `doomed`
   * images count as gone already. Inside `exclusive`. A crash in the middle is made good at the next start.
   */
  async collect(doomed: ReadonlySet<Digest> = new Set()): Promise<void> {
    const layers = new Set<Digest>()
    const blobs = new Set<Digest>()
    for (const image of this.db.images.values()) {
      if (doomed.has(image.id)) continue
      blobs.add(image.id).add(image.manifest.digest)
      for (const b of image.blobs) blobs.add(b.digest)
      for (const l of image.layers) layers.add(l)
    }
    for (const r of this.db.references.values()) if (r.manifest) blobs.add(r.manifest.digest)
    for (const s of this.db.snapshots.values()) for (const l of s.layers) layers.add(l)
    for (const lease of this.#leases)
      for (const key of lease.keys) {
        layers.add(key)
        blobs.add(key)
      }
    const changes: Change[] = []
    for (const l of this.db.layers.keys()) if (!layers.has(l)) changes.push({ delete: 'layer', key: l })
    for (const s of this.db.sources.keys()) if (!blobs.has(s)) changes.push({ delete: 'source', key: s })
    for (const l of await this.layers.list()) if (!layers.has(l)) await this.layers.remove(l)
    for (const b of await this.blobs.list())
      if (!blobs.has(b)) {
        this.#configs.delete(b)
        await this.blobs.remove(b)
      }
    await this.db.commit(changes)
  }

  /** Parsed config and its exact bytes. */
  async config(id: Digest): Promise<{ config: ImageConfig; raw: Uint8Array }> {
    const known = this.#configs.get(id)
    if (known) return known
    const raw = await this.blobs.read(id)
    const read = { config: JSON.parse(Buffer.from(raw).toString('utf8')) as ImageConfig, raw }
    if (this.db.images.has(id)) this.#configs.set(id, read)
    return read
  }

  referencesOf(id: Digest): ReferenceRecord[] {
    return [...this.db.references.values()].filter((r) => r.image === id)
  }

  sizeOf(record: ImageRecord): number {
    return record.layers.reduce((sum, l) => sum + (this.db.layers.get(l)?.sizeBytes ?? 0), 0)
  }

  async image(id: Digest): Promise<Image> {
    const record = this.db.images.get(id)
    if (!record) throw noSuchImage(id)
    const { config, raw } = await this.config(id)
    const tags: string[] = []
    const digests: string[] = []
    for (const r of this.referencesOf(id)) {
      const ref = parseReference(r.name)
      ;(ref.digest ? digests : tags).push(familiarString(ref))
    }
    const created = Date.parse(config.created ?? '')
    return {
      id,
      config,
      repoTags: tags.sort(),
      repoDigests: digests.sort(),
      sizeBytes: this.sizeOf(record),
      createdMs: Number.isNaN(created) ? 0 : created,
      lastTaggedMs: record.lastTaggedMs,
      parent: record.parent,
      rawConfig: raw,
      manifest: record.manifest,
      layerSizes: record.layers.map((l) => this.db.layers.get(l)?.sizeBytes ?? 0),
    }
  }

  /** Docker's order: a whole id, a reference, then an id's unique beginning. Null when nothing fits. */
  find(text: string): { record: ImageRecord; reference: ReferenceRecord | null } | null {
    const bare = text.startsWith('sha256:') ? text.slice(7) : text
    const whole = /^[0-9a-f]{64}$/.test(bare) ? this.db.images.get(`sha256:${bare}`) : undefined
    if (whole) return { record: whole, reference: null }
    if (!text.startsWith('sha256:') && !/^[0-9a-f]{64}$/.test(text)) {
      const reference = this.findReference(parseReference(text))
      const image = reference && this.db.images.get(reference.image)
      if (image) return { record: image, reference }
    }
    if (!/^[0-9a-f]{1,64}$/.test(bare)) return null
    const fits = [...this.db.images.values()].filter((i) => i.id.startsWith(`sha256:${bare}`))
    return fits.length === 1 ? { record: fits[0]!, reference: null } : null
  }

  findReference(ref: Reference): ReferenceRecord | null {
    return this.db.references.get(canonicalString(withDefaultTag(ref))) ?? null
  }

  need(text: string): { record: ImageRecord; reference: ReferenceRecord | null } {
    const found = this.find(text)
    if (!found) throw noSuchImage(text)
    return found
  }

  /** A name's record, and the message "untag" when it is taken from another image. */
  nameImage(ref: Reference, image: Digest, manifest: Descriptor | null): Change {
    return { put: 'reference', record: { name: canonicalString(ref), image, manifest } }
  }

  sourceChanges(repository: string, digests: readonly Digest[]): Change[] {
    return digests.map((digest) => {
      const known = this.db.sources.get(digest)?.repositories ?? []
      return {
        put: 'source' as const,
        record: { digest, repositories: [repository, ...known.filter((r) => r !== repository)].slice(0, SOURCES_MAX) },
      }
    })
  }

  /** A container's own directory: upper and work, on one file system with the layers. */
  containerPath(container: string): string {
    if (!/^[\w][\w.-]*$/.test(container))
      throw invalid('badContainerId', `"${container}" cannot be the id of a container`)
    return join(this.options.root, 'containers', container)
  }

  /** The writable layer of a container. Throws noSnapshot. */
  upperOf(container: string): string {
    if (!this.db.snapshots.has(container))
      throw notFound('noSnapshot', `the container ${container} has no writable layer`, { container })
    return join(this.containerPath(container), 'upper')
  }

  /** Tells what happened to an image, with the labels that it has or, where it is gone by now, had. */
  async emit(
    action: ImageEvent['action'],
    id: string,
    name: string,
    labels: ImageEvent['labels'] | Promise<ImageEvent['labels']> = this.labelsOf(id as Digest),
  ): Promise<void> {
    this.events.emit({ action, id, name, labels: await labels })
  }

  async labelsOf(id: Digest): Promise<ImageEvent['labels']> {
    if (!this.db.images.has(id)) return {}
    try {
      return (await this.config(id)).config.config?.Labels ?? {}
    } catch {
      return {} // a damaged image must not keep its own removal from being told
    }
  }
}

/** Docker's text: names show their tag, whole ids their algorithm. */
export function noSuchImage(text: string): Error {
  let shown = text
  if (/^[0-9a-f]{64}$/.test(text)) shown = `sha256:${text}`
  else if (!text.startsWith('sha256:'))
    try {
      shown = familiarString(withDefaultTag(parseReference(text)))
    } catch {
      // Not a name at all; shown as it came.
    }
  return notFound('noSuchImage', `No such image: ${shown}`, { image: text })
}
