import { setMaxListeners } from 'node:events'
import { invalid, notFound, ShoalError, unavailable } from '../../common/index.js'
import type {
  Descriptor,
  Image,
  ImageConfig,
  ImagePlatform,
  OnProgress,
  PullOptions,
  RegistryAuth,
  RemoteImage,
} from '../contract.js'
import { faultsOf, faultText, statusOf } from '../registry/errors.js'
import { choosePlatform, hostPlatform, isIndex, type Manifest, platformString } from '../registry/media-types.js'
import {
  familiarName,
  familiarString,
  parseReference,
  type Reference,
  repositoryOf,
  withDefaultTag,
} from '../registry/reference.js'
import { type FetchedManifest, Repository, type RetryPolicy } from '../registry/repository.js'
import { Transport } from '../registry/transport.js'
import { chainIds, type UnpackedLayer } from '../snapshot/layer-store.js'
import { parseConfig } from './config.js'
import { fetchLayer, unpackBlob } from './fetch.js'
import { installImage } from './install.js'
import { LayerProgress } from './progress.js'
import type { ImageStore, Lease } from './store.js'

const RETRY_FIRST_MS = 200
const RETRY_MOST_MS = 5000

export function retryPolicy(store: ImageStore): RetryPolicy {
  const { clock, rng } = store.modules
  return {
    attemptsMax: store.options.attemptsMax,
    pause: (attempt, signal) =>
      clock.sleep(Math.min(RETRY_MOST_MS, RETRY_FIRST_MS * 2 ** (attempt - 1)) * (0.5 + rng.random() / 2), signal),
  }
}

export function openTransport(store: ImageStore, endpoint: string, auth: RegistryAuth | undefined): Transport {
  return new Transport(endpoint, auth, {
    insecureRegistries: store.options.insecureRegistries,
    certsDirs: store.options.certsDirs,
    idleTimeoutMs: store.options.idleTimeoutMs,
    now: () => store.modules.clock.now(),
  })
}

/** Docker's sentences for a refused pull. Tools branch on them. */
export function pullError(e: unknown, ref: Reference): unknown {
  const faults = faultsOf(e)
  const status = statusOf(e)
  const fault = faults[0]
  const cause = { cause: e }
  const fields = { reference: familiarString(ref), status }
  if (fault?.code === 'MANIFEST_UNKNOWN')
    return notFound(
      'manifestUnknown',
      `manifest for ${familiarString(ref)} not found: ${faultText(fault)}`,
      fields,
      cause,
    )
  if (fault?.code === 'NAME_UNKNOWN')
    return notFound(
      'repositoryUnknown',
      `repository ${familiarName(ref)} not found: ${faultText(fault)}`,
      fields,
      cause,
    )
  if (fault?.code === 'DENIED' || fault?.code === 'UNAUTHORIZED' || status === 401 || status === 403)
    return new ShoalError(
      'notFound',
      'pullDenied',
      `pull access denied for ${familiarName(ref)}, repository does not exist or may require 'docker login'${fault ? `: ${faultText(fault)}` : ''}`,
      fields,
      cause,
    )
  if (status === 404) return notFound('manifestUnknown', `manifest for ${familiarString(ref)} not found`, fields, cause)
  return e
}

const pickUserAgent = ({ userAgent }: RegistryAuth): RegistryAuth => (userAgent ? { userAgent } : {})

/** Runs `fn` on the first endpoint that works: mirrors for Docker Hub, then the registry itself. */
export async function onEndpoints<T>(
  store: ImageStore,
  ref: Reference,
  auth: RegistryAuth | undefined,
  fn: (repository: Repository) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const mirrors = ref.domain === 'docker.io' ? store.options.mirrors : []
  for (const endpoint of [...mirrors, ref.domain]) {
    const isMirror = endpoint !== ref.domain
    // Credentials are the registry's; a mirror is somebody else.
    const transport = openTransport(store, endpoint, isMirror && auth ? pickUserAgent(auth) : auth)
    try {
      return await fn(new Repository(transport, ref.path, retryPolicy(store)))
    } catch (e) {
      // A bad image is bad everywhere; a mirror that lacks it or is down is passed over.
      const next =
        isMirror && !signal?.aborted && (statusOf(e) !== null || (e instanceof ShoalError && e.kind === 'unavailable'))
      if (!next) throw pullError(e, ref)
      store.modules.logger.warn('a registry mirror did not serve a pull', {
        mirror: endpoint,
        reason: e instanceof Error ? e.message : String(e),
      })
    } finally {
      await transport.close()
    }
  }
  throw unavailable('noEndpoint', `no registry serves ${familiarString(ref)}`)
}

