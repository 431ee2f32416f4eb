import { readFileSync } from 'node:fs'
import { InvalidArgumentError, Option } from 'commander'
import {
  type Command,
  collect,
  cpus,
  duration,
  Exit,
  environment,
  pairs,
  size,
  sizeOrUnlimited,
  whole,
} from '../command.js'

/** Flags of create and run; the names are docker's. */
export function containerFlags(c: Command): Command {
  return c
    .option('-a, --attach <stream>', 'attach to STDIN, STDOUT or STDERR (repeatable)', collect)
    .option('--add-host <host:ip>', 'line for /etc/hosts (repeatable)', collect)
    .option('--annotation <key=value>', 'OCI annotation (repeatable)', collect)
    .option('--cap-add <cap>', 'add a capability (repeatable)', collect)
    .option('--cap-drop <cap>', 'drop a capability (repeatable)', collect)
    .option('--cgroup-parent <path>', 'parent cgroup', '')
    .option('--cgroupns <mode>', 'host or private', '')
    .option('--cidfile <file>', 'write the id to a file')
    .option('--cpu-period <us>', 'CFS period', whole)
    .option('--cpu-quota <us>', 'CFS quota', whole)
    .option('-c, --cpu-shares <n>', 'relative weight', whole)
    .option('--cpu-rt-period <us>', 'limit CPU real-time period', whole)
    .option('--cpu-rt-runtime <us>', 'limit CPU real-time runtime', whole)
    .option('--cpus <n>', 'number of CPUs', cpus)
    .option('--cpuset-cpus <list>', 'CPUs to run on', '')
    .option('--cpuset-mems <list>', 'memory nodes', '')
    .option('--blkio-weight <n>', 'block IO weight, between 10 and 1000', whole)
    .option('--device <path>', 'host device (repeatable)', collect)
    .option('--device-cgroup-rule <rule>', 'rule for the devices cgroup (repeatable)', collect)
    .option('--device-read-bps <device:rate>', 'limit read rate from a device (repeatable)', collect)
    .option('--device-read-iops <device:rate>', 'limit read operations (repeatable)', collect)
    .option('--device-write-bps <device:rate>', 'limit write rate to a device (repeatable)', collect)
    .option('--device-write-iops <device:rate>', 'limit write operations (repeatable)', collect)
    .option('--dns <ip>', 'name server (repeatable)', collect)
    .addOption(new Option('--dns-opt <option>').argParser(collect).hideHelp())
    .option('--dns-option <option>', 'resolver option (repeatable)', collect)
    .option('--dns-search <domain>', 'search domain (repeatable)', collect)
    .option('--domainname <name>', 'NIS domain name', '')
    .option('--entrypoint <command>', "in place of the image's entrypoint")
    .option('-e, --env <key=value>', 'environment variable (repeatable)', collect)
    .option('--env-file <file>', 'file of environment variables (repeatable)', collect)
    .option('--expose <port>', 'port or range (repeatable)', collect)
    .option('--gpus <request>', "GPU devices to add ('all' to pass all GPUs)", collect)
    .option('--group-add <group>', 'additional group (repeatable)', collect)
    .option('--health-cmd <command>', 'health check')
    .option('--health-interval <duration>', 'between checks', duration)
    .option('--health-retries <n>', 'failures to be unhealthy', whole)
    .option('--health-start-interval <duration>', 'between checks while starting', duration)
    .option('--health-start-period <duration>', 'time to start', duration)
    .option('--health-timeout <duration>', 'of one check', duration)
    .option('-h, --hostname <name>', 'host name', '')
    .option('--init', 'an init process in the container')
    .option('-i, --interactive', 'keep stdin open')
    .option('--ip <address>', 'IPv4 address')
    .option('--ip6 <address>', 'IPv6 address')
    .option('--ipc <mode>', 'IPC mode', '')
    .option('-l, --label <key=value>', 'label (repeatable)', collect)
    .option('--label-file <file>', 'file of labels (repeatable)', collect)
    .option('--link <container>', 'link to another container (repeatable)', collect)
    .option('--link-local-ip <ip>', 'link-local address (repeatable)', collect)
    .option('--log-driver <driver>', 'log driver')
    .option('--log-opt <key=value>', 'log option (repeatable)', collect)
    .option('--mac-address <mac>', 'MAC address')
    .option('-m, --memory <bytes>', 'memory limit', size)
    .option('--memory-reservation <bytes>', 'soft limit', size)
    .option('--memory-swap <bytes>', 'memory and swap; -1 unlimited', sizeOrUnlimited)
    .option('--memory-swappiness <n>', 'tune memory swappiness (0 to 100)', whole)
    .option('--mount <spec>', 'type=bind|volume|tmpfs,src=...,dst=... (repeatable)', mountFlag)
    .option('--name <name>', 'name', '')
    .option('--network <network>', 'network (repeatable)', collect)
    .addOption(new Option('--net <network>').argParser(collect).hideHelp())
    .addOption(new Option('--net-alias <name>').argParser(collect).hideHelp())
    .option('--network-alias <name>', 'alias on the network (repeatable)', collect)
    .option('--no-healthcheck', "without the image's health check")
    .option('--oom-kill-disable', 'no OOM killer')
    .option('--oom-score-adj <n>', 'OOM preference', whole)
    .option('--pid <mode>', 'PID mode', '')
    .option('--pids-limit <n>', 'limit of processes', whole)
    .option('--platform <platform>', 'OS/ARCH[/VARIANT]', '')
    .option('--privileged', 'all capabilities and devices')
    .option('-p, --publish <ports>', '[IP:][HOST:]CONTAINER[/PROTO] (repeatable)', collect)
    .option('-P, --publish-all', 'publish all exposed ports')
    .option('--pull <when>', 'always, missing or never', 'missing')
    .option('-q, --quiet', 'without the pull output')
    .option('--read-only', 'read-only root')
    .option('--restart <policy>', 'no, on-failure[:N], always, unless-stopped', 'no')
    .option('--rm', 'remove it when it ends')
    .option('--runtime <name>', 'OCI runtime', '')
    .option('--security-opt <option>', 'security option (repeatable)', collect)
    .option('--shm-size <bytes>', 'of /dev/shm', size)
    .option('--stop-signal <signal>', 'signal to stop it')
    .option('--stop-timeout <seconds>', 'time to stop', whole)
    .option('--storage-opt <key=value>', 'storage option (repeatable)', collect)
    .option('--sysctl <key=value>', 'sysctl (repeatable)', collect)
    .option('--tmpfs <path[:options]>', 'tmpfs (repeatable)', collect)
    .option('-t, --tty', 'a terminal')
    .option('--ulimit <limit>', 'NAME=SOFT[:HARD] (repeatable)', ulimitFlag)
    .option('-u, --user <user>', 'user[:group]', '')
    .option('--userns <mode>', 'user namespace', '')
    .option('--uts <mode>', 'UTS namespace', '')
    .option('-v, --volume <spec>', '[SOURCE:]TARGET[:OPTIONS] (repeatable)', collect)
    .option('--volume-driver <driver>', 'driver of volumes named with -v')
    .option('--volumes-from <container>', "another container's volumes (repeatable)", collect)
    .option('-w, --workdir <dir>', 'working directory', '')
}

