import { rm } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { invalid, rfc3339 } from '../../common/index.js'
import { digestOf } from '../content/blob-store.js'
import type { Change } from '../content/database.js'
import type { Descriptor, Digest, Image, ImageConfig, ImagePlatform } from '../contract.js'
import { hostPlatform, type Manifest, MEDIA } from '../registry/media-types.js'
import { familiarString, parseReference, type Reference, withDefaultTag } from '../registry/reference.js'
import type { UnpackedLayer } from '../snapshot/layer-store.js'
import type { LayerResult } from '../snapshot/layer-tool.js'
import { encodeJson } from './config.js'
import { unpackBlob } from './fetch.js'
import { installImage } from './install.js'
import { applyChanges } from './instructions.js'
import { type ImageStore, type Lease, noSuchImage } from './store.js'

/** A new name for an image; a digest cannot be given. */
export function targetReference(name: string): Reference {
  const ref = withDefaultTag(parseReference(name))
  if (ref.digest) throw invalid('badReference', 'refusing to create a tag with a digest reference', { reference: name })
  return ref
}

export const layerDescriptor = (r: LayerResult): Descriptor => ({
  mediaType: r.compression === 'zstd' ? `${MEDIA.ociLayer}+zstd` : MEDIA.dockerLayer,
  digest: r.compressedDigest,
  size: r.compressedBytes,
})

/** Manifest for an image that was made here: Docker's, unless a layer's compression asks for OCI's. */
export function makeManifest(
  config: Descriptor,
  layers: readonly Descriptor[],
): { data: Buffer; descriptor: Descriptor } {
  const oci = layers.some((l) => l.mediaType.startsWith('application/vnd.oci.'))
  const mediaType = oci ? MEDIA.ociManifest : MEDIA.dockerManifest
  const manifest: Manifest = {
    schemaVersion: 2,
    mediaType,
    config: { ...config, mediaType: oci ? MEDIA.ociConfig : MEDIA.dockerConfig },
    layers: oci
      ? layers.map((l) => (l.mediaType === MEDIA.dockerLayer ? { ...l, mediaType: `${MEDIA.ociLayer}+gzip` } : l))
      : layers,
  }
  const data = encodeJson(manifest)
  return { data, descriptor: { mediaType, digest: digestOf(data), size: data.length } }
}

export interface NewLayer {
  readonly unpacked: UnpackedLayer
  readonly blob: Descriptor
}

/** Takes a tar in, as it is when registries take it so, else gzipped; the blob is in its place and pinned when it resolves. */
export async function ingestLayer(store: ImageStore, lease: Lease, tar: AsyncIterable<Uint8Array>): Promise<NewLayer> {
  const path = store.blobs.temporaryPath()
  const { directory, process } = await store.layers.unpack({ blob: path, recompress: true })
  try {
    const result = (await process.consume(tar)) as unknown as LayerResult
    await lease.pin(result.compressedDigest)
    await store.blobs.adopt(path, result.compressedDigest)
    return { unpacked: { directory, result }, blob: layerDescriptor(result) }
  } catch (e) {
    await process.kill()
    await store.layers.discard(directory)
    await rm(path, { force: true })
    throw e
  }
}

/** Writes config and manifest, then installs. `names` become references. */
export async function installMade(
  store: ImageStore,
  lease: Lease,
  o: {
    readonly config: ImageConfig
    readonly rawConfig?: Uint8Array
    readonly blobs: readonly Descriptor[]
    readonly unpack: (index: number) => Promise<UnpackedLayer>
    readonly names: readonly Reference[]
    readonly parent?: Digest | null
    readonly isTagged?: boolean
    readonly areBlobsSynced?: boolean
  },
): Promise<Digest> {
  const raw = o.rawConfig ?? encodeJson(o.config)
  const id = digestOf(raw)
  const { data, descriptor } = makeManifest({ mediaType: MEDIA.dockerConfig, digest: id, size: raw.length }, o.blobs)
  await lease.pin(id, descriptor.digest)
  await store.blobs.put(raw, id)
  await store.blobs.put(data, descriptor.digest)
  await installImage(store, lease, {
    id,
    config: o.config,
    manifest: descriptor,
    blobs: o.blobs,
    unpack: o.unpack,
    parent: o.parent ?? null,
    isTagged: o.isTagged ?? false,
    areBlobsSynced: o.areBlobsSynced ?? false,
    changes: () => o.names.map((n): Change => store.nameImage(n, id, null)),
  })
  return id
}

export interface ImportOptions {
  readonly reference?: string
  readonly message?: string
  readonly changes?: readonly string[]
  readonly platform?: ImagePlatform
}

