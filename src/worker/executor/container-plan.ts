import {
  type ContainerSpec,
  type Mount,
  MountType,
  type Network,
  type PortConfig,
  PortProtocol,
  PublishMode,
  type Task,
} from '#proto'
import type { CreateContainerBody, EndpointSettings, HostConfig, MountSpec, PortBinding } from '../../engine/index.js'
import { taskName } from '../dependencies/index.js'

/** Labels by which task containers are found again; they win over the user's. */
export const TASK_LABEL = 'com.docker.swarm.task.id'

export const PROTOCOLS = { [PortProtocol.TCP]: 'tcp', [PortProtocol.UDP]: 'udp', [PortProtocol.SCTP]: 'sctp' } as const

/** A file on this host that the container is to see, for reading only. */
export interface FileMount {
  readonly source: string
  readonly target: string
}

/** The body of the container create call that a task stands for. `spec` has its templates expanded already. Pure. */
export function containerBody(task: Task, spec: ContainerSpec, files: readonly FileMount[]): CreateContainerBody {
  const hostPorts = (task.endpoint?.ports ?? []).filter((p) => p.publishMode === PublishMode.HOST)
  const health = spec.healthcheck
  return {
    Image: spec.image,
    Labels: { ...spec.labels, ...systemLabels(task) },
    ...(spec.command.length > 0 ? { Entrypoint: spec.command } : {}),
    ...(spec.args.length > 0 ? { Cmd: spec.args } : {}),
    Hostname: spec.hostname,
    Env: [...spec.env, ...genericEnv(task)],
    WorkingDir: spec.dir,
    User: spec.user,
    Tty: spec.tty,
    OpenStdin: spec.openStdin,
    ...(spec.stopSignal ? { StopSignal: spec.stopSignal } : {}),
    ...(health
      ? {
          Healthcheck: {
            Test: health.test,
            Interval: health.interval,
            Timeout: health.timeout,
            Retries: health.retries,
            StartPeriod: health.startPeriod,
            StartInterval: health.startInterval,
          },
        }
      : {}),
    ExposedPorts: Object.fromEntries(hostPorts.map((p) => [portKey(p), {}])),
    HostConfig: hostConfig(task, spec, hostPorts, files),
    NetworkingConfig: { EndpointsConfig: endpoints(task) },
  }
}

const portKey = (p: PortConfig): string => `${p.targetPort}/${PROTOCOLS[p.protocol]}`

function systemLabels(t: Task): Record<string, string> {
  return {
    'com.docker.swarm.task': '',
    [TASK_LABEL]: t.id,
    'com.docker.swarm.task.name': taskName(t),
    'com.docker.swarm.node.id': t.nodeId,
    'com.docker.swarm.service.id': t.serviceId,
    'com.docker.swarm.service.name': t.serviceAnnotations?.name ?? '',
  }
}

function genericEnv(t: Task): string[] {
  const byKind = new Map<string, string[]>()
  for (const g of t.assignedGenericResources)
    byKind.set(g.kind, [...(byKind.get(g.kind) ?? []), g.value || String(g.count)])
  return [...byKind].map(([kind, v]) => `DOCKER_RESOURCE_${kind.toUpperCase()}=${v.join(',')}`)
}

