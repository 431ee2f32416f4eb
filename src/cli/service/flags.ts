import { InvalidArgumentError } from 'commander'
import {
  type Command,
  collect,
  cpus,
  decimal,
  duration,
  Exit,
  environment,
  pairs,
  size,
  sizeOrUnlimited,
  unsigned,
  whole,
} from '../command.js'
import { envFile, parseMount, ulimit } from '../container/body.js'

type Json = Record<string, unknown>

/** Flags that create and update have in common. */
function commonFlags(c: Command): Command {
  return c
    .option('-d, --detach', 'do not wait until the service converged')
    .option('-q, --quiet', 'without progress')
    .option('--endpoint-mode <mode>', 'vip or dnsrr')
    .option('--entrypoint <command>', "in place of the image's entrypoint")
    .option('--health-cmd <command>', 'health check')
    .option('--health-interval <duration>', 'between checks', duration)
    .option('--health-retries <n>', 'failures to be unhealthy', unsigned)
    .option('--health-start-interval <duration>', 'between checks while starting', duration)
    .option('--health-start-period <duration>', 'time to start', duration)
    .option('--health-timeout <duration>', 'of one check', duration)
    .option('--no-healthcheck', "without the image's health check")
    .option('--hostname <name>', 'host name')
    .option('--init', 'an init process in each container')
    .option('--limit-cpu <n>', 'CPUs', cpus)
    .option('--limit-memory <bytes>', 'memory', size)
    .option('--memory-swap <bytes>', 'swap on top of memory: -1 for unlimited', sizeOrUnlimited)
    .option('--memory-swappiness <n>', 'tune memory swappiness (0 to 100)', whole)
    .option('--limit-pids <n>', 'processes', unsigned)
    .option('--reserve-cpu <n>', 'CPUs', cpus)
    .option('--reserve-memory <bytes>', 'memory', size)
    .option('--log-driver <driver>', 'log driver')
    .option('--log-opt <key=value>', 'log option (repeatable)', collect)
    .option('--oom-score-adj <n>', 'OOM preference', whole)
    .option('--read-only', 'read-only root')
    .option('--replicas <n>', 'number of tasks', unsigned)
    .option('--max-concurrent <n>', 'tasks of a job at one time', unsigned)
    .option('--replicas-max-per-node <n>', 'tasks on one node', unsigned)
    .option('--restart-condition <when>', 'none, on-failure or any')
    .option('--restart-delay <duration>', 'between restarts', duration)
    .option('--restart-max-attempts <n>', 'before it is given up', unsigned)
    .option('--restart-window <duration>', 'in which they are counted', duration)
    .option('--stop-grace-period <duration>', 'before it is killed', duration)
    .option('--stop-signal <signal>', 'signal to stop it')
    .option('-t, --tty', 'a terminal')
    .option('-u, --user <user>', 'user[:group]')
    .option('-w, --workdir <dir>', 'working directory')
    .option('--with-registry-auth', 'send registry credentials to the nodes')
    .option('--no-resolve-image', 'do not ask the registry for the digest')
    .option('--cap-add <cap>', 'add a capability (repeatable)', collect)
    .option('--cap-drop <cap>', 'drop a capability (repeatable)', collect)
    .option('--update-delay <duration>', 'between updates', duration)
    .option('--update-failure-action <action>', 'pause, continue or rollback')
    .option('--update-max-failure-ratio <n>', 'tolerated failures', decimal)
    .option('--update-monitor <duration>', 'time in which a failure counts', duration)
    .option('--update-order <order>', 'stop-first or start-first')
    .option('--update-parallelism <n>', 'tasks at one time, 0 all', unsigned)
    .option('--rollback-delay <duration>', 'between rollbacks', duration)
    .option('--rollback-failure-action <action>', 'pause or continue')
    .option('--rollback-max-failure-ratio <n>', 'tolerated failures', decimal)
    .option('--rollback-monitor <duration>', 'time in which a failure counts', duration)
    .option('--rollback-order <order>', 'stop-first or start-first')
    .option('--rollback-parallelism <n>', 'tasks at one time, 0 all', unsigned)
}

/** Lists: a flag on create, --X-add and --X-rm on update. Place in the spec, how an element is read, and its key. */
interface ListField {
  readonly flag: string
  readonly short?: string
  readonly what: string
  readonly path: readonly string[]
  readonly parse: (text: string) => unknown
  readonly key: (element: unknown) => string
}

