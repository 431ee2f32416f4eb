import { invalid } from '../../common/index.js'
import type { Change } from '../content/database.js'
import type { Descriptor, Digest, ImageConfig } from '../contract.js'
import { chainIds, type UnpackedLayer } from '../snapshot/layer-store.js'
import type { ImageStore, Lease } from './store.js'

export interface InstallOptions {
  readonly id: Digest
  readonly config: ImageConfig
  readonly manifest: Descriptor
  readonly blobs: readonly Descriptor[]
  /** Layer `index`, unpacked and verified; asked for only where the chain is not there. */
  readonly unpack: (index: number) => Promise<UnpackedLayer>
  /** Blobs came though the layers were there: they have to reach the disk too. */
  readonly hasNewBlobs?: boolean
  /** All blobs were here, or written by `put`: without a new layer there is nothing to flush. */
  readonly areBlobsSynced?: boolean
  readonly onPlaced?: (index: number) => void
  readonly parent?: Digest | null
  /** Its names are given here, not brought along. */
  readonly isTagged?: boolean
  /** Names and other records that become durable with the image. */
  readonly changes: (nowMs: number) => readonly Change[]
}

/**
 * The one way an image comes into being: layers into their places, bottom first; one flush; then one batch of records.
 * Everything named here must be pinned by `lease` until it resolves.
 */
export async function installImage(store: ImageStore, lease: Lease, o: InstallOptions): Promise<void> {
  const diffIds = o.config.rootfs.diff_ids
  if (diffIds.length !== o.blobs.length)
    throw invalid(
      'badConfig',
      `the image's config lists ${diffIds.length} layers and its manifest ${o.blobs.length}; they must be the same`,
    )
  const chain = chainIds(diffIds)
  await lease.pin(o.id, o.manifest.digest, ...chain, ...o.blobs.map((b) => b.digest))
  const changes: Change[] = []
  for (const [i, chainId] of chain.entries()) {
    if (store.db.layers.has(chainId)) continue
    const unpacked = await o.unpack(i)
    if (unpacked.result.diffId !== diffIds[i]) {
      await store.layers.discard(unpacked.directory)
      throw invalid(
        'digestMismatch',
        `layer verification failed for digest ${diffIds[i]}: ${o.blobs[i]!.digest} unpacks to ${unpacked.result.diffId}`,
        { expected: diffIds[i], actual: unpacked.result.diffId },
      )
    }
    await store.layers.place(unpacked.directory, chainId, chain.slice(0, i))
    changes.push({
      put: 'layer',
      record: {
        chainId,
        diffId: diffIds[i]!,
        parent: chain[i - 1] ?? null,
        sizeBytes: unpacked.result.sizeBytes,
      },
    })
    o.onPlaced?.(i)
  }
  // Records must never be older than what they speak of: layers and blobs. Nothing new came when all was known before.
  const before = store.db.images.get(o.id)
  if (changes.length > 0 || o.hasNewBlobs || (!before && !o.areBlobsSynced)) await store.layers.sync()
  await store.exclusive(async () => {
    const now = store.modules.clock.now()
    await store.db.commit([
      ...changes,
      {
        put: 'image',
        record: {
          id: o.id,
          manifest: o.manifest,
          layers: chain,
          blobs: o.blobs,
          parent: o.parent ?? before?.parent ?? null,
          lastTaggedMs: o.isTagged ? now : (before?.lastTaggedMs ?? 0),
        },
      },
      ...o.changes(now),
    ])
  })
}
