/**
 * JSON shapes of the Engine API that the engine itself takes and gives (swagger.yaml, API 1.50). The routes pass bodies
 * through after checking their types, so the field names are Docker's. Absent and null both mean "not given".
 */

export interface HealthcheckConfig {
  Test?: string[] | null
  Interval?: number
  Timeout?: number
  StartPeriod?: number
  StartInterval?: number
  Retries?: number
}

export interface ContainerConfig {
  Hostname?: string
  Domainname?: string
  User?: string
  AttachStdin?: boolean
  AttachStdout?: boolean
  AttachStderr?: boolean
  ExposedPorts?: Record<string, object> | null
  Tty?: boolean
  OpenStdin?: boolean
  StdinOnce?: boolean
  Env?: string[] | null
  Cmd?: string[] | string | null
  Healthcheck?: HealthcheckConfig | null
  ArgsEscaped?: boolean
  Image?: string
  Volumes?: Record<string, object> | null
  WorkingDir?: string
  Entrypoint?: string[] | string | null
  NetworkDisabled?: boolean | null
  MacAddress?: string | null
  OnBuild?: string[] | null
  Labels?: Record<string, string> | null
  StopSignal?: string | null
  StopTimeout?: number | null
  Shell?: string[] | null
}

export interface PortBinding {
  HostIp?: string
  HostPort?: string
}

export interface MountSpec {
  Type: 'bind' | 'volume' | 'tmpfs' | 'npipe' | 'cluster' | 'image'
  Source?: string
  Target: string
  ReadOnly?: boolean
  Consistency?: string
  BindOptions?: {
    Propagation?: string
    NonRecursive?: boolean
    CreateMountpoint?: boolean
    ReadOnlyNonRecursive?: boolean
    ReadOnlyForceRecursive?: boolean
  } | null
  VolumeOptions?: {
    NoCopy?: boolean
    Labels?: Record<string, string> | null
    DriverConfig?: { Name?: string; Options?: Record<string, string> | null } | null
    Subpath?: string
  } | null
  TmpfsOptions?: { SizeBytes?: number; Mode?: number; Options?: string[][] } | null
}

export interface DeviceMapping {
  PathOnHost: string
  PathInContainer?: string
  CgroupPermissions?: string
}

export interface HostConfig {
  Binds?: string[] | null
  ContainerIDFile?: string
  LogConfig?: { Type?: string; Config?: Record<string, string> | null } | null
  NetworkMode?: string
  PortBindings?: Record<string, PortBinding[] | null> | null
  RestartPolicy?: { Name?: string; MaximumRetryCount?: number } | null
  AutoRemove?: boolean
  VolumeDriver?: string
  VolumesFrom?: string[] | null
  Mounts?: MountSpec[] | null
  ConsoleSize?: number[] | null
  Annotations?: Record<string, string> | null
  CapAdd?: string[] | null
  CapDrop?: string[] | null
  CgroupnsMode?: string
  Dns?: string[] | null
  DnsOptions?: string[] | null
  DnsSearch?: string[] | null
  ExtraHosts?: string[] | null
  GroupAdd?: string[] | null
  IpcMode?: string
  Cgroup?: string
  Links?: string[] | null
  OomScoreAdj?: number
  PidMode?: string
  Privileged?: boolean
  PublishAllPorts?: boolean
  ReadonlyRootfs?: boolean
  SecurityOpt?: string[] | null
  StorageOpt?: Record<string, string> | null
  Tmpfs?: Record<string, string> | null
  UTSMode?: string
  UsernsMode?: string
  ShmSize?: number
  Sysctls?: Record<string, string> | null
  Runtime?: string
  Isolation?: string
  CpuShares?: number
  Memory?: number
  NanoCpus?: number
  CgroupParent?: string
  BlkioWeight?: number
  BlkioWeightDevice?: { Path: string; Weight: number }[] | null
  BlkioDeviceReadBps?: { Path: string; Rate: number }[] | null
  BlkioDeviceWriteBps?: { Path: string; Rate: number }[] | null
  BlkioDeviceReadIOps?: { Path: string; Rate: number }[] | null
  BlkioDeviceWriteIOps?: { Path: string; Rate: number }[] | null
  CpuPeriod?: number
  CpuQuota?: number
  CpuRealtimePeriod?: number
  CpuRealtimeRuntime?: number
  CpusetCpus?: string
  CpusetMems?: string
  Devices?: DeviceMapping[] | null
  DeviceCgroupRules?: string[] | null
  DeviceRequests?: { Driver?: string; Capabilities?: string[][] | null }[] | null
  KernelMemory?: number
  MemoryReservation?: number
  MemorySwap?: number
  MemorySwappiness?: number | null
  OomKillDisable?: boolean | null
  PidsLimit?: number | null
  Ulimits?: { Name: string; Soft: number; Hard: number }[] | null
  Init?: boolean | null
  MaskedPaths?: string[] | null
  ReadonlyPaths?: string[] | null
}

export interface EndpointSettings {
  IPAMConfig?: { IPv4Address?: string; IPv6Address?: string; LinkLocalIPs?: string[] | null } | null
  Links?: string[] | null
  Aliases?: string[] | null
  MacAddress?: string
  DriverOpts?: Record<string, string> | null
  GwPriority?: number
  NetworkID?: string
  EndpointID?: string
  Gateway?: string
  IPAddress?: string
  IPPrefixLen?: number
  IPv6Gateway?: string
  GlobalIPv6Address?: string
  GlobalIPv6PrefixLen?: number
  DNSNames?: string[] | null
}

export interface NetworkingConfig {
  EndpointsConfig?: Record<string, EndpointSettings | null> | null
}

export interface CreateContainerBody extends ContainerConfig {
  HostConfig?: HostConfig | null
  NetworkingConfig?: NetworkingConfig | null
}

export type ContainerStatus = 'created' | 'running' | 'paused' | 'restarting' | 'removing' | 'exited' | 'dead'
export type HealthStatus = 'none' | 'starting' | 'healthy' | 'unhealthy'

export interface ContainerState {
  readonly status: ContainerStatus
  readonly pid: number
  readonly exitCode: number
  readonly oomKilled: boolean
  readonly error: string
  readonly startedAtMs: number
  readonly finishedAtMs: number
  readonly health: {
    readonly status: HealthStatus
    readonly failingStreak: number
    readonly log: readonly {
      readonly startMs: number
      readonly endMs: number
      readonly exitCode: number
      readonly output: string
    }[]
  } | null
}

/** Engine events as /events sends them. */
export interface EngineEvent {
  readonly type:
    | 'builder'
    | 'config'
    | 'container'
    | 'daemon'
    | 'image'
    | 'network'
    | 'node'
    | 'plugin'
    | 'secret'
    | 'service'
    | 'volume'
  readonly action: string
  readonly actorId: string
  readonly attributes: Readonly<Record<string, string>>
  readonly scope: 'local' | 'swarm'
  /** Fractional milliseconds. */
  readonly timeMs: number
}
