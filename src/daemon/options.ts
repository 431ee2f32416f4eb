import { readFileSync } from 'node:fs'
import { Ajv } from 'ajv'
import { Command, InvalidArgumentError, Option } from 'commander'
import { invalid } from '../common/index.js'
import type { LogLevel } from '../common/log.js'
import { mistakesOf } from './check.js'

/** Everything the daemon can be told, from flags and daemon.json together; names as dockerd has them. */
export interface DaemonOptions {
  dataRoot: string
  execRoot: string
  pidfile: string
  hosts: string[]
  debug: boolean
  logLevel: LogLevel
  labels: string[]
  bip: string
  defaultAddressPools: { base: string; size: number }[]
  cgroupParent: string
  insecureRegistries: string[]
  registryMirrors: string[]
  tls: boolean
  tlsVerify: boolean
  tlsCaCert: string
  tlsCert: string
  tlsKey: string
  metricsAddr: string
  runtimes: Record<string, string>
  defaultRuntime: string
  liveRestore: boolean
  shutdownTimeoutSeconds: number
  group: string
  storageDriver: string
  logDriver: string
  logOptions: Record<string, string>
  dns: string[]
  dnsSearch: string[]
  dnsOptions: string[]
  mtu: number
  defaultUlimits: { Name: string; Soft: number; Hard: number }[]
  genericResources: string[]
  defaultAdvertiseAddr: string
  userlandProxy: boolean
  iptables: boolean
  usernsRemap: string
  init: boolean
  experimental: boolean
  warnings: string[]
}

/** daemon.json's key → the attribute that takes its value, that of the flag where it is another, and its JSON type. */
const FILE_KEYS: Record<string, { readonly attribute: string; readonly flag?: string; readonly schema: object }> = {
  'data-root': { attribute: 'dataRoot', schema: { type: 'string' } },
  'exec-root': { attribute: 'execRoot', schema: { type: 'string' } },
  pidfile: { attribute: 'pidfile', schema: { type: 'string' } },
  hosts: { attribute: 'host', schema: { type: 'array', items: { type: 'string' } } },
  debug: { attribute: 'debug', schema: { type: 'boolean' } },
  'log-level': { attribute: 'logLevel', schema: { enum: ['debug', 'info', 'warn', 'error', 'fatal'] } },
  labels: { attribute: 'label', schema: { type: 'array', items: { type: 'string' } } },
  bip: { attribute: 'bip', schema: { type: 'string' } },
  'default-address-pools': {
    attribute: 'defaultAddressPool',
    schema: {
      type: 'array',
      items: {
        type: 'object',
        properties: { base: { type: 'string' }, size: { type: 'integer' } },
        required: ['base', 'size'],
      },
    },
  },
  'cgroup-parent': { attribute: 'cgroupParent', schema: { type: 'string' } },
  'insecure-registries': { attribute: 'insecureRegistry', schema: { type: 'array', items: { type: 'string' } } },
  'registry-mirrors': { attribute: 'registryMirror', schema: { type: 'array', items: { type: 'string' } } },
  tls: { attribute: 'tls', schema: { type: 'boolean' } },
  tlsverify: { attribute: 'tlsverify', schema: { type: 'boolean' } },
  tlscacert: { attribute: 'tlscacert', schema: { type: 'string' } },
  tlscert: { attribute: 'tlscert', schema: { type: 'string' } },
  tlskey: { attribute: 'tlskey', schema: { type: 'string' } },
  'metrics-addr': { attribute: 'metricsAddr', schema: { type: 'string' } },
  runtimes: {
    attribute: 'runtimes',
    flag: 'addRuntime',
    schema: { type: 'object', additionalProperties: { type: 'object', properties: { path: { type: 'string' } } } },
  },
  'default-runtime': { attribute: 'defaultRuntime', schema: { type: 'string' } },
  'live-restore': { attribute: 'liveRestore', schema: { type: 'boolean' } },
  'shutdown-timeout': { attribute: 'shutdownTimeout', schema: { type: 'integer' } },
  group: { attribute: 'group', schema: { type: 'string' } },
  'storage-driver': { attribute: 'storageDriver', schema: { type: 'string' } },
  'log-driver': { attribute: 'logDriver', schema: { type: 'string' } },
  'log-opts': {
    attribute: 'logOpts',
    flag: 'logOpt',
    schema: { type: 'object', additionalProperties: { type: 'string' } },
  },
  dns: { attribute: 'dns', schema: { type: 'array', items: { type: 'string' } } },
  'dns-search': { attribute: 'dnsSearch', schema: { type: 'array', items: { type: 'string' } } },
  'dns-opts': { attribute: 'dnsOpt', schema: { type: 'array', items: { type: 'string' } } },
  mtu: { attribute: 'mtu', schema: { type: 'integer' } },
  'default-ulimits': {
    attribute: 'defaultUlimits',
    flag: 'defaultUlimit',
    schema: { type: 'object', additionalProperties: { type: 'object' } },
  },
  'node-generic-resources': { attribute: 'nodeGenericResource', schema: { type: 'array', items: { type: 'string' } } },
  'swarm-default-advertise-addr': { attribute: 'swarmDefaultAdvertiseAddr', schema: { type: 'string' } },
  'userland-proxy': { attribute: 'userlandProxy', schema: { type: 'boolean' } },
  iptables: { attribute: 'iptables', schema: { type: 'boolean' } },
  'userns-remap': { attribute: 'usernsRemap', schema: { type: 'string' } },
  init: { attribute: 'init', schema: { type: 'boolean' } },
  experimental: { attribute: 'experimental', schema: { type: 'boolean' } },
  containerd: { attribute: 'containerd', schema: { type: 'string' } },
}

