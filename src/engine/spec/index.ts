import type { OciSpec } from '../../runtime/index.js'
import type { ContainerConfig, HostConfig } from '../types.js'
import { processEnvironment } from './environment.js'
import {
  baseMounts,
  composeMounts,
  fileMounts,
  MASKED_PATHS,
  READONLY_PATHS,
  rootPropagation,
  type SpecMount,
  shmBytes,
} from './mounts.js'
import { DEFAULT_DEVICE_RULES, type DeviceNumber, type DeviceRule, limits, parseDeviceRule } from './resources.js'
import type { ResolvedUser } from './user.js'

/** A device node to make in the container. */
export interface SpecDevice extends DeviceNumber {
  readonly path: string
  readonly fileMode: number
  readonly uid: number
  readonly gid: number
  readonly access: string
}

/** Where a namespace comes from: its own, the host's, or an existing one by path. */
export type NamespaceSource = 'private' | 'host' | { readonly path: string }

/** Everything the document depends on, already looked up: the function below is pure. */
export interface SpecInput {
  readonly id: string
  readonly config: ContainerConfig
  readonly host: HostConfig
  readonly path: string
  readonly args: readonly string[]
  readonly hostname: string
  readonly links: readonly string[]
  readonly user: ResolvedUser
  readonly capabilities: readonly string[]
  readonly noNewPrivileges: boolean
  readonly rootPath: string
  readonly cgroupsPath: string
  readonly mounts: readonly SpecMount[]
  readonly files: { readonly hosts: string; readonly hostname: string; readonly resolvConf: string } | null
  readonly devices: readonly SpecDevice[]
  readonly deviceNumber: (path: string) => DeviceNumber
  readonly namespaces: {
    readonly network: NamespaceSource
    readonly pid: NamespaceSource
    readonly ipc: NamespaceSource
    readonly uts: NamespaceSource
    readonly cgroup: NamespaceSource
  }
  /** /dev/shm of another container or the host, in place of a tmpfs of its own; null = own. */
  readonly shmSource: string | null
  readonly hostHasMqueue: boolean
  readonly defaultUlimits: readonly { readonly Name: string; readonly Soft: number; readonly Hard: number }[]
}

/** The OCI runtime document (1.2) of a container, as docker writes it for the same request. */
export function generateSpec(input: SpecInput): OciSpec {
  const { config, host } = input
  const privileged = host.Privileged === true
  const mounts = input.shmSource
    ? [
        {
          type: 'bind' as const,
          source: input.shmSource,
          destination: '/dev/shm',
          rw: true,
          propagation: '',
          recursive: true,
          options: [],
        },
        ...input.mounts,
      ]
    : input.mounts
  const maskedPaths = privileged ? [] : (host.MaskedPaths ?? MASKED_PATHS)
  const readonlyPaths = privileged ? [] : (host.ReadonlyPaths ?? READONLY_PATHS)
  return {
    ociVersion: '1.2.0',
    process: processDocument({
      tty: config.Tty === true,
      user: input.user,
      args: [input.path, ...input.args],
      env: processEnvironment({
        hostname: input.hostname,
        tty: config.Tty === true,
        links: input.links,
        env: config.Env ?? [],
        home: input.user.home,
      }),
      cwd: config.WorkingDir || '/',
      capabilities: input.capabilities,
      noNewPrivileges: input.noNewPrivileges,
      rlimits: rlimits(host, input.defaultUlimits),
      oomScoreAdj: host.OomScoreAdj ?? 0,
    }),
    root: { path: input.rootPath, readonly: host.ReadonlyRootfs === true },
    ...(input.namespaces.uts === 'private'
      ? { hostname: input.hostname, ...(config.Domainname ? { domainname: config.Domainname } : {}) }
      : {}),
    mounts: composeMounts(
      baseMounts({
        privileged,
        shm: host.IpcMode === 'none' || input.shmSource ? null : { bytes: shmBytes(host) },
        mqueue: input.namespaces.ipc !== 'host' ? 'own' : input.hostHasMqueue ? 'host' : 'none',
      }),
      input.files ? fileMounts({ ...input.files, readonly: host.ReadonlyRootfs === true }) : [],
      mounts,
    ),
    annotations: host.Annotations ?? {},
    linux: {
      namespaces: namespaces(input.namespaces),
      cgroupsPath: input.cgroupsPath,
      resources: { ...limits(host, input.deviceNumber), devices: deviceRules(host, input.devices) },
      devices: input.devices.map(({ access: _, ...device }) => device),
      sysctl: Object.fromEntries(Object.entries(host.Sysctls ?? {}).filter(([name]) => !name.startsWith('net.'))),
      ...(rootPropagation(input.mounts) ? { rootfsPropagation: rootPropagation(input.mounts) } : {}),
      maskedPaths,
      readonlyPaths,
    },
  }
}

/** The `process` object, of a container's first process or an exec's. */
export function processDocument(options: {
  readonly tty: boolean
  readonly user: ResolvedUser
  readonly args: readonly string[]
  readonly env: readonly string[]
  readonly cwd: string
  readonly capabilities: readonly string[]
  readonly noNewPrivileges: boolean
  readonly rlimits: readonly object[]
  readonly oomScoreAdj: number
}): Record<string, unknown> {
  const { user, capabilities } = options
  return {
    terminal: options.tty,
    user: { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids },
    args: options.args,
    env: options.env,
    cwd: options.cwd,
    // Someone other than root gets none at once, but a setuid program may still raise what is in the bounding set.
    capabilities:
      user.uid === 0
        ? { bounding: capabilities, effective: capabilities, permitted: capabilities }
        : { bounding: capabilities },
    noNewPrivileges: options.noNewPrivileges,
    oomScoreAdj: options.oomScoreAdj,
    rlimits: options.rlimits,
  }
}

type Ulimit = NonNullable<HostConfig['Ulimits']>[number]

/** A container's own limits, and the daemon's for those that it does not name. */
export const mergedUlimits = (host: HostConfig, defaults: readonly Readonly<Ulimit>[]): Ulimit[] => [
  ...new Map([...defaults, ...(host.Ulimits ?? [])].map((u) => [u.Name, u])).values(),
]

export function rlimits(host: HostConfig, defaults: readonly Readonly<Ulimit>[]): object[] {
  // -1 is "unlimited" to users and the largest number to the kernel, which JSON cannot carry exactly: the shim knows -1.
  return mergedUlimits(host, defaults).map((u) => ({
    type: `RLIMIT_${u.Name.toUpperCase()}`,
    soft: u.Soft,
    hard: u.Hard,
  }))
}

function namespaces(from: SpecInput['namespaces']): object[] {
  const list: object[] = [{ type: 'mount' }]
  for (const type of ['network', 'uts', 'pid', 'ipc', 'cgroup'] as const) {
    const source = from[type]
    if (source === 'host') continue
    list.push(source === 'private' ? { type } : { type, path: source.path })
  }
  return list
}

function deviceRules(host: HostConfig, devices: readonly SpecDevice[]): readonly DeviceRule[] {
  if (host.Privileged) return [{ allow: true, access: 'rwm' }]
  return [
    ...DEFAULT_DEVICE_RULES,
    ...devices.map(({ type, major, minor, access }) => ({ allow: true, type, major, minor, access })),
    ...(host.DeviceCgroupRules ?? []).map(parseDeviceRule).filter((r) => r !== null),
  ]
}