const same = (x: unknown): string => String(x)
const before = (x: unknown): string => String(x).split('=')[0]!
const LISTS: readonly ListField[] = [
  {
    flag: 'env',
    short: 'e',
    what: 'environment variable',
    path: ['TaskTemplate', 'ContainerSpec', 'Env'],
    parse: (t) => environment([t])[0],
    key: before,
  },
  {
    flag: 'mount',
    what: 'mount',
    path: ['TaskTemplate', 'ContainerSpec', 'Mounts'],
    parse: parseMount,
    key: (m) => String((m as Json).Target),
  },
  {
    flag: 'constraint',
    what: 'placement constraint',
    path: ['TaskTemplate', 'Placement', 'Constraints'],
    parse: same,
    key: same,
  },
  {
    flag: 'publish',
    short: 'p',
    what: 'published port',
    path: ['EndpointSpec', 'Ports'],
    parse: parsePort,
    key: (p) => `${(p as Json).TargetPort}/${(p as Json).Protocol}`,
  },
  {
    flag: 'network',
    what: 'network',
    path: ['TaskTemplate', 'Networks'],
    parse: parseNetwork,
    key: (n) => String((n as Json).Target),
  },
  {
    flag: 'host',
    what: 'line for /etc/hosts',
    path: ['TaskTemplate', 'ContainerSpec', 'Hosts'],
    parse: (t) => t.split(':').reverse().join(' '),
    key: same,
  },
  {
    flag: 'dns',
    what: 'name server',
    path: ['TaskTemplate', 'ContainerSpec', 'DNSConfig', 'Nameservers'],
    parse: same,
    key: same,
  },
  {
    flag: 'dns-search',
    what: 'search domain',
    path: ['TaskTemplate', 'ContainerSpec', 'DNSConfig', 'Search'],
    parse: same,
    key: same,
  },
  {
    flag: 'dns-option',
    what: 'resolver option',
    path: ['TaskTemplate', 'ContainerSpec', 'DNSConfig', 'Options'],
    parse: same,
    key: same,
  },
  {
    flag: 'group',
    what: 'additional group',
    path: ['TaskTemplate', 'ContainerSpec', 'Groups'],
    parse: same,
    key: same,
  },
  {
    flag: 'ulimit',
    what: 'limit',
    path: ['TaskTemplate', 'ContainerSpec', 'Ulimits'],
    parse: ulimit,
    key: (u) => String((u as Json).Name),
  },
  {
    flag: 'placement-pref',
    what: 'placement preference',
    path: ['TaskTemplate', 'Placement', 'Preferences'],
    parse: (t) => ({ Spread: { SpreadDescriptor: t.replace(/^spread=/, '') } }),
    key: (p) => JSON.stringify(p),
  },
  {
    flag: 'generic-resource',
    what: 'generic resource',
    path: ['TaskTemplate', 'Resources', 'Reservations', 'GenericResources'],
    parse: parseGeneric,
    key: (g) => JSON.stringify(g),
  },
]
/** Maps: likewise. */
const MAPS: readonly { flag: string; short?: string; what: string; path: readonly string[] }[] = [
  { flag: 'label', short: 'l', what: 'label of the service', path: ['Labels'] },
  { flag: 'container-label', what: 'label of its containers', path: ['TaskTemplate', 'ContainerSpec', 'Labels'] },
  { flag: 'sysctl', what: 'sysctl', path: ['TaskTemplate', 'ContainerSpec', 'Sysctls'] },
]

export function createFlags(c: Command): Command {
  commonFlags(c)
    .option('--name <name>', 'name', '')
    .option('--mode <mode>', 'replicated, global, replicated-job or global-job', 'replicated')
  for (const l of LISTS)
    c.option(`${l.short ? `-${l.short}, ` : ''}--${l.flag} <value>`, `${l.what} (repeatable)`, element(l.parse))
  for (const m of MAPS)
    c.option(`${m.short ? `-${m.short}, ` : ''}--${m.flag} <value>`, `${m.what} (repeatable)`, collect)
  return c
    .option('--env-file <file>', 'file of environment variables (repeatable)', collect)
    .option(
      '--secret <secret>',
      'secret to expose: NAME or source=NAME,target=FILE,uid=,gid=,mode= (repeatable)',
      collect,
    )
    .option('--config <config>', 'config to expose, likewise (repeatable)', collect)
}

