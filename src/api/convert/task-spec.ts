import {
  type ContainerSpec,
  EndpointMode,
  type FileTarget,
  type GenericResource,
  type Mount,
  MountType,
  type NetworkAttachmentConfig,
  type PortConfig,
  PortProtocol,
  type Privileges,
  PublishMode,
  type Resources,
  RestartCondition,
  type TaskSpec,
} from '#proto'
import { invalid, unimplemented } from '../../common/index.js'
import { driverFrom, driverJson, omitEmpty } from './proto.js'
import type {
  ContainerSpecJson,
  FileRefJson,
  GenericResourceJson,
  MountJson,
  NetworkAttachmentJson,
  PortConfigJson,
  PrivilegesJson,
  ResourcesJson,
  TaskSpecJson,
} from './service-json.js'

/** A two-way table between Docker's words and the enum; an unknown word is refused with the words that are known. */
export function words<E extends number>(
  what: string,
  table: Readonly<Record<string, E>>,
): { from(word: string | null | undefined, absent: E): E; to(value: E): string } {
  return {
    from(word, absent) {
      if (word === undefined || word === null || word === '') return absent
      const key = typeof word === 'string' ? word.toLowerCase() : ''
      if (!Object.hasOwn(table, key))
        throw invalid(
          'badWord',
          `invalid ${what} ${JSON.stringify(word).slice(0, 80)}: use one of ${Object.keys(table).join(', ')}`,
        )
      return table[key]!
    },
    to: (value) => Object.keys(table).find((k) => table[k] === value) ?? '',
  }
}

const mountTypes = words<MountType>('mount type', {
  bind: MountType.BIND,
  volume: MountType.VOLUME,
  tmpfs: MountType.TMPFS,
  cluster: MountType.CLUSTER_VOLUME,
})
const conditions = words<RestartCondition>('restart condition', {
  any: RestartCondition.RESTART_ANY,
  none: RestartCondition.RESTART_NONE,
  'on-failure': RestartCondition.RESTART_ON_FAILURE,
})
const protocols = words<PortProtocol>('port protocol', {
  tcp: PortProtocol.TCP,
  udp: PortProtocol.UDP,
  sctp: PortProtocol.SCTP,
})
const publishModes = words<PublishMode>('publish mode', { ingress: PublishMode.INGRESS, host: PublishMode.HOST })
export const endpointModes = words<EndpointMode>('endpoint mode', { vip: EndpointMode.VIP, dnsrr: EndpointMode.DNSRR })

function mountFrom(m: MountJson): Mount {
  const b = m.BindOptions
  const v = m.VolumeOptions
  const t = m.TmpfsOptions
  return {
    type: mountTypes.from(m.Type, MountType.BIND),
    source: m.Source ?? '',
    target: m.Target ?? '',
    readonly: m.ReadOnly ?? false,
    consistency: m.Consistency ?? '',
    bindPropagation: b?.Propagation ?? '',
    bindNonRecursive: b?.NonRecursive ?? false,
    bindCreateMountpoint: b?.CreateMountpoint ?? false,
    bindReadonlyNonRecursive: b?.ReadOnlyNonRecursive ?? false,
    bindReadonlyForceRecursive: b?.ReadOnlyForceRecursive ?? false,
    volumeNoCopy: v?.NoCopy ?? false,
    volumeLabels: v?.Labels ?? {},
    volumeDriver: driverFrom(v?.DriverConfig),
    volumeSubpath: v?.Subpath ?? '',
    tmpfsSizeBytes: t?.SizeBytes ?? 0,
    tmpfsMode: t?.Mode ?? 0,
    tmpfsOptions: (t?.Options ?? []).map((o) => o.join('=')),
  }
}

function mountJson(m: Mount): MountJson {
  const bind = omitEmpty({
    Propagation: m.bindPropagation,
    NonRecursive: m.bindNonRecursive,
    CreateMountpoint: m.bindCreateMountpoint,
    ReadOnlyNonRecursive: m.bindReadonlyNonRecursive,
    ReadOnlyForceRecursive: m.bindReadonlyForceRecursive,
  })
  const volume = omitEmpty({
    NoCopy: m.volumeNoCopy,
    Labels: m.volumeLabels,
    DriverConfig: driverJson(m.volumeDriver),
    Subpath: m.volumeSubpath,
  })
  const tmpfs = omitEmpty({
    SizeBytes: m.tmpfsSizeBytes,
    Mode: m.tmpfsMode,
    Options: m.tmpfsOptions.map((o) => o.split('=')),
  })
  return omitEmpty({
    Type: mountTypes.to(m.type),
    Source: m.source,
    Target: m.target,
    ReadOnly: m.readonly,
    Consistency: m.consistency,
    BindOptions: bind,
    VolumeOptions: volume,
    TmpfsOptions: tmpfs,
  }) as MountJson
}