function hostConfig(
  task: Task,
  spec: ContainerSpec,
  hostPorts: readonly PortConfig[],
  files: readonly FileMount[],
): HostConfig {
  const limits = task.spec?.resources?.limits
  const reserved = task.spec?.resources?.reservations
  const bindings: Record<string, PortBinding[]> = {}
  for (const p of hostPorts) {
    const key = portKey(p)
    bindings[key] = [...(bindings[key] ?? []), { HostPort: p.publishedPort ? String(p.publishedPort) : '' }]
  }
  const logDriver = task.logDriver ?? task.spec?.logDriver
  const first = task.networks[0]?.network
  const swap = task.spec?.resources?.swapBytes ?? null
  return {
    Mounts: [
      ...spec.mounts.map(mountSpec),
      ...files.map((f): MountSpec => ({ Type: 'bind', Source: f.source, Target: f.target, ReadOnly: true })),
    ],
    PortBindings: bindings,
    RestartPolicy: { Name: 'no' },
    NetworkMode: first ? first.id : 'bridge',
    ReadonlyRootfs: spec.readOnly,
    CapAdd: spec.capabilityAdd,
    CapDrop: spec.capabilityDrop,
    GroupAdd: spec.groups,
    ExtraHosts: spec.hosts.flatMap((line) => {
      const [ip = '', ...names] = line.trim().split(/\s+/)
      return names.map((n) => `${n}:${ip}`)
    }),
    Dns: spec.dnsConfig?.nameservers ?? [],
    DnsSearch: spec.dnsConfig?.search ?? [],
    DnsOptions: spec.dnsConfig?.options ?? [],
    Sysctls: spec.sysctls,
    ...(spec.init !== null ? { Init: spec.init } : {}),
    Ulimits: spec.ulimits.map((u) => ({ Name: u.name, Soft: u.soft, Hard: u.hard })),
    OomScoreAdj: spec.oomScoreAdj,
    ...(logDriver ? { LogConfig: { Type: logDriver.name, Config: logDriver.options } } : {}),
    SecurityOpt: securityOptions(spec),
    ...(limits?.memoryBytes
      ? {
          Memory: limits.memoryBytes,
          ...(swap !== null ? { MemorySwap: swap < 0 ? -1 : limits.memoryBytes + swap } : {}),
        }
      : {}),
    ...(limits?.nanoCpus ? { NanoCpus: limits.nanoCpus } : {}),
    ...(limits?.pids ? { PidsLimit: limits.pids } : {}),
    ...(reserved?.memoryBytes ? { MemoryReservation: reserved.memoryBytes } : {}),
  }
}

function securityOptions(spec: ContainerSpec): string[] {
  const seccomp = spec.privileges?.seccomp
  return [
    ...(spec.privileges?.noNewPrivileges ? ['no-new-privileges'] : []),
    ...(seccomp?.mode === 'unconfined' ? ['seccomp=unconfined'] : []),
    ...(seccomp?.mode === 'custom' ? [`seccomp=${Buffer.from(seccomp.profile).toString('utf8')}`] : []),
  ]
}

function mountSpec(m: Mount): MountSpec {
  const types = {
    [MountType.BIND]: 'bind',
    [MountType.VOLUME]: 'volume',
    [MountType.TMPFS]: 'tmpfs',
    [MountType.CLUSTER_VOLUME]: 'cluster',
  } as const
  return {
    Type: types[m.type],
    Source: m.source,
    Target: m.target,
    ReadOnly: m.readonly,
    ...(m.type === MountType.BIND
      ? {
          BindOptions: {
            Propagation: m.bindPropagation || undefined,
            NonRecursive: m.bindNonRecursive,
            CreateMountpoint: m.bindCreateMountpoint,
          },
        }
      : {}),
    ...(m.type === MountType.VOLUME
      ? {
          VolumeOptions: {
            NoCopy: m.volumeNoCopy,
            Labels: m.volumeLabels,
            ...(m.volumeDriver ? { DriverConfig: { Name: m.volumeDriver.name, Options: m.volumeDriver.options } } : {}),
            ...(m.volumeSubpath ? { Subpath: m.volumeSubpath } : {}),
          },
        }
      : {}),
    ...(m.type === MountType.TMPFS ? { TmpfsOptions: { SizeBytes: m.tmpfsSizeBytes, Mode: m.tmpfsMode } } : {}),
  }
}

const isOverlay = (n: Network): boolean => (n.driverState?.name || 'overlay') === 'overlay'

/**
 * Networks by id, with the addresses that the manager gave; none: the default bridge. A service's names are not the container's
 * aliases; on an overlay the managers tell them, on a network that each node has for itself nobody else does.
 */
function endpoints(t: Task): Record<string, EndpointSettings> {
  const out: Record<string, EndpointSettings> = {}
  for (const a of t.networks) {
    if (!a.network) continue
    const v4 = a.addresses.find((x) => !x.includes(':'))?.replace(/\/\d+$/, '')
    out[a.network.id] = {
      NetworkID: a.network.id,
      DNSNames: [...(isOverlay(a.network) ? [] : [t.serviceAnnotations?.name ?? '']), ...a.aliases].filter(Boolean),
      DriverOpts: a.driverOpts,
      ...(v4 ? { IPAMConfig: { IPv4Address: v4 } } : {}),
    }
  }
  return out
}
