import { InvalidArgumentError } from 'commander'

/** How a setting is given on the command line and in daemon.json; both are read to the same value. */
interface Kind {
  /** The flag's argument, as commander writes it. */
  readonly argument: string
  /** One occurrence of the flag on top of those before; throws InvalidArgumentError. */
  readonly parse?: (text: string, before: never) => unknown
  /** JSON schema of the value in the file. */
  readonly schema: object
  /** The file's value as the flag has it; throws Error. */
  readonly fromFile?: (value: never) => unknown
  readonly initial?: unknown
}

export interface Setting {
  /** Key in daemon.json. */
  readonly key: string
  readonly flags: string
  readonly about: string
  readonly kind: Kind
  /** Why it has no effect here; said when it is given. */
  readonly ignored?: string
}

const bad = (text: string, wanted: string) => new InvalidArgumentError(`"${text}": ${wanted}`)

const string = (argument: string, initial = ''): Kind => ({
  argument: `<${argument}>`,
  schema: { type: 'string' },
  initial,
})

const choice = (argument: string, values: readonly string[], initial: string): Kind => ({
  argument: `<${argument}>`,
  parse: (text: string) => {
    if (!values.includes(text)) throw bad(text, `use one of ${values.join(', ')}`)
    return text
  },
  schema: { enum: values },
  initial,
})

/** --flag, --flag=true, --flag=false; the spellings are those of dockerd. */
const toggle = (initial = false): Kind => ({
  argument: '[bool]',
  parse: (text: string) => {
    if (/^(1|t|true)$/i.test(text)) return true
    if (/^(0|f|false)$/i.test(text)) return false
    throw bad(text, 'use true or false')
  },
  schema: { type: 'boolean' },
  initial,
})

const whole = (argument: string, initial = 0): Kind => ({
  argument: `<${argument}>`,
  parse: (text: string) => {
    if (!/^-?\d+$/.test(text)) throw bad(text, 'use a whole number')
    return Number(text)
  },
  schema: { type: 'integer' },
  initial,
})

const list = (argument: string): Kind => ({
  argument: `<${argument}>`,
  parse: (text: string, before: string[] = []) => [...before, text],
  schema: { type: 'array', items: { type: 'string' } },
})

function pair(text: string, wanted: string): readonly [string, string] {
  const i = text.indexOf('=')
  if (i <= 0) throw bad(text, `use ${wanted}`)
  return [text.slice(0, i), text.slice(i + 1)]
}

const pairs: Kind = {
  argument: '<key=value>',
  parse: (text: string, before: Record<string, string> = {}) => {
    const [key, value] = pair(text, 'KEY=VALUE')
    return { ...before, [key]: value }
  },
  schema: { type: 'object', additionalProperties: { type: 'string' } },
}

const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'fatal']

const UNITS = 'bkmgtp'