const fileFrom = (r: FileRefJson): FileTarget | null =>
  r.File
    ? { name: r.File.Name ?? '', uid: r.File.UID || '0', gid: r.File.GID || '0', mode: r.File.Mode ?? 0o444 }
    : null
const fileJson = (f: FileTarget | null): object =>
  f ? { File: { Name: f.name, UID: f.uid, GID: f.gid, Mode: f.mode } } : { Runtime: {} }

const privilegesFrom = (p: PrivilegesJson): Privileges => ({
  credentialSpecConfig: p.CredentialSpec?.Config ?? '',
  credentialSpecFile: p.CredentialSpec?.File ?? '',
  credentialSpecRegistry: p.CredentialSpec?.Registry ?? '',
  selinuxDisable: p.SELinuxContext?.Disable ?? false,
  selinuxUser: p.SELinuxContext?.User ?? '',
  selinuxRole: p.SELinuxContext?.Role ?? '',
  selinuxType: p.SELinuxContext?.Type ?? '',
  selinuxLevel: p.SELinuxContext?.Level ?? '',
  seccomp: p.Seccomp ? { mode: p.Seccomp.Mode ?? '', profile: Buffer.from(p.Seccomp.Profile ?? '', 'base64') } : null,
  apparmorMode: p.AppArmor?.Mode ?? '',
  noNewPrivileges: p.NoNewPrivileges ?? false,
})

function privilegesJson(p: Privileges | null): PrivilegesJson | undefined {
  if (!p) return undefined
  const credential = omitEmpty({
    Config: p.credentialSpecConfig,
    File: p.credentialSpecFile,
    Registry: p.credentialSpecRegistry,
  })
  const selinux = omitEmpty({
    Disable: p.selinuxDisable,
    User: p.selinuxUser,
    Role: p.selinuxRole,
    Type: p.selinuxType,
    Level: p.selinuxLevel,
  })
  return {
    CredentialSpec: Object.keys(credential).length > 0 ? credential : null,
    SELinuxContext: Object.keys(selinux).length > 0 ? selinux : null,
    ...(p.seccomp
      ? { Seccomp: { Mode: p.seccomp.mode, Profile: Buffer.from(p.seccomp.profile).toString('base64') } }
      : {}),
    ...(p.apparmorMode ? { AppArmor: { Mode: p.apparmorMode } } : {}),
    ...(p.noNewPrivileges ? { NoNewPrivileges: true } : {}),
  }
}

export function containerSpecFrom(c: ContainerSpecJson): ContainerSpec {
  return {
    image: c.Image ?? '',
    labels: c.Labels ?? {},
    command: c.Command ?? [],
    args: c.Args ?? [],
    hostname: c.Hostname ?? '',
    env: c.Env ?? [],
    dir: c.Dir ?? '',
    user: c.User ?? '',
    groups: c.Groups ?? [],
    privileges: c.Privileges ? privilegesFrom(c.Privileges) : null,
    tty: c.TTY ?? false,
    openStdin: c.OpenStdin ?? false,
    readOnly: c.ReadOnly ?? false,
    mounts: (c.Mounts ?? []).map(mountFrom),
    stopSignal: c.StopSignal ?? '',
    stopGracePeriod: c.StopGracePeriod ?? null,
    healthcheck: c.Healthcheck
      ? {
          test: c.Healthcheck.Test ?? [],
          interval: c.Healthcheck.Interval ?? 0,
          timeout: c.Healthcheck.Timeout ?? 0,
          retries: c.Healthcheck.Retries ?? 0,
          startPeriod: c.Healthcheck.StartPeriod ?? 0,
          startInterval: c.Healthcheck.StartInterval ?? 0,
        }
      : null,
    hosts: c.Hosts ?? [],
    dnsConfig: c.DNSConfig
      ? {
          nameservers: c.DNSConfig.Nameservers ?? [],
          search: c.DNSConfig.Search ?? [],
          options: c.DNSConfig.Options ?? [],
        }
      : null,
    secrets: (c.Secrets ?? []).map((s) => ({
      secretId: s.SecretID ?? '',
      secretName: s.SecretName ?? '',
      target: fileFrom(s),
    })),
    configs: (c.Configs ?? []).map((s) => ({
      configId: s.ConfigID ?? '',
      configName: s.ConfigName ?? '',
      target: fileFrom(s),
    })),
    // "default" is what inspect shows for none: both must be stored alike, or an update that changes nothing would.
    isolation: c.Isolation === 'default' ? '' : (c.Isolation ?? ''),
    init: c.Init ?? null,
    sysctls: c.Sysctls ?? {},
    capabilityAdd: c.CapabilityAdd ?? [],
    capabilityDrop: c.CapabilityDrop ?? [],
    ulimits: (c.Ulimits ?? []).map((u) => ({ name: u.Name ?? '', soft: u.Soft ?? 0, hard: u.Hard ?? 0 })),
    oomScoreAdj: c.OomScoreAdj ?? 0,
    pullOptions: null,
  }
}