export interface ContainerFlags {
  readonly [flag: string]: unknown
  readonly attach?: string[]
  readonly name: string
  readonly platform: string
  readonly pull: string
  readonly quiet?: boolean
  readonly rm?: boolean
  readonly tty?: boolean
  readonly interactive?: boolean
  readonly cidfile?: string
}

const strings = (v: unknown): string[] => (v as string[] | undefined) ?? []

/** Body of POST /containers/create. `attached`: streams that this program will hold. */
export function createBody(
  image: string,
  command: readonly string[],
  f: ContainerFlags,
  attached: { stdin: boolean; stdout: boolean; stderr: boolean },
): object {
  const { exposed, bindings } = ports(strings(f.publish), strings(f.expose))
  const networks = [...strings(f.network), ...strings(f.net)].map(parseNetwork)
  const binds: string[] = []
  const volumes: Record<string, object> = {}
  for (const v of strings(f.volume)) {
    if (v.includes(':')) binds.push(v)
    else volumes[v] = {}
  }
  // Flags of their own describe the first network.
  const aliases = [...strings(f.networkAlias), ...strings(f.netAlias)]
  const ipam = {
    ...(f.ip ? { IPv4Address: f.ip } : {}),
    ...(f.ip6 ? { IPv6Address: f.ip6 } : {}),
    ...(f.linkLocalIp ? { LinkLocalIPs: f.linkLocalIp } : {}),
  }
  const endpoint = {
    ...(Object.keys(ipam).length > 0 ? { IPAMConfig: ipam } : {}),
    ...(aliases.length > 0 ? { Aliases: aliases } : {}),
    ...(f.macAddress ? { MacAddress: f.macAddress } : {}),
  }
  const restart = restartPolicy(String(f.restart))
  return {
    Image: image,
    ...(command.length > 0 ? { Cmd: command } : {}),
    ...(f.entrypoint !== undefined ? { Entrypoint: f.entrypoint === '' ? [''] : [f.entrypoint] } : {}),
    Hostname: f.hostname,
    Domainname: f.domainname,
    User: f.user,
    WorkingDir: f.workdir,
    Env: environment([...strings(f.envFile).flatMap(envFile), ...strings(f.env)]),
    Labels: pairs([...strings(f.labelFile).flatMap(envFile), ...strings(f.label)]),
    Tty: f.tty ?? false,
    OpenStdin: f.interactive ?? false,
    StdinOnce: (f.interactive ?? false) && attached.stdin,
    AttachStdin: attached.stdin,
    AttachStdout: attached.stdout,
    AttachStderr: attached.stderr,
    ExposedPorts: exposed,
    Volumes: volumes,
    ...(f.stopSignal ? { StopSignal: f.stopSignal } : {}),
    ...(f.stopTimeout !== undefined ? { StopTimeout: f.stopTimeout } : {}),
    ...healthcheck(f),
    HostConfig: {
      Binds: binds,
      Mounts: f.mount ?? [],
      Tmpfs: Object.fromEntries(
        strings(f.tmpfs).map((t) =>
          t.includes(':') ? [t.slice(0, t.indexOf(':')), t.slice(t.indexOf(':') + 1)] : [t, ''],
        ),
      ),
      VolumesFrom: strings(f.volumesFrom),
      PortBindings: bindings,
      PublishAllPorts: f.publishAll ?? false,
      NetworkMode: networks[0]?.target ?? 'default',
      AutoRemove: f.rm ?? false,
      RestartPolicy: restart,
      ...(f.volumeDriver ? { VolumeDriver: f.volumeDriver } : {}),
      Privileged: f.privileged ?? false,
      ReadonlyRootfs: f.readOnly ?? false,
      CapAdd: strings(f.capAdd),
      CapDrop: strings(f.capDrop),
      GroupAdd: strings(f.groupAdd),
      SecurityOpt: strings(f.securityOpt).map(securityOption),
      Dns: strings(f.dns),
      DnsOptions: [...strings(f.dnsOption), ...strings(f.dnsOpt)],
      DnsSearch: strings(f.dnsSearch),
      ExtraHosts: strings(f.addHost),
      Links: strings(f.link),
      Devices: strings(f.device).map(device),
      DeviceCgroupRules: strings(f.deviceCgroupRule),
      DeviceRequests: strings(f.gpus).map(gpuRequest),
      BlkioWeight: f.blkioWeight ?? 0,
      BlkioDeviceReadBps: strings(f.deviceReadBps).map(byteRate),
      BlkioDeviceWriteBps: strings(f.deviceWriteBps).map(byteRate),
      BlkioDeviceReadIOps: strings(f.deviceReadIops).map(rate),
      BlkioDeviceWriteIOps: strings(f.deviceWriteIops).map(rate),
      ...(f.storageOpt ? { StorageOpt: pairs(strings(f.storageOpt)) } : {}),
      ...(f.memorySwappiness !== undefined ? { MemorySwappiness: f.memorySwappiness } : {}),
      CpuRealtimePeriod: f.cpuRtPeriod ?? 0,
      CpuRealtimeRuntime: f.cpuRtRuntime ?? 0,
      Ulimits: f.ulimit ?? [],
      Sysctls: pairs(strings(f.sysctl)),
      Annotations: pairs(strings(f.annotation)),
      CgroupParent: f.cgroupParent,
      CgroupnsMode: f.cgroupns,
      IpcMode: f.ipc,
      PidMode: f.pid,
      UTSMode: f.uts,
      UsernsMode: f.userns,
      Runtime: f.runtime,
      ShmSize: f.shmSize ?? 0,
      Memory: f.memory ?? 0,
      MemoryReservation: f.memoryReservation ?? 0,
      MemorySwap: f.memorySwap ?? 0,
      NanoCpus: f.cpus !== undefined ? Math.round(Number(f.cpus) * 1e9) : 0,
      CpuPeriod: f.cpuPeriod ?? 0,
      CpuQuota: f.cpuQuota ?? 0,
      CpuShares: f.cpuShares ?? 0,
      CpusetCpus: f.cpusetCpus,
      CpusetMems: f.cpusetMems,
      OomKillDisable: f.oomKillDisable ?? false,
      OomScoreAdj: f.oomScoreAdj ?? 0,
      ...(f.pidsLimit !== undefined ? { PidsLimit: f.pidsLimit } : {}),
      ...(f.init !== undefined ? { Init: f.init } : {}),
      ...(f.logDriver || strings(f.logOpt).length > 0
        ? { LogConfig: { Type: f.logDriver ?? '', Config: pairs(strings(f.logOpt)) } }
        : {}),
      ConsoleSize: process.stdout.isTTY ? [process.stdout.rows, process.stdout.columns] : [0, 0],
    },
    NetworkingConfig: {
      EndpointsConfig: Object.fromEntries(
        networks.map((n, i) => [n.target, i === 0 ? { ...n.endpoint, ...endpoint } : n.endpoint]),
      ),
    },
  }
}

