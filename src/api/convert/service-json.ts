/** JSON shapes of ServiceSpec and its parts (swagger.yaml: ServiceSpec, TaskSpec). */
import type { DriverJson } from './proto.js'

export interface MountJson {
  Type?: string
  Source?: string
  Target?: string
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
    DriverConfig?: DriverJson | null
    Subpath?: string
  } | null
  TmpfsOptions?: { SizeBytes?: number; Mode?: number; Options?: string[][] | null } | null
}

export interface HealthJson {
  Test?: string[] | null
  Interval?: number
  Timeout?: number
  Retries?: number
  StartPeriod?: number
  StartInterval?: number
}

export interface FileRefJson {
  File?: { Name?: string; UID?: string; GID?: string; Mode?: number } | null
  Runtime?: object | null
}

export interface PrivilegesJson {
  CredentialSpec?: { Config?: string; File?: string; Registry?: string } | null
  SELinuxContext?: { Disable?: boolean; User?: string; Role?: string; Type?: string; Level?: string } | null
  Seccomp?: { Mode?: string; Profile?: string | null } | null
  AppArmor?: { Mode?: string } | null
  NoNewPrivileges?: boolean
}

export interface ContainerSpecJson {
  Image?: string
  Labels?: Record<string, string> | null
  Command?: string[] | null
  Args?: string[] | null
  Hostname?: string
  Env?: string[] | null
  Dir?: string
  User?: string
  Groups?: string[] | null
  Privileges?: PrivilegesJson | null
  TTY?: boolean
  OpenStdin?: boolean
  ReadOnly?: boolean
  Mounts?: MountJson[] | null
  StopSignal?: string
  StopGracePeriod?: number | null
  Healthcheck?: HealthJson | null
  Hosts?: string[] | null
  DNSConfig?: { Nameservers?: string[] | null; Search?: string[] | null; Options?: string[] | null } | null
  Secrets?: (FileRefJson & { SecretID?: string; SecretName?: string })[] | null
  Configs?: (FileRefJson & { ConfigID?: string; ConfigName?: string })[] | null
  Isolation?: string
  Init?: boolean | null
  Sysctls?: Record<string, string> | null
  CapabilityAdd?: string[] | null
  CapabilityDrop?: string[] | null
  Ulimits?: { Name?: string; Soft?: number; Hard?: number }[] | null
  OomScoreAdj?: number
}

export interface GenericResourceJson {
  NamedResourceSpec?: { Kind?: string; Value?: string } | null
  DiscreteResourceSpec?: { Kind?: string; Value?: number } | null
}

export interface ResourcesJson {
  NanoCPUs?: number
  MemoryBytes?: number
  Pids?: number
  GenericResources?: GenericResourceJson[] | null
}

export interface NetworkAttachmentJson {
  Target?: string
  Aliases?: string[] | null
  DriverOpts?: Record<string, string> | null
}

export interface TaskSpecJson {
  PluginSpec?: object | null
  ContainerSpec?: ContainerSpecJson | null
  NetworkAttachmentSpec?: { ContainerID?: string } | null
  Resources?: {
    Limits?: ResourcesJson | null
    Reservations?: ResourcesJson | null
    SwapBytes?: number | null
    MemorySwappiness?: number | null
  } | null
  RestartPolicy?: {
    Condition?: string
    Delay?: number | null
    MaxAttempts?: number | null
    Window?: number | null
  } | null
  Placement?: {
    Constraints?: string[] | null
    Preferences?: { Spread?: { SpreadDescriptor?: string } | null }[] | null
    MaxReplicas?: number
    Platforms?: { Architecture?: string; OS?: string }[] | null
  } | null
  ForceUpdate?: number
  Runtime?: string
  Networks?: NetworkAttachmentJson[] | null
  LogDriver?: DriverJson | null
}

export interface UpdateConfigJson {
  Parallelism?: number
  Delay?: number
  FailureAction?: string
  Monitor?: number
  MaxFailureRatio?: number
  Order?: string
}

export interface PortConfigJson {
  Name?: string
  Protocol?: string
  TargetPort?: number
  PublishedPort?: number
  PublishMode?: string
}

export interface ServiceSpecJson {
  Name?: string
  Labels?: Record<string, string> | null
  TaskTemplate?: TaskSpecJson | null
  Mode?: {
    Replicated?: { Replicas?: number | null } | null
    Global?: object | null
    ReplicatedJob?: { MaxConcurrent?: number | null; TotalCompletions?: number | null } | null
    GlobalJob?: object | null
  } | null
  UpdateConfig?: UpdateConfigJson | null
  RollbackConfig?: UpdateConfigJson | null
  Networks?: NetworkAttachmentJson[] | null
  EndpointSpec?: { Mode?: string; Ports?: PortConfigJson[] | null } | null
}
