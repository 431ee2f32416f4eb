import { readFileSync } from 'node:fs'
import { Ajv } from 'ajv'
import { Command, Option } from 'commander'
import { invalid } from '../common/index.js'
import type { LogLevel } from '../common/log.js'
import { mistakesOf } from './check.js'
import { type AddressBlock, FILE_ONLY, type RuntimeSetting, SETTINGS, type Setting, type Ulimit } from './settings.js'

/** Everything the daemon can be told, from flags and daemon.json together; names as dockerd has them. */
export interface DaemonOptions {
  dataRoot: string
  execRoot: string
  pidfile: string
  hosts: string[]
  group: string
  corsHeader: string
  tls: boolean
  tlsVerify: boolean
  tlsCaCert: string
  tlsCert: string
  tlsKey: string
  debug: boolean
  logLevel: LogLevel
  logFormat: 'text' | 'json'
  rawLogs: boolean
  labels: string[]
  genericResources: string[]
  defaultAdvertiseAddr: string
  experimental: boolean
  metricsAddr: string
  liveRestore: boolean
  shutdownTimeoutSeconds: number
  oomScoreAdjust: number
  insecureRegistries: string[]
  registryMirrors: string[]
  authorizationPlugins: string[]
  maxConcurrentDownloads: number
  maxConcurrentUploads: number
  maxDownloadAttempts: number
  storageDriver: string
  runtimes: Record<string, RuntimeSetting>
  defaultRuntime: string
  cgroupParent: string
  execOptions: string[]
  init: boolean
  defaultUlimits: Ulimit[]
  defaultShmBytes: number
  defaultIpcMode: string
  /** "": private on cgroup v2, host on v1. */
  defaultCgroupnsMode: string
  noNewPrivileges: boolean
  seccompProfile: string
  logDriver: string
  logOptions: Record<string, string>
  bip: string
  bridge: string
  fixedCidr: string
  defaultGateway: string
  ipv6: boolean
  fixedCidrV6: string
  defaultGatewayV6: string
  icc: boolean
  publishAddress: string
  ipForward: boolean
  ipMasquerade: boolean
  iptables: boolean
  ip6tables: boolean
  userlandProxy: boolean
  mtu: number
  defaultAddressPools: AddressBlock[]
  hostGatewayIp: string
  dns: string[]
  dnsSearch: string[]
  dnsOptions: string[]
  warnings: string[]
  /** What was asked for and cannot be had. */
  refused: string[]
}

const validFile = new Ajv({ allErrors: true, allowUnionTypes: true }).compile({
  type: 'object',
  properties: {
    graph: { type: 'string' },
    ...Object.fromEntries(SETTINGS.map((s) => [s.key, s.kind.schema])),
    ...Object.fromEntries(FILE_ONLY.map((s) => [s.key, s.schema])),
  },
  additionalProperties: false,
})

/** Flags that say how to run, and old names; not settings. */
interface RunFlags {
  configFile: string
  validate?: boolean
  graph?: string
}

function command(version: string): Command {
  const cmd = new Command('shoald')
    .description(
      'The Shoal engine: images, containers, networks, volumes and the swarm of this host, behind the Docker Engine API',
    )
    .version(`Shoal version ${version}`, '-v, --version')
    .option('--config-file <file>', 'configuration file', '/etc/shoal/daemon.json')
    .option('--validate', 'say whether the configuration is good, and end')
    .addOption(new Option('-g, --graph <dir>', 'old name of --data-root').hideHelp())
  for (const s of SETTINGS) cmd.addOption(optionOf(s))
  return cmd.allowExcessArguments(false).exitOverride()
}

function optionOf({ flags, about, kind }: Setting): Option {
  const option = new Option(flags, about).default(kind.initial)
  // commander would take --no-new-privileges for the opposite of --new-privileges.
  option.negate = false
  return kind.parse ? option.argParser(kind.parse as (text: string, before: unknown) => unknown) : option
}