export function containerSpecJson(c: ContainerSpec): ContainerSpecJson {
  return {
    Image: c.image,
    ...(omitEmpty({
      Labels: c.labels,
      Command: c.command,
      Args: c.args,
      Hostname: c.hostname,
      Env: c.env,
      Dir: c.dir,
      User: c.user,
      Groups: c.groups,
      TTY: c.tty,
      OpenStdin: c.openStdin,
      ReadOnly: c.readOnly,
      Mounts: c.mounts.map(mountJson),
      StopSignal: c.stopSignal,
      Hosts: c.hosts,
      Secrets: c.secrets.map((s) => ({ ...fileJson(s.target), SecretID: s.secretId, SecretName: s.secretName })),
      Configs: c.configs.map((s) => ({ ...fileJson(s.target), ConfigID: s.configId, ConfigName: s.configName })),
      Sysctls: c.sysctls,
      CapabilityAdd: c.capabilityAdd,
      CapabilityDrop: c.capabilityDrop,
      Ulimits: c.ulimits.map((u) => ({ Name: u.name, Soft: u.soft, Hard: u.hard })),
      OomScoreAdj: c.oomScoreAdj,
    }) as ContainerSpecJson),
    ...(c.privileges ? { Privileges: privilegesJson(c.privileges) } : {}),
    ...(c.stopGracePeriod !== null ? { StopGracePeriod: c.stopGracePeriod } : {}),
    ...(c.healthcheck
      ? {
          Healthcheck: omitEmpty({
            Test: c.healthcheck.test,
            Interval: c.healthcheck.interval,
            Timeout: c.healthcheck.timeout,
            Retries: c.healthcheck.retries,
            StartPeriod: c.healthcheck.startPeriod,
            StartInterval: c.healthcheck.startInterval,
          }) as HealthJsonOut,
        }
      : {}),
    ...(c.dnsConfig
      ? {
          DNSConfig: omitEmpty({
            Nameservers: c.dnsConfig.nameservers,
            Search: c.dnsConfig.search,
            Options: c.dnsConfig.options,
          }) as object,
        }
      : {}),
    ...(c.init !== null ? { Init: c.init } : {}),
    Isolation: c.isolation || 'default',
  }
}
type HealthJsonOut = NonNullable<ContainerSpecJson['Healthcheck']>

function genericFrom(g: GenericResourceJson): GenericResource {
  if (g.NamedResourceSpec)
    return { kind: g.NamedResourceSpec.Kind ?? '', value: g.NamedResourceSpec.Value ?? '', count: 0 }
  return { kind: g.DiscreteResourceSpec?.Kind ?? '', value: '', count: g.DiscreteResourceSpec?.Value ?? 0 }
}

export const genericJson = (g: GenericResource): GenericResourceJson =>
  g.value
    ? { NamedResourceSpec: { Kind: g.kind, Value: g.value } }
    : { DiscreteResourceSpec: { Kind: g.kind, Value: g.count } }

export const resourcesFrom = (r: ResourcesJson | null | undefined): Resources | null =>
  r
    ? {
        nanoCpus: r.NanoCPUs ?? 0,
        memoryBytes: r.MemoryBytes ?? 0,
        pids: r.Pids ?? 0,
        generic: (r.GenericResources ?? []).map(genericFrom),
      }
    : null

export const resourcesJson = (r: Resources | null): ResourcesJson | undefined =>
  r
    ? (omitEmpty({
        NanoCPUs: r.nanoCpus,
        MemoryBytes: r.memoryBytes,
        Pids: r.pids,
        GenericResources: r.generic.map(genericJson),
      }) as ResourcesJson)
    : undefined

export const attachmentFrom = (n: NetworkAttachmentJson): NetworkAttachmentConfig => ({
  target: n.Target ?? '',
  aliases: n.Aliases ?? [],
  driverOpts: n.DriverOpts ?? {},
  addresses: [],
})
export const attachmentJson = (n: NetworkAttachmentConfig): NetworkAttachmentJson => ({
  Target: n.target,
  ...(n.aliases.length > 0 ? { Aliases: n.aliases } : {}),
  ...(Object.keys(n.driverOpts).length > 0 ? { DriverOpts: n.driverOpts } : {}),
})

