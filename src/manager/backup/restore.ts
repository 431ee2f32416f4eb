import { type Cluster, Meta, NodeAvailability, NodeRole, StoreSnapshot, Version } from '#proto'
import { type Clock, invalid, newObjectId, type Rng } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import { seedRaftState } from '../../raft/index.js'
import { newNode, newSigningRequest, readIdentity, signer, signLeaf, timestamp } from '../ca/index.js'
import type { NodeIdentity } from '../contract.js'
import type { Backup } from './format.js'

/**
 * The restored log goes on this far behind the backup's: what the old cluster wrote after the backup has other versions
 * than anything that the new one writes, for nodes that have seen both.
 */
const INDEX_GAP = 2 ** 20
const PIECE_BYTES = 1024 * 1024
const NANOS_PER_MS = 1e6

export interface RestoreOptions {
  /** Where the manager will run from: `raft` is made below it. */
  readonly dir: string
  readonly advertiseAddress: string
}

export interface RestoredManager {
  readonly identity: NodeIdentity
  /** Wraps the new data key; null where the cluster's managers are not locked. */
  readonly unlockKey: Uint8Array | null
}

/**
 * Makes the disk of a manager that is alone in the backup's cluster: a new node of it, with a certificate of the cluster's
 * root and a Raft log that holds the backup's state. All members of then are on the list of removed ones, as after
 * --force-new-cluster: managers of them that still run are told so, and join anew.
 */
export async function restoreManager(
  backup: Backup,
  options: RestoreOptions,
  modules: { readonly clock: Clock; readonly rng: Rng; readonly logger: Logger },
): Promise<RestoredManager> {
  const { clock, rng, logger } = modules
  const { manifest } = backup
  const index = manifest.index + INDEX_GAP
  const state = StoreSnapshot.decode(backup.state)
  const cluster = state.clusters[0]
  if (!cluster)
    throw invalid('backupEmpty', 'the backup holds no cluster: it was made before its first manager was ready')
  const identity = await issue(cluster, newObjectId(), clock.now())
  const used = new Set(state.nodes.map((n) => n.ingressIndex))
  let ingressIndex = 1
  while (used.has(ingressIndex)) ingressIndex++
  const now = timestamp(clock.now())
  const node = {
    ...newNode(identity.nodeId, NodeRole.MANAGER, NodeAvailability.ACTIVE, identity.cert, ingressIndex),
    meta: Meta.create({ version: Version.create({ index }), createdAt: now, updatedAt: now }),
  }
  const encoded = StoreSnapshot.encode({ ...state, nodes: [...state.nodes, node] })
  const unlockKey = cluster.unlockKey.length > 0 ? cluster.unlockKey : null
  await seedRaftState(
    { dir: `${options.dir}/raft`, nodeId: identity.nodeId, address: options.advertiseAddress, kek: unlockKey },
    { ...manifest, index, term: manifest.term + 1, pieces: cut(encoded) },
    { rng, logger },
  )
  return { identity, unlockKey }
}

async function issue(cluster: Cluster, nodeId: string, nowMs: number): Promise<NodeIdentity> {
  const { root, intermediate, trust } = signer(cluster)
  const { csr, key } = await newSigningRequest()
  const cert = await signLeaf(root, csr, {
    nodeId,
    clusterId: cluster.id,
    role: 'manager',
    nowMs,
    expiryMs: (cluster.spec?.ca?.nodeCertExpiry ?? 0) / NANOS_PER_MS,
    intermediate,
  })
  return readIdentity({ key, cert, ca: trust })
}

function* cut(bytes: Uint8Array): Iterable<Uint8Array> {
  for (let i = 0; i < bytes.length; i += PIECE_BYTES) yield bytes.subarray(i, i + PIECE_BYTES)
}
