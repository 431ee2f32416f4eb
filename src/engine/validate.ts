import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { cpus } from 'node:os'
import { invalid } from '../common/index.js'
import type { EngineOptions } from './contract.js'
import { deviceNumber } from './host.js'
import { plainLink } from './links.js'
import { checkLogDriver } from './logs/drivers.js'
import { checkRuntime } from './other-runtime.js'
import { parsePortKey, publications } from './ports.js'
import { parseSignal } from './signals.js'
import { normalizeCapability } from './spec/capabilities.js'
import { DEFAULT_SHM_BYTES, MASKED_PATHS, READONLY_PATHS } from './spec/mounts.js'
import { parseDeviceRule } from './spec/resources.js'
import type { ContainerConfig, HostConfig } from './types.js'

const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/
/** The kernel's own limit (cpu.shares). */
const MAX_CPU_SHARES = 262_144
const MIN_MEMORY_BYTES = 6 * 1024 * 1024

/** Drops the leading slash. @throws invalid `invalidName` with docker's sentence. */
export function checkName(name: string): string {
  const bare = name.startsWith('/') ? name.slice(1) : name
  if (!NAME.test(bare))
    throw invalid('invalidName', `Invalid container name (${name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`, {
      name,
    })
  return bare
}

/** [[gpu] [a b]], as Go prints lists of lists. */
const goLists = (lists: unknown): string =>
  `[${(Array.isArray(lists) ? lists : []).map((l) => `[${Array.isArray(l) ? l.join(' ') : l}]`).join(' ')}]`
const RESTART_POLICIES = ['', 'no', 'always', 'unless-stopped', 'on-failure']

export const HOST_NETWORK_AND_LINKS =
  "conflicting options: host type networking can't be used with links. This would result in undefined behavior"

/** CPUs of the host; they do not change while it runs. */
const CPUS = cpus().length

const refuse = (message: string, fields: Record<string, unknown> = {}): never => {
  throw invalid('invalidConfig', message, fields)
}