/** Where commander keeps the value of each key's flag. */
const ATTRIBUTES = new Map(SETTINGS.map((s) => [s.key, optionOf(s).attributeName()]))

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
  // -b=none, as dockerd's flags may be written
  cmd.parse(
    argv.map((a) => a.replace(/^(-[A-Za-z])=/, '$1')),
    { from: 'user' },
  )
  const flags = cmd.opts<RunFlags & Record<string, unknown>>()
  const given = (attribute: string): boolean => cmd.getOptionValueSource(attribute) === 'cli'
  const { values: file, mistakes } = readConfigFile(flags.configFile, given('configFile'))
  if (file.has('graph') && !file.has('data-root')) file.set('data-root', file.get('graph'))
  const both: string[] = []
  const values = new Map<string, unknown>()
  const warnings: string[] = []
  for (const { key, ignored } of SETTINGS) {
    const attribute = ATTRIBUTES.get(key)!
    if (given(attribute) && file.has(key))
      both.push(`${key}: (from flag: ${shown(flags[attribute])}, from file: ${shown(file.get(key))})`)
    values.set(key, file.get(key) ?? flags[attribute])
    if (ignored && (given(attribute) || file.has(key))) warnings.push(withoutEffect(key, ignored))
  }
  for (const { key, ignored } of FILE_ONLY) if (ignored && file.has(key)) warnings.push(withoutEffect(key, ignored))
  if (flags.graph !== undefined && !given('dataRoot')) values.set('data-root', flags.graph)
  if (both.length > 0)
    mistakes.push(
      `the following directives are specified both as a flag and in the configuration file: ${both.join(', ')}`,
    )
  // dockerd turns TLS on for --tlsverify=false too.
  const options = resolve(values, warnings, given('tlsverify') || file.has('tlsverify'))
  mistakes.push(...mistakesOf(options))
  if (mistakes.length === 1) throw invalid('configuration', mistakes[0]!, { mistakes })
  if (mistakes.length > 1)
    throw invalid(
      'configuration',
      `the configuration has ${mistakes.length} mistakes:\n${mistakes.map((m) => `  - ${m}`).join('\n')}`,
      { mistakes },
    )
  return { options, validateOnly: flags.validate === true }
}

const withoutEffect = (key: string, why: string): string => `${key} is accepted without effect: ${why}`

const shown = (v: unknown): string =>
  Array.isArray(v) ? `[${v.map(shown).join(' ')}]` : v !== null && typeof v === 'object' ? JSON.stringify(v) : String(v)

/** Settings that are refused when they are given, with what would be missing. */
const REFUSED: Readonly<Record<string, string>> = {
  'userns-remap': 'containers would run without the mapping',
  'selinux-enabled': 'containers get no labels',
  rootless: 'shoald runs as root',
  'cluster-store': 'Swarm classic is gone; use docker swarm init',
  'cluster-advertise': 'Swarm classic is gone; use docker swarm init',
  'cluster-store-opts': 'Swarm classic is gone; use docker swarm init',
  'storage-opts': 'overlay2 has no options here',
}

