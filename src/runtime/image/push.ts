import { setMaxListeners } from 'node:events'
import { invalid, notFound, ShoalError } from '../../common/index.js'
import type { ImageRecord, ReferenceRecord } from '../content/database.js'
import type { Descriptor, OnProgress, RegistryAuth } from '../contract.js'
import { faultsOf, faultText, statusOf } from '../registry/errors.js'
import { isIndex, parseManifest } from '../registry/media-types.js'
import { familiarName, parseReference, type Reference, repositoryOf } from '../registry/reference.js'
import { Repository } from '../registry/repository.js'
import { LayerProgress } from './progress.js'
import { openTransport, retryPolicy } from './pull.js'
import { type ImageStore, noSuchImage } from './store.js'

export interface PushOptions {
  readonly auth?: RegistryAuth
  readonly onProgress?: OnProgress
  readonly signal?: AbortSignal
}

function pushError(e: unknown, ref: Reference): unknown {
  const fault = faultsOf(e)[0]
  const status = statusOf(e)
  if (status !== 401 && status !== 403 && fault?.code !== 'DENIED') return e
  return new ShoalError(
    'forbidden',
    'pushDenied',
    fault ? faultText(fault) : (e as Error).message,
    { reference: familiarName(ref), status },
    { cause: e },
  )
}

/** Without a tag, all tags of the repository. Layers go several at a time; those that the registry has are not sent. */
export async function pushImage(store: ImageStore, reference: string, options: PushOptions): Promise<void> {
  const o = { ...options, signal: store.untilStop(options.signal) }
  const ref = parseReference(reference)
  if (ref.digest) throw invalid('badReference', 'cannot push a digest reference')
  const names: ReferenceRecord[] = []
  for (const r of store.db.references.values()) {
    const known = parseReference(r.name)
    if (known.tag && repositoryOf(known) === repositoryOf(ref) && (!ref.tag || ref.tag === known.tag)) names.push(r)
  }
  if (names.length === 0) {
    if (!ref.tag || !store.find(familiarName(ref)))
      throw notFound('noSuchImage', `An image does not exist locally with the tag: ${familiarName(ref)}`, { reference })
    throw notFound('tagMissing', `tag does not exist: ${familiarName(ref)}:${ref.tag}`, { reference })
  }
  const emit: OnProgress = o.onProgress ?? (() => {})
  emit({ status: `The push refers to repository [${repositoryOf(ref)}]` })
  const transport = openTransport(store, ref.domain, o.auth)
  try {
    const repository = new Repository(transport, ref.path, retryPolicy(store))
    for (const r of names.sort((a, b) => (a.name < b.name ? -1 : 1)))
      await store.leased(async (lease) => {
        const image = store.db.images.get(r.image)
        if (!image) throw noSuchImage(r.name)
        await lease.pin(image.id, image.manifest.digest, ...image.blobs.map((b) => b.digest))
        if (!store.db.images.has(image.id)) throw noSuchImage(r.name)
        await pushOne(store, repository, parseReference(r.name), image, emit, o.signal)
      })
  } catch (e) {
    throw pushError(e, ref)
  } finally {
    await transport.close()
  }
}

async function pushOne(
  store: ImageStore,
  repository: Repository,
  ref: Reference,
  image: ImageRecord,
  emit: OnProgress,
  signal?: AbortSignal,
): Promise<void> {
  const data = await store.blobs.read(image.manifest.digest)
  const manifest = parseManifest(data, image.manifest.mediaType)
  if (isIndex(manifest)) throw invalid('badManifest', `the image ${image.id} is recorded with an index`)
  // Docker shows a layer by its diff id here, the top one first.
  const rows = image.blobs.map((blob, i) => ({
    blob,
    progress: new LayerProgress(
      (store.db.layers.get(image.layers[i]!)?.diffId ?? blob.digest).slice(7, 19),
      store.modules.clock,
      emit,
    ),
  }))
  rows.reverse()
  for (const { progress } of rows) progress.say('Preparing')
  const stop = new AbortController()
  const both = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal
  // A listener for each transfer; there are as many as the image has layers.
  setMaxListeners(0, both)
  let failure: { readonly reason: unknown } | null = null
  const sent = new Map<string, Promise<void>>()
  const jobs = rows.map(async ({ blob, progress }) => {
    try {
      const earlier = sent.get(blob.digest)
      if (earlier) {
        await earlier
        progress.say('Layer already exists')
        return
      }
      const job = store.uploads.run(() => pushBlob(store, repository, ref, blob, progress, both), both)
      sent.set(blob.digest, job)
      await job
    } catch (reason) {
      failure ??= { reason }
      stop.abort(reason)
    }
  })
  await Promise.all(jobs)
  if (failure) throw (failure as { reason: unknown }).reason
  if (!(await repository.hasBlob(image.id, signal))) await upload(store, repository, manifest.config, () => {}, signal)
  await repository.putManifest(ref.tag!, data, image.manifest.mediaType, signal)
  await store.exclusive(() =>
    store.db.commit([
      // The registry has it under this digest now; docker keeps that as a reference.
      store.nameImage({ ...ref, tag: null, digest: image.manifest.digest }, image.id, image.manifest),
      ...store.sourceChanges(
        repositoryOf(ref),
        image.blobs.map((b) => b.digest),
      ),
    ]),
  )
  emit({ status: `${ref.tag}: digest: ${image.manifest.digest} size: ${data.length}` })
  emit({ progressDetail: {}, aux: { Tag: ref.tag, Digest: image.manifest.digest, Size: data.length } })
  await store.emit('push', `${familiarName(ref)}:${ref.tag}`, familiarName(ref), store.labelsOf(image.id))
}

async function pushBlob(
  store: ImageStore,
  repository: Repository,
  ref: Reference,
  blob: Descriptor,
  progress: LayerProgress,
  signal: AbortSignal,
): Promise<void> {
  if (await repository.hasBlob(blob.digest, signal)) {
    progress.say('Layer already exists')
    return
  }
  for (const known of store.db.sources.get(blob.digest)?.repositories ?? []) {
    const from = parseReference(known)
    if (from.domain !== ref.domain || from.path === ref.path) continue
    // A registry may refuse the mount for want of rights; then the bytes are sent.
    const mounted = await repository.mountBlob(blob.digest, from.path, signal).catch((e: unknown) => {
      if (statusOf(e) === null) throw e
      return false
    })
    if (mounted) {
      progress.say(`Mounted from ${from.path}`)
      return
    }
    break
  }
  await upload(store, repository, blob, (sent) => progress.advance('Pushing', sent, blob.size), signal)
  progress.say('Pushed')
}

async function upload(
  store: ImageStore,
  repository: Repository,
  blob: Descriptor,
  onSent: (bytes: number) => void,
  signal?: AbortSignal,
): Promise<void> {
  const size = await store.blobs.size(blob.digest)
  // A blob of another length cannot be right, and would break the request in the middle.
  if (size !== blob.size) await store.blobs.verify(blob.digest)
  try {
    await repository.uploadBlob(blob, store.blobs.path(blob.digest), {
      chunkBytes: store.options.uploadChunkBytes,
      onSent,
      ...(signal && { signal }),
    })
  } catch (e) {
    // The registry hashes too; when it disagrees, find out whether it is our disk.
    if (faultsOf(e).some((f) => f.code === 'DIGEST_INVALID')) await store.blobs.verify(blob.digest)
    throw e
  }
}