/** The parts of a host configuration that `update` may change too. */
export function checkResources(host: HostConfig): string[] {
  const warnings: string[] = []
  if (host.Memory && host.Memory > 0 && host.Memory < MIN_MEMORY_BYTES) refuse('Minimum memory limit allowed is 6MB')
  if (host.Memory && host.MemorySwap && host.MemorySwap > 0 && host.MemorySwap < host.Memory)
    refuse('Minimum memoryswap limit should be larger than memory limit, see usage')
  if (!host.Memory && host.MemorySwap && host.MemorySwap > 0)
    refuse('You should always set the Memory limit when using Memoryswap limit, see usage')
  if (host.MemoryReservation && host.MemoryReservation > 0 && host.MemoryReservation < MIN_MEMORY_BYTES)
    refuse('Minimum memory reservation allowed is 6MB')
  if (host.KernelMemory && host.KernelMemory > 0 && host.KernelMemory < MIN_MEMORY_BYTES)
    refuse('Minimum kernel memory limit allowed is 6MB')
  if (host.MemoryReservation && host.Memory && host.MemoryReservation > host.Memory)
    refuse('Minimum memory limit can not be less than memory reservation limit, see usage')
  if (host.MemorySwappiness != null && (host.MemorySwappiness < -1 || host.MemorySwappiness > 100))
    refuse(`Invalid value: ${host.MemorySwappiness}, valid memory swappiness range is 0-100`)
  if (host.NanoCpus && (host.CpuPeriod || host.CpuQuota))
    refuse(`Conflicting options: Nano CPUs and CPU ${host.CpuPeriod ? 'Period' : 'Quota'} cannot both be set`)
  if (host.NanoCpus && (host.NanoCpus < 0 || host.NanoCpus > CPUS * 1e9))
    refuse(
      `Range of CPUs is from 0.01 to ${CPUS.toFixed(2)}, as there are only ${CPUS} CPUs available; ${host.NanoCpus / 1e9} were asked for`,
    )
  if (host.CpuPeriod && (host.CpuPeriod < 1000 || host.CpuPeriod > 1_000_000))
    refuse('CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)')
  if (host.CpuQuota && host.CpuQuota > 0 && host.CpuQuota < 1000)
    refuse('CPU cfs quota can not be less than 1ms (i.e. 1000)')
  if (host.CpuShares && host.CpuShares < 0)
    refuse(`CPU shares: invalid argument (${host.CpuShares}): value must be a positive integer`)
  if (host.CpuShares === 1) refuse('the minimum allowed cpu-shares is 2')
  if (host.CpuShares && host.CpuShares > MAX_CPU_SHARES) refuse(`the maximum allowed cpu-shares is ${MAX_CPU_SHARES}`)
  if (host.BlkioWeight && (host.BlkioWeight < 10 || host.BlkioWeight > 1000))
    refuse('Range of blkio weight is from 10 to 1000')
  for (const [field, value] of [
    ['cpus', host.CpusetCpus],
    ['mems', host.CpusetMems],
  ] as const)
    if (value && !/^\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*$/.test(value))
      refuse(`Invalid value ${value} for cpuset ${field}: invalid format: ${value}`)
  for (const [name, value, available] of [
    ['CPUs', host.CpusetCpus, online('cpu')],
    ['memory nodes', host.CpusetMems, online('node')],
  ] as const)
    if (value && available && ![...indices(value)].every((n) => indices(available).has(n)))
      refuse(`Requested ${name} are not available - requested ${value}, available: ${available}`)
  for (const [field, list] of Object.entries({
    BlkioWeightDevice: host.BlkioWeightDevice,
    BlkioDeviceReadBps: host.BlkioDeviceReadBps,
    BlkioDeviceWriteBps: host.BlkioDeviceWriteBps,
    BlkioDeviceReadIOps: host.BlkioDeviceReadIOps,
    BlkioDeviceWriteIOps: host.BlkioDeviceWriteIOps,
  }))
    for (const { Path } of list ?? []) {
      if (typeof Path !== 'string' || !Path.startsWith('/'))
        refuse(`${field}: Path must be the absolute path of a device, not ${JSON.stringify(Path) ?? 'missing'}`)
      deviceNumber(Path)
    }
  if (host.OomKillDisable && !host.Memory)
    warnings.push(
      'OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.',
    )
  return warnings
}

/** "0-2,7" → 0, 1, 2, 7. */
function indices(text: string): Set<number> {
  const all = new Set<number>()
  for (const part of text.split(',')) {
    const [first = 0, last = first] = part.split('-').map(Number)
    for (let n = first; n <= Math.min(last, first + 8192); n++) all.add(n)
  }
  return all
}

/** /sys/devices/system/{cpu,node}/online; "" where the kernel does not tell. */
function online(what: 'cpu' | 'node'): string {
  try {
    return readFileSync(`/sys/devices/system/${what}/online`, 'utf8').trim()
  } catch {
    return ''
  }
}

export function checkRestartPolicy(host: HostConfig): void {
  const { Name = '', MaximumRetryCount = 0 } = host.RestartPolicy ?? {}
  if (!RESTART_POLICIES.includes(Name))
    refuse(`invalid restart policy '${Name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'`)
  if (MaximumRetryCount !== 0 && Name !== 'on-failure')
    refuse(`maximum retry count cannot be used with restart policy '${Name}'`)
  if (MaximumRetryCount < 0) refuse('maximum retry count cannot be negative')
  if (host.AutoRemove && Name !== '' && Name !== 'no') refuse("can't create 'AutoRemove' container with restart policy")
}

