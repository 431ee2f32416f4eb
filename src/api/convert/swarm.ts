import { X509Certificate } from 'node:crypto'
import {
  type CAConfig,
  type Cluster,
  type ClusterSpec,
  type Config,
  type ConfigSpec,
  type NetworkSpec,
  type Node,
  NodeAvailability,
  NodeRole,
  type NodeSpec,
  NodeState,
  ObjectKind,
  Reachability,
  type Secret,
  type SecretSpec,
} from '#proto'
import { invalid, isKind } from '../../common/index.js'
import type { ShapeOf } from '../body.js'
import type { ApiModules } from '../contract.js'
import { annotationsFrom, annotationsJson, DRIVER, type DriverJson, driverFrom, driverJson, metaJson } from './proto.js'
import { resourcesJson, words } from './task-spec.js'

export const availabilities = words<NodeAvailability>('availability', {
  active: NodeAvailability.ACTIVE,
  pause: NodeAvailability.PAUSE,
  drain: NodeAvailability.DRAIN,
})
export const roles = words<NodeRole>('role', { worker: NodeRole.WORKER, manager: NodeRole.MANAGER })

const NODE_STATES: Record<NodeState, string> = {
  [NodeState.NODE_UNKNOWN]: 'unknown',
  [NodeState.NODE_DOWN]: 'down',
  [NodeState.NODE_READY]: 'ready',
  [NodeState.NODE_DISCONNECTED]: 'disconnected',
}
const REACHABILITIES: Record<Reachability, string> = {
  [Reachability.REACHABILITY_UNKNOWN]: 'unknown',
  [Reachability.UNREACHABLE]: 'unreachable',
  [Reachability.REACHABLE]: 'reachable',
}

// ------------------------------------------------------------------------------------------------ cluster

/** Swarm's defaults; */
export const DEFAULTS = {
  taskHistoryRetentionLimit: 5,
  snapshotInterval: 10_000,
  logEntriesForSlowFollowers: 500,
  heartbeatTick: 1,
  electionTick: 10,
  heartbeatPeriodNs: 5e9,
  nodeCertExpiryNs: 90 * 24 * 3600 * 1e9,
} as const

interface ClusterSpecJson {
  Name?: string
  Labels?: Record<string, string> | null
  Orchestration?: { TaskHistoryRetentionLimit?: number | null } | null
  Raft?: {
    SnapshotInterval?: number
    KeepOldSnapshots?: number | null
    LogEntriesForSlowFollowers?: number
    ElectionTick?: number
    HeartbeatTick?: number
  } | null
  Dispatcher?: { HeartbeatPeriod?: number } | null
  CAConfig?: {
    NodeCertExpiry?: number
    ExternalCAs?: { Protocol?: string; URL?: string; Options?: Record<string, string> | null; CACert?: string }[] | null
    SigningCACert?: string
    SigningCAKey?: string
    ForceRotate?: number
  } | null
  TaskDefaults?: { LogDriver?: DriverJson | null } | null
  EncryptionConfig?: { AutoLockManagers?: boolean } | null
}

export const CLUSTER_SPEC_BODY: ShapeOf<ClusterSpecJson> = {
  Name: 'string',
  Labels: 'map',
  Orchestration: { TaskHistoryRetentionLimit: 'number' },
  Raft: {
    SnapshotInterval: 'number',
    KeepOldSnapshots: 'number',
    LogEntriesForSlowFollowers: 'number',
    ElectionTick: 'number',
    HeartbeatTick: 'number',
  },
  Dispatcher: { HeartbeatPeriod: 'number' },
  CAConfig: {
    NodeCertExpiry: 'number',
    ExternalCAs: [{ Protocol: 'string', URL: 'string', Options: 'map', CACert: 'string' }],
    SigningCACert: 'string',
    SigningCAKey: 'string',
    ForceRotate: 'number',
  },
  TaskDefaults: { LogDriver: DRIVER },
  EncryptionConfig: { AutoLockManagers: 'boolean' },
}

const pem = (v: string | undefined): Uint8Array => Buffer.from(v ?? '', 'utf8')

