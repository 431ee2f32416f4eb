import { createReadStream } from 'node:fs'
import { lstat, mkdir, readFile, realpath, rm } from 'node:fs/promises'
import { join, sep } from 'node:path'
import type { Readable } from 'node:stream'
import { invalid, notFound } from '../../common/index.js'
import { digestOf } from '../content/blob-store.js'
import type { Descriptor, Digest, ImageConfig, ImagePlatform, OnProgress } from '../contract.js'
import {
  choosePlatform,
  hostPlatform,
  isIndex,
  type Manifest,
  mediaTypeOf,
  parseManifest,
} from '../registry/media-types.js'
import {
  canonicalString,
  familiarString,
  parseReference,
  type Reference,
  withDefaultTag,
} from '../registry/reference.js'
import { chainIds, type UnpackedLayer } from '../snapshot/layer-store.js'
import type { LayerResult } from '../snapshot/layer-tool.js'
import { encodeJson, parseConfig } from './config.js'
import { installImage } from './install.js'
import { ingestLayer, installMade } from './made.js'
import { LayerProgress } from './progress.js'
import { NAME_ANNOTATION, TAG_ANNOTATION } from './save.js'
import type { ImageStore, Lease } from './store.js'

/** Documents of an archive: more is no index of images. */
const DOCUMENT_BYTES_MAX = 16 * 1024 * 1024

export interface LoadOptions {
  readonly onProgress?: OnProgress
  readonly platform?: ImagePlatform
}

/** An archive's own files, unpacked in a directory of ours that nobody else writes to. */
class Archive {
  constructor(private readonly root: string) {}

  /** The real path of a regular file inside the archive; links (docker's layer.tar are some) may not lead out. */
  async path(name: string): Promise<string> {
    let real: string
    try {
      real = await realpath(join(this.root, name))
    } catch (e) {
      if (['ENOENT', 'ENOTDIR', 'ELOOP'].includes((e as NodeJS.ErrnoException).code ?? ''))
        throw invalid('badArchive', `the image archive names ${name}, which is not in it`, { name })
      throw e
    }
    if (!real.startsWith(this.root + sep) || !(await lstat(real)).isFile())
      throw invalid('badArchive', `${name} in the image archive is no file of its own`, { name })
    return real
  }

  async has(name: string): Promise<boolean> {
    return lstat(join(this.root, name)).then(
      () => true,
      () => false,
    )
  }

  async document(name: string): Promise<Buffer> {
    const path = await this.path(name)
    const { size } = await lstat(path)
    if (size > DOCUMENT_BYTES_MAX)
      throw invalid('badArchive', `${name} in the image archive has ${size} bytes`, { name })
    return readFile(path)
  }

  async json(name: string): Promise<unknown> {
    try {
      return JSON.parse((await this.document(name)).toString('utf8'))
    } catch (cause) {
      if (cause instanceof SyntaxError)
        throw invalid('badArchive', `${name} in the image archive is no JSON`, { name }, { cause })
      throw cause
    }
  }
}

/** Unpacks the archive beside the blobs, then takes its images one by one; the names loaded, or ids where there are none. */
export async function loadImages(store: ImageStore, tar: Readable, o: LoadOptions): Promise<readonly string[]> {
  const root = store.blobs.temporaryPath()
  await mkdir(root)
  try {
    await store.tool
      .apply({
        root,
        plain: true,
        keepOwner: false,
        bytesMax: store.options.layerBytesMax,
        entriesMax: store.options.layerEntriesMax,
      })
      .consume(tar)
    const archive = new Archive(await realpath(root))
    const isLayout = await archive.has('oci-layout')
    const isDocker = await archive.has('manifest.json')
    if (!isLayout && !isDocker && (await archive.has('repositories'))) return await loadLegacy(store, archive, o)
    if (!isLayout && !isDocker)
      throw invalid(
        'badArchive',
        'the archive holds no image: none of oci-layout, manifest.json and repositories is in it',
      )
    const loaded = isLayout ? await loadLayout(store, archive, o) : await loadDocker(store, archive, o)
    await linkParents(store, archive)
    return loaded
  } finally {
    await store.tool.run('remove', ['--root', root])
  }
}