function resolve(values: ReadonlyMap<string, unknown>, warnings: string[], tlsVerifyGiven: boolean): DaemonOptions {
  const text = (key: string) => values.get(key) as string
  const is = (key: string) => values.get(key) as boolean
  const number = (key: string) => values.get(key) as number
  const list = (key: string) => (values.get(key) as string[] | undefined) ?? []
  const given = (key: string): boolean => (Array.isArray(values.get(key)) ? list(key).length > 0 : !!values.get(key))
  const tls = is('tls') || tlsVerifyGiven
  const hosts = [...new Set(list('hosts'))]
  return {
    dataRoot: text('data-root'),
    execRoot: text('exec-root'),
    pidfile: text('pidfile'),
    // With TLS the default is the socket that has it, as with dockerd.
    hosts: hosts.length > 0 ? hosts : [tls ? 'tcp://localhost:2376' : 'unix:///var/run/shoal/shoal.sock'],
    group: text('group'),
    corsHeader: text('api-cors-header'),
    tls,
    tlsVerify: is('tlsverify'),
    tlsCaCert: text('tlscacert'),
    tlsCert: text('tlscert'),
    tlsKey: text('tlskey'),
    debug: is('debug'),
    logLevel: is('debug') ? 'debug' : (text('log-level') as LogLevel),
    logFormat: text('log-format') as DaemonOptions['logFormat'],
    rawLogs: is('raw-logs'),
    labels: [...new Set(list('labels'))],
    genericResources: list('node-generic-resources'),
    defaultAdvertiseAddr: text('swarm-default-advertise-addr'),
    experimental: is('experimental'),
    metricsAddr: text('metrics-addr'),
    liveRestore: is('live-restore'),
    shutdownTimeoutSeconds: number('shutdown-timeout'),
    oomScoreAdjust: number('oom-score-adjust'),
    insecureRegistries: list('insecure-registries'),
    registryMirrors: list('registry-mirrors'),
    authorizationPlugins: [...new Set(list('authorization-plugins'))],
    maxConcurrentDownloads: number('max-concurrent-downloads'),
    maxConcurrentUploads: number('max-concurrent-uploads'),
    maxDownloadAttempts: number('max-download-attempts'),
    storageDriver: text('storage-driver'),
    runtimes: (values.get('runtimes') as DaemonOptions['runtimes'] | undefined) ?? {},
    defaultRuntime: text('default-runtime'),
    cgroupParent: text('cgroup-parent'),
    execOptions: list('exec-opts'),
    init: is('init'),
    defaultUlimits: (values.get('default-ulimits') as Ulimit[] | undefined) ?? [],
    defaultShmBytes: number('default-shm-size'),
    defaultIpcMode: text('default-ipc-mode'),
    defaultCgroupnsMode: text('default-cgroupns-mode'),
    noNewPrivileges: is('no-new-privileges'),
    seccompProfile: text('seccomp-profile'),
    logDriver: text('log-driver'),
    logOptions: (values.get('log-opts') as Record<string, string> | undefined) ?? {},
    bip: text('bip'),
    bridge: text('bridge'),
    fixedCidr: text('fixed-cidr'),
    defaultGateway: text('default-gateway'),
    ipv6: is('ipv6'),
    fixedCidrV6: text('fixed-cidr-v6'),
    defaultGatewayV6: text('default-gateway-v6'),
    icc: is('icc'),
    publishAddress: text('ip'),
    ipForward: is('ip-forward'),
    ipMasquerade: is('ip-masq'),
    iptables: is('iptables'),
    ip6tables: is('ip6tables'),
    userlandProxy: is('userland-proxy'),
    mtu: number('mtu'),
    defaultAddressPools: (values.get('default-address-pools') as AddressBlock[] | undefined) ?? [],
    hostGatewayIp: text('host-gateway-ip'),
    dns: list('dns'),
    dnsSearch: list('dns-search'),
    dnsOptions: list('dns-opts'),
    warnings,
    refused: Object.entries(REFUSED).flatMap(([key, why]) => (given(key) ? [`${key} is not supported: ${why}`] : [])),
  }
}

/** The file's good keys, and what is wrong with the others. A file that is no JSON object is one mistake. */
function readConfigFile(
  path: string,
  mustExist: boolean,
): { readonly values: Map<string, unknown>; readonly mistakes: string[] } {
  const wrong = (mistake: string) => ({ values: new Map<string, unknown>(), mistakes: [mistake] })
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'ENOENT' && !mustExist) return { values: new Map(), mistakes: [] }
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
  // A key of null is one that is not there.
  const values = Object.fromEntries(Object.entries(parsed).filter(([, v]) => v !== null))
  const mistakes: string[] = []
  if (!validFile(values))
    for (const e of validFile.errors ?? []) {
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
  const read = new Map(Object.entries(values))
  for (const { key, kind } of SETTINGS) {
    if (!kind.fromFile || !read.has(key)) continue
    try {
      read.set(key, kind.fromFile(read.get(key) as never))
    } catch (e) {
      read.delete(key)
      mistakes.push(`${path}: ${key} ${(e as Error).message}`)
    }
  }
  return { values: read, mistakes }
}

/** What a JSON pointer points to. */
const at = (document: unknown, pointer: string): unknown =>
  pointer
    .split('/')
    .slice(1)
    .reduce<unknown>((v, key) => (v as Record<string, unknown> | undefined)?.[key], document)