/** Zero means the default, as the docker command sends it. */
export function clusterSpecFrom(s: ClusterSpecJson): ClusterSpec {
  const history = s.Orchestration?.TaskHistoryRetentionLimit
  const electionTick = s.Raft?.ElectionTick || DEFAULTS.electionTick
  const heartbeatTick = s.Raft?.HeartbeatTick || DEFAULTS.heartbeatTick
  if (electionTick <= heartbeatTick)
    throw invalid('badTicks', `ElectionTick (${electionTick}) must be greater than HeartbeatTick (${heartbeatTick})`)
  return {
    annotations: { name: 'default', labels: s.Labels ?? {} },
    taskHistoryRetentionLimit: history ?? DEFAULTS.taskHistoryRetentionLimit,
    raft: {
      snapshotInterval: s.Raft?.SnapshotInterval || DEFAULTS.snapshotInterval,
      keepOldSnapshots: s.Raft?.KeepOldSnapshots ?? 0,
      logEntriesForSlowFollowers: s.Raft?.LogEntriesForSlowFollowers || DEFAULTS.logEntriesForSlowFollowers,
      electionTick,
      heartbeatTick,
    },
    dispatcherHeartbeatPeriod: s.Dispatcher?.HeartbeatPeriod || DEFAULTS.heartbeatPeriodNs,
    ca: {
      nodeCertExpiry: s.CAConfig?.NodeCertExpiry || DEFAULTS.nodeCertExpiryNs,
      externalCas: (s.CAConfig?.ExternalCAs ?? []).map((e) => ({
        protocol: e.Protocol || 'cfssl',
        url: e.URL ?? '',
        options: e.Options ?? {},
        caCert: pem(e.CACert),
      })),
      forceRotate: s.CAConfig?.ForceRotate ?? 0,
      signingCaCert: pem(s.CAConfig?.SigningCACert),
      signingCaKey: pem(s.CAConfig?.SigningCAKey),
    },
    taskDefaultsLogDriver: driverFrom(s.TaskDefaults?.LogDriver),
    autoLockManagers: s.EncryptionConfig?.AutoLockManagers ?? false,
  }
}

const caJson = (c: CAConfig | null): object => ({
  NodeCertExpiry: c?.nodeCertExpiry ?? DEFAULTS.nodeCertExpiryNs,
  ...(c && c.externalCas.length > 0
    ? {
        ExternalCAs: c.externalCas.map((e) => ({
          Protocol: e.protocol,
          URL: e.url,
          Options: e.options,
          CACert: Buffer.from(e.caCert).toString('utf8'),
        })),
      }
    : {}),
  ...(c?.forceRotate ? { ForceRotate: c.forceRotate } : {}),
})

function clusterSpecJson(s: ClusterSpec): object {
  return {
    ...annotationsJson(s.annotations),
    Orchestration: { TaskHistoryRetentionLimit: s.taskHistoryRetentionLimit },
    Raft: {
      SnapshotInterval: s.raft?.snapshotInterval ?? 0,
      KeepOldSnapshots: s.raft?.keepOldSnapshots ?? 0,
      LogEntriesForSlowFollowers: s.raft?.logEntriesForSlowFollowers ?? 0,
      ElectionTick: s.raft?.electionTick ?? 0,
      HeartbeatTick: s.raft?.heartbeatTick ?? 0,
    },
    Dispatcher: { HeartbeatPeriod: s.dispatcherHeartbeatPeriod },
    CAConfig: caJson(s.ca),
    TaskDefaults: s.taskDefaultsLogDriver ? { LogDriver: driverJson(s.taskDefaultsLogDriver) } : {},
    EncryptionConfig: { AutoLockManagers: s.autoLockManagers },
  }
}

/** As the nodes describe the root that they trust: clients call a node whose TLS is not the cluster's in need of rotation. */
function clusterTls(root: Uint8Array): object {
  const pem = Buffer.from(root).toString('utf8')
  if (pem === '') return { TrustRoot: '', CertIssuerSubject: '', CertIssuerPublicKey: '' }
  const x = new X509Certificate(pem)
  return {
    TrustRoot: pem,
    CertIssuerSubject: Buffer.from(x.subject).toString('base64'),
    CertIssuerPublicKey: x.publicKey.export({ type: 'spki', format: 'der' }).toString('base64'),
  }
}