/** Names that another image has until now. */
function tellMoved(store: ImageStore, o: LoadOptions, id: Digest, names: readonly Reference[]): void {
  for (const n of names) {
    const before = store.db.references.get(canonicalString(n))?.image
    if (before && before !== id)
      o.onProgress?.({
        stream: `The image ${familiarString(n)} already exists, renaming the old one with ID ${before} to empty string\n`,
      })
  }
}

async function report(store: ImageStore, o: LoadOptions, id: Digest, names: readonly Reference[]): Promise<string[]> {
  const shown = names.length > 0 ? names.map(familiarString) : [id]
  for (const s of shown)
    o.onProgress?.({ stream: names.length > 0 ? `Loaded image: ${s}\n` : `Loaded image ID: ${s}\n` })
  await store.emit('load', id, id)
  return shown
}

/** Images that were saved together know their parents again. One whose history does not begin with the other's has none. */
async function linkParents(store: ImageStore, archive: Archive): Promise<void> {
  if (!(await archive.has('manifest.json'))) return
  const manifests = dockerManifests(await archive.json('manifest.json'))
  if (!manifests.some((m) => m.Parent)) return
  const ids = new Map<string, Digest>()
  for (const m of manifests) ids.set(m.Config, digestOf(await archive.document(m.Config)))
  const saved = new Set(ids.values())
  for (const m of manifests) {
    const id = ids.get(m.Config)!
    const parent = m.Parent as Digest | undefined
    if (!parent || !saved.has(parent)) continue
    await store.exclusive(async () => {
      const record = store.db.images.get(id)
      if (!record || !store.db.images.has(parent) || !(await isParent(store, parent, id))) return
      await store.db.commit([{ put: 'image', record: { ...record, parent } }])
    })
  }
}

async function isParent(store: ImageStore, parent: Digest, id: Digest): Promise<boolean> {
  const history = async (of: Digest): Promise<readonly unknown[]> => (await store.config(of)).config.history ?? []
  const older = await history(parent)
  const own = await history(id)
  return own.length === older.length + 1 && JSON.stringify(own.slice(0, -1)) === JSON.stringify(older)
}

// ---------------------------------------------------------------------------------------------- OCI image layout

const blobName = (d: Descriptor): string => `blobs/sha256/${d.digest.slice(7)}`

async function verified(archive: Archive, d: Descriptor): Promise<Buffer> {
  const data = await archive.document(blobName(d))
  const actual = digestOf(data)
  if (actual !== d.digest)
    throw invalid('digestMismatch', `${blobName(d)} in the image archive has the digest ${actual}`, {
      expected: d.digest,
      actual,
    })
  return data
}

async function loadLayout(store: ImageStore, archive: Archive, o: LoadOptions): Promise<string[]> {
  const raw = await archive.document('index.json')
  const index = parseManifest(raw, '')
  if (!isIndex(index)) throw invalid('badArchive', 'index.json of the image archive is no index')
  const legacy = await legacyNames(archive)
  // One image may stand there several times, once a name.
  const images = new Map<Digest, { descriptor: Descriptor; names: Reference[] }>()
  const platform = o.platform ?? hostPlatform()
  for (const entry of index.manifests) {
    let descriptor: Descriptor = entry
    let manifest = parseManifest(await verified(archive, entry), entry.mediaType)
    for (let depth = 0; isIndex(manifest); depth++) {
      const chosen: Descriptor | null = depth < 2 ? choosePlatform(manifest, platform) : null
      if (!chosen)
        throw notFound(
          'noPlatform',
          `no image for ${platform.os}/${platform.architecture} is in the archive's index ${entry.digest}`,
        )
      descriptor = chosen
      manifest = parseManifest(await verified(archive, chosen), chosen.mediaType)
    }
    const known = images.get(descriptor.digest) ?? { descriptor, names: [] }
    images.set(descriptor.digest, known)
    for (const name of [annotatedName(entry), ...(legacy.get(manifest.config.digest) ?? [])])
      if (name && !known.names.some((n) => familiarString(n) === familiarString(name))) known.names.push(name)
  }
  const loaded: string[] = []
  for (const { descriptor, names } of images.values())
    loaded.push(...(await store.leased((lease) => loadManifest(store, lease, archive, descriptor, names, o))))
  return loaded
}

