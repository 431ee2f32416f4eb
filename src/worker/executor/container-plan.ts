import { type Mount, MountType, type PortConfig, PortProtocol, PublishMode, type Task } from '#proto'
import { invalid } from '../../common/index.js'
import type { CreateContainerBody, EndpointSettings, HostConfig, MountSpec, PortBinding } from '../../engine/index.js'
import { expand, type TemplateContext, taskName } from './templates.js'

/** Labels by which task containers are found again; they win over the user's (swarm-semantics 5.4). */
export const TASK_LABEL = 'com.docker.swarm.task.id'

export const PROTOCOLS = { [PortProtocol.TCP]: 'tcp', [PortProtocol.UDP]: 'udp', [PortProtocol.SCTP]: 'sctp' } as const

/** The body of the container create call that a task stands for. Pure. */
export function containerBody(c: TemplateContext): CreateContainerBody {
  const { task } = c
  const spec = task.spec?.container
  if (!spec) throw invalid('noContainer', `task ${task.id} has no container to run`)
  const x = (s: string): string => expand(s, c)
  const hostPorts = (task.endpoint?.ports ?? []).filter((p) => p.publishMode === PublishMode.HOST)
  const health = spec.healthcheck
  return {
    Image: spec.image,
    Labels: { ...spec.labels, ...systemLabels(task) },
    ...(spec.command.length > 0 ? { Entrypoint: spec.command } : {}),
    ...(spec.args.length > 0 ? { Cmd: spec.args } : {}),
    Hostname: x(spec.hostname),
    Env: [...spec.env.map(x), ...genericEnv(task)],
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
    HostConfig: hostConfig(c, hostPorts),
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

function hostConfig(c: TemplateContext, hostPorts: readonly PortConfig[]): HostConfig {
  const spec = c.task.spec!.container!
  const limits = c.task.spec?.resources?.limits
  const reserved = c.task.spec?.resources?.reservations
  const bindings: Record<string, PortBinding[]> = {}
  for (const p of hostPorts) {
    const key = portKey(p)
    bindings[key] = [...(bindings[key] ?? []), { HostPort: p.publishedPort ? String(p.publishedPort) : '' }]
  }
  const logDriver = c.task.logDriver ?? c.task.spec?.logDriver
  const first = c.task.networks[0]?.network
  const swap = c.task.spec?.resources?.swapBytes ?? null
  return {
    Mounts: spec.mounts.map((m) => mountSpec(m, c)),
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
    ...(spec.privileges?.noNewPrivileges ? { SecurityOpt: ['no-new-privileges'] } : {}),
    ...(spec.privileges?.seccomp?.mode === 'unconfined' ? { SecurityOpt: ['seccomp=unconfined'] } : {}),
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

function mountSpec(m: Mount, c: TemplateContext): MountSpec {
  const types = {
    [MountType.BIND]: 'bind',
    [MountType.VOLUME]: 'volume',
    [MountType.TMPFS]: 'tmpfs',
    [MountType.CLUSTER_VOLUME]: 'cluster',
  } as const
  return {
    Type: types[m.type],
    Source: expand(m.source, c),
    Target: expand(m.target, c),
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

/** Networks by id, with the addresses that the manager gave; none: the default bridge. */
function endpoints(t: Task): Record<string, EndpointSettings> {
  const out: Record<string, EndpointSettings> = {}
  for (const a of t.networks) {
    if (!a.network) continue
    const v4 = a.addresses.find((x) => !x.includes(':'))?.replace(/\/\d+$/, '')
    out[a.network.id] = {
      NetworkID: a.network.id,
      Aliases: a.aliases,
      DriverOpts: a.driverOpts,
      ...(v4 ? { IPAMConfig: { IPv4Address: v4 } } : {}),
    }
  }
  return out
}