/** "no", "on-failure:3", "always", "unless-stopped" */
export function restartPolicy(text: string): { Name: string; MaximumRetryCount: number } {
  const [Name = '', count, ...more] = text.split(':')
  if (count !== undefined && (!/^\d+$/.test(count) || more.length > 0))
    throw new Exit(125, `invalid restart policy format: maximum retry count must be an integer`)
  return { Name, MaximumRetryCount: Number(count ?? 0) }
}

/** A network by name, or "name=NET,alias=A,ip=IP,driver-opt=K=V,mac-address=M,gw-priority=N". */
function parseNetwork(text: string): { target: string; endpoint: Record<string, unknown> } {
  if (!text.includes('=')) return { target: text, endpoint: {} }
  let target = ''
  const e: { Aliases?: string[]; DriverOpts?: Record<string, string>; IPAMConfig?: object; [more: string]: unknown } =
    {}
  for (const part of text.split(',')) {
    const key = part.slice(0, part.indexOf('=')).trim().toLowerCase()
    const value = part.slice(part.indexOf('=') + 1).trim()
    if (key === 'name') target = value
    else if (key === 'alias') e.Aliases = [...(e.Aliases ?? []), value]
    else if (key === 'driver-opt') e.DriverOpts = { ...e.DriverOpts, ...pairs([value]) }
    else if (key === 'ip') e.IPAMConfig = { ...e.IPAMConfig, IPv4Address: value }
    else if (key === 'ip6') e.IPAMConfig = { ...e.IPAMConfig, IPv6Address: value }
    else if (key === 'link-local-ip') e.IPAMConfig = { ...e.IPAMConfig, LinkLocalIPs: [value] }
    else if (key === 'mac-address') e.MacAddress = value
    else if (key === 'gw-priority') e.GwPriority = whole(value)
    else throw new Exit(125, `invalid argument "${text}" for "--network" flag: invalid field key ${key}`)
  }
  if (target === '')
    throw new Exit(125, `invalid argument "${text}" for "--network" flag: network name/id is not specified`)
  return { target, endpoint: e }
}

