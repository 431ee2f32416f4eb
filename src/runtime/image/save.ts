import { Readable } from 'node:stream'
import { invalid } from '../../common/index.js'
import type { ImageRecord } from '../content/database.js'
import type { Descriptor, Digest, ImageConfig } from '../contract.js'
import { isIndex, type Manifest, MEDIA, parseManifest } from '../registry/media-types.js'
import { familiarString, parseReference, type Reference, repositoryOf } from '../registry/reference.js'
import { encodeJson } from './config.js'
import { type ImageStore, noSuchImage } from './store.js'

/** What docker and containerd look for in an index's annotations. */
export const NAME_ANNOTATION = 'io.containerd.image.name'
export const TAG_ANNOTATION = 'org.opencontainers.image.ref.name'

interface Chosen {
  readonly record: ImageRecord
  readonly names: Reference[]
}

/** Names: that one. Ids: without names. A repository without tag: all its tags, as docker does. */
function choose(store: ImageStore, references: readonly string[]): Chosen[] {
  const chosen = new Map<Digest, Chosen>()
  const add = (record: ImageRecord, name: Reference | null): void => {
    const c = chosen.get(record.id) ?? { record, names: [] }
    chosen.set(record.id, c)
    if (name?.tag && !c.names.some((n) => familiarString(n) === familiarString(name))) c.names.push(name)
  }
  for (const text of references) {
    const found = store.find(text)
    if (found?.reference) add(found.record, parseReference(found.reference.name))
    else if (found) add(found.record, null)
    const asked = /^(sha256:)?[0-9a-f]{64}$/.test(text) ? null : parseReference(text)
    let any = found !== null
    if (asked && !asked.tag && !asked.digest && !(found && !found.reference))
      for (const r of store.db.references.values()) {
        const name = parseReference(r.name)
        const image = store.db.images.get(r.image)
        if (!name.tag || !image || repositoryOf(name) !== repositoryOf(asked)) continue
        add(image, name)
        any = true
      }
    if (!any) throw noSuchImage(text)
  }
  return [...chosen.values()]
}

/** One entry's header in the ustar format (POSIX.1-2001 pax, ustar Interchange Format). Names here are short. */
export function tarHeader(name: string, size: number, isDirectory: boolean, seconds = 0): Buffer {
  const h = Buffer.alloc(512)
  h.write(name, 0, 100, 'ascii')
  h.write(isDirectory ? '0000755' : '0000644', 100, 'ascii')
  h.write('0000000', 108, 'ascii')
  h.write('0000000', 116, 'ascii')
  if (size < 8 ** 11) h.write(size.toString(8).padStart(11, '0'), 124, 'ascii')
  else {
    // What octal cannot say is big-endian binary behind a set top bit (GNU's form, which all readers know).
    h.writeBigUInt64BE(BigInt(size), 128)
    h[124] = 0x80
  }
  h.write(seconds.toString(8).padStart(11, '0'), 136, 'ascii')
  h.write(isDirectory ? '5' : '0', 156, 'ascii')
  h.write('ustar\x0000', 257, 'latin1')
  h.fill(' ', 148, 156)
  const sum = h.reduce((a, b) => a + b, 0)
  h.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return h
}

const padding = (size: number): Buffer => Buffer.alloc((512 - (size % 512)) % 512)

/**
 * One tar that is an OCI image layout and, through manifest.json and repositories, a docker archive too. Manifests and blobs
 * are the very bytes in the store, so a load gives the same digests; times are zero or the image's own, so the same images give
 * the same tar. A config is there twice, the second time where programs that know docker's archives alone look for it.
 * A blob that is damaged on disk makes the stream fail.
 */
export async function saveImages(store: ImageStore, references: readonly string[]): Promise<Readable> {
  if (references.length === 0) throw invalid('noReferences', 'name at least one image to save')
  const chosen = choose(store, references)
  return Readable.from(write(store, chosen), { objectMode: false, highWaterMark: 1 << 20 })
}