const collect = (v: string, all: string[] = []): string[] => [...all, v]

function number(v: string): number {
  if (!/^-?\d+$/.test(v)) throw new InvalidArgumentError(`"${v}" is not a whole number`)
  return Number(v)
}

function pool(v: string, all: { base: string; size: number }[] = []): { base: string; size: number }[] {
  const base = /base=([^,]+)/.exec(v)?.[1]
  const size = /size=(\d+)/.exec(v)?.[1]
  if (!base || !size) throw new InvalidArgumentError(`"${v}": use base=10.10.0.0/16,size=24`)
  return [...all, { base, size: Number(size) }]
}

function pair(what: string) {
  return (v: string, all: Record<string, string> = {}): Record<string, string> => {
    const i = v.indexOf('=')
    if (i <= 0) throw new InvalidArgumentError(`"${v}": use ${what}`)
    return { ...all, [v.slice(0, i)]: v.slice(i + 1) }
  }
}

function ulimit(v: string, all: DaemonOptions['defaultUlimits'] = []): DaemonOptions['defaultUlimits'] {
  const m = /^([a-z]+)=(-?\d+)(?::(-?\d+))?$/.exec(v)
  if (!m) throw new InvalidArgumentError(`"${v}": use NAME=SOFT[:HARD], e.g. nofile=1024:2048`)
  return [...all, { Name: m[1]!, Soft: Number(m[2]), Hard: Number(m[3] ?? m[2]) }]
}

function command(version: string): Command {
  return new Command('shoald')
    .description(
      'The Shoal engine: images, containers, networks, volumes and the swarm of this host, behind the Docker Engine API',
    )
    .version(`Shoal version ${version}`, '-v, --version')
    .option('--data-root <dir>', 'root of persistent state', '/var/lib/shoal')
    .option('--exec-root <dir>', 'root of execution state', '/var/run/shoal')
    .option('-p, --pidfile <file>', 'path of the PID file', '/var/run/shoal.pid')
    .option(
      '-H, --host <address>',
      'socket to listen on: unix://PATH, tcp://ADDRESS:PORT or fd:// (repeatable)',
      collect,
    )
    .option('--config-file <file>', 'configuration file', '/etc/shoal/daemon.json')
    .option('-D, --debug', 'debug logging')
    .addOption(
      new Option('-l, --log-level <level>', 'logging level')
        .choices(['debug', 'info', 'warn', 'error', 'fatal'])
        .default('info'),
    )
    .option('--label <key=value>', 'label of this engine (repeatable)', collect)
    .option('--bip <cidr>', 'address of the default bridge, e.g. 172.17.0.1/16', '')
    .option('--default-address-pool <pool>', 'pool for local networks: base=CIDR,size=BITS (repeatable)', pool)
    .option('--cgroup-parent <path>', 'parent cgroup of all containers', '/shoal')
    .option('--insecure-registry <host>', 'registry that may be spoken to without TLS (repeatable)', collect)
    .option('--registry-mirror <url>', 'mirror asked before Docker Hub (repeatable)', collect)
    .option('--tls', 'TLS on TCP sockets')
    .option('--tlsverify', 'TLS, and clients must present a certificate of --tlscacert')
    .option('--tlscacert <file>', 'CA of client certificates', '')
    .option('--tlscert <file>', 'server certificate', '')
    .option('--tlskey <file>', 'server key', '')
    .option('--metrics-addr <address>', 'serve Prometheus metrics on ADDRESS:PORT', '')
    .option('--add-runtime <name=path>', 'another OCI runtime (repeatable)', pair('NAME=PATH'))
    .option('--default-runtime <name>', 'runtime of containers that name none', 'shoal')
    .option('--live-restore', 'containers run on when the daemon stops')
    .option('--shutdown-timeout <seconds>', 'time for containers to stop with the daemon', number, 15)
    .option('-G, --group <name>', 'group of the unix socket', 'docker')
    .option('-s, --storage-driver <name>', 'storage driver (overlay2)', 'overlay2')
    .option('--log-driver <name>', 'log driver of containers that name none', 'json-file')
    .option('--log-opt <key=value>', 'option of the log driver (repeatable)', pair('KEY=VALUE'))
    .option('--dns <address>', 'name server of containers (repeatable)', collect)
    .option('--dns-search <domain>', 'search domain of containers (repeatable)', collect)
    .option('--dns-opt <option>', 'resolver option of containers (repeatable)', collect)
    .option('--mtu <bytes>', 'MTU of container networks; 0: from the host', number, 0)
    .option('--default-ulimit <ulimit>', 'NAME=SOFT[:HARD] (repeatable)', ulimit)
    .option('--node-generic-resource <resource>', 'resource offered to the swarm, KIND=VALUE (repeatable)', collect)
    .option('--swarm-default-advertise-addr <address>', 'address or interface to advertise in a swarm', '')
    .option('--userland-proxy [bool]', 'accepted; published ports need no proxy process', 'true')
    .option('--iptables [bool]', 'program packet rules', 'true')
    .option('--userns-remap <user>', 'user namespace of containers', '')
    .option('--init', 'an init process in each container')
    .option('--experimental', 'experimental features')
    .option('--containerd <socket>', 'accepted and ignored')
    .option('--validate', 'say whether the configuration is good, and end')
    .allowExcessArguments(false)
    .exitOverride()
}