/** As docker reads sizes: 64m, 64MB, 64MiB are the same. */
function bytes(text: string): number {
  const m = /^(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?$/i.exec(text.trim())
  if (!m) throw bad(text, 'use a size such as 64m')
  return Math.floor(Number(m[1]) * 1024 ** UNITS.indexOf(m[2]!.toLowerCase() || 'b'))
}

const size = (initial: number): Kind => ({
  argument: '<bytes>',
  parse: bytes,
  schema: { type: ['string', 'integer'] },
  fromFile: (value: string | number) => bytes(String(value)),
  initial,
})

export interface AddressBlock {
  readonly base: string
  readonly size: number
}

const pools: Kind = {
  argument: '<pool>',
  parse: (text: string, before: AddressBlock[] = []) => {
    const base = /base=([^,]+)/.exec(text)?.[1]
    const bits = /size=(\d+)/.exec(text)?.[1]
    if (!base || !bits) throw bad(text, 'use base=10.10.0.0/16,size=24')
    return [...before, { base, size: Number(bits) }]
  },
  schema: {
    type: 'array',
    items: {
      type: 'object',
      properties: { base: { type: 'string' }, size: { type: 'integer' } },
      required: ['base', 'size'],
    },
  },
}

export interface Ulimit {
  readonly Name: string
  readonly Soft: number
  readonly Hard: number
}

const ulimits: Kind = {
  argument: '<ulimit>',
  parse: (text: string, before: Ulimit[] = []) => {
    const m = /^([a-z]+)=(-?\d+)(?::(-?\d+))?$/.exec(text)
    if (!m) throw bad(text, 'use NAME=SOFT[:HARD], e.g. nofile=1024:2048')
    return [...before, { Name: m[1]!, Soft: Number(m[2]), Hard: Number(m[3] ?? m[2]) }]
  },
  schema: { type: 'object', additionalProperties: { type: 'object' } },
  fromFile: (value: Record<string, { Soft?: number; Hard?: number }>) =>
    Object.entries(value).map(([Name, u]): Ulimit => ({ Name, Soft: u.Soft ?? 0, Hard: u.Hard ?? u.Soft ?? 0 })),
}

export interface RuntimeSetting {
  readonly path: string
  readonly runtimeArgs?: readonly string[]
}

const runtimes: Kind = {
  argument: '<name=path>',
  parse: (text: string, before: Record<string, RuntimeSetting> = {}) => {
    const [name, path] = pair(text, 'NAME=PATH')
    return { ...before, [name]: { path } }
  },
  schema: {
    type: 'object',
    additionalProperties: {
      type: 'object',
      properties: { path: { type: 'string' }, runtimeArgs: { type: 'array', items: { type: 'string' } } },
      required: ['path'],
    },
  },
}

const NO_CONTAINERD = 'Shoal runs containers itself, without containerd'
const NO_PROXY = 'the relay of published ports is part of Shoal'

function setting(name: string, kind: Kind, about: string, more: { key?: string; short?: string } = {}): Setting {
  const flags = `${more.short ? `-${more.short}, ` : ''}--${name} ${kind.argument}`
  return { key: more.key ?? name, flags, about, kind }
}

const ignored = (name: string, kind: Kind, why: string, key = name): Setting => ({
  ...setting(name, kind, `accepted without effect: ${why}`, { key }),
  ignored: why,
})

/** dockerd's flags, its keys of daemon.json beside them, and what they do here. */
export const SETTINGS: readonly Setting[] = [
  setting('data-root', string('dir', '/var/lib/shoal'), 'root of persistent state'),
  setting('exec-root', string('dir', '/var/run/shoal'), 'root of execution state'),
  setting('pidfile', string('file', '/var/run/shoal.pid'), 'path of the PID file', { short: 'p' }),
  setting('host', list('address'), 'socket to listen on: unix://PATH, tcp://ADDRESS:PORT or fd:// (repeatable)', {
    key: 'hosts',
    short: 'H',
  }),
  setting('group', string('name', 'docker'), 'group of the unix socket', { short: 'G' }),
  setting('api-cors-header', string('origin'), 'origin that browsers may call the API from'),
  setting('tls', toggle(), 'TLS on TCP sockets'),
  setting('tlsverify', toggle(), 'TLS, and clients must present a certificate of --tlscacert'),
  setting('tlscacert', string('file'), 'CA of client certificates'),
  setting('tlscert', string('file'), 'server certificate'),
  setting('tlskey', string('file'), 'server key'),

  setting('debug', toggle(), 'debug logging', { short: 'D' }),
  setting('log-level', choice('level', LOG_LEVELS, 'info'), `logging level: ${LOG_LEVELS.join(', ')}`, { short: 'l' }),
  setting('log-format', choice('format', ['text', 'json'], 'text'), 'lines of the log: text or json'),
  setting('raw-logs', toggle(), 'no colours at a terminal'),
  setting('label', list('key=value'), 'label of this engine (repeatable)', { key: 'labels' }),
  setting('node-generic-resource', list('resource'), 'resource offered to the swarm, KIND=VALUE (repeatable)', {
    key: 'node-generic-resources',
  }),
  setting('swarm-default-advertise-addr', string('address'), 'address or interface to advertise in a swarm'),
  setting('experimental', toggle(), 'experimental features'),
  setting('metrics-addr', string('address'), 'serve metrics in the format of Prometheus on ADDRESS[:PORT]'),
  setting('live-restore', toggle(), 'containers run on when the daemon stops'),
  setting('shutdown-timeout', whole('seconds', 15), 'time for containers to stop with the daemon'),
  setting('oom-score-adjust', whole('score'), "the daemon's oom_score_adj"),

  setting('insecure-registry', list('host'), 'registry that may be spoken to without TLS (repeatable)', {
    key: 'insecure-registries',
  }),
  setting('registry-mirror', list('url'), 'mirror asked before Docker Hub (repeatable)', { key: 'registry-mirrors' }),
  setting('max-concurrent-downloads', whole('n', 3), 'layers downloaded at one time'),
  setting('max-concurrent-uploads', whole('n', 5), 'layers uploaded at one time'),
  setting('max-download-attempts', whole('n', 5), 'tries of a transfer without progress'),
  setting('storage-driver', string('name', 'overlay2'), 'storage driver (overlay2)', { short: 's' }),

  setting('add-runtime', runtimes, 'another OCI runtime (repeatable)', { key: 'runtimes' }),
  setting('default-runtime', string('name', 'shoal'), 'runtime of containers that name none'),
  setting('cgroup-parent', string('path', '/shoal'), 'parent cgroup of all containers'),
  setting('exec-opt', list('option'), 'native.cgroupdriver=cgroupfs', { key: 'exec-opts' }),
  setting('init', toggle(), 'an init process in each container'),
  setting('default-ulimit', ulimits, 'NAME=SOFT[:HARD] (repeatable)', { key: 'default-ulimits' }),
  setting('default-shm-size', size(64 * 1024 * 1024), 'size of /dev/shm of containers that ask for none'),
  setting('default-ipc-mode', string('mode', 'private'), 'IPC of containers that name none: private or shareable'),
  setting('default-cgroupns-mode', string('mode'), 'cgroup namespace of containers that name none: host or private'),
  setting('no-new-privileges', toggle(), 'no-new-privileges for containers that do not say'),
  setting('seccomp-profile', string('file'), 'seccomp profile of containers that name none; "unconfined": none'),
  setting('log-driver', string('name', 'json-file'), 'log driver of containers that name none'),
  setting('log-opt', pairs, 'option of the log driver (repeatable)', { key: 'log-opts' }),

  setting('bip', string('cidr'), 'address of the default bridge, e.g. 172.17.0.1/16'),
  setting('bridge', string('name'), 'existing bridge for the default network; "none": no default network', {
    short: 'b',
  }),
  setting('fixed-cidr', string('cidr'), 'part of the default subnet that containers get addresses from'),
  setting('default-gateway', string('address'), 'gateway of containers on the default network'),
  setting('ipv6', toggle(), 'the default network has IPv6 too'),
  setting('fixed-cidr-v6', string('cidr'), 'IPv6 subnet of the default network'),
  setting('default-gateway-v6', string('address'), 'IPv6 gateway of containers on the default network'),
  setting('icc', toggle(true), 'containers on the default network reach each other'),
  setting('ip', string('address', '0.0.0.0'), 'address that ports are published on'),
  setting('ip-forward', toggle(true), 'set net.ipv4.ip_forward'),
  setting('ip-masq', toggle(true), 'containers of the default network reach the outside by the address of the host'),
  setting('iptables', toggle(true), "the host's packet rules: published ports, masquerading, isolation"),
  setting('ip6tables', toggle(true), 'packet rules for IPv6 too'),
  setting('mtu', whole('bytes'), 'MTU of container networks; 0: 1500'),
  setting('default-address-pool', pools, 'pool for local networks: base=CIDR,size=BITS (repeatable)', {
    key: 'default-address-pools',
  }),
  setting('host-gateway-ip', string('address'), 'what host-gateway means in --add-host'),
  setting('dns', list('address'), 'name server of containers (repeatable)'),
  setting('dns-search', list('domain'), 'search domain of containers (repeatable)'),
  setting('dns-opt', list('option'), 'resolver option of containers (repeatable)', { key: 'dns-opts' }),

  // Each of these would leave something open or undone that was asked for: a daemon that starts all the same misleads.
  setting('userns-remap', string('user'), 'not supported: refused'),
  setting('authorization-plugin', list('name'), 'plugin that each request must be allowed by (repeatable)', {
    key: 'authorization-plugins',
  }),
  setting('selinux-enabled', toggle(), 'not supported: refused'),
  setting('rootless', toggle(), 'not supported: refused'),
  setting('cluster-store', string('url'), 'not supported: refused'),
  setting('cluster-advertise', string('address'), 'not supported: refused'),
  setting('cluster-store-opt', pairs, 'not supported: refused', { key: 'cluster-store-opts' }),
  setting('storage-opt', list('option'), 'not supported: refused', { key: 'storage-opts' }),

  setting(
    'userland-proxy',
    toggle(true),
    'published ports are relayed where rules cannot lead: from IPv6 to IPv4, from ::1',
  ),
  ignored('userland-proxy-path', string('path'), NO_PROXY),
  ignored('containerd', string('socket'), NO_CONTAINERD),
  ignored('containerd-namespace', string('name'), NO_CONTAINERD),
  ignored('containerd-plugins-namespace', string('name'), NO_CONTAINERD, 'containerd-plugin-namespace'),
  ignored('cri-containerd', toggle(), NO_CONTAINERD),
  ignored('init-path', string('path'), 'Shoal has an init of its own'),
  ignored('network-control-plane-mtu', whole('bytes', 1500), 'nodes speak TCP, not gossip'),
  ignored('network-diagnostic-port', whole('port'), 'there is no gossip to look into'),
  ignored('allow-nondistributable-artifacts', list('host'), 'layers are pushed whatever their kind'),
  ignored('cpu-rt-period', whole('us'), 'the parent cgroup has no real-time share'),
  ignored('cpu-rt-runtime', whole('us'), 'the parent cgroup has no real-time share'),
]

/** Keys that only the file has. */
export const FILE_ONLY: readonly { readonly key: string; readonly schema: object; readonly ignored: string }[] = [
  { key: 'features', schema: { type: 'object' }, ignored: 'no feature can be switched' },
  { key: 'deprecated-key-path', schema: { type: 'string' }, ignored: 'the engine has an id instead of a key' },
  { key: 'swarm-raft-heartbeat-tick', schema: { type: 'integer' }, ignored: 'managers choose their own' },
  { key: 'swarm-raft-election-tick', schema: { type: 'integer' }, ignored: 'managers choose their own' },
  { key: 'builder', schema: { type: 'object' }, ignored: 'the builder has no settings' },
]
