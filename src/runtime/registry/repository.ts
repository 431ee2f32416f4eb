import { createReadStream } from 'node:fs'
import { Readable } from 'node:stream'
import { invalid, ShoalError } from '../../common/index.js'
import { digestOf } from '../content/blob-store.js'
import type { Descriptor, Digest } from '../contract.js'
import { isSilent, isTransient, statusOf } from './errors.js'
import { MANIFEST_ACCEPT, type Manifest, type ManifestIndex, mediaTypeOf, parseManifest } from './media-types.js'
import { headerOf, readBody, type Transport } from './transport.js'

/** distribution-spec: registries should take manifests up to 4 MiB. */
const MANIFEST_BYTES_MAX = 4 * 1024 * 1024
/** Configs hold the history of a build; docker's own limit. */
const CONFIG_BYTES_MAX = 16 * 1024 * 1024
const TAG_PAGES_MAX = 1000

export interface FetchedManifest {
  readonly descriptor: Descriptor
  readonly data: Uint8Array
  readonly manifest: Manifest | ManifestIndex
}

export interface RetryPolicy {
  readonly attemptsMax: number
  /** Waits before try number `attempt` (1, 2, ...). */
  readonly pause: (attempt: number, signal?: AbortSignal) => Promise<void>
}

/** One repository of one registry (distribution-spec v1.1). */
export class Repository {
  readonly #pull: string
  readonly #push: string

  constructor(
    readonly transport: Transport,
    readonly path: string,
    private readonly retry: RetryPolicy,
  ) {
    this.#pull = `repository:${path}:pull`
    this.#push = `repository:${path}:pull,push`
  }