/** "all", "2", "device=0,1", "count=2,capabilities=gpu" */
function gpuRequest(text: string): object {
  if (text === 'all' || /^\d+$/.test(text))
    return { Driver: '', Count: text === 'all' ? -1 : Number(text), Capabilities: [['gpu']], Options: {} }
  const out: Record<string, unknown> = { Driver: '', Count: 0, Capabilities: [['gpu']], Options: {} }
  for (const [, , quoted, plain] of text.matchAll(/("([^"]+)"|([^,]+))/g)) {
    const part = quoted ?? plain ?? ''
    const [key, ...rest] = part.split('=')
    const value = rest.join('=')
    if (key === 'device') out.DeviceIDs = value.split(',')
    else if (key === 'count') out.Count = value === 'all' ? -1 : Number(value)
    else if (key === 'driver') out.Driver = value
    else if (key === 'capabilities') out.Capabilities = [['gpu', ...value.split(',').filter((c) => c !== 'gpu')]]
    else throw new Exit(125, `invalid argument "${text}" for "--gpus" flag: unexpected key '${key}' in '${part}'`)
  }
  return out
}

function rate(text: string): { Path: string; Rate: number } {
  const i = text.lastIndexOf(':')
  if (i <= 0 || !/^\d+$/.test(text.slice(i + 1))) throw new Exit(125, `bad format: ${text}: use DEVICE:RATE`)
  return { Path: text.slice(0, i), Rate: Number(text.slice(i + 1)) }
}