export function updateFlags(c: Command): Command {
  commonFlags(c)
    .option('--args <command>', "the command's arguments")
    .option('--image <image>', 'image')
    .option('--force', 'replace all tasks')
    .option('--rollback', 'to the previous specification')
  for (const l of LISTS)
    c.option(`--${l.flag}-add <value>`, `add: ${l.what} (repeatable)`, element(l.parse)).option(
      `--${l.flag}-rm <key>`,
      `remove: ${l.what} (repeatable)`,
      collect,
    )
  for (const m of [...MAPS, { flag: 'secret', what: 'secret' }, { flag: 'config', what: 'config' }])
    c.option(`--${m.flag}-add <value>`, `add: ${m.what} (repeatable)`, collect).option(
      `--${m.flag}-rm <key>`,
      `remove: ${m.what} (repeatable)`,
      collect,
    )
  return c
}

/** One value of a list flag; what its parser refuses is told as the flag's mistake. */
const element =
  (parse: (text: string) => unknown) =>
  (text: string, all: unknown[] = []): unknown[] => {
    try {
      return [...all, parse(text)]
    } catch (e) {
      throw new InvalidArgumentError((e as Error).message)
    }
  }

const camel = (flag: string): string => flag.replace(/-([a-z])/g, (_m, c: string) => c.toUpperCase())

/** "8080:80/udp" or "published=8080,target=80,mode=host,protocol=tcp". */
export function parsePort(text: string): Json {
  if (!text.includes('=')) {
    const m = /^(?:(\d+):)?(\d+)(?:\/(tcp|udp|sctp))?$/.exec(text)
    if (!m) throw new Exit(125, `invalid containerPort: ${text}`)
    return {
      Protocol: m[3] ?? 'tcp',
      TargetPort: Number(m[2]),
      ...(m[1] ? { PublishedPort: Number(m[1]) } : {}),
      PublishMode: 'ingress',
    }
  }
  const out: Json = { Protocol: 'tcp', PublishMode: 'ingress' }
  for (const part of text.split(',')) {
    const [key, value = ''] = part.split('=')
    if (key === 'target') out.TargetPort = portNumber(value)
    else if (key === 'published') out.PublishedPort = portNumber(value)
    else if (key === 'mode') out.PublishMode = value
    else if (key === 'protocol') out.Protocol = value
    else throw new Exit(125, `invalid field key ${key}`)
  }
  return out
}

function portNumber(text: string): number {
  if (!/^\d+$/.test(text) || Number(text) > 65535) throw new Exit(125, `invalid port number ${text}`)
  return Number(text)
}

function parseNetwork(text: string): Json {
  if (!text.includes('=')) return { Target: text }
  const out: { Target?: string; Aliases?: string[]; DriverOpts?: Record<string, string> } = {}
  for (const part of text.split(',')) {
    const [key, ...rest] = part.split('=')
    const value = rest.join('=')
    if (key === 'name') out.Target = value
    else if (key === 'alias') out.Aliases = [...(out.Aliases ?? []), value]
    else if (key === 'driver-opt') out.DriverOpts = { ...out.DriverOpts, ...pairs([value]) }
    else throw new Exit(125, `invalid field key ${key}`)
  }
  return out
}

function parseGeneric(text: string): Json {
  const [Kind, Value = ''] = text.split('=')
  return /^\d+$/.test(Value)
    ? { DiscreteResourceSpec: { Kind, Value: Number(Value) } }
    : { NamedResourceSpec: { Kind, Value } }
}

/** The object at a path, fresh along the way, so that what was read is not changed. */
function at(spec: Json, path: readonly string[]): Json {
  let o = spec
  for (const p of path) {
    const next = { ...((o[p] as Json | undefined) ?? {}) }
    o[p] = next
    o = next
  }
  return o
}

const put = (spec: Json, path: readonly string[], value: unknown): void => {
  if (value !== undefined) at(spec, path.slice(0, -1))[path[path.length - 1]!] = value
}

/** What an update configuration has when only a part of it is given. Monitor: nanoseconds. */
const UPDATE_DEFAULTS = {
  Parallelism: 1,
  Monitor: 5_000_000_000,
  FailureAction: 'pause',
  MaxFailureRatio: 0,
  Order: 'stop-first',
} as const