function annotatedName(d: Descriptor): Reference | null {
  const full = d.annotations?.[NAME_ANNOTATION]
  if (full) return withDefaultTag(parseReference(full))
  const ref = d.annotations?.[TAG_ANNOTATION]
  // By the specification it may be a bare tag, which names nothing here.
  return ref && /[:/]/.test(ref) ? withDefaultTag(parseReference(ref)) : null
}

/** manifest.json beside an OCI layout: the names by config digest. */
async function legacyNames(archive: Archive): Promise<Map<Digest, Reference[]>> {
  const names = new Map<Digest, Reference[]>()
  if (!(await archive.has('manifest.json'))) return names
  for (const m of dockerManifests(await archive.json('manifest.json'))) {
    const hex = /([0-9a-f]{64})(?:\.json)?$/.exec(m.Config)?.[1]
    if (hex)
      names.set(
        `sha256:${hex}`,
        (m.RepoTags ?? []).map((t) => withDefaultTag(parseReference(t))),
      )
  }
  return names
}

async function loadManifest(
  store: ImageStore,
  lease: Lease,
  archive: Archive,
  descriptor: Descriptor,
  names: readonly Reference[],
  o: LoadOptions,
): Promise<string[]> {
  const data = await verified(archive, descriptor)
  const manifest = parseManifest(data, descriptor.mediaType) as Manifest
  const rawConfig = await verified(archive, manifest.config)
  const config = parseConfig(rawConfig)
  const id = manifest.config.digest
  const chain = chainIds(config.rootfs.diff_ids)
  await lease.pin(id, descriptor.digest, ...chain, ...manifest.layers.map((l) => l.digest))
  await store.blobs.put(rawConfig, id)
  await store.blobs.put(data, descriptor.digest)
  tellMoved(store, o, id, names)
  // Chains that are here already may have been packed otherwise: their blobs are wanted for push and save.
  let hasNewBlobs = false
  for (const [i, l] of manifest.layers.entries())
    if (store.db.layers.has(chain[i]!) && !(await store.blobs.has(l.digest))) {
      const extra = await takeLayer(store, archive, l, config.rootfs.diff_ids[i]!, o)
      await store.layers.discard(extra.directory)
      hasNewBlobs = true
    }
  await installImage(store, lease, {
    id,
    config,
    manifest: { mediaType: mediaTypeOf(manifest, descriptor.mediaType), digest: descriptor.digest, size: data.length },
    blobs: manifest.layers,
    hasNewBlobs,
    unpack: (i) => takeLayer(store, archive, manifest.layers[i]!, config.rootfs.diff_ids[i]!, o),
    changes: () => names.map((n) => store.nameImage(n, id, null)),
  })
  return report(store, o, id, names)
}

/** Hashes, keeps and unpacks a layer file of the archive. */
async function takeLayer(
  store: ImageStore,
  archive: Archive,
  d: Descriptor,
  diffId: Digest,
  o: LoadOptions,
): Promise<UnpackedLayer> {
  const blob = store.blobs.temporaryPath()
  const { directory, process } = await store.layers.unpack({ blob })
  try {
    const result = (await process.consume(
      withProgress(
        store,
        createReadStream(await archive.path(blobName(d)), { highWaterMark: 1 << 20 }),
        d.size,
        diffId,
        o,
      ),
    )) as unknown as LayerResult
    if (result.compressedDigest !== d.digest)
      throw invalid('digestMismatch', `${blobName(d)} in the image archive has the digest ${result.compressedDigest}`, {
        expected: d.digest,
        actual: result.compressedDigest,
      })
    await store.blobs.adopt(blob, d.digest)
    return { directory, result }
  } catch (e) {
    await process.kill()
    await store.layers.discard(directory)
    await rm(blob, { force: true })
    throw e
  }
}