export function taskSpecFrom(t: TaskSpecJson): TaskSpec {
  if (t.PluginSpec) throw unimplemented('pluginService', 'plugin services are not supported; use a container image')
  const r = t.RestartPolicy
  return {
    container: t.ContainerSpec ? containerSpecFrom(t.ContainerSpec) : null,
    attachment: t.NetworkAttachmentSpec ? { containerId: t.NetworkAttachmentSpec.ContainerID ?? '' } : null,
    resources: t.Resources
      ? {
          limits: resourcesFrom(t.Resources.Limits),
          reservations: resourcesFrom(t.Resources.Reservations),
          swapBytes: t.Resources.SwapBytes ?? null,
          memorySwappiness: t.Resources.MemorySwappiness ?? null,
        }
      : null,
    restart: r
      ? {
          condition: conditions.from(r.Condition, RestartCondition.RESTART_ANY),
          delay: r.Delay ?? null,
          maxAttempts: r.MaxAttempts ?? 0,
          window: r.Window ?? null,
        }
      : null,
    placement: t.Placement
      ? {
          constraints: t.Placement.Constraints ?? [],
          preferences: (t.Placement.Preferences ?? []).map((p) => ({ spreadOver: p.Spread?.SpreadDescriptor ?? '' })),
          maxReplicas: t.Placement.MaxReplicas ?? 0,
          platforms: (t.Placement.Platforms ?? []).map((p) => ({ architecture: p.Architecture ?? '', os: p.OS ?? '' })),
        }
      : null,
    forceUpdate: t.ForceUpdate ?? 0,
    runtime: t.Runtime === 'container' ? '' : (t.Runtime ?? ''),
    networks: (t.Networks ?? []).map(attachmentFrom),
    logDriver: driverFrom(t.LogDriver),
  }
}

export function taskSpecJson(t: TaskSpec): TaskSpecJson {
  return {
    ...(t.container ? { ContainerSpec: containerSpecJson(t.container) } : {}),
    ...(t.attachment ? { NetworkAttachmentSpec: { ContainerID: t.attachment.containerId } } : {}),
    ...(t.resources
      ? {
          Resources: {
            ...(t.resources.limits ? { Limits: resourcesJson(t.resources.limits) } : {}),
            ...(t.resources.reservations ? { Reservations: resourcesJson(t.resources.reservations) } : {}),
            ...(t.resources.swapBytes !== null ? { SwapBytes: t.resources.swapBytes } : {}),
            ...(t.resources.memorySwappiness !== null ? { MemorySwappiness: t.resources.memorySwappiness } : {}),
          },
        }
      : {}),
    ...(t.restart
      ? {
          RestartPolicy: {
            Condition: conditions.to(t.restart.condition),
            ...(t.restart.delay !== null ? { Delay: t.restart.delay } : {}),
            MaxAttempts: t.restart.maxAttempts,
            ...(t.restart.window !== null ? { Window: t.restart.window } : {}),
          },
        }
      : {}),
    ...(t.placement
      ? {
          Placement: omitEmpty({
            Constraints: t.placement.constraints,
            Preferences: t.placement.preferences.map((p) => ({ Spread: { SpreadDescriptor: p.spreadOver } })),
            MaxReplicas: t.placement.maxReplicas,
            Platforms: t.placement.platforms.map((p) => omitEmpty({ Architecture: p.architecture, OS: p.os })),
          }) as object,
        }
      : {}),
    ...(t.networks.length > 0 ? { Networks: t.networks.map(attachmentJson) } : {}),
    ...(t.logDriver ? { LogDriver: driverJson(t.logDriver) } : {}),
    ForceUpdate: t.forceUpdate,
    Runtime: t.runtime || 'container',
  }
}

export const portFrom = (p: PortConfigJson): PortConfig => ({
  name: p.Name ?? '',
  protocol: protocols.from(p.Protocol, PortProtocol.TCP),
  targetPort: p.TargetPort ?? 0,
  publishedPort: p.PublishedPort ?? 0,
  publishMode: publishModes.from(p.PublishMode, PublishMode.INGRESS),
})

export const portJson = (p: PortConfig): PortConfigJson => ({
  ...(p.name ? { Name: p.name } : {}),
  Protocol: protocols.to(p.protocol),
  TargetPort: p.targetPort,
  ...(p.publishedPort ? { PublishedPort: p.publishedPort } : {}),
  PublishMode: publishModes.to(p.publishMode),
})
