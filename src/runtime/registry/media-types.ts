import { invalid } from '../../common/index.js'
import { isDigest } from '../content/blob-store.js'
import type { Descriptor, ImagePlatform } from '../contract.js'

/** Docker's Image Manifest v2 schema 2, and image-spec media-types.md. */
export const MEDIA = {
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
  dockerLayer: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  ociLayer: 'application/vnd.oci.image.layer.v1.tar',
} as const

export const MANIFEST_ACCEPT = [MEDIA.dockerManifest, MEDIA.dockerList, MEDIA.ociManifest, MEDIA.ociIndex].join(', ')

export interface Manifest {
  readonly schemaVersion: 2
  readonly mediaType?: string
  readonly config: Descriptor
  readonly layers: readonly Descriptor[]
}

export interface ManifestIndex {
  readonly schemaVersion: 2
  readonly mediaType?: string
  readonly manifests: readonly Descriptor[]
}

export const isIndexType = (mediaType: string): boolean =>
  mediaType === MEDIA.dockerList || mediaType === MEDIA.ociIndex

const isRecord = (x: unknown): x is Record<string, unknown> => typeof x === 'object' && x !== null && !Array.isArray(x)

function checkDescriptor(x: unknown, where: string): Descriptor {
  if (!isRecord(x) || typeof x.digest !== 'string' || !isDigest(x.digest))
    throw invalid('badManifest', `the manifest's ${where} has no sha256 digest`)
  if (typeof x.size !== 'number' || !Number.isSafeInteger(x.size) || x.size < 0)
    throw invalid('badManifest', `the manifest's ${where} has no size, a whole number of bytes`)
  if (typeof x.mediaType !== 'string') throw invalid('badManifest', `the manifest's ${where} has no media type`)
  return x as unknown as Descriptor
}

/** Checks what we rely on; other members stay as they are in the bytes. Throws badManifest or unsupportedManifest. */
export function parseManifest(data: Uint8Array, mediaType: string): Manifest | ManifestIndex {
  let doc: unknown
  try {
    doc = JSON.parse(Buffer.from(data).toString('utf8'))
  } catch (cause) {
    throw invalid('badManifest', 'the manifest is no JSON', { mediaType }, { cause })
  }
  if (!isRecord(doc)) throw invalid('badManifest', 'the manifest is no JSON object', { mediaType })
  if (doc.schemaVersion === undefined)
    throw invalid('badManifest', 'the manifest has no schemaVersion; this engine takes version 2', { mediaType })
  if (doc.schemaVersion !== 2)
    throw invalid(
      'unsupportedManifest',
      `manifest schema version ${JSON.stringify(doc.schemaVersion)} is not supported; push the image again with a current engine`,
      { mediaType },
    )
  if (Array.isArray(doc.manifests)) {
    doc.manifests.forEach((m, i) => {
      checkDescriptor(m, `entry ${i}`)
    })
    return doc as unknown as ManifestIndex
  }
  checkDescriptor(doc.config, 'config')
  if (!Array.isArray(doc.layers)) throw invalid('badManifest', 'the manifest has no list of layers', { mediaType })
  doc.layers.forEach((l, i) => {
    checkDescriptor(l, `layer ${i}`)
  })
  return doc as unknown as Manifest
}

export const isIndex = (m: Manifest | ManifestIndex): m is ManifestIndex => 'manifests' in m

/** The media type that the document itself names wins over the header (image-spec manifest.md). */
export function mediaTypeOf(m: Manifest | ManifestIndex, header: string): string {
  return m.mediaType ?? (header.split(';')[0]!.trim() || (isIndex(m) ? MEDIA.ociIndex : MEDIA.ociManifest))
}

const NODE_ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64', arm: 'arm', ia32: '386' }

export const hostPlatform = (): ImagePlatform => ({
  os: 'linux',
  architecture: NODE_ARCHITECTURES[process.arch] ?? process.arch,
})

/** containerd's platform defaults: arm64 means v8, arm means v7, amd64 means v1. */
const normalVariant = (p: ImagePlatform): string =>
  p.variant ||
  (p.architecture === 'arm64' ? 'v8' : p.architecture === 'arm' ? 'v7' : p.architecture === 'amd64' ? 'v1' : '')

/** Lower is better; null: does not run. A lower variant of arm runs on a higher one. */
function rank(have: ImagePlatform, want: ImagePlatform): number | null {
  if (have.os !== want.os || have.architecture !== want.architecture) return null
  const h = normalVariant(have)
  const w = normalVariant(want)
  if (h === w) return 0
  const level = (v: string): number => Number.parseInt(v.slice(1), 10)
  if (!/^v\d+$/.test(h) || !/^v\d+$/.test(w)) return null
  return level(h) < level(w) ? level(w) - level(h) : null
}

/** The best entry for a platform, or null. Attestations have the platform unknown/unknown and never match. */
export function choosePlatform(index: ManifestIndex, want: ImagePlatform): Descriptor | null {
  let best: { descriptor: Descriptor; rank: number } | null = null
  for (const descriptor of index.manifests) {
    // An entry without a platform fits when it is all there is.
    const r = descriptor.platform ? rank(descriptor.platform, want) : index.manifests.length === 1 ? 0 : null
    if (r !== null && (best === null || r < best.rank)) best = { descriptor, rank: r }
  }
  return best?.descriptor ?? null
}

export const platformString = (p: ImagePlatform): string =>
  [p.os, p.architecture, p.variant].filter((x) => x !== undefined && x !== '').join('/')
