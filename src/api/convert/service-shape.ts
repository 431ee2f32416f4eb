import type { ShapeOf } from '../body.js'
import { DRIVER } from './proto.js'
import type {
  ContainerSpecJson,
  FileRefJson,
  MountJson,
  NetworkAttachmentJson,
  PrivilegesJson,
  ResourcesJson,
  ServiceSpecJson,
  TaskSpecJson,
  UpdateConfigJson,
} from './service-json.js'

export const MOUNT: ShapeOf<MountJson> = {
  Type: 'string',
  Source: 'string',
  Target: 'string',
  ReadOnly: 'boolean',
  Consistency: 'string',
  BindOptions: {
    Propagation: 'string',
    NonRecursive: 'boolean',
    CreateMountpoint: 'boolean',
    ReadOnlyNonRecursive: 'boolean',
    ReadOnlyForceRecursive: 'boolean',
  },
  VolumeOptions: { NoCopy: 'boolean', Labels: 'map', DriverConfig: DRIVER, Subpath: 'string' },
  TmpfsOptions: { SizeBytes: 'number', Mode: 'number', Options: 'string[][]' },
}

const PRIVILEGES: ShapeOf<PrivilegesJson> = {
  CredentialSpec: { Config: 'string', File: 'string', Registry: 'string' },
  SELinuxContext: { Disable: 'boolean', User: 'string', Role: 'string', Type: 'string', Level: 'string' },
  Seccomp: { Mode: 'string', Profile: 'string' },
  AppArmor: { Mode: 'string' },
  NoNewPrivileges: 'boolean',
}

const FILE: ShapeOf<FileRefJson> = {
  File: { Name: 'string', UID: 'string', GID: 'string', Mode: 'number' },
  Runtime: 'object',
}

const CONTAINER: ShapeOf<ContainerSpecJson> = {
  Image: 'string',
  Labels: 'map',
  Command: 'string[]',
  Args: 'string[]',
  Hostname: 'string',
  Env: 'string[]',
  Dir: 'string',
  User: 'string',
  Groups: 'string[]',
  Privileges: PRIVILEGES,
  TTY: 'boolean',
  OpenStdin: 'boolean',
  ReadOnly: 'boolean',
  Mounts: [MOUNT],
  StopSignal: 'string',
  StopGracePeriod: 'number',
  Healthcheck: {
    Test: 'string[]',
    Interval: 'number',
    Timeout: 'number',
    Retries: 'number',
    StartPeriod: 'number',
    StartInterval: 'number',
  },
  Hosts: 'string[]',
  DNSConfig: { Nameservers: 'string[]', Search: 'string[]', Options: 'string[]' },
  Secrets: [{ ...FILE, SecretID: 'string', SecretName: 'string' }],
  Configs: [{ ...FILE, ConfigID: 'string', ConfigName: 'string' }],
  Isolation: 'string',
  Init: 'boolean',
  Sysctls: 'map',
  CapabilityAdd: 'string[]',
  CapabilityDrop: 'string[]',
  Ulimits: [{ Name: 'string', Soft: 'number', Hard: 'number' }],
  OomScoreAdj: 'number',
}

const RESOURCES: ShapeOf<ResourcesJson> = {
  NanoCPUs: 'number',
  MemoryBytes: 'number',
  Pids: 'number',
  GenericResources: [
    {
      NamedResourceSpec: { Kind: 'string', Value: 'string' },
      DiscreteResourceSpec: { Kind: 'string', Value: 'number' },
    },
  ],
}

const NETWORK: ShapeOf<NetworkAttachmentJson> = { Target: 'string', Aliases: 'string[]', DriverOpts: 'map' }

const TASK: ShapeOf<TaskSpecJson> = {
  PluginSpec: 'object',
  ContainerSpec: CONTAINER,
  NetworkAttachmentSpec: { ContainerID: 'string' },
  Resources: { Limits: RESOURCES, Reservations: RESOURCES, SwapBytes: 'number', MemorySwappiness: 'number' },
  RestartPolicy: { Condition: 'string', Delay: 'number', MaxAttempts: 'number', Window: 'number' },
  Placement: {
    Constraints: 'string[]',
    Preferences: [{ Spread: { SpreadDescriptor: 'string' } }],
    MaxReplicas: 'number',
    Platforms: [{ Architecture: 'string', OS: 'string' }],
  },
  ForceUpdate: 'number',
  Runtime: 'string',
  Networks: [NETWORK],
  LogDriver: DRIVER,
}

const UPDATE: ShapeOf<UpdateConfigJson> = {
  Parallelism: 'number',
  Delay: 'number',
  FailureAction: 'string',
  Monitor: 'number',
  MaxFailureRatio: 'float',
  Order: 'string',
}

export const SERVICE_BODY: ShapeOf<ServiceSpecJson> = {
  Name: 'string',
  Labels: 'map',
  TaskTemplate: TASK,
  Mode: {
    Replicated: { Replicas: 'number' },
    Global: 'object',
    ReplicatedJob: { MaxConcurrent: 'number', TotalCompletions: 'number' },
    GlobalJob: 'object',
  },
  UpdateConfig: UPDATE,
  RollbackConfig: UPDATE,
  Networks: [NETWORK],
  EndpointSpec: {
    Mode: 'string',
    Ports: [
      {
        Name: 'string',
        Protocol: 'string',
        TargetPort: 'number',
        PublishedPort: 'number',
        PublishMode: 'string',
      },
    ],
  },
}
