import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { collect, decimal, duration, Exit, environment, pairs, size, whole } from '../command.js'

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
    .option('--cpus <n>', 'number of CPUs', decimal)
    .option('--cpuset-cpus <list>', 'CPUs to run on', '')
    .option('--cpuset-mems <list>', 'memory nodes', '')
    .option('--device <path>', 'host device (repeatable)', collect)
    .option('--dns <ip>', 'name server (repeatable)', collect)
    .option('--dns-option <option>', 'resolver option (repeatable)', collect)
    .option('--dns-search <domain>', 'search domain (repeatable)', collect)
    .option('--domainname <name>', 'NIS domain name', '')
    .option('--entrypoint <command>', "in place of the image's entrypoint")
    .option('-e, --env <key=value>', 'environment variable (repeatable)', collect)
    .option('--env-file <file>', 'file of environment variables (repeatable)', collect)
    .option('--expose <port>', 'port or range (repeatable)', collect)
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
    .option('--ipc <mode>', 'IPC mode', '')
    .option('-l, --label <key=value>', 'label (repeatable)', collect)
    .option('--link <container>', 'link to another container (repeatable)', collect)
    .option('--log-driver <driver>', 'log driver')
    .option('--log-opt <key=value>', 'log option (repeatable)', collect)
    .option('--mac-address <mac>', 'MAC address')
    .option('-m, --memory <bytes>', 'memory limit', size)
    .option('--memory-reservation <bytes>', 'soft limit', size)
    .option('--memory-swap <bytes>', 'memory and swap; -1 unlimited', size)
    .option('--mount <spec>', 'type=bind|volume|tmpfs,src=...,dst=... (repeatable)', collect)
    .option('--name <name>', 'name', '')
    .option('--network <network>', 'network (repeatable)', collect)
    .option('--net <network>', 'same as --network', collect)
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
    .option('--sysctl <key=value>', 'sysctl (repeatable)', collect)
    .option('--tmpfs <path[:options]>', 'tmpfs (repeatable)', collect)
    .option('-t, --tty', 'a terminal')
    .option('--ulimit <limit>', 'NAME=SOFT[:HARD] (repeatable)', collect)
    .option('-u, --user <user>', 'user[:group]', '')
    .option('--userns <mode>', 'user namespace', '')
    .option('--uts <mode>', 'UTS namespace', '')
    .option('-v, --volume <spec>', '[SOURCE:]TARGET[:OPTIONS] (repeatable)', collect)
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
  const networks = [...strings(f.network), ...strings(f.net)]
  const binds: string[] = []
  const volumes: Record<string, object> = {}
  for (const v of strings(f.volume)) {
    if (v.includes(':')) binds.push(v)
    else volumes[v] = {}
  }
  const restart = /^([a-z-]+)(?::(\d+))?$/.exec(String(f.restart))
  if (!restart) throw new Exit(125, `invalid restart policy: ${String(f.restart)}`)
  const endpoint = {
    ...(f.ip ? { IPAMConfig: { IPv4Address: f.ip } } : {}),
    ...(strings(f.networkAlias).length > 0 ? { Aliases: f.networkAlias } : {}),
    ...(f.macAddress ? { MacAddress: f.macAddress } : {}),
  }
  return {
    Image: image,
    ...(command.length > 0 ? { Cmd: command } : {}),
    ...(f.entrypoint !== undefined ? { Entrypoint: f.entrypoint === '' ? [''] : [f.entrypoint] } : {}),
    Hostname: f.hostname,
    Domainname: f.domainname,
    User: f.user,
    WorkingDir: f.workdir,
    Env: environment([...strings(f.envFile).flatMap(envFile), ...strings(f.env)]),
    Labels: pairs(strings(f.label)),
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
      Mounts: strings(f.mount).map(parseMount),
      Tmpfs: Object.fromEntries(
        strings(f.tmpfs).map((t) =>
          t.includes(':') ? [t.slice(0, t.indexOf(':')), t.slice(t.indexOf(':') + 1)] : [t, ''],
        ),
      ),
      VolumesFrom: strings(f.volumesFrom),
      PortBindings: bindings,
      PublishAllPorts: f.publishAll ?? false,
      NetworkMode: networks[0] ?? 'default',
      AutoRemove: f.rm ?? false,
      RestartPolicy: { Name: restart[1], MaximumRetryCount: Number(restart[2] ?? 0) },
      Privileged: f.privileged ?? false,
      ReadonlyRootfs: f.readOnly ?? false,
      CapAdd: strings(f.capAdd),
      CapDrop: strings(f.capDrop),
      GroupAdd: strings(f.groupAdd),
      SecurityOpt: strings(f.securityOpt).map(securityOption),
      Dns: strings(f.dns),
      DnsOptions: strings(f.dnsOption),
      DnsSearch: strings(f.dnsSearch),
      ExtraHosts: strings(f.addHost),
      Links: strings(f.link),
      Devices: strings(f.device).map(device),
      Ulimits: strings(f.ulimit).map(ulimit),
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
    NetworkingConfig: { EndpointsConfig: Object.fromEntries(networks.map((n, i) => [n, i === 0 ? endpoint : {}])) },
  }
}