/** Everything about a creation that can be said without looking at the machine. Returns warnings. */
export function checkConfig(
  config: ContainerConfig,
  host: HostConfig,
  options: EngineOptions,
  /** What the user wrote, without what the image adds to it. */
  own: ContainerConfig = config,
): string[] {
  const warnings = checkResources(host)
  checkRestartPolicy(host)
  if (config.WorkingDir && !config.WorkingDir.startsWith('/'))
    refuse(`the working directory '${config.WorkingDir}' is invalid, it needs to be an absolute path`)
  if (config.StopSignal) parseSignal(config.StopSignal)
  if (config.StopTimeout != null && config.StopTimeout < -1) refuse(`invalid stop timeout: ${config.StopTimeout}`)
  if (
    config.Hostname &&
    (config.Hostname.length > 63 || !/^[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?$/.test(config.Hostname))
  )
    refuse(`invalid hostname format: ${config.Hostname}`)
  for (const env of own.Env ?? []) if (env === '' || env.startsWith('=')) refuse(`invalid environment variable: ${env}`)
  for (const key of Object.keys(config.ExposedPorts ?? {})) parsePortKey(key)
  publications(config, host)
  for (const extra of host.ExtraHosts ?? []) checkExtraHost(extra)
  for (const c of host.CapAdd ?? []) normalizeCapability(c, 'CapAdd')
  for (const c of host.CapDrop ?? []) normalizeCapability(c, 'CapDrop')
  for (const rule of host.DeviceCgroupRules ?? [])
    if (!parseDeviceRule(rule)) refuse(`invalid device cgroup rule format: '${rule}'`)
  for (const u of host.Ulimits ?? [])
    if (u.Hard >= 0 && u.Soft > u.Hard)
      refuse(`ulimit soft limit must be less than or equal to hard limit: ${u.Soft} > ${u.Hard}`)
  if (host.ShmSize != null && host.ShmSize < 0) refuse('SHM size can not be less than 0')
  if (host.OomScoreAdj != null && (host.OomScoreAdj < -1000 || host.OomScoreAdj > 1000))
    refuse(`Invalid value ${host.OomScoreAdj}, range for oom score adj is [-1000, 1000]`)
  const health = config.Healthcheck
  for (const [field, value] of Object.entries({
    Interval: health?.Interval,
    Timeout: health?.Timeout,
    StartPeriod: health?.StartPeriod,
    StartInterval: health?.StartInterval,
  }))
    if (value && value < 1_000_000) refuse(`${field} in Healthcheck cannot be less than 1ms`)
  if (health?.Retries != null && health.Retries < 0) refuse('Retries in Healthcheck cannot be negative')
  checkNamespaceModes(own, host)
  if (host.NetworkMode === 'host' && (Object.keys(host.PortBindings ?? {}).length > 0 || host.PublishAllPorts))
    warnings.push('Published ports are discarded when using host network mode')
  if (host.Isolation && host.Isolation !== 'default')
    refuse(`Invalid isolation: "${host.Isolation}" - linux only supports 'default'`)
  if (host.StorageOpt && Object.keys(host.StorageOpt).length > 0)
    refuse(
      `--storage-opt is not supported: container layers have no quota here (${Object.keys(host.StorageOpt)[0]} was asked for)`,
    )
  for (const r of host.DeviceRequests ?? [])
    refuse(`could not select device driver "${r.Driver ?? ''}" with capabilities: ${goLists(r.Capabilities)}`)
  // Only what the container asks for itself: the daemon's own was checked when it started.
  if (host.LogConfig?.Type || Object.keys(host.LogConfig?.Config ?? {}).length > 0)
    checkLogDriver(host.LogConfig?.Type || options.logDriver, host.LogConfig?.Config ?? {})
  checkRuntime(host.Runtime || options.defaultRuntime, options)
  for (const [target] of Object.entries(host.Tmpfs ?? {}))
    if (!target.startsWith('/')) refuse(`invalid mount path: '${target}' mount path must be absolute`)
  if (host.Links?.length && host.NetworkMode === 'host') refuse(HOST_NETWORK_AND_LINKS)
  if (host.Links?.length && host.NetworkMode?.startsWith('container:'))
    refuse(
      "conflicting options: container type network can't be used with links. This would result in undefined behavior",
    )
  return warnings
}

/** "name:address", or Docker's word for the host itself. */
function checkExtraHost(entry: string): void {
  const colon = entry.indexOf(':')
  const address = entry.slice(colon + 1)
  if (colon < 1) refuse(`bad format for add-host: ${JSON.stringify(entry)}`)
  if (address !== 'host-gateway' && !isIP(address)) refuse(`invalid IP address in add-host: ${JSON.stringify(address)}`)
}

function checkNamespaceModes(config: ContainerConfig, host: HostConfig): void {
  const one = (field: string, mode: string | undefined, allowed: readonly string[], container: boolean): void => {
    if (!mode || allowed.includes(mode) || (container && /^container:.+$/.test(mode))) return
    refuse(`invalid ${field} mode: ${mode}`)
  }
  one('PID', host.PidMode, ['host', 'private'], true)
  one('IPC', host.IpcMode, ['host', 'private', 'shareable', 'none'], true)
  one('UTS', host.UTSMode, ['host'], false)
  one('cgroup namespace', host.CgroupnsMode, ['host', 'private'], false)
  if (host.UsernsMode && host.UsernsMode !== 'host') refuse(`invalid userns mode: ${host.UsernsMode}`)
  if (host.UTSMode === 'host' && config.Hostname) refuse('conflicting options: hostname and the UTS mode')
  const mode = host.NetworkMode ?? ''
  if (mode === 'container' || mode === 'container:')
    refuse('Invalid network mode: invalid container format container:<name|id>')
  if (config.MacAddress && (mode === 'host' || mode.startsWith('container:')))
    refuse('conflicting options: mac-address and the network mode')
  if (mode === 'host')
    for (const name of Object.keys(host.Sysctls ?? {}))
      if (name.startsWith('net.')) refuse(`sysctl '${name}' not allowed in host network namespace`)
  if (mode.startsWith('container:')) {
    if (config.Hostname) refuse('conflicting options: hostname and the network mode')
    if (Object.keys(host.PortBindings ?? {}).length || host.PublishAllPorts)
      refuse('conflicting options: port publishing and the container type network mode')
    if (Object.keys(config.ExposedPorts ?? {}).length)
      refuse('conflicting options: port exposing and the container type network mode')
    if (host.Dns?.length) refuse('conflicting options: dns and the network mode')
    if (host.ExtraHosts?.length) refuse('conflicting options: custom host-to-IP mapping and the network mode')
  }
}

/** The host configuration with everything that inspect shows filled in. */
export function withDefaults(host: HostConfig, options: EngineOptions, cgroupVersion: 1 | 2): HostConfig {
  const privileged = host.Privileged === true
  const { defaults = {} } = options
  return {
    ...host,
    // Zero and less all mean no limit.
    PidsLimit: host.PidsLimit && host.PidsLimit > 0 ? host.PidsLimit : null,
    ...(host.Links ? { Links: host.Links.map(plainLink) } : {}),
    NetworkMode: ['', 'default', 'bridge'].includes(host.NetworkMode ?? '')
      ? (defaults.network ?? 'bridge')
      : host.NetworkMode!,
    RestartPolicy: {
      Name: host.RestartPolicy?.Name || 'no',
      MaximumRetryCount: host.RestartPolicy?.MaximumRetryCount ?? 0,
    },
    LogConfig: {
      Type: host.LogConfig?.Type || options.logDriver,
      Config: {
        ...(host.LogConfig?.Type && host.LogConfig.Type !== options.logDriver ? {} : options.logOptions),
        ...host.LogConfig?.Config,
      },
    },
    IpcMode: host.IpcMode || defaults.ipcMode || 'private',
    CgroupnsMode:
      host.CgroupnsMode ||
      (privileged && cgroupVersion === 1
        ? 'host'
        : defaults.cgroupnsMode || (cgroupVersion === 2 ? 'private' : 'host')),
    ShmSize: host.ShmSize || defaults.shmBytes || DEFAULT_SHM_BYTES,
    // -1 is how clients say "the kernel's own".
    MemorySwappiness: host.MemorySwappiness === -1 ? null : (host.MemorySwappiness ?? null),
    MemorySwap: host.Memory && !host.MemorySwap ? host.Memory * 2 : (host.MemorySwap ?? 0),
    Runtime: host.Runtime || options.defaultRuntime,
    MaskedPaths: privileged ? null : (host.MaskedPaths ?? [...MASKED_PATHS]),
    ReadonlyPaths: privileged ? null : (host.ReadonlyPaths ?? [...READONLY_PATHS]),
  }
}