async function* write(store: ImageStore, chosen: readonly Chosen[]): AsyncGenerator<Uint8Array> {
  const lease = store.lease()
  try {
    for (const { record } of chosen)
      await lease.pin(record.id, record.manifest.digest, ...record.blobs.map((b) => b.digest))
    yield tarHeader('blobs/', 0, true)
    yield tarHeader('blobs/sha256/', 0, true)
    const documents = new Documents(new Set(chosen.map((c) => c.record.id)))
    const written = new Set<Digest>()
    for (const c of chosen) {
      const data = await store.blobs.read(c.record.manifest.digest)
      const manifest = parseManifest(data, c.record.manifest.mediaType)
      if (isIndex(manifest)) throw invalid('badManifest', `the image ${c.record.id} is recorded with an index`)
      for (const d of [c.record.manifest, manifest.config, ...manifest.layers]) {
        if (written.has(d.digest)) continue
        written.add(d.digest)
        yield tarHeader(blobPath(d.digest), d.size, false)
        yield* store.blobs.stream(d.digest)
        yield padding(d.size)
      }
      const { config, raw } = await store.config(c.record.id)
      documents.add(c, manifest, config)
      yield tarHeader(configName(c.record.id), raw.length, false, createdSeconds(config))
      yield raw
      yield padding(raw.length)
    }
    for (const [name, data] of documents.files()) {
      yield tarHeader(name, data.length, false)
      yield data
      yield padding(data.length)
    }
    yield Buffer.alloc(1024)
    for (const { record } of chosen) await store.emit('save', record.id, record.id)
  } finally {
    store.release(lease)
  }
}

/** The three tables of contents: OCI's, docker's, and the oldest docker's. */
class Documents {
  readonly #index: Descriptor[] = []
  readonly #manifests: object[] = []
  readonly #repositories: Record<string, Record<string, string>> = {}

  constructor(private readonly saved: ReadonlySet<Digest>) {}

  add({ record, names }: Chosen, manifest: Manifest, config: ImageConfig): void {
    const { mediaType, digest, size } = record.manifest
    const { architecture, os, variant } = config
    const own = { mediaType, digest, size, platform: { architecture, os, ...(variant && { variant }) } }
    if (names.length === 0) this.#index.push(own)
    for (const n of names)
      this.#index.push({
        ...own,
        annotations: { [NAME_ANNOTATION]: `${repositoryOf(n)}:${n.tag}`, [TAG_ANNOTATION]: n.tag! },
      })
    this.#manifests.push({
      Config: configName(record.id),
      RepoTags: names.length > 0 ? names.map(familiarString) : null,
      Layers: manifest.layers.map((l) => blobPath(l.digest)),
      ...(record.parent && this.saved.has(record.parent) ? { Parent: record.parent } : {}),
    })
    for (const n of names) {
      const key = familiarString({ ...n, tag: null })
      this.#repositories[key] = { ...this.#repositories[key], [n.tag!]: record.layers.at(-1)?.slice(7) ?? '' }
    }
  }

  files(): [string, Buffer][] {
    return [
      ['index.json', encodeJson({ schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests: this.#index })],
      ['manifest.json', encodeJson(this.#manifests)],
      ['oci-layout', encodeJson({ imageLayoutVersion: '1.0.0' })],
      ...(Object.keys(this.#repositories).length > 0
        ? ([['repositories', encodeJson(this.#repositories)]] as [string, Buffer][])
        : []),
    ]
  }
}

const configName = (id: Digest): string => `${id.slice(7)}.json`

function createdSeconds(config: ImageConfig): number {
  const ms = Date.parse(config.created ?? '')
  return ms > 0 ? Math.floor(ms / 1000) : 0
}

const blobPath = (digest: Digest): string => `blobs/sha256/${digest.slice(7)}`