function envFile(path: string): string[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .map((l) => l.trim())
    .filter((l) => l !== '' && !l.startsWith('#'))
}

function healthcheck(f: ContainerFlags): object {
  if (f.healthcheck === false) return { Healthcheck: { Test: ['NONE'] } }
  const given = {
    Interval: f.healthInterval,
    Timeout: f.healthTimeout,
    Retries: f.healthRetries,
    StartPeriod: f.healthStartPeriod,
    StartInterval: f.healthStartInterval,
  }
  if (f.healthCmd === undefined && Object.values(given).every((v) => v === undefined)) return {}
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
  const range = (text: string, whole: string): [number, number] => {
    const m = /^(\d+)(?:-(\d+))?$/.exec(text)
    if (!m || Number(m[2] ?? m[1]) < Number(m[1]) || Number(m[2] ?? m[1]) > 65535)
      throw new Exit(125, `invalid port specification: "${whole}"`)
    return [Number(m[1]), Number(m[2] ?? m[1])]
  }
  for (const e of exposed) {
    const [text, proto = 'tcp'] = e.split('/')
    const [lo, hi] = range(text!, e)
    for (let p = lo; p <= hi; p++) out.exposed[`${p}/${proto}`] = {}
  }
  for (const p of published) {
    const [left, proto = 'tcp'] = p.split('/')
    const m = /^(?:(\[[^\]]+\]|[^:]*):)?(?:([\d-]*):)?([\d-]+)$/.exec(left!) ?? /^()()([\d-]+)$/.exec(left!)
    if (!m || !['tcp', 'udp', 'sctp'].includes(proto)) throw new Exit(125, `invalid port specification: "${p}"`)
    // "8080:80" has no address: what matched as one is the host's port.
    const [ip, host] =
      m[2] === undefined && m[1] !== undefined ? ['', m[1]] : [(m[1] ?? '').replace(/^\[|\]$/g, ''), m[2] ?? '']
    const [lo, hi] = range(m[3]!, p)
    const from = host === '' ? null : range(host, p)
    if (from && from[1] - from[0] !== hi - lo && lo !== hi)
      throw new Exit(125, `invalid ranges specified for container and host Ports: ${p}`)
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
    const value = i < 0 ? 'true' : part.slice(i + 1)
    if (key === 'type') m.Type = value
    else if (key === 'source' || key === 'src') m.Source = value
    else if (key === 'target' || key === 'dst' || key === 'destination') m.Target = value
    else if (key === 'readonly' || key === 'ro') m.ReadOnly = value !== 'false' && value !== '0'
    else if (key === 'consistency') m.Consistency = value
    else if (key === 'bind-propagation') sub('BindOptions').Propagation = value
    else if (key === 'bind-recursive') sub('BindOptions').NonRecursive = value === 'disabled'
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
    else throw new Exit(125, `invalid argument "${spec}" for "--mount" flag: unexpected key '${key}' in '${part}'`)
  }
  if (!m.Target) throw new Exit(125, `invalid argument "${spec}" for "--mount" flag: target is required`)
  return m
}

function device(spec: string): object {
  const [host, second, third] = spec.split(':')
  const permissions = (p: string | undefined): boolean => p !== undefined && /^[rwm]{1,3}$/.test(p)
  if (permissions(second) && third === undefined)
    return { PathOnHost: host, PathInContainer: host, CgroupPermissions: second }
  return { PathOnHost: host, PathInContainer: second ?? host, CgroupPermissions: third ?? 'rwm' }
}

export function ulimit(spec: string): object {
  const m = /^([a-z]+)=(-?\d+)(?::(-?\d+))?$/.exec(spec)
  if (!m) throw new Exit(125, `invalid argument "${spec}" for "--ulimit" flag: invalid ulimit argument: ${spec}`)
  return { Name: m[1], Soft: Number(m[2]), Hard: Number(m[3] ?? m[2]) }
}

/** A seccomp profile is read here: the daemon may be on another host. */
function securityOption(option: string): string {
  const m = /^seccomp[=:](.*)$/.exec(option)
  if (!m || m[1] === 'unconfined' || m[1] === 'builtin') return option
  return `seccomp=${JSON.stringify(JSON.parse(readFileSync(m[1]!, 'utf8')))}`
}