interface ChosenManifest {
  /** What the name stands for: an index perhaps. */
  readonly top: FetchedManifest
  readonly own: FetchedManifest
  readonly manifest: Manifest
}

async function chooseManifest(
  repository: Repository,
  ref: Reference,
  platform: ImagePlatform,
  signal?: AbortSignal,
): Promise<ChosenManifest> {
  const top = await repository.manifest(ref.digest ?? ref.tag!, signal)
  let own = top
  // An index may hold indexes; two steps are more than anybody publishes.
  for (let depth = 0; isIndex(own.manifest); depth++) {
    const chosen: Descriptor | null = depth < 2 ? choosePlatform(own.manifest, platform) : null
    if (!chosen)
      throw notFound(
        'noPlatform',
        `no matching manifest for ${platformString(platform)} in the manifest list entries`,
        { reference: familiarString(ref), platform: platformString(platform) },
      )
    own = await repository.manifest(chosen.digest, signal)
  }
  return { top, own, manifest: own.manifest }
}

export async function pullImage(store: ImageStore, reference: string, options: PullOptions): Promise<Image> {
  const o = { ...options, signal: store.untilStop(options.signal) }
  const named = parseReference(reference)
  const emit: OnProgress = o.onProgress ?? (() => {})
  if (o.allTags && named.digest) throw invalid('badReference', 'tag can not be used with --all-tags/-a')
  return onEndpoints(
    store,
    named.tag || named.digest ? named : withDefaultTag(named),
    o.auth,
    async (repository) => {
      if (!o.allTags) return pullOne(store, repository, withDefaultTag(named), o, emit)
      const tags = await repository.tags(o.signal)
      let last: Image | null = null
      for (const tag of tags) last = await pullOne(store, repository, { ...named, tag }, o, emit)
      if (!last) throw notFound('manifestUnknown', `repository ${familiarName(named)} has no tags`)
      return last
    },
    o.signal,
  )
}

async function pullOne(
  store: ImageStore,
  repository: Repository,
  ref: Reference,
  o: PullOptions,
  emit: OnProgress,
): Promise<Image> {
  // The first message comes with the registry's answer: a name that it does not know is an error before any output.
  const chosen = await chooseManifest(repository, ref, o.platform ?? hostPlatform(), o.signal)
  emit({ status: `Pulling from ${ref.path}`, id: ref.digest ?? ref.tag! })
  const id = chosen.manifest.config.digest
  const before = store.findReference(ref)?.image ?? null
  await store.leased((lease) =>
    store.imports.run(id, () => installPulled(store, repository, ref, chosen, lease, o, emit)),
  )
  emit({ status: `Digest: ${chosen.top.descriptor.digest}` })
  emit({
    status: `Status: ${before === id ? 'Image is up to date' : 'Downloaded newer image'} for ${familiarString(ref)}`,
  })
  await store.emit('pull', familiarString(ref), familiarName(ref), store.labelsOf(id))
  return store.image(id)
}

async function installPulled(
  store: ImageStore,
  repository: Repository,
  ref: Reference,
  chosen: ChosenManifest,
  lease: Lease,
  o: PullOptions,
  emit: OnProgress,
): Promise<void> {
  const { manifest, own, top } = chosen
  const id = manifest.config.digest
  await lease.pin(id, own.descriptor.digest, top.descriptor.digest, ...manifest.layers.map((l) => l.digest))
  const config = await pullConfig(store, repository, manifest.config, o.signal)
  const chain = chainIds(config.rootfs.diff_ids)
  await lease.pin(...chain)
  if (chain.length !== manifest.layers.length)
    throw invalid(
      'badConfig',
      `the image's config lists ${chain.length} layers and its manifest ${manifest.layers.length}`,
    )
  const progress = manifest.layers.map((l) => new LayerProgress(l.digest.slice(7, 19), store.modules.clock, emit))
  await store.blobs.put(own.data, own.descriptor.digest)
  await store.blobs.put(top.data, top.descriptor.digest)
  const unpacked = await fetchLayers(store, repository, { id, layers: manifest.layers, chain, progress }, o.signal)
  try {
    await installImage(store, lease, {
      id,
      config,
      manifest: own.descriptor,
      blobs: manifest.layers,
      hasNewBlobs: unpacked.size > 0,
      unpack: async (i) => {
        const ready = unpacked.get(i)
        unpacked.delete(i)
        return ready ?? unpackBlob(store, manifest.layers[i]!, progress[i])
      },
      onPlaced: (i) => progress[i]!.say('Pull complete'),
      changes: () => [
        store.nameImage(ref, id, top.descriptor),
        // Docker keeps the digest that a tag had, as a reference of its own.
        store.nameImage({ ...ref, tag: null, digest: top.descriptor.digest }, id, top.descriptor),
        ...store.sourceChanges(
          repositoryOf(ref),
          manifest.layers.map((l) => l.digest),
        ),
      ],
    })
  } finally {
    for (const left of unpacked.values()) await store.layers.discard(left.directory)
  }
}

