import { rm, stat } from 'node:fs/promises'
import { invalid, ShoalError } from '../../common/index.js'
import type { Descriptor } from '../contract.js'
import { isTransient } from '../registry/errors.js'
import type { Repository, RetryPolicy } from '../registry/repository.js'
import type { UnpackedLayer } from '../snapshot/layer-store.js'
import type { LayerProcess, LayerResult } from '../snapshot/layer-tool.js'
import type { LayerProgress } from './progress.js'
import type { ImageStore } from './store.js'

export interface FetchOptions {
  readonly progress: LayerProgress
  readonly retry: RetryPolicy
  readonly signal?: AbortSignal
}

const fileSize = (path: string): Promise<number> =>
  stat(path).then(
    (s) => s.size,
    (e: NodeJS.ErrnoException) => {
      if (e.code === 'ENOENT') return 0
      throw e
    },
  )

/**
 * One layer from a registry, hashed, kept and unpacked in one pass while it arrives. What a broken try got stays on disk and
 * is not asked for again; a kept part that turns out damaged is thrown away once.
 */
export async function fetchLayer(
  store: ImageStore,
  repository: Repository,
  d: Descriptor,
  o: FetchOptions,
): Promise<UnpackedLayer> {
  return store.transfers.run(d.digest, async () => {
    o.signal?.throwIfAborted()
    if (await store.blobs.has(d.digest)) return unpackBlob(store, d, o.progress)
    const partial = store.blobs.partialPath(d.digest)
    const kept = await fileSize(partial)
    try {
      return await download(store, repository, d, o, kept <= d.size ? kept : 0)
    } catch (e) {
      const damaged = e instanceof ShoalError && (e.code === 'digestMismatch' || e.code === 'layerTool')
      if (!damaged) throw e
      await rm(partial, { force: true })
      if (kept === 0 || o.signal?.aborted) throw e
      store.modules.logger.warn('the kept part of a download was damaged; starting over', { digest: d.digest })
      return download(store, repository, d, o, 0)
    }
  })
}

async function download(
  store: ImageStore,
  repository: Repository,
  d: Descriptor,
  o: FetchOptions,
  kept: number,
): Promise<UnpackedLayer> {
  const partial = store.blobs.partialPath(d.digest)
  if (kept === 0) await rm(partial, { force: true })
  const { directory, process } = await store.layers.unpack({ blob: partial, resume: kept > 0 })
  try {
    await feed(process, repository, d, o, kept)
    o.progress.say('Verifying Checksum')
    const result = (await process.finish()) as unknown as LayerResult
    if (result.compressedDigest !== d.digest)
      throw invalid('digestMismatch', `filesystem layer verification failed for digest ${d.digest}`, {
        expected: d.digest,
        actual: result.compressedDigest,
      })
    await store.blobs.adopt(partial, d.digest)
    o.progress.say('Download complete')
    return { directory, result }
  } catch (e) {
    await process.kill()
    await store.layers.discard(directory)
    throw e
  }
}

/** Writes the blob from `sent` on, over as many connections as it takes; gives up after `attemptsMax` without a byte. */
async function feed(
  process: LayerProcess,
  repository: Repository,
  d: Descriptor,
  o: FetchOptions,
  kept: number,
): Promise<void> {
  let sent = kept
  let failures = 0
  while (sent < d.size) {
    try {
      for await (const chunk of await repository.blob(d, sent, o.signal)) {
        if (sent + chunk.length > d.size)
          throw invalid('digestMismatch', `the registry sends more than the ${d.size} bytes of ${d.digest}`)
        await process.write(chunk)
        sent += chunk.length
        failures = 0
        o.progress.advance('Downloading', sent, d.size)
      }
      if (sent < d.size)
        throw new ShoalError(
          'unavailable',
          'registryBroken',
          `the connection ended after ${sent} of ${d.size} bytes of ${d.digest}`,
        )
    } catch (caught) {
      o.signal?.throwIfAborted()
      const e = networkError(caught, d)
      if (!isTransient(e) || ++failures >= o.retry.attemptsMax) throw e
      await o.retry.pause(failures, o.signal)
    }
  }
}

/** A stream that breaks throws the socket's error, which is no ShoalError yet. */
function networkError(caught: unknown, d: Descriptor): ShoalError {
  if (caught instanceof ShoalError) return caught
  return new ShoalError(
    'unavailable',
    'registryBroken',
    `the connection broke while ${d.digest} came: ${caught instanceof Error ? caught.message : String(caught)}`,
    { digest: d.digest },
    { cause: caught },
  )
}

/** The same from the blob on disk, verified again on the way. */
export async function unpackBlob(store: ImageStore, d: Descriptor, progress?: LayerProgress): Promise<UnpackedLayer> {
  const { directory, process } = await store.layers.unpack({})
  try {
    let done = 0
    for await (const chunk of store.blobs.stream(d.digest)) {
      await process.write(chunk)
      done += chunk.length
      progress?.advance('Extracting', done, d.size)
    }
    return { directory, result: (await process.finish()) as unknown as LayerResult }
  } catch (e) {
    await process.kill()
    await store.layers.discard(directory)
    throw e
  }
}