/** Plain values: flag → place. Only given flags change anything. */
function scalars(spec: Json, f: Json): void {
  const c = ['TaskTemplate', 'ContainerSpec']
  put(spec, [...c, 'Hostname'], f.hostname)
  put(spec, [...c, 'User'], f.user)
  put(spec, [...c, 'Dir'], f.workdir)
  put(spec, [...c, 'TTY'], f.tty)
  put(spec, [...c, 'Init'], f.init)
  put(spec, [...c, 'ReadOnly'], f.readOnly)
  put(spec, [...c, 'StopSignal'], f.stopSignal)
  put(spec, [...c, 'StopGracePeriod'], f.stopGracePeriod)
  put(spec, [...c, 'OomScoreAdj'], f.oomScoreAdj)
  put(spec, [...c, 'CapabilityAdd'], f.capAdd)
  put(spec, [...c, 'CapabilityDrop'], f.capDrop)
  if (f.entrypoint !== undefined) put(spec, [...c, 'Command'], words(String(f.entrypoint)))
  if (f.healthcheck === false) put(spec, [...c, 'Healthcheck'], { Test: ['NONE'] })
  if (f.healthCmd !== undefined) put(spec, [...c, 'Healthcheck', 'Test'], ['CMD-SHELL', f.healthCmd])
  put(spec, [...c, 'Healthcheck', 'Interval'], f.healthInterval)
  put(spec, [...c, 'Healthcheck', 'Timeout'], f.healthTimeout)
  put(spec, [...c, 'Healthcheck', 'Retries'], f.healthRetries)
  put(spec, [...c, 'Healthcheck', 'StartPeriod'], f.healthStartPeriod)
  put(spec, [...c, 'Healthcheck', 'StartInterval'], f.healthStartInterval)
  const nano = (v: unknown): number | undefined => (v === undefined ? undefined : Math.round(Number(v) * 1e9))
  put(spec, ['TaskTemplate', 'Resources', 'Limits', 'NanoCPUs'], nano(f.limitCpu))
  put(spec, ['TaskTemplate', 'Resources', 'Limits', 'MemoryBytes'], f.limitMemory)
  put(spec, ['TaskTemplate', 'Resources', 'Limits', 'Pids'], f.limitPids)
  put(spec, ['TaskTemplate', 'Resources', 'Reservations', 'NanoCPUs'], nano(f.reserveCpu))
  put(spec, ['TaskTemplate', 'Resources', 'Reservations', 'MemoryBytes'], f.reserveMemory)
  put(spec, ['TaskTemplate', 'Resources', 'SwapBytes'], f.memorySwap)
  put(spec, ['TaskTemplate', 'Resources', 'MemorySwappiness'], f.memorySwappiness)
  put(spec, ['TaskTemplate', 'RestartPolicy', 'Condition'], f.restartCondition)
  put(spec, ['TaskTemplate', 'RestartPolicy', 'Delay'], f.restartDelay)
  put(spec, ['TaskTemplate', 'RestartPolicy', 'MaxAttempts'], f.restartMaxAttempts)
  put(spec, ['TaskTemplate', 'RestartPolicy', 'Window'], f.restartWindow)
  put(spec, ['TaskTemplate', 'Placement', 'MaxReplicas'], f.replicasMaxPerNode)
  if (f.logDriver !== undefined || f.logOpt !== undefined)
    put(spec, ['TaskTemplate', 'LogDriver'], {
      Name: f.logDriver ?? '',
      Options: pairs(f.logOpt as string[] | undefined),
    })
  put(spec, ['EndpointSpec', 'Mode'], f.endpointMode)
  for (const [prefix, place] of [
    ['update', 'UpdateConfig'],
    ['rollback', 'RollbackConfig'],
  ] as const) {
    const given = {
      Parallelism: f[`${prefix}Parallelism`],
      Delay: f[`${prefix}Delay`],
      FailureAction: f[`${prefix}FailureAction`],
      Monitor: f[`${prefix}Monitor`],
      MaxFailureRatio: f[`${prefix}MaxFailureRatio`],
      Order: f[`${prefix}Order`],
    }
    const set = Object.fromEntries(Object.entries(given).filter(([, v]) => v !== undefined))
    if (Object.keys(set).length > 0)
      put(spec, [place], { ...UPDATE_DEFAULTS, ...(spec[place] as Json | undefined), ...set })
  }
}

/** A command line in one string, as a shell would split it. */
export function words(text: string): string[] {
  return [...text.matchAll(/"((?:[^"\\]|\\.)*)"|'([^']*)'|(\S+)/g)].map(
    (m) => m[1]?.replace(/\\(.)/g, '$1') ?? m[2] ?? m[3]!,
  )
}