async function* withProgress(
  store: ImageStore,
  source: AsyncIterable<Uint8Array>,
  total: number,
  diffId: Digest,
  o: LoadOptions,
): AsyncGenerator<Uint8Array> {
  const progress = new LayerProgress(diffId.slice(7, 19), store.modules.clock, o.onProgress ?? (() => {}))
  let done = 0
  for await (const chunk of source) {
    yield chunk
    done += chunk.length
    progress.advance('Loading layer', done, total)
  }
}

// ---------------------------------------------------------------------------------------------- docker archive

interface DockerManifest {
  readonly Config: string
  readonly RepoTags?: readonly string[] | null
  readonly Layers: readonly string[]
  readonly Parent?: string
}

function dockerManifests(doc: unknown): DockerManifest[] {
  const isText = (x: unknown): x is string => typeof x === 'string'
  if (!Array.isArray(doc)) throw invalid('badArchive', 'manifest.json of the image archive is no list')
  for (const m of doc as Partial<DockerManifest>[])
    if (
      typeof m !== 'object' ||
      m === null ||
      !isText(m.Config) ||
      !Array.isArray(m.Layers) ||
      !m.Layers.every(isText) ||
      !(m.Parent === undefined || isText(m.Parent)) ||
      !(m.RepoTags === undefined || m.RepoTags === null || (Array.isArray(m.RepoTags) && m.RepoTags.every(isText)))
    )
      throw invalid('badArchive', 'an entry of manifest.json lacks Config or Layers, or has others than strings there')
  return doc as DockerManifest[]
}

async function loadDocker(store: ImageStore, archive: Archive, o: LoadOptions): Promise<string[]> {
  const loaded: string[] = []
  for (const m of dockerManifests(await archive.json('manifest.json')))
    loaded.push(...(await store.leased((lease) => loadDockerImage(store, lease, archive, m, o))))
  return loaded
}

async function loadDockerImage(
  store: ImageStore,
  lease: Lease,
  archive: Archive,
  m: DockerManifest,
  o: LoadOptions,
): Promise<string[]> {
  const rawConfig = await archive.document(m.Config)
  const config = parseConfig(rawConfig)
  const diffIds = config.rootfs.diff_ids
  if (diffIds.length !== m.Layers.length)
    throw invalid(
      'badArchive',
      `invalid manifest, layers length mismatch: expected ${diffIds.length}, got ${m.Layers.length}`,
    )
  const names = (m.RepoTags ?? []).map((t) => withDefaultTag(parseReference(t)))
  const layers = m.Layers.map((path, i) => ({ path, shownId: diffIds[i]! }))
  return installLayers(store, lease, archive, layers, names, o, () => ({ config, rawConfig }))
}

/**
 * The archive's layers are plain tars, so how they were packed is not known: each becomes a blob of our own making. `describe`
 * is given the digests of their contents.
 */
async function installLayers(
  store: ImageStore,
  lease: Lease,
  archive: Archive,
  layers: readonly { readonly path: string; readonly shownId: Digest }[],
  names: readonly Reference[],
  o: LoadOptions,
  describe: (diffIds: readonly Digest[]) => { readonly config: ImageConfig; readonly rawConfig?: Uint8Array },
): Promise<string[]> {
  const blobs: Descriptor[] = []
  const diffIds: Digest[] = []
  const unpacked = new Map<number, UnpackedLayer>()
  try {
    for (const [i, { path: name, shownId }] of layers.entries()) {
      const path = await archive.path(name)
      const { size } = await lstat(path)
      const source = createReadStream(path, { highWaterMark: 1 << 20 })
      const layer = await ingestLayer(store, lease, withProgress(store, source, size, shownId, o))
      unpacked.set(i, layer.unpacked)
      diffIds.push(layer.unpacked.result.diffId)
      blobs.push(layer.blob)
    }
    const described = describe(diffIds)
    tellMoved(store, o, digestOf(described.rawConfig ?? encodeJson(described.config)), names)
    const id = await installMade(store, lease, {
      ...described,
      blobs,
      names,
      unpack: async (i) => {
        const u = unpacked.get(i)!
        unpacked.delete(i)
        return u
      },
    })
    return await report(store, o, id, names)
  } finally {
    for (const u of unpacked.values()) await store.layers.discard(u.directory)
  }
}