const isTrue = (v: unknown): boolean => v === true || (typeof v === 'string' && !['false', '0', 'no'].includes(v))

/** What the command line asks for beside running. */
export interface ParsedOptions {
  readonly options: DaemonOptions
  /** Only say whether the configuration is good. */
  readonly validateOnly: boolean
}

/**
 * Flags, file and defaults together. A key given in both places is an error, as with dockerd. Throws invalid
 * `configuration` with every mistake of both named at once.
 */
export function parseOptions(argv: readonly string[], version: string): ParsedOptions {
  const cmd = command(version)
  cmd.parse([...argv], { from: 'user' })
  const values: Record<string, unknown> = { ...cmd.opts() }
  const given = (attribute: string): boolean => cmd.getOptionValueSource(attribute) === 'cli'
  const path = values.configFile as string
  const { values: file, mistakes } = readConfigFile(path, given('configFile'))
  const both: string[] = []
  for (const [key, value] of Object.entries(file)) {
    const { attribute, flag = attribute } = FILE_KEYS[key]!
    if (given(flag)) both.push(`${key}: (from flag: ${shown(values[flag])}, from file: ${shown(value)})`)
    else values[attribute] = value
  }
  if (both.length > 0)
    mistakes.push(
      `the following directives are specified both as a flag and in the configuration file: ${both.join(', ')}`,
    )
  if (values.storageDriver !== 'overlay2' && values.storageDriver !== 'overlay')
    mistakes.push(`storage driver "${String(values.storageDriver)}" is not supported; use overlay2`)
  const options = resolve(values)
  mistakes.push(...mistakesOf(options))
  if (mistakes.length === 1) throw invalid('configuration', mistakes[0]!, { mistakes })
  if (mistakes.length > 1)
    throw invalid(
      'configuration',
      `the configuration has ${mistakes.length} mistakes:\n${mistakes.map((m) => `  - ${m}`).join('\n')}`,
      { mistakes },
    )
  return { options, validateOnly: values.validate === true }
}

const shown = (v: unknown): string =>
  Array.isArray(v) ? `[${v.map(shown).join(' ')}]` : v !== null && typeof v === 'object' ? JSON.stringify(v) : String(v)