export async function importImage(store: ImageStore, tar: Readable, o: ImportOptions): Promise<Image> {
  // Everything that can be refused is, before the stream is read.
  const names = o.reference ? [targetReference(o.reference)] : []
  const config = applyChanges({}, o.changes ?? [])
  return store.leased(async (lease) => {
    const layer = await ingestLayer(store, lease, tar)
    const created = rfc3339(store.modules.clock.now())
    const platform = o.platform ?? hostPlatform()
    let taken = false
    try {
      const id = await installMade(store, lease, {
        config: {
          architecture: platform.architecture,
          ...(platform.variant ? { variant: platform.variant } : {}),
          os: platform.os,
          created,
          config,
          rootfs: { type: 'layers', diff_ids: [layer.unpacked.result.diffId] },
          history: [{ created, comment: o.message || 'Imported from -' }],
        },
        blobs: [layer.blob],
        unpack: async () => {
          taken = true
          return layer.unpacked
        },
        names,
        isTagged: names.length > 0,
      })
      await store.emit('import', id, names[0] ? familiarString(names[0]) : id)
      return await store.image(id)
    } finally {
      if (!taken) await store.layers.discard(layer.unpacked.directory)
    }
  })
}

export interface DeriveOptions {
  /** Whose layers it begins with; null: nobody's. */
  readonly base: Digest | null
  /** So many of the base's, from below; absent: all. */
  readonly layers?: number
  /** A writable layer that comes on top, if anything is in it. It may be in use: then the caller has stopped its writers or accepts a blur. */
  readonly upper: string | null
  readonly parent: Digest | null
  /** The document; `diffId` is the new layer's, null where there is none. */
  readonly config: (base: ImageConfig | null, diffId: Digest | null) => ImageConfig
  readonly names?: readonly Reference[]
}

/** A new image on layers that are here. */
export async function deriveImage(store: ImageStore, o: DeriveOptions): Promise<Image> {
  const names = o.names ?? []
  const base = o.base === null ? null : store.db.images.get(o.base)
  if (base === undefined) throw noSuchImage(o.base!)
  const baseConfig = base ? (await store.config(base.id)).config : null
  return store.leased(async (lease) => {
    const below = base?.blobs.slice(0, o.layers) ?? []
    if (base) {
      await lease.pin(base.id, ...base.layers, ...base.blobs.map((b) => b.digest))
      if (!store.db.images.has(base.id)) throw noSuchImage(base.id)
    }
    const top = o.upper === null ? null : await packUpper(store, lease, o.upper)
    const blobs = top ? [...below, top.blob] : below
    const id = await installMade(store, lease, {
      config: o.config(baseConfig, top?.diffId ?? null),
      blobs,
      unpack: (i) => unpackBlob(store, blobs[i]!),
      names,
      isTagged: names.length > 0,
      parent: o.parent,
      areBlobsSynced: top === null,
    })
    for (const n of names) await store.emit('tag', id, familiarString(n))
    return store.image(id)
  })
}

/** A writable layer as a blob in its place and pinned; null when nothing is in it. */
async function packUpper(
  store: ImageStore,
  lease: Lease,
  upper: string,
): Promise<{ readonly blob: Descriptor; readonly diffId: Digest } | null> {
  const path = store.blobs.temporaryPath()
  try {
    const packed = await store.tool.packLayer(upper, path)
    if (packed.entries === 0) {
      await rm(path)
      return null
    }
    const blob = layerDescriptor({ ...packed, compression: 'gzip' })
    await lease.pin(blob.digest)
    await store.blobs.adopt(path, blob.digest)
    return { blob, diffId: packed.diffId }
  } catch (e) {
    await rm(path, { force: true })
    throw e
  }
}

export interface CommitOptions {
  readonly container: string
  readonly image: Digest
  readonly config: ImageConfig['config']
  readonly containerConfig?: NonNullable<ImageConfig['container_config']>
  readonly command: string
  readonly reference?: string
  readonly comment?: string
  readonly author?: string
}

/** A container's writable layer on top of its image. */
export async function commitImage(store: ImageStore, o: CommitOptions): Promise<Image> {
  const created = rfc3339(store.modules.clock.now())
  const author = o.author ? { author: o.author } : {}
  return deriveImage(store, {
    names: o.reference ? [targetReference(o.reference)] : [],
    base: o.image,
    parent: o.image,
    upper: store.upperOf(o.container),
    config: (base, diffId) => ({
      ...base!,
      created,
      ...author,
      ...(o.config ? { config: o.config } : {}),
      container: o.container,
      container_config: o.containerConfig ?? {},
      rootfs: { type: 'layers', diff_ids: [...base!.rootfs.diff_ids, ...(diffId ? [diffId] : [])] },
      history: [
        ...(base!.history ?? []),
        {
          created,
          created_by: o.command,
          ...author,
          ...(o.comment ? { comment: o.comment } : {}),
          ...(diffId ? {} : { empty_layer: true }),
        },
      ],
    }),
  })
}
