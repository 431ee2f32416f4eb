// An image that no engine made, put straight into the storage of a lab's registry: both engines pull the same bytes.
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { pack } from 'tar-stream'
import { seededRng } from '../build/src/common/index.js'
import { BUSYBOX } from '../build/src/lab/index.js'

const FILE_BYTES = 128 * 1024
const WORDS = 4096

/** Half words, half noise: gzip halves it, as it does most images. */
function content(rng, words) {
  const b = Buffer.allocUnsafe(FILE_BYTES)
  let at = 0
  for (; at < FILE_BYTES / 2; ) at += b.write(`${words[Math.floor(rng.random() * WORDS)]} `, at, 'latin1')
  for (; at < FILE_BYTES - 4; at += 4) b.writeUInt32LE(Math.floor(rng.random() * 0x100000000), at)
  b.fill(0, at)
  return b
}

/**
 * `layers` layers that are `megabytes` together when unpacked, the first with busybox in it.
 * Returns { config, manifest, blobs }: blobs are [digest, bytes] of layers and config; the manifest is Docker's schema 2.
 */
export async function makeImage({ megabytes, layers, seed }) {
  const rng = seededRng(seed)
  const words = Array.from({ length: WORDS }, () => Math.floor(rng.random() * 1e12).toString(36))
  const files = Math.round((megabytes * 1024 * 1024) / layers / FILE_BYTES)
  const blobs = []
  const diffIds = []
  for (let l = 0; l < layers; l++) {
    const tar = pack()
    if (l === 0) {
      tar.entry({ name: 'bin/', type: 'directory' })
      tar.entry({ name: 'bin/busybox', mode: 0o755 }, readFileSync(BUSYBOX))
      for (const a of ['sh', 'true', 'sleep']) tar.entry({ name: `bin/${a}`, type: 'symlink', linkname: 'busybox' })
    }
    tar.entry({ name: `usr/share/l${l}/`, type: 'directory' })
    for (let f = 0; f < files; f++) tar.entry({ name: `usr/share/l${l}/f${f}` }, content(rng, words))
    tar.finalize()
    const parts = []
    for await (const b of tar) parts.push(b)
    const plain = Buffer.concat(parts)
    diffIds.push(digest(plain))
    const packed = gzipSync(plain, { level: 6 })
    blobs.push([digest(packed), packed])
  }
  const config = Buffer.from(
    JSON.stringify({
      architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
      os: 'linux',
      created: '2026-01-01T00:00:00Z',
      config: { Cmd: ['sh'], Env: ['PATH=/bin'] },
      history: diffIds.map((_, i) => ({ created: '2026-01-01T00:00:00Z', created_by: `layer ${i}` })),
      rootfs: { type: 'layers', diff_ids: diffIds },
    }),
  )
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: 'application/vnd.docker.distribution.manifest.v2+json',
      config: {
        mediaType: 'application/vnd.docker.container.image.v1+json',
        size: config.length,
        digest: digest(config),
      },
      layers: blobs.map(([d, b]) => ({
        mediaType: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
        size: b.length,
        digest: d,
      })),
    }),
  )
  return { manifest, blobs: [...blobs, [digest(config), config]], bytes: blobs.reduce((n, [, b]) => n + b.length, 0) }
}

const digest = (b) => `sha256:${createHash('sha256').update(b).digest('hex')}`

const storage = (lab) => join(lab.plan.dir, 'registry/docker/registry/v2')

/** The image under REGISTRY/name:1, in the layout that the registry's filesystem driver keeps. */
export function plant(lab, name, image) {
  const root = storage(lab)
  const put = (path, data) => {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), data)
  }
  const repository = `repositories/${name}`
  const manifest = digest(image.manifest)
  for (const [d, b] of [...image.blobs, [manifest, image.manifest]]) {
    const hex = d.slice('sha256:'.length)
    put(`blobs/sha256/${hex.slice(0, 2)}/${hex}/data`, b)
    if (d !== manifest) put(`${repository}/_layers/sha256/${hex}/link`, d)
  }
  const hex = manifest.slice('sha256:'.length)
  put(`${repository}/_manifests/revisions/sha256/${hex}/link`, manifest)
  put(`${repository}/_manifests/tags/1/current/link`, manifest)
  put(`${repository}/_manifests/tags/1/index/sha256/${hex}/link`, manifest)
  return `${lab.plan.registry}/${name}:1`
}

/** An empty registry, as far as its clients can see. */
export function emptyRegistry(lab) {
  rmSync(storage(lab), { recursive: true, force: true })
}