  /** Verified by its digest when `reference` is one. */
  async manifest(reference: string, signal?: AbortSignal): Promise<FetchedManifest> {
    return this.#retried(async () => {
      const r = await this.transport.send({
        method: 'GET',
        path: `/v2/${this.path}/manifests/${reference}`,
        headers: { accept: MANIFEST_ACCEPT },
        expect: [200],
        scope: this.#pull,
        ...(signal && { signal }),
      })
      const data = await readBody(r.body, MANIFEST_BYTES_MAX)
      const digest = digestOf(data)
      if (reference.startsWith('sha256:') && digest !== reference)
        throw invalid('digestMismatch', `manifest verification failed for digest ${reference}`, {
          expected: reference,
          actual: digest,
        })
      const manifest = parseManifest(data, headerOf(r, 'content-type') ?? '')
      return {
        data,
        manifest,
        descriptor: {
          mediaType: mediaTypeOf(manifest, headerOf(r, 'content-type') ?? ''),
          digest,
          size: data.length,
        },
      }
    }, signal)
  }

  /** A small blob, whole and verified. */
  async smallBlob(d: Descriptor, signal?: AbortSignal): Promise<Uint8Array> {
    if (d.size > CONFIG_BYTES_MAX)
      throw invalid('configTooLarge', `the image's config has ${d.size} bytes, more than ${CONFIG_BYTES_MAX}`)
    return this.#retried(async () => {
      const body = await this.blob(d, 0, signal)
      const data = await readBody(body, CONFIG_BYTES_MAX)
      const actual = digestOf(data)
      if (actual !== d.digest)
        throw invalid('digestMismatch', `image config verification failed for digest ${d.digest}`, {
          expected: d.digest,
          actual,
        })
      return data
    }, signal)
  }

  /** The blob's bytes from `offset` on; registries that know no ranges are skipped through. */
  async blob(d: Descriptor, offset: number, signal?: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
    const r = await this.transport.send({
      method: 'GET',
      path: `/v2/${this.path}/blobs/${d.digest}`,
      headers: offset > 0 ? { range: `bytes=${offset}-` } : {},
      expect: [200, 206],
      scope: this.#pull,
      ...(signal && { signal }),
    })
    if (offset > 0 && r.status === 200) return skipping(r.body, offset)
    if (offset > 0 && !headerOf(r, 'content-range')?.startsWith(`bytes ${offset}-`)) {
      r.body.destroy()
      throw new ShoalError('unavailable', 'registryBroken', `the registry ${this.transport.host} sent another range`)
    }
    return r.body
  }

  async hasBlob(digest: Digest, signal?: AbortSignal): Promise<boolean> {
    return this.#retried(async () => {
      const r = await this.transport.send({
        method: 'HEAD',
        path: `/v2/${this.path}/blobs/${digest}`,
        expect: [200, 404],
        scope: this.#push,
        ...(signal && { signal }),
      })
      await r.body.dump()
      return r.status === 200
    }, signal)
  }

  /** True when the registry took the blob over from another of its repositories; else the upload that it offered. */
  async mountBlob(digest: Digest, from: string, signal?: AbortSignal): Promise<boolean> {
    const r = await this.transport.send({
      method: 'POST',
      path: `/v2/${this.path}/blobs/uploads/?mount=${encodeURIComponent(digest)}&from=${encodeURIComponent(from)}`,
      headers: { 'content-length': '0' },
      expect: [201, 202],
      scope: `${this.#push} repository:${from}:pull`,
      ...(signal && { signal }),
    })
    await r.body.dump()
    if (r.status === 201) return true
    // Not ours to use: it was opened for a mount. Tell the registry, and do not mind its answer.
    const location = headerOf(r, 'location')
    if (location)
      await this.transport
        .send({
          method: 'DELETE',
          path: new URL(location, r.url).href,
          expect: [200, 202, 204, 404, 405],
          scope: this.#push,
          ...(signal && { signal }),
        })
        .then((x) => x.body.dump())
        .catch((e) => {
          if (signal?.aborted) throw e
        })
    return false
  }

  /** Sends a file in pieces; a broken piece is asked about and taken up where the registry has it. */
  async uploadBlob(
    d: Descriptor,
    path: string,
    o: { readonly chunkBytes: number; readonly onSent: (bytes: number) => void; readonly signal?: AbortSignal },
  ): Promise<void> {
    const signal = o.signal ? { signal: o.signal } : {}
    let location: string | null = null
    let offset = 0
    let failures = 0
    for (;;) {
      try {
        if (location === null) {
          const r = await this.transport.send({
            method: 'POST',
            path: `/v2/${this.path}/blobs/uploads/`,
            headers: { 'content-length': '0' },
            expect: [202],
            scope: this.#push,
            ...signal,
          })
          await r.body.dump()
          location = this.#location(r.url, headerOf(r, 'location'))
          offset = 0
        }
        if (offset < d.size) {
          const end = Math.min(offset + o.chunkBytes, d.size)
          const start: number = offset
          const r = await this.transport.send({
            method: 'PATCH',
            path: location,
            headers: {
              'content-type': 'application/octet-stream',
              'content-length': String(end - start),
              ...(d.size > o.chunkBytes ? { 'content-range': `${start}-${end - 1}` } : {}),
            },
            body: () => Readable.from(piece(path, start, end, o.onSent), { objectMode: false }),
            expect: [201, 202],
            scope: this.#push,
            ...signal,
          })
          await r.body.dump()
          location = this.#location(r.url, headerOf(r, 'location'))
          offset = end
          failures = 0
          continue
        }
        const done = new URL(location)
        done.searchParams.set('digest', d.digest)
        const r = await this.transport.send({
          method: 'PUT',
          path: done.href,
          headers: { 'content-length': '0', 'content-type': 'application/octet-stream' },
          expect: [201, 204],
          scope: this.#push,
          ...signal,
        })
        await r.body.dump()
        return
      } catch (e) {
        if (o.signal?.aborted || !isTransient(e) || ++failures >= this.retry.attemptsMax) throw e
        await this.retry.pause(failures, o.signal)
        const at: { offset: number; location: string } | null = location
          ? await this.#uploadState(location, o.signal)
          : null
        location = at?.location ?? null
        offset = at?.offset ?? 0
      }
    }
  }

  #location(url: string, location: string | null): string {
    if (!location)
      throw new ShoalError(
        'unavailable',
        'registryBroken',
        `the registry ${this.transport.host} named no place for an upload`,
      )
    return new URL(location, url).href
  }

  /** How far an upload got and where it goes on, or null when the registry forgot it. */
  async #uploadState(location: string, signal?: AbortSignal): Promise<{ offset: number; location: string } | null> {
    try {
      const r = await this.transport.send({
        method: 'GET',
        path: location,
        expect: [204],
        scope: this.#push,
        ...(signal && { signal }),
      })
      await r.body.dump()
      const last = Number(/(\d+)-(\d+)$/.exec(headerOf(r, 'range') ?? '')?.[2] ?? 0)
      // "0-0" is both nothing and one byte; starting over is always right.
      if (last === 0) return null
      return { offset: last + 1, location: this.#location(r.url, headerOf(r, 'location') ?? location) }
    } catch (e) {
      if (signal?.aborted) throw e
      return null
    }
  }

  async putManifest(reference: string, data: Uint8Array, mediaType: string, signal?: AbortSignal): Promise<void> {
    await this.#retried(async () => {
      const r = await this.transport.send({
        method: 'PUT',
        path: `/v2/${this.path}/manifests/${reference}`,
        headers: { 'content-type': mediaType },
        body: () => data,
        expect: [200, 201, 202],
        scope: this.#push,
        ...(signal && { signal }),
      })
      await r.body.dump()
    }, signal)
  }

  async tags(signal?: AbortSignal): Promise<string[]> {
    const tags: string[] = []
    let path: string | null = `/v2/${this.path}/tags/list`
    for (let page = 0; path !== null && page < TAG_PAGES_MAX; page++) {
      const at: string = path
      const r = await this.transport.send({
        method: 'GET',
        path: at,
        expect: [200],
        scope: this.#pull,
        ...(signal && { signal }),
      })
      const doc = JSON.parse((await readBody(r.body, MANIFEST_BYTES_MAX)).toString('utf8')) as { tags?: unknown }
      if (Array.isArray(doc.tags)) tags.push(...doc.tags.filter((t) => typeof t === 'string'))
      const next: string | undefined = /<([^>]+)>\s*;\s*rel="?next"?/.exec(headerOf(r, 'link') ?? '')?.[1]
      path = next ? new URL(next, r.url).href : null
    }
    return tags
  }

  async #retried<T>(fn: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await fn()
      } catch (e) {
        // A host that cannot be reached at all is told at once; trouble in the middle is worth patience.
        const worth = isTransient(e) && !isSilent(e) && (statusOf(e) !== null || attempt < 2)
        if (signal?.aborted || !worth || attempt >= this.retry.attemptsMax) throw e
        await this.retry.pause(attempt, signal)
      }
    }
  }
}

/** Read as it is asked for: a file that flows by itself would be gone before a connection is there. */
async function* piece(
  path: string,
  start: number,
  end: number,
  onSent: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
  let sent = start
  for await (const chunk of createReadStream(path, { start, end: end - 1, highWaterMark: 256 * 1024 })) {
    yield chunk as Uint8Array
    sent += (chunk as Uint8Array).length
    onSent(sent)
  }
}

/** Leaves the first `count` bytes out. */
async function* skipping(body: AsyncIterable<Uint8Array>, count: number): AsyncGenerator<Uint8Array> {
  let left = count
  for await (const chunk of body) {
    if (chunk.length > left) yield left > 0 ? chunk.subarray(left) : chunk
    left = Math.max(0, left - chunk.length)
  }
}