export function createSpec(image: string, args: readonly string[], f: Json): Json {
  const spec: Json = {
    Name: f.name,
    Labels: {},
    TaskTemplate: { ContainerSpec: { Image: image, ...(args.length > 0 ? { Args: args } : {}) } },
    Mode: mode(f),
    EndpointSpec: { Mode: 'vip' },
  }
  put(spec, ['TaskTemplate', 'ContainerSpec', 'Init'], false)
  put(spec, ['TaskTemplate', 'Resources'], { Limits: {}, Reservations: {} })
  scalars(spec, f)
  for (const l of LISTS) {
    const given = f[camel(l.flag)] as unknown[] | undefined
    if (given) put(spec, l.path, given)
  }
  const fromFiles = ((f.envFile as string[] | undefined) ?? []).flatMap(envFile)
  if (fromFiles.length > 0) {
    const given = (f.env as string[] | undefined) ?? []
    put(spec, ['TaskTemplate', 'ContainerSpec', 'Env'], [...environment(fromFiles), ...given])
  }
  for (const m of MAPS) {
    const given = f[camel(m.flag)] as string[] | undefined
    if (given) put(spec, m.path, pairs(given))
  }
  return spec
}

function mode(f: Json): Json {
  const replicas = f.replicas as number | undefined
  switch (f.mode) {
    case 'global':
    case 'global-job':
      if (replicas !== undefined) throw new Exit(1, `replicas can only be used with replicated or replicated-job mode`)
      return f.mode === 'global' ? { Global: {} } : { GlobalJob: {} }
    case 'replicated-job':
      return { ReplicatedJob: { MaxConcurrent: f.maxConcurrent ?? replicas ?? 1, TotalCompletions: replicas ?? 1 } }
    case 'replicated':
      return { Replicated: { Replicas: replicas ?? 1 } }
    default:
      throw new Exit(1, `Unknown mode: ${String(f.mode)}, only replicated and global supported`)
  }
}

/** Lists whose order means nothing: docker sorts them, so that the same set is the same specification. */
const SORTED = ['constraint', 'dns', 'dns-option', 'dns-search', 'group']

/** The flags' changes on a specification as it was read. */
export function updateSpec(old: Json, f: Json): Json {
  const spec = structuredClone(old)
  scalars(spec, f)
  put(spec, ['TaskTemplate', 'ContainerSpec', 'Image'], f.image)
  if (f.args !== undefined) put(spec, ['TaskTemplate', 'ContainerSpec', 'Args'], words(String(f.args)))
  if (f.force) put(spec, ['TaskTemplate', 'ForceUpdate'], Number((spec.TaskTemplate as Json).ForceUpdate ?? 0) + 1)
  if (f.replicas !== undefined) scaleSpec(spec, Number(f.replicas))
  for (const l of LISTS) {
    const add = (f[camel(`${l.flag}-add`)] as unknown[] | undefined) ?? []
    const rm = (f[camel(`${l.flag}-rm`)] as string[] | undefined) ?? []
    if (add.length + rm.length === 0) continue
    const parent = at(spec, l.path.slice(0, -1))
    const name = l.path[l.path.length - 1]!
    // Clients of older APIs leave a service's networks beside its template.
    if (l.flag === 'network' && spec.Networks) {
      parent.Networks ??= spec.Networks
      delete spec.Networks
    }
    const added = new Set(add.map(l.key))
    // A port is removed by its target alone, whatever its protocol.
    const removed = (x: unknown): boolean =>
      rm.some((r) => r === l.key(x) || (l.flag === 'publish' && r === String((x as Json).TargetPort)))
    parent[name] = [
      ...((parent[name] as unknown[] | undefined) ?? []).filter((x) => !removed(x) && !added.has(l.key(x))),
      ...add,
    ]
    if (SORTED.includes(l.flag)) (parent[name] as string[]).sort()
  }
  for (const m of MAPS) {
    const add = f[camel(`${m.flag}-add`)] as string[] | undefined
    const rm = f[camel(`${m.flag}-rm`)] as string[] | undefined
    if (!add && !rm) continue
    const parent = at(spec, m.path.slice(0, -1))
    const name = m.path[m.path.length - 1]!
    const value = { ...((parent[name] as Record<string, string> | undefined) ?? {}), ...pairs(add) }
    for (const r of rm ?? []) delete value[r]
    parent[name] = value
  }
  return spec
}

export function scaleSpec(spec: Json, replicas: number): void {
  const m = spec.Mode as { Replicated?: { Replicas?: number }; ReplicatedJob?: { TotalCompletions?: number } }
  if (m.Replicated) spec.Mode = { Replicated: { Replicas: replicas } }
  else if (m.ReplicatedJob) spec.Mode = { ReplicatedJob: { ...m.ReplicatedJob, TotalCompletions: replicas } }
  else throw new Exit(1, 'scale can only be used with replicated or replicated-job mode')
}