function byteRate(text: string): { Path: string; Rate: number } {
  const i = text.lastIndexOf(':')
  return rate(`${text.slice(0, i)}:${size(text.slice(i + 1))}`)
}

/** Lines of KEY=VALUE, or KEY alone; comments and empty lines are left out. */
export function envFile(path: string): string[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .map((l) => l.trimStart().replace(/\r$/, ''))
    .filter((l) => l !== '' && !l.startsWith('#'))
}

function healthcheck(f: ContainerFlags): object {
  const given = {
    Interval: f.healthInterval,
    Timeout: f.healthTimeout,
    Retries: f.healthRetries,
    StartPeriod: f.healthStartPeriod,
    StartInterval: f.healthStartInterval,
  }
  const none = f.healthCmd === undefined && Object.values(given).every((v) => v === undefined)
  if (f.healthcheck === false) {
    if (!none) throw new Exit(125, '--no-healthcheck conflicts with --health-* options')
    return { Healthcheck: { Test: ['NONE'] } }
  }
  if (none) return {}
  return {
    Healthcheck: {
      ...(f.healthCmd !== undefined ? { Test: ['CMD-SHELL', f.healthCmd] } : {}),
      ...Object.fromEntries(Object.entries(given).filter(([, v]) => v !== undefined)),
    },
  }
}

/** "127.0.0.1:8080-8081:80-81/tcp" and its shorter forms. */
export function ports(
  published: readonly string[],
  exposed: readonly string[],
): { exposed: Record<string, object>; bindings: Record<string, { HostIp: string; HostPort: string }[]> } {
  const out: ReturnType<typeof ports> = { exposed: {}, bindings: {} }
  const range = (text: string, what: string): [number, number] => {
    const m = /^(\d+)(?:-(\d+))?$/.exec(text)
    const [lo, hi] = [Number(m?.[1]), Number(m?.[2] ?? m?.[1])]
    if (!m || hi < lo || hi > 65535) throw new Exit(125, `invalid ${what}: ${text}`)
    return [lo, hi]
  }
  for (const e of exposed) {
    const [text, proto = 'tcp'] = e.split('/')
    const [lo, hi] = range(text!, 'range format for --expose')
    for (let p = lo; p <= hi; p++) out.exposed[`${p}/${proto.toLowerCase()}`] = {}
  }
  for (const p of published) {
    const slash = p.lastIndexOf('/')
    const proto = (slash < 0 ? 'tcp' : p.slice(slash + 1)).toLowerCase()
    const parts = /^(?:(?:(\[[^\]]*\]|[^[:]*):)?([^:]*):)?([^:]+)$/.exec(slash < 0 ? p : p.slice(0, slash))
    if (!parts) throw new Exit(125, `invalid publish opts format (should be name=value but got '${p}')`)
    if (!['tcp', 'udp', 'sctp'].includes(proto)) throw new Exit(125, `invalid proto: ${proto}`)
    const ip = (parts[1] ?? '').replace(/^\[|\]$/g, '')
    const host = parts[2] ?? ''
    const [lo, hi] = range(parts[3]!, 'containerPort')
    const from = host === '' ? null : range(host, 'hostPort')
    if (from && from[1] - from[0] !== hi - lo && lo !== hi)
      throw new Exit(125, `invalid ranges specified for container and host Ports: ${parts[3]} and ${host}`)
    for (let c = lo; c <= hi; c++) {
      const key = `${c}/${proto}`
      out.exposed[key] = {}
      const hostPort =
        from === null ? '' : lo === hi && from[0] !== from[1] ? `${from[0]}-${from[1]}` : String(from[0] + c - lo)
      out.bindings[key] = [...(out.bindings[key] ?? []), { HostIp: ip, HostPort: hostPort }]
    }
  }
  return out
}

