import { lookup } from 'node:dns/promises'
import { existsSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { invalid, ShoalError } from '../../common/index.js'
import type { ShimForward, ShimLog } from '../../runtime/index.js'
import type { Container } from '../container.js'

export const LOG_DRIVERS: readonly string[] = ['journald', 'json-file', 'local', 'none', 'syslog']

const JOURNAL_SOCKET = '/run/systemd/journal/socket'
/** Where a local syslog server may listen, in the order in which they are tried. */
const SYSLOG_SOCKETS = ['/dev/log', '/var/run/syslog', '/var/run/log']
const SYSLOG_PORT = 514
const LOG_DAEMON = 3
/** RFC 5424, 6.2.1, by their names in syslog(3). */
const FACILITIES: Readonly<Record<string, number>> = {
  kern: 0,
  user: 1,
  mail: 2,
  daemon: 3,
  auth: 4,
  syslog: 5,
  lpr: 6,
  news: 7,
  uucp: 8,
  cron: 9,
  authpriv: 10,
  ftp: 11,
  local0: 16,
  local1: 17,
  local2: 18,
  local3: 19,
  local4: 20,
  local5: 21,
  local6: 22,
  local7: 23,
}
const FORMATS = ['', 'rfc3164', 'rfc5424', 'rfc5424micro']

const COMMON = ['labels', 'labels-regex', 'env', 'env-regex', 'tag', 'mode', 'max-buffer-size']
const FILES = [...COMMON, 'max-file', 'max-size', 'compress']
const REMOTE = [...COMMON, 'cache-disabled', 'cache-max-size', 'cache-max-file', 'cache-compress']
const OPTIONS: Readonly<Record<string, readonly string[]>> = {
  'json-file': FILES,
  local: FILES,
  journald: REMOTE,
  syslog: [
    ...REMOTE,
    'syslog-address',
    'syslog-facility',
    'syslog-format',
    'syslog-tls-ca-cert',
    'syslog-tls-cert',
    'syslog-tls-key',
    'syslog-tls-skip-verify',
  ],
}

type Options = Readonly<Record<string, string>>

const refuse = (message: string, fields: Record<string, unknown> = {}): never => {
  throw invalid('invalidLogOption', message, fields)
}

/** Throws invalid with docker's sentences. What depends on this host (a socket, a name) is asked at the start. */
export function checkLogDriver(driver: string, options: Options): void {
  if (!LOG_DRIVERS.includes(driver)) refuse(`logger: no log driver named '${driver}' is registered`, { driver })
  if (driver === 'none') return
  for (const key of Object.keys(options))
    if (!OPTIONS[driver]!.includes(key)) refuse(`unknown log opt '${key}' for ${driver} log driver`, { option: key })
  if (options.mode && !['blocking', 'non-blocking'].includes(options.mode))
    refuse(`logger: logging mode not supported: ${options.mode}`, { mode: options.mode })
  if (options['max-buffer-size'] && options.mode !== 'non-blocking')
    refuse(`logger: max-buffer-size option is only supported with 'mode=non-blocking'`)
  for (const key of ['labels-regex', 'env-regex'])
    if (options[key])
      try {
        new RegExp(options[key])
      } catch (e) {
        refuse(`log opt ${key}: ${(e as Error).message}`, { option: key })
      }
  checkTag(options.tag ?? '')
  files(driver, options)
  parseFlag('cache-disabled', options)
  if (driver === 'syslog') {
    syslogAddress(options['syslog-address'] ?? '')
    facility(options['syslog-facility'] ?? '')
    if (!FORMATS.includes(options['syslog-format'] ?? ''))
      refuse(`Invalid syslog format: "${options['syslog-format']}"; use rfc3164, rfc5424 or rfc5424micro`)
  }
}

const UNITS: Readonly<Record<string, number>> = { '': 1, b: 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3, t: 1024 ** 4 }

/** "10m" → bytes. @throws invalid `invalidSize`. */
export function parseSize(text: string): number {
  const m = /^(\d+(?:\.\d+)?) ?([kmgt]?)(?:i?b)?$/i.exec(text.trim())
  if (!m) throw invalid('invalidSize', `invalid size: '${text}'`, { size: text })
  return Math.floor(Number(m[1]) * UNITS[m[2]!.toLowerCase()]!)
}

/** docker's `local` driver, and the cache of what goes elsewhere, rotate by themselves; json-file only when told to. */
const LOCAL_MAX_SIZE_BYTES = 20 * 1024 ** 2
const LOCAL_MAX_FILES = 5
const DEFAULT_BUFFER_BYTES = 1024 ** 2

export const isForwarded = (driver: string): boolean => driver === 'syslog' || driver === 'journald'

/** A file is kept that `logs` can read. */
export const keepsFile = (driver: string, options: Options): boolean =>
  driver !== 'none' && !(isForwarded(driver) && parseFlag('cache-disabled', options) === true)

/** As Go reads booleans; null when the option is not there. */
function parseFlag(name: string, options: Options): boolean | null {
  const text = options[name]
  if (!text) return null
  if (!/^(1|0|t|f|true|false)$/i.test(text)) refuse(`log opt ${name}: "${text}" is neither true nor false`)
  return /^(1|t|true)$/i.test(text)
}

interface Files {
  readonly maxSizeBytes: number
  readonly maxFiles: number
  /** Null: as the driver has it. */
  readonly compress: boolean | null
}

const optionPrefix = (driver: string): string => (isForwarded(driver) ? 'cache-' : '')

function files(driver: string, options: Options): Files {
  const prefix = optionPrefix(driver)
  const rotates = driver !== 'json-file'
  const size = options[`${prefix}max-size`]
  const count = options[`${prefix}max-file`]
  const maxSizeBytes = size && size !== '-1' ? parseSize(size) : rotates ? LOCAL_MAX_SIZE_BYTES : 0
  const maxFiles = count ? Number(count) : rotates ? LOCAL_MAX_FILES : 1
  if (!Number.isInteger(maxFiles) || maxFiles < 1) refuse(`max-file cannot be less than 1: '${count}'`)
  // Without a size there is no second file, whatever their number: dockerd takes it without a word.
  return {
    maxSizeBytes,
    maxFiles: maxSizeBytes === 0 ? 1 : maxFiles,
    compress: parseFlag(`${prefix}compress`, options),
  }
}

/** Compressing needs rotated files. Asked at the start, where the daemon's options and the container's are one. */
function isCompressed(driver: string, { maxFiles, compress }: Files): boolean {
  const prefix = optionPrefix(driver)
  if (compress === true && maxFiles < 2)
    refuse(
      `failed to initialize logging driver: ${prefix}compress cannot be true when ${prefix}max-file is less than 2 or ${prefix}max-size is not set`,
    )
  return compress ?? (driver !== 'json-file' && maxFiles > 1)
}

/** How many files the log of a container has at most. */
export function maxLogFiles(container: Container): number {
  const { Type: driver = 'json-file', Config } = container.record.hostConfig.LogConfig ?? {}
  return files(driver, Config ?? {}).maxFiles
}

/** Where and how the shim writes a container's log; null for the driver `none`. `nativeDir`: of the programs that the shim starts. */
export async function shimLog(container: Container, nativeDir: string): Promise<ShimLog | null> {
  const { Type: driver = 'json-file', Config } = container.record.hostConfig.LogConfig ?? {}
  const options = Config ?? {}
  if (driver === 'none') return null
  const kept = files(driver, options)
  return {
    driver: 'json-file',
    path: keepsFile(driver, options) ? container.logPath : null,
    maxSizeBytes: kept.maxSizeBytes,
    maxFiles: kept.maxFiles,
    compressor: isCompressed(driver, kept) ? join(nativeDir, 'shoal-compress') : null,
    mode: options.mode === 'non-blocking' ? 'non-blocking' : 'blocking',
    bufferBytes: options['max-buffer-size'] ? parseSize(options['max-buffer-size']) : DEFAULT_BUFFER_BYTES,
    extra: isForwarded(driver) ? null : extraAttributes(container, options),
    forward: isForwarded(driver) ? await forward(driver, container, options, nativeDir) : null,
  }
}

async function forward(
  driver: string,
  container: Container,
  options: Options,
  nativeDir: string,
): Promise<ShimForward> {
  const tag = expandTag(options.tag || '{{.ID}}', container)
  const bufferBytes = options['max-buffer-size'] ? parseSize(options['max-buffer-size']) : DEFAULT_BUFFER_BYTES
  if (driver === 'journald') {
    if (!existsSync(JOURNAL_SOCKET))
      refuse(
        `failed to initialize logging driver: journald is not enabled on this host: ${JOURNAL_SOCKET} is not there`,
      )
    return {
      driver: 'journald',
      network: 'unixgram',
      address: JOURNAL_SOCKET,
      port: 0,
      format: 'unix',
      facility: 0,
      tag,
      hostname: '',
      bufferBytes,
      fields: journalFields(container, tag, extraAttributes(container, { ...options, tag: '' }) ?? {}),
    }
  }
  const { isTls, ...where } = syslogAddress(options['syslog-address'] ?? '')
  return {
    driver: 'syslog',
    ...where,
    address: where.network === 'udp' || where.network === 'tcp' ? await resolved(where.address) : where.address,
    tls: isTls
      ? { program: join(nativeDir, 'shoal-tls'), name: where.address, arguments: tlsArguments(options) }
      : null,
    format: (options['syslog-format'] || 'unix') as ShimForward['format'],
    facility: facility(options['syslog-facility'] ?? ''),
    tag,
    hostname: hostname(),
    bufferBytes,
    fields: {},
  }
}

/** docker's names of the journal's fields. */
export function journalFields(container: Container, tag: string, extra: Options): Record<string, string> {
  const { id, name, imageReference } = container.record
  const fields: Record<string, string> = {
    CONTAINER_ID: id.slice(0, 12),
    CONTAINER_ID_FULL: id,
    CONTAINER_NAME: name,
    CONTAINER_TAG: tag,
    IMAGE_NAME: imageReference,
    SYSLOG_IDENTIFIER: tag,
  }
  for (const [key, value] of Object.entries(extra)) {
    // The journal takes capital letters, digits and underscores, not in front.
    const field = key
      .toUpperCase()
      .replace(/[^A-Z0-9_]/g, '_')
      .replace(/^_+/, '')
    if (field && !(field in fields)) fields[field] = value
  }
  return fields
}

/** As dockerd: the host's CAs and this one; not to verify is asked for by the option's presence, whatever it says. */
function tlsArguments(options: Options): string[] {
  const args = (['ca', 'cert', 'key'] as const).flatMap((name) => {
    const file = options[`syslog-tls-${name === 'ca' ? 'ca-cert' : name}`]
    return file ? [`--${name}`, file] : []
  })
  return 'syslog-tls-skip-verify' in options ? [...args, '--skip-verify'] : args
}

interface SyslogAddress extends Pick<ShimForward, 'network' | 'address' | 'port'> {
  readonly isTls: boolean
}

/** `[udp|tcp|tcp+tls|unix|unixgram]://ADDRESS`; nothing: this host's own server. */
export function syslogAddress(text: string): SyslogAddress {
  if (text === '') {
    const address = SYSLOG_SOCKETS.find((p) => existsSync(p)) ?? SYSLOG_SOCKETS[0]!
    return { network: 'unix', address, port: 0, isTls: false }
  }
  const m = /^(udp|tcp|tcp\+tls|unix|unixgram):\/\/(.+)$/.exec(text)
  if (!m) return refuse(`syslog-address should be in form proto://address, got ${text}`, { address: text })
  const [, network, rest] = m as unknown as [string, string, string]
  if (network === 'unix' || network === 'unixgram') {
    if (!rest.startsWith('/'))
      refuse(`syslog-address: the socket's path must be absolute, got ${text}`, { address: text })
    return { network, address: rest, port: 0, isTls: false }
  }
  const host = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(rest)
  const port = host?.[3] === undefined ? SYSLOG_PORT : Number(host[3])
  if (!host || port < 1 || port > 65535)
    return refuse(`syslog-address should be in form proto://address, got ${text}`, { address: text })
  const address = host[1] ?? host[2]!
  return { network: network === 'udp' ? 'udp' : 'tcp', address, port, isTls: network === 'tcp+tls' }
}

async function resolved(name: string): Promise<string> {
  try {
    return (await lookup(name)).address
  } catch (cause) {
    throw new ShoalError(
      'unavailable',
      'noAddress',
      `failed to initialize logging driver: the log server's name "${name}" has no address`,
      { name },
      { cause },
    )
  }
}

function facility(text: string): number {
  if (text === '') return LOG_DAEMON
  const number = FACILITIES[text] ?? (/^\d{1,2}$/.test(text) ? Number(text) : Number.NaN)
  if (!(number >= 0 && number <= 23)) refuse(`invalid syslog facility: "${text}"; use a name like daemon, or 0 to 23`)
  return number
}

/** The labels and variables that `--log-opt labels=a,b --log-opt env=C` copies into every line. */
function extraAttributes(container: Container, options: Options): Record<string, string> | null {
  const labels = container.record.config.Labels ?? {}
  const env = Object.fromEntries(
    (container.record.config.Env ?? []).map((e) => {
      const at = e.indexOf('=')
      return at < 0 ? [e, ''] : [e.slice(0, at), e.slice(at + 1)]
    }),
  )
  const extra: Record<string, string> = {}
  const pick = (from: Options, names = '', pattern = ''): void => {
    for (const name of names.split(',').filter(Boolean)) if (name in from) extra[name] = from[name]!
    if (pattern) {
      const matcher = new RegExp(pattern)
      for (const [name, value] of Object.entries(from)) if (matcher.test(name)) extra[name] = value
    }
  }
  pick(labels, options.labels, options['labels-regex'])
  pick(env, options.env, options['env-regex'])
  if (options.tag) extra.tag = expandTag(options.tag, container)
  return Object.keys(extra).length > 0 ? extra : null
}

const TAG_FIELDS = ['ID', 'FullID', 'Name', 'ImageID', 'ImageFullID', 'ImageName', 'DaemonName']

/** docker's tag is a Go template; its fields are what people use of it. */
function checkTag(tag: string): void {
  for (const [whole, inner] of tag.matchAll(/\{\{(.*?)\}\}/g))
    if (!TAG_FIELDS.includes(inner!.trim().replace(/^\./, '')))
      refuse(`log opt tag: "${whole}" is not known; use ${TAG_FIELDS.map((f) => `{{.${f}}}`).join(' ')}`, { tag })
}

const expandTag = (tag: string, container: Container): string =>
  tag.replace(/\{\{\s*\.(\w+)\s*\}\}/g, (whole, field: string) => {
    const { id, name, image, imageReference } = container.record
    const fields: Readonly<Record<string, string>> = {
      ID: id.slice(0, 12),
      FullID: id,
      Name: name,
      ImageID: image.replace('sha256:', '').slice(0, 12),
      ImageFullID: image,
      ImageName: imageReference,
      DaemonName: 'docker',
    }
    return fields[field] ?? whole
  })