function resolve(values: Record<string, unknown>): DaemonOptions {
  const warnings: string[] = []
  if (values.containerd) warnings.push('--containerd is accepted and ignored: Shoal runs containers itself')
  const runtimes: Record<string, string> = { ...(values.addRuntime as Record<string, string> | undefined) }
  for (const [name, r] of Object.entries((values.runtimes as Record<string, { path?: string }> | undefined) ?? {}))
    if (r.path) runtimes[name] = r.path
  const defaultRuntime = values.defaultRuntime as string
  const ulimits = Array.isArray(values.defaultUlimit) ? (values.defaultUlimit as DaemonOptions['defaultUlimits']) : []
  for (const [name, u] of Object.entries(
    (values.defaultUlimits as Record<string, { Soft?: number; Hard?: number }> | undefined) ?? {},
  ))
    ulimits.push({ Name: name, Soft: u.Soft ?? 0, Hard: u.Hard ?? u.Soft ?? 0 })
  const array = (v: unknown): string[] => (v as string[] | undefined) ?? []
  return {
    dataRoot: values.dataRoot as string,
    execRoot: values.execRoot as string,
    pidfile: values.pidfile as string,
    hosts: array(values.host).length > 0 ? array(values.host) : ['unix:///var/run/shoal/shoal.sock'],
    debug: values.debug === true,
    logLevel: values.debug === true ? 'debug' : (values.logLevel as LogLevel),
    labels: array(values.label),
    bip: values.bip as string,
    defaultAddressPools: (values.defaultAddressPool as DaemonOptions['defaultAddressPools'] | undefined) ?? [],
    cgroupParent: values.cgroupParent as string,
    insecureRegistries: array(values.insecureRegistry),
    registryMirrors: array(values.registryMirror),
    tls: values.tls === true || values.tlsverify === true,
    tlsVerify: values.tlsverify === true,
    tlsCaCert: values.tlscacert as string,
    tlsCert: values.tlscert as string,
    tlsKey: values.tlskey as string,
    metricsAddr: values.metricsAddr as string,
    runtimes,
    defaultRuntime,
    liveRestore: values.liveRestore === true,
    shutdownTimeoutSeconds: values.shutdownTimeout as number,
    group: values.group as string,
    storageDriver: 'overlay2',
    logDriver: values.logDriver as string,
    logOptions: {
      ...((values.logOpts as Record<string, string> | undefined) ?? {}),
      ...((values.logOpt as Record<string, string> | undefined) ?? {}),
    },
    dns: array(values.dns),
    dnsSearch: array(values.dnsSearch),
    dnsOptions: array(values.dnsOpt),
    mtu: values.mtu as number,
    defaultUlimits: ulimits,
    genericResources: array(values.nodeGenericResource),
    defaultAdvertiseAddr: values.swarmDefaultAdvertiseAddr as string,
    userlandProxy: isTrue(values.userlandProxy),
    iptables: isTrue(values.iptables),
    usernsRemap: values.usernsRemap as string,
    init: values.init === true,
    experimental: values.experimental === true,
    warnings,
  }
}

/** The file's good keys, and what is wrong with the others. A file that is no JSON object is one mistake. */
function readConfigFile(
  path: string,
  mustExist: boolean,
): { readonly values: Record<string, unknown>; readonly mistakes: string[] } {
  const wrong = (mistake: string) => ({ values: {}, mistakes: [mistake] })
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'ENOENT' && !mustExist) return { values: {}, mistakes: [] }
    return wrong(`unable to read the configuration file ${path}: ${(e as Error).message}`)
  }
  let parsed: unknown
  try {
    parsed = JSON.parse(text.trim() || '{}')
  } catch (e) {
    return wrong(`the configuration file ${path} is not valid JSON: ${(e as Error).message}`)
  }
  if (parsed === null || typeof parsed !== 'object' || Array.isArray(parsed))
    return wrong(`the configuration file ${path} must hold a JSON object`)
  const values = { ...(parsed as Record<string, unknown>) }
  const mistakes: string[] = []
  const validate = new Ajv({ allErrors: true, allowUnionTypes: true }).compile({
    type: 'object',
    properties: Object.fromEntries(Object.entries(FILE_KEYS).map(([k, v]) => [k, v.schema])),
    additionalProperties: false,
  })
  if (!validate(values))
    for (const e of validate.errors ?? []) {
      const unknown = e.keyword === 'additionalProperties' && e.instancePath === ''
      const key = unknown ? String(e.params.additionalProperty) : e.instancePath.slice(1).split('/')[0]!
      const choices = e.keyword === 'enum' ? ` (${(e.params.allowedValues as unknown[]).join(', ')})` : ''
      mistakes.push(
        unknown
          ? `${path}: "${key}" doesn't match any configuration option`
          : `${path}: ${e.instancePath.slice(1).replaceAll('/', '.')} ${e.message}${choices}, not ${shown(at(parsed, e.instancePath))}`,
      )
      delete values[key]
    }
  return { values, mistakes }
}

/** What a JSON pointer points to. */
const at = (document: unknown, pointer: string): unknown =>
  pointer
    .split('/')
    .slice(1)
    .reduce<unknown>((v, key) => (v as Record<string, unknown> | undefined)?.[key], document)