/** "type=bind,src=/a,dst=/b,readonly" as the API's mount object (run and service create). */
export function parseMount(spec: string): Record<string, unknown> {
  const m: Record<string, unknown> = { Type: 'volume' }
  const sub = (name: string, of: Record<string, unknown> = m): Record<string, unknown> => {
    of[name] ??= {}
    return of[name] as Record<string, unknown>
  }
  for (const part of spec.split(',')) {
    const i = part.indexOf('=')
    const key = (i < 0 ? part : part.slice(0, i)).trim().toLowerCase()
    if (i < 0 && !['readonly', 'ro', 'volume-nocopy', 'bind-nonrecursive', 'bind-create-src'].includes(key))
      throw new Exit(125, `invalid field '${part}' must be a key=value pair`)
    const value = i < 0 ? 'true' : part.slice(i + 1)
    if (key === 'type') m.Type = value
    else if (key === 'source' || key === 'src') m.Source = value
    else if (key === 'target' || key === 'dst' || key === 'destination') m.Target = value
    else if (key === 'readonly' || key === 'ro') m.ReadOnly = value !== 'false' && value !== '0'
    else if (key === 'consistency') m.Consistency = value
    else if (key === 'bind-propagation') sub('BindOptions').Propagation = value
    else if (key === 'bind-nonrecursive') sub('BindOptions').NonRecursive = value !== 'false'
    else if (key === 'bind-create-src') sub('BindOptions').CreateMountpoint = value !== 'false'
    else if (key === 'bind-recursive') recursive(sub('BindOptions'), value)
    else if (key === 'volume-nocopy') sub('VolumeOptions').NoCopy = value !== 'false'
    else if (key === 'volume-subpath') sub('VolumeOptions').Subpath = value
    else if (key === 'volume-driver') sub('DriverConfig', sub('VolumeOptions')).Name = value
    else if (key === 'volume-opt') {
      const driver = sub('DriverConfig', sub('VolumeOptions')) as { Options?: Record<string, string> }
      driver.Options = { ...driver.Options, ...pairs([value]) }
    } else if (key === 'volume-label')
      sub('VolumeOptions').Labels = { ...(sub('VolumeOptions').Labels as object), ...pairs([value]) }
    else if (key === 'tmpfs-size') sub('TmpfsOptions').SizeBytes = size(value)
    else if (key === 'tmpfs-mode') sub('TmpfsOptions').Mode = Number.parseInt(value, 8)
    else throw new Exit(125, `unexpected key '${key}' in '${part}'`)
  }
  if (!m.Target) throw new Exit(125, 'target is required')
  return m
}

function recursive(bind: Record<string, unknown>, value: string): void {
  if (value === 'disabled') bind.NonRecursive = true
  else if (value === 'writable') bind.ReadOnlyNonRecursive = true
  else if (value === 'readonly') bind.ReadOnlyForceRecursive = true
  else if (value !== 'enabled')
    throw new Exit(125, `invalid value for bind-recursive: ${value}: use enabled, disabled, writable or readonly`)
}

/** A value refused by a parser of its own, told as the flag's. */
const asFlag =
  <T>(parse: (text: string) => T) =>
  (text: string, all: T[] = []): T[] => {
    try {
      return [...all, parse(text)]
    } catch (e) {
      throw new InvalidArgumentError((e as Error).message)
    }
  }
export const mountFlag = asFlag(parseMount)
const ulimitFlag = asFlag(ulimit)

function device(spec: string): object {
  const [host, second, third] = spec.split(':')
  const permissions = (p: string | undefined): boolean => p !== undefined && /^[rwm]{1,3}$/.test(p)
  if (permissions(second) && third === undefined)
    return { PathOnHost: host, PathInContainer: host, CgroupPermissions: second }
  return { PathOnHost: host, PathInContainer: second ?? host, CgroupPermissions: third ?? 'rwm' }
}

export function ulimit(spec: string): object {
  const m = /^([a-z]+)=(-?\d+)(?::(-?\d+))?$/.exec(spec)
  if (!m) throw new Exit(125, `invalid ulimit argument: ${spec}`)
  return { Name: m[1], Soft: Number(m[2]), Hard: Number(m[3] ?? m[2]) }
}

/** A seccomp profile is read here: the daemon may be on another host. */
function securityOption(option: string): string {
  const m = /^seccomp[=:](.*)$/.exec(option)
  if (!m || m[1] === 'unconfined' || m[1] === 'builtin') return option
  return `seccomp=${JSON.stringify(JSON.parse(readFileSync(m[1]!, 'utf8')))}`
}
