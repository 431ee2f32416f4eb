import { createHash, randomBytes } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock, Logger } from '../../common/index.js'
import { internal, invalid, notFound } from '../../common/index.js'
import type { Digest } from '../contract.js'

const DIGEST = /^sha256:[0-9a-f]{64}$/

export const isDigest = (text: string): text is Digest => DIGEST.test(text)

export const digestOf = (data: Uint8Array | string): Digest =>
  `sha256:${createHash('sha256').update(data).digest('hex')}`

export const hexOf = (digest: Digest): string => {
  if (!isDigest(digest))
    throw invalid('badDigest', `"${digest}" is no digest: expected sha256: and 64 hexadecimal digits`)
  return digest.slice(7)
}

async function syncDirectory(path: string): Promise<void> {
  const d = await open(path, 'r')
  try {
    await d.sync()
  } finally {
    await d.close()
  }
}

/**
 * Blobs by digest, in the directories of an OCI image layout. A file under blobs/ has been verified when it got there;
 * what is not finished lives under ingest/ and is renamed in. Reading verifies again: disks flip bits.
 */
export class BlobStore {
  readonly #blobs: string
  readonly #ingest: string

  constructor(
    root: string,
    private readonly modules: { readonly clock: Clock; readonly logger: Logger },
  ) {
    this.#blobs = join(root, 'blobs', 'sha256')
    this.#ingest = join(root, 'ingest')
  }

  async open(partialKeepMs: number): Promise<void> {
    await mkdir(this.#blobs, { recursive: true })
    await mkdir(this.#ingest, { recursive: true })
    // Parts of downloads serve a later pull for a while; everything else in ingest/ belonged to a process that is gone.
    for (const name of await readdir(this.#ingest)) {
      const path = join(this.#ingest, name)
      const keep =
        /^[0-9a-f]{64}\.partial$/.test(name) && this.modules.clock.now() - (await stat(path)).mtimeMs < partialKeepMs
      if (!keep) await rm(path, { recursive: true, force: true })
    }
  }

  path(digest: Digest): string {
    return join(this.#blobs, hexOf(digest))
  }

  /** Where a broken download of this digest is kept. The caller holds the digest's lock. */
  partialPath(digest: Digest): string {
    return join(this.#ingest, `${hexOf(digest)}.partial`)
  }

  /** A fresh name under ingest/, on the same file system as the blobs. */
  temporaryPath(): string {
    return join(this.#ingest, `tmp-${randomBytes(12).toString('hex')}`)
  }

  async has(digest: Digest): Promise<boolean> {
    return (await this.size(digest)) !== null
  }

  async size(digest: Digest): Promise<number | null> {
    try {
      return (await stat(this.path(digest))).size
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code === 'ENOENT') return null
      throw e
    }
  }

  /** Verifies and stores; durable when it resolves. Harmless when it is there already. */
  async put(data: Uint8Array, expected?: Digest): Promise<Digest> {
    const digest = digestOf(data)
    if (expected && digest !== expected)
      throw invalid('digestMismatch', `content has the digest ${digest} where ${expected} was expected`, {
        expected,
        actual: digest,
      })
    if (await this.has(digest)) return digest
    const path = this.temporaryPath()
    let file: FileHandle | null = await open(path, 'wx', 0o600)
    try {
      await file.writeFile(data)
      await file.sync()
      await file.close()
      file = null
      await rename(path, this.path(digest))
      await syncDirectory(this.#blobs)
    } catch (e) {
      await file?.close()
      await rm(path, { force: true })
      throw e
    }
    return digest
  }

  /**
   * Takes a file that was hashed while it was written. Not durable yet: the caller flushes the file system once
   * (LayerStore.sync) before a record names it, and what no record names is removed at the next start.
   */
  async adopt(path: string, digest: Digest): Promise<void> {
    await rename(path, this.path(digest))
  }

  /** Whole and verified; for configs and manifests, not for layers. */
  async read(digest: Digest): Promise<Uint8Array> {
    let data: Uint8Array
    try {
      data = await readFile(this.path(digest))
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code === 'ENOENT') throw this.#missing(digest)
      throw e
    }
    if (digestOf(data) !== digest) throw await this.#corrupt(digest)
    return data
  }

  /** Yields chunks, and throws at the end, after the last chunk, when the whole was not what its name says. */
  async *stream(digest: Digest): AsyncGenerator<Uint8Array> {
    const hash = createHash('sha256')
    try {
      for await (const chunk of createReadStream(this.path(digest), { highWaterMark: 1 << 20 })) {
        hash.update(chunk as Uint8Array)
        yield chunk as Uint8Array
      }
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code === 'ENOENT') throw this.#missing(digest)
      throw e
    }
    if (`sha256:${hash.digest('hex')}` !== digest) throw await this.#corrupt(digest)
  }

  /** Reads it through; a damaged blob is removed (a pull then fetches it anew) and reported as blobCorrupt. */
  async verify(digest: Digest): Promise<void> {
    for await (const _ of this.stream(digest));
  }

  async remove(digest: Digest): Promise<void> {
    await unlink(this.path(digest)).catch((e: NodeJS.ErrnoException) => {
      if (e.code !== 'ENOENT') throw e
    })
  }

  async list(): Promise<Digest[]> {
    return (await readdir(this.#blobs)).filter((n) => /^[0-9a-f]{64}$/.test(n)).map((n) => `sha256:${n}`)
  }

  #missing(digest: Digest): Error {
    return notFound('blobMissing', `the blob ${digest} is not in the store; pull or load its image again`, { digest })
  }

  async #corrupt(digest: Digest): Promise<Error> {
    this.modules.logger.error('a blob on disk is damaged and was removed', { digest })
    await this.remove(digest)
    return internal(
      'blobCorrupt',
      `the blob ${digest} on disk does not have the content of its digest; it was removed, pull or load its image again`,
      { digest },
    )
  }
}