async function pullConfig(
  store: ImageStore,
  repository: Repository,
  d: Descriptor,
  signal?: AbortSignal,
): Promise<ImageConfig> {
  if (await store.blobs.has(d.digest)) {
    try {
      return parseConfig(await store.blobs.read(d.digest))
    } catch (e) {
      // Damaged on disk and removed; the registry has a good one.
      if (!(e instanceof ShoalError) || e.code !== 'blobCorrupt') throw e
    }
  }
  const raw = await repository.smallBlob(d, signal)
  const config = parseConfig(raw)
  await store.blobs.put(raw, d.digest)
  return config
}

/** Everything that is missing, several at a time. One failure stops the others; what they kept serves the next try. */
async function fetchLayers(
  store: ImageStore,
  repository: Repository,
  wanted: {
    readonly id: string
    readonly layers: readonly Descriptor[]
    readonly chain: readonly string[]
    readonly progress: readonly LayerProgress[]
  },
  signal?: AbortSignal,
): Promise<Map<number, UnpackedLayer>> {
  const stop = new AbortController()
  const both = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal
  // A listener for each transfer; there are as many as the image has layers.
  setMaxListeners(0, both)
  const unpacked = new Map<number, UnpackedLayer>()
  const missing: number[] = []
  const present = await Promise.all(
    wanted.layers.map(async (l, i) => store.db.layers.has(wanted.chain[i]!) && (await store.blobs.has(l.digest))),
  )
  // Docker has nothing to say about the layers of an image that is there.
  if (store.db.images.has(wanted.id) && present.every((p) => p)) return unpacked
  for (const [i, layer] of wanted.layers.entries()) {
    if (present[i]) wanted.progress[i]!.say('Already exists')
    else {
      wanted.progress[i]!.say('Pulling fs layer')
      // The same layer twice in one image is downloaded once, and unpacked from the blob the second time.
      if (!missing.some((m) => wanted.layers[m]!.digest === layer.digest)) missing.push(i)
    }
  }
  for (const i of missing.slice(store.options.downloadsMax)) wanted.progress[i]!.say('Waiting')
  let failure: { readonly reason: unknown } | null = null
  await Promise.all(
    missing.map(async (i) => {
      const o = { progress: wanted.progress[i]!, retry: retryPolicy(store), signal: both }
      try {
        unpacked.set(i, await store.downloads.run(() => fetchLayer(store, repository, wanted.layers[i]!, o), both))
      } catch (reason) {
        failure ??= { reason }
        stop.abort(reason)
      }
    }),
  )
  if (failure) {
    for (const u of unpacked.values()) await store.layers.discard(u.directory)
    throw (failure as { reason: unknown }).reason
  }
  return unpacked
}

/** What a registry has under a name, without taking it. */
export async function resolveRemote(
  store: ImageStore,
  reference: string,
  o: { readonly auth?: RegistryAuth; readonly signal?: AbortSignal },
): Promise<RemoteImage> {
  const ref = withDefaultTag(parseReference(reference))
  const signal = store.untilStop(o.signal)
  return onEndpoints(
    store,
    ref,
    o.auth,
    async (repository) => {
      const top = await repository.manifest(ref.digest ?? ref.tag!, signal)
      if (isIndex(top.manifest))
        return {
          descriptor: top.descriptor,
          platforms: top.manifest.manifests.flatMap((m) => (m.platform ? [m.platform] : [])),
        }
      const config = parseConfig(await repository.smallBlob(top.manifest.config, signal))
      return {
        descriptor: top.descriptor,
        platforms: [
          {
            os: config.os,
            architecture: config.architecture,
            ...(config.variant ? { variant: config.variant } : {}),
          },
        ],
      }
    },
    signal,
  )
}