/** The part that /info shows too. */
export function clusterInfoJson(c: Cluster): Record<string, unknown> {
  return {
    ID: c.id,
    ...metaJson(c.meta),
    Spec: c.spec ? clusterSpecJson(c.spec) : {},
    TLSInfo: clusterTls(c.rootCa?.cert ?? new Uint8Array(0)),
    RootRotationInProgress: c.rootCa?.rotation != null,
    DefaultAddrPool: c.defaultAddressPool,
    SubnetSize: c.subnetSize,
    DataPathPort: c.dataPathPort,
  }
}

export const swarmJson = (c: Cluster): object => ({
  ...clusterInfoJson(c),
  JoinTokens: { Worker: c.rootCa?.workerToken ?? '', Manager: c.rootCa?.managerToken ?? '' },
})

/** The Swarm block of /info. A manager that cannot reach a leader says so in Error instead of failing the whole call. */
export async function swarmInfo(m: ApiModules): Promise<object> {
  const s = m.cluster.state()
  const base = {
    NodeID: s.nodeId,
    NodeAddr: s.nodeAddress,
    LocalNodeState: s.localNodeState,
    ControlAvailable: s.controlAvailable,
    Error: s.error,
    RemoteManagers:
      s.remoteManagers.length > 0 ? s.remoteManagers.map((r) => ({ NodeID: r.nodeId, Addr: r.address })) : null,
  }
  if (s.localNodeState !== 'active' || !s.controlAvailable) return base
  try {
    const control = m.cluster.control()
    const { objects } = await control.list({ kind: ObjectKind.KIND_NODE, filters: [] })
    const nodes = objects.flatMap((o) => (o.node ? [o.node] : []))
    const clusters = await control.list({ kind: ObjectKind.KIND_CLUSTER, filters: [] })
    const cluster = clusters.objects[0]?.cluster
    const managers = nodes.filter((n) => n.managerStatus !== null).length
    return {
      ...base,
      Nodes: nodes.length,
      Managers: managers,
      ...(cluster ? { Cluster: clusterInfoJson(cluster) } : {}),
      ...(managers === 2
        ? {
            Warnings: [
              'WARNING: Running Swarm in a two-manager configuration. This configuration provides no fault tolerance, and poses a high risk to lose control over the cluster. Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the Swarm for fault-tolerance.',
            ],
          }
        : {}),
    }
  } catch (e) {
    if (!isKind(e, 'unavailable')) throw e
    return { ...base, Error: (e as Error).message }
  }
}

// ------------------------------------------------------------------------------------------------ nodes

interface NodeSpecJson {
  Name?: string
  Labels?: Record<string, string> | null
  Role?: string
  Availability?: string
}

export const NODE_SPEC_BODY: ShapeOf<NodeSpecJson> = {
  Name: 'string',
  Labels: 'map',
  Role: 'string',
  Availability: 'string',
}

export function nodeSpecFrom(s: NodeSpecJson): NodeSpec {
  if (!s.Role) throw invalid('roleMissing', 'invalid Role: "": use worker or manager')
  if (!s.Availability) throw invalid('availabilityMissing', 'invalid Availability: "": use active, pause or drain')
  return {
    annotations: annotationsFrom(s),
    desiredRole: roles.from(s.Role, NodeRole.WORKER),
    availability: availabilities.from(s.Availability, NodeAvailability.ACTIVE),
  }
}