// ---------------------------------------------------------------------------------- archives of docker before 1.10

/** As deep as dockerd lets images be. */
const LEGACY_LAYERS_MAX = 127

/** An image of those days: one layer over its parent's. */
interface LegacyImage {
  readonly parent?: string
  readonly created?: string
  readonly author?: string
  readonly comment?: string
  readonly architecture?: string
  readonly os?: string
  readonly config?: ImageConfig['config']
  readonly container_config?: { readonly Cmd?: readonly string[] | null }
}

/** `repositories` names images by their random ids; each has a directory with `json` and `layer.tar`. */
async function loadLegacy(store: ImageStore, archive: Archive, o: LoadOptions): Promise<string[]> {
  const named = new Map<string, Reference[]>()
  for (const [repository, tags] of Object.entries((await archive.json('repositories')) ?? {}))
    for (const [tag, id] of Object.entries((tags ?? {}) as Record<string, unknown>)) {
      if (typeof id !== 'string')
        throw invalid('badArchive', `repositories of the image archive has no id for ${repository}:${tag}`)
      named.set(id, [...(named.get(id) ?? []), parseReference(`${repository}:${tag}`)])
    }
  const loaded: string[] = []
  for (const [id, names] of named) {
    const lineage = await legacyLineage(archive, id)
    const layers = lineage.map((l) => ({ path: `${l.id}/layer.tar`, shownId: `sha256:${l.id}` as const }))
    const config = (diffIds: readonly Digest[]): ImageConfig =>
      legacyConfig(
        lineage.map((l) => l.image),
        diffIds,
      )
    loaded.push(
      ...(await store.leased((lease) =>
        installLayers(store, lease, archive, layers, names, o, (diffIds) => ({ config: config(diffIds) })),
      )),
    )
  }
  return loaded
}

/** The image and those below it, the lowest first. */
async function legacyLineage(archive: Archive, id: string): Promise<{ id: string; image: LegacyImage }[]> {
  const lineage: { id: string; image: LegacyImage }[] = []
  for (let next: unknown = id; next; next = lineage[0]!.image.parent) {
    if (typeof next !== 'string' || !/^[0-9a-f]{64}$/.test(next))
      throw invalid('badArchive', `the image archive names an image ${JSON.stringify(next)}: its ids are 64 hex digits`)
    if (lineage.length === LEGACY_LAYERS_MAX)
      throw invalid('badArchive', `the image ${id} of the archive has more than ${LEGACY_LAYERS_MAX} layers`, { id })
    lineage.unshift({ id: next, image: ((await archive.json(`${next}/json`)) ?? {}) as LegacyImage })
  }
  return lineage
}

function legacyConfig(lineage: readonly LegacyImage[], diffIds: readonly Digest[]): ImageConfig {
  const top = lineage.at(-1)!
  const config: ImageConfig = {
    architecture: top.architecture || hostPlatform().architecture,
    os: top.os || 'linux',
    ...(top.created ? { created: top.created } : {}),
    ...(top.author ? { author: top.author } : {}),
    config: top.config ?? {},
    rootfs: { type: 'layers', diff_ids: [...diffIds] },
    history: lineage.map((l) => ({
      ...(l.created ? { created: l.created } : {}),
      created_by: (l.container_config?.Cmd ?? []).join(' '),
      ...(l.author ? { author: l.author } : {}),
      ...(l.comment ? { comment: l.comment } : {}),
    })),
  }
  return parseConfig(encodeJson(config))
}
