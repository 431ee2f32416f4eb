import { CAConfig, Cluster, type ClusterSpec, RaftConfig, RootCA, type RootRotation, type UpdateRequest } from '#proto'
import type { Clock } from '../../common/index.js'
import { newJoinToken, prepareRotation, rootDigest } from '../ca/index.js'
import type { ClusterInit } from '../contract.js'
import { newUnlockKey } from '../keys/index.js'
import type { Store } from '../store/index.js'
import { badSpec, objectNotFound } from './errors.js'

const HOUR_NANOS = 3600 * 1e9
const EMPTY = new Uint8Array()

/** What Swarm fills in where the operator says nothing. */
export const CLUSTER_DEFAULTS = {
  name: 'default',
  nodeCertExpiry: 90 * 24 * HOUR_NANOS,
  dispatcherHeartbeatPeriod: 5e9,
  taskHistoryRetentionLimit: 5,
  raft: {
    snapshotInterval: 10_000,
    keepOldSnapshots: 0,
    logEntriesForSlowFollowers: 500,
    heartbeatTick: 1,
    electionTick: 10,
  },
  subnetSize: 24,
  addressPool: ['10.0.0.0/8'],
  dataPathPort: 4789,
} as const

/** A complete spec: zero means "not said" for all but the history limit, where it is a value. */
export function withDefaults(spec: ClusterSpec): ClusterSpec {
  const d = CLUSTER_DEFAULTS
  const raft = spec.raft ?? RaftConfig.create()
  const ca = spec.ca ?? CAConfig.create()
  return {
    ...spec,
    annotations: { labels: spec.annotations?.labels ?? {}, name: spec.annotations?.name || d.name },
    raft: {
      ...raft,
      snapshotInterval: raft.snapshotInterval || d.raft.snapshotInterval,
      logEntriesForSlowFollowers: raft.logEntriesForSlowFollowers || d.raft.logEntriesForSlowFollowers,
      heartbeatTick: raft.heartbeatTick || d.raft.heartbeatTick,
      electionTick: raft.electionTick || d.raft.electionTick,
    },
    dispatcherHeartbeatPeriod: spec.dispatcherHeartbeatPeriod || d.dispatcherHeartbeatPeriod,
    ca: { ...ca, nodeCertExpiry: ca.nodeCertExpiry || d.nodeCertExpiry },
  }
}

export function checkClusterSpec(spec: ClusterSpec): void {
  if (spec.annotations?.name !== CLUSTER_DEFAULTS.name) throw badSpec('modification of cluster name is not allowed')
  if (spec.dispatcherHeartbeatPeriod < 0) throw badSpec('heartbeat time period cannot be a negative duration')
  const expiry = spec.ca?.nodeCertExpiry ?? 0
  if (expiry < HOUR_NANOS) throw badSpec('minimum certificate expiry time is: 1h0m0s')
  for (const e of spec.ca?.externalCas ?? [])
    if (e.protocol !== 'cfssl' || !/^https:\/\//.test(e.url))
      throw badSpec(`external CA ${e.url}: only the protocol cfssl at an https:// address is known`)
  const raft = spec.raft
  if (raft && raft.electionTick <= raft.heartbeatTick)
    throw badSpec(`election tick ${raft.electionTick} must be greater than heartbeat tick ${raft.heartbeatTick}`)
}

/** The cluster object as its first manager writes it. */
export function newCluster(
  id: string,
  init: ClusterInit,
  root: { readonly cert: string; readonly key: string },
): Cluster {
  const spec = withDefaults(init.spec)
  checkClusterSpec(spec)
  return Cluster.create({
    id,
    spec,
    rootCa: RootCA.create({
      cert: Buffer.from(root.cert),
      key: Buffer.from(root.key),
      digest: rootDigest(root.cert),
      workerToken: newJoinToken(root.cert),
      managerToken: newJoinToken(root.cert),
      epoch: 1,
    }),
    defaultAddressPool:
      init.defaultAddressPool.length > 0 ? [...init.defaultAddressPool] : [...CLUSTER_DEFAULTS.addressPool],
    subnetSize: init.subnetSize || CLUSTER_DEFAULTS.subnetSize,
    dataPathPort: init.dataPathPort || CLUSTER_DEFAULTS.dataPathPort,
    unlockKey: spec.autoLockManagers ? newUnlockKey() : EMPTY,
  })
}

export class ClusterControl {
  constructor(
    private readonly store: Store,
    private readonly clock: Clock,
  ) {}

  async update(request: UpdateRequest): Promise<void> {
    const given = request.spec?.cluster
    if (!given) throw badSpec('the update has no cluster spec')
    const spec = withDefaults(given)
    checkClusterSpec(spec)
    const rotation = await this.#rotation(request.id, spec)
    await this.store.update((tx) => {
      const cluster = tx.get('cluster', request.id)
      if (!cluster?.rootCa) throw objectNotFound('cluster', request.id)
      const root = cluster.rootCa
      const token = (): string => newJoinToken(root.cert)
      tx.update('cluster', {
        ...cluster,
        // The new root's key is kept with the root, once.
        spec: { ...spec, ca: spec.ca && { ...spec.ca, signingCaCert: EMPTY, signingCaKey: EMPTY } },
        meta: { createdAt: null, updatedAt: null, version: request.version },
        rootCa: {
          ...root,
          workerToken: request.rotateWorkerToken ? token() : root.workerToken,
          managerToken: request.rotateManagerToken ? token() : root.managerToken,
          rotation: rotation ?? root.rotation,
        },
        unlockKey: unlockKeyOf(cluster, spec, request.rotateUnlockKey),
      })
    })
  }

  /** A second rotation replaces one under way. */
  async #rotation(id: string, spec: ClusterSpec): Promise<RootRotation | null> {
    const cluster = this.store.view().get('cluster', id)
    if (!cluster?.rootCa) throw objectNotFound('cluster', id)
    const { signingCaCert, signingCaKey, forceRotate } = spec.ca ?? CAConfig.create()
    if (signingCaKey.length > 0 && signingCaCert.length === 0)
      throw badSpec('rotating with a CA key needs the CA certificate of that key too')
    if (signingCaCert.length > 0 && signingCaKey.length === 0)
      throw badSpec('rotating to a CA certificate needs its key: certificates of an external CA are not issued here')
    if (signingCaCert.length === 0 && forceRotate === (cluster.spec?.ca?.forceRotate ?? 0)) return null
    if (cluster.rootCa.key.length === 0) throw badSpec('the cluster has no CA key to cross-sign a new root with')
    const same = (pem: Uint8Array): boolean =>
      Buffer.from(pem).toString().trim() === Buffer.from(signingCaCert).toString().trim()
    if (signingCaCert.length > 0 && same(cluster.rootCa.cert))
      throw badSpec('the CA certificate is the one in use already')
    return prepareRotation(cluster, { cert: signingCaCert, key: signingCaKey }, this.clock.now())
  }
}

function unlockKeyOf(cluster: Cluster, spec: ClusterSpec, rotate: boolean): Uint8Array {
  if (!spec.autoLockManagers) return EMPTY
  return cluster.unlockKey.length === 0 || rotate ? newUnlockKey() : cluster.unlockKey
}