export function nodeJson(n: Node): object {
  const d = n.description
  return {
    ID: n.id,
    ...metaJson(n.meta),
    Spec: {
      ...(n.spec?.annotations?.name ? { Name: n.spec.annotations.name } : {}),
      Labels: n.spec?.annotations?.labels ?? {},
      Role: roles.to(n.spec?.desiredRole ?? NodeRole.WORKER),
      Availability: availabilities.to(n.spec?.availability ?? NodeAvailability.ACTIVE),
    },
    Description: {
      Hostname: d?.hostname ?? '',
      Platform: { Architecture: d?.platform?.architecture ?? '', OS: d?.platform?.os ?? '' },
      Resources: resourcesJson(d?.resources ?? null) ?? {},
      Engine: {
        EngineVersion: d?.engineVersion ?? '',
        ...(d && Object.keys(d.engineLabels).length > 0 ? { Labels: d.engineLabels } : {}),
        Plugins: (d?.plugins ?? []).map((p) => ({ Type: p.type, Name: p.name })),
      },
      TLSInfo: {
        TrustRoot: Buffer.from(d?.trustRoot ?? []).toString('utf8'),
        CertIssuerSubject: Buffer.from(d?.certIssuerSubject ?? []).toString('base64'),
        CertIssuerPublicKey: Buffer.from(d?.certIssuerPublicKey ?? []).toString('base64'),
      },
    },
    Status: {
      State: NODE_STATES[n.status?.state ?? NodeState.NODE_UNKNOWN],
      ...(n.status?.message ? { Message: n.status.message } : {}),
      Addr: n.status?.address ?? '',
    },
    ...(n.managerStatus
      ? {
          ManagerStatus: {
            ...(n.managerStatus.leader ? { Leader: true } : {}),
            Reachability: REACHABILITIES[n.managerStatus.reachability],
            Addr: n.managerStatus.address,
          },
        }
      : {}),
  }
}

// ------------------------------------------------------------------------------------------------ secrets, configs, networks

interface DataSpecJson {
  Name?: string
  Labels?: Record<string, string> | null
  Data?: string | null
  Templating?: DriverJson | null
  Driver?: DriverJson | null
}

export const DATA_SPEC_BODY: ShapeOf<DataSpecJson> = {
  Name: 'string',
  Labels: 'map',
  Data: 'string',
  Templating: DRIVER,
  Driver: DRIVER,
}

function payload(v: string | null | undefined, what: string): Uint8Array {
  if (v && !/^[A-Za-z0-9+/_-]*={0,2}$/.test(v)) throw invalid('badBase64', `${what}: Data is not base64`)
  return Buffer.from(v ?? '', 'base64')
}

export const secretSpecFrom = (s: DataSpecJson): SecretSpec => ({
  annotations: annotationsFrom(s),
  data: payload(s.Data, 'secret'),
  templating: driverFrom(s.Templating),
  driver: driverFrom(s.Driver),
})
export const configSpecFrom = (s: DataSpecJson): ConfigSpec => ({
  annotations: annotationsFrom(s),
  data: payload(s.Data, 'config'),
  templating: driverFrom(s.Templating),
})

/** Without its data, always. */
export const secretJson = (s: Secret): object => ({
  ID: s.id,
  ...metaJson(s.meta),
  Spec: {
    ...annotationsJson(s.spec?.annotations ?? null),
    ...(s.spec?.driver ? { Driver: driverJson(s.spec.driver) } : {}),
    ...(s.spec?.templating ? { Templating: driverJson(s.spec.templating) } : {}),
  },
})

export const configJson = (c: Config): object => ({
  ID: c.id,
  ...metaJson(c.meta),
  Spec: {
    ...annotationsJson(c.spec?.annotations ?? null),
    Data: Buffer.from(c.spec?.data ?? []).toString('base64'),
    ...(c.spec?.templating ? { Templating: driverJson(c.spec.templating) } : {}),
  },
})

export const networkSpecJson = (s: NetworkSpec): object => ({
  ...annotationsJson(s.annotations),
  DriverConfiguration: driverJson(s.driverConfig) ?? {},
  ...(s.ipv6Enabled ? { IPv6Enabled: true } : {}),
  ...(s.internal ? { Internal: true } : {}),
  ...(s.attachable ? { Attachable: true } : {}),
  ...(s.ingress ? { Ingress: true } : {}),
  IPAMOptions: {
    Driver: driverJson(s.ipam?.driver ?? null) ?? {},
    Configs: (s.ipam?.configs ?? []).map((c) => ({ Subnet: c.subnet, ...(c.gateway ? { Gateway: c.gateway } : {}) })),
  },
  Scope: 'swarm',
})
