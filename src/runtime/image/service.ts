import type { Readable } from 'node:stream'
import { invalid } from '../../common/index.js'
import type { Digest, Image, ImageService } from '../contract.js'
import { type ImageOptions, type ResolvedImageOptions, type RuntimeModules, resolveImageOptions } from '../options.js'
import { familiarString } from '../registry/reference.js'
import { searchPlace, searchRegistry } from '../registry/search.js'
import { loadImages } from './load.js'
import { commitImage, deriveImage, importImage, targetReference } from './made.js'
import { openTransport, pullImage, resolveRemote } from './pull.js'
import { pushImage } from './push.js'
import { removeImage } from './remove.js'
import { saveImages } from './save.js'
import { type ImageEvent, ImageStore } from './store.js'

/** The image service, with the store that the snapshot service stands on. */
export interface LocalImageService extends ImageService {
  readonly store: ImageStore
  /** Holds for transfers that begin from now on. */
  reconfigure(
    options: Pick<
      ResolvedImageOptions,
      'insecureRegistries' | 'mirrors' | 'downloadsMax' | 'uploadsMax' | 'attemptsMax'
    >,
  ): void
}

class Service implements LocalImageService {
  constructor(readonly store: ImageStore) {}

  reconfigure(options: Parameters<LocalImageService['reconfigure']>[0]): void {
    Object.assign(this.store.options, options)
    this.store.downloads.limit = options.downloadsMax
    this.store.uploads.limit = options.uploadsMax
  }

  start(): Promise<void> {
    return this.store.open()
  }

  stop(): Promise<void> {
    return this.store.close()
  }

  pull(reference: string, options: Parameters<ImageService['pull']>[1]): Promise<Image> {
    return pullImage(this.store, reference, options)
  }

  push(reference: string, options: Parameters<ImageService['push']>[1]): Promise<void> {
    return pushImage(this.store, reference, options)
  }

  resolveRemote(
    reference: string,
    options: Parameters<ImageService['resolveRemote']>[1],
  ): ReturnType<ImageService['resolveRemote']> {
    return resolveRemote(this.store, reference, options)
  }

  import(tar: Readable, options: Parameters<ImageService['import']>[1]): Promise<Image> {
    return importImage(this.store, tar, options)
  }

  load(tar: Readable, options: Parameters<ImageService['load']>[1]): Promise<readonly string[]> {
    return loadImages(this.store, tar, options)
  }

  save(references: readonly string[]): Promise<Readable> {
    return saveImages(this.store, references)
  }

  /** The newest first, as docker lists them. */
  async list(): Promise<readonly Image[]> {
    const images = await Promise.all(
      [...this.store.db.images.keys()].map((id) =>
        this.store.image(id).catch((e: unknown) => {
          // Removed while its config was read.
          if (!this.store.db.images.has(id)) return null
          throw e
        }),
      ),
    )
    return images.filter((i) => i !== null).sort((a, b) => b.createdMs - a.createdMs || (a.id < b.id ? -1 : 1))
  }

  async get(referenceOrId: string): Promise<Image> {
    return this.store.image(this.store.need(referenceOrId).record.id)
  }

  lineageOf(reference: string): readonly Digest[] {
    const ids: Digest[] = []
    let record = reference === '' ? undefined : this.store.find(reference)?.record
    while (record && !ids.includes(record.id)) {
      ids.push(record.id)
      record = record.parent ? this.store.db.images.get(record.parent) : undefined
    }
    return ids
  }

  async tag(source: string, target: string): Promise<void> {
    const ref = targetReference(target)
    if (ref.path === 'library/sha256')
      throw invalid('badReference', 'refusing to create an ambiguous tag using digest algorithm as name')
    await this.store.exclusive(async () => {
      const { record, reference } = this.store.need(source)
      await this.store.db.commit([
        this.store.nameImage(ref, record.id, reference?.manifest ?? null),
        { put: 'image', record: { ...record, lastTaggedMs: this.store.modules.clock.now() } },
      ])
      await this.store.emit('tag', record.id, familiarString(ref))
    })
  }

  remove(reference: string, options: Parameters<ImageService['remove']>[1]): ReturnType<ImageService['remove']> {
    return removeImage(this.store, reference, options)
  }

  commit(options: Parameters<ImageService['commit']>[0]): Promise<Image> {
    return commitImage(this.store, options)
  }

  derive(o: Parameters<ImageService['derive']>[0]): Promise<Image> {
    return deriveImage(this.store, {
      ...o,
      upper: o.snapshot === null ? null : this.store.upperOf(o.snapshot),
      config: (_base, diffId) => o.config(diffId),
    })
  }

  async childrenOf(id: Digest | null): Promise<readonly Image[]> {
    const records = [...this.store.db.images.values()].filter((i) => i.parent === id)
    return Promise.all(records.map((r) => this.store.image(r.id)))
  }

  async setParent(id: Digest, parent: Digest): Promise<void> {
    await this.store.exclusive(async () => {
      const { record } = this.store.need(id)
      this.store.need(parent)
      await this.store.db.commit([{ put: 'image', record: { ...record, parent } }])
    })
  }

  async login(host: string, options: Parameters<ImageService['login']>[1]): Promise<string> {
    const transport = openTransport(this.store, host === 'index.docker.io' ? 'docker.io' : host, options.auth)
    try {
      return await transport.login(this.store.untilStop(options.signal))
    } finally {
      await transport.close()
    }
  }

  async search(term: string, options: Parameters<ImageService['search']>[1]): ReturnType<ImageService['search']> {
    const place = searchPlace(term)
    if (place.term === '') throw invalid('noTerm', `search: "${term}" names no term; use [HOST[:PORT]/]TERM`)
    const transport = openTransport(this.store, place.host, options.auth)
    try {
      return await searchRegistry(transport, { ...place, limit: options.limit })
    } finally {
      await transport.close()
    }
  }

  onEvent(listener: (event: ImageEvent) => void): () => void {
    return this.store.events.on(listener)
  }

  async usage(): ReturnType<ImageService['usage']> {
    const { db } = this.store
    let layersBytes = 0
    for (const l of db.layers.values()) layersBytes += l.sizeBytes
    const users = new Map<Digest, number>()
    for (const i of db.images.values()) for (const l of i.layers) users.set(l, (users.get(l) ?? 0) + 1)
    const sharedBytes = new Map<Digest, number>()
    for (const i of db.images.values())
      sharedBytes.set(
        i.id,
        i.layers.reduce((sum, l) => sum + (users.get(l)! > 1 ? (db.layers.get(l)?.sizeBytes ?? 0) : 0), 0),
      )
    return { layersBytes, sharedBytes }
  }
}

/** `start` must have resolved before anything else is asked; `stop` waits for records being written. */
export function createImageService(options: ImageOptions, modules: RuntimeModules): LocalImageService {
  return new Service(new ImageStore(resolveImageOptions(options), modules))
}
