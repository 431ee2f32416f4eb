import { invalid } from '../../common/index.js'

/** Linux's capabilities in the order of their numbers (capabilities(7)); index = number. */
export const CAPABILITIES: readonly string[] = [
  'CHOWN',
  'DAC_OVERRIDE',
  'DAC_READ_SEARCH',
  'FOWNER',
  'FSETID',
  'KILL',
  'SETGID',
  'SETUID',
  'SETPCAP',
  'LINUX_IMMUTABLE',
  'NET_BIND_SERVICE',
  'NET_BROADCAST',
  'NET_ADMIN',
  'NET_RAW',
  'IPC_LOCK',
  'IPC_OWNER',
  'SYS_MODULE',
  'SYS_RAWIO',
  'SYS_CHROOT',
  'SYS_PTRACE',
  'SYS_PACCT',
  'SYS_ADMIN',
  'SYS_BOOT',
  'SYS_NICE',
  'SYS_RESOURCE',
  'SYS_TIME',
  'SYS_TTY_CONFIG',
  'MKNOD',
  'LEASE',
  'AUDIT_WRITE',
  'AUDIT_CONTROL',
  'SETFCAP',
  'MAC_OVERRIDE',
  'MAC_ADMIN',
  'SYSLOG',
  'WAKE_ALARM',
  'BLOCK_SUSPEND',
  'AUDIT_READ',
  'PERFMON',
  'BPF',
  'CHECKPOINT_RESTORE',
].map((name) => `CAP_${name}`)

/** What a container has unless told otherwise: docker's list. */
export const DEFAULT_CAPABILITIES: readonly string[] = [
  'CHOWN',
  'DAC_OVERRIDE',
  'FSETID',
  'FOWNER',
  'MKNOD',
  'NET_RAW',
  'SETGID',
  'SETUID',
  'SETFCAP',
  'SETPCAP',
  'NET_BIND_SERVICE',
  'SYS_CHROOT',
  'KILL',
  'AUDIT_WRITE',
].map((name) => `CAP_${name}`)

const ALL = 'ALL'

/** "net_admin" → "CAP_NET_ADMIN"; "all" → "ALL". @throws invalid `unknownCapability` with docker's sentence. */
export function normalizeCapability(name: string, field: 'CapAdd' | 'CapDrop'): string {
  const upper = name.toUpperCase()
  if (upper === ALL) return ALL
  const full = upper.startsWith('CAP_') ? upper : `CAP_${upper}`
  if (!CAPABILITIES.includes(full))
    throw invalid('unknownCapability', `invalid ${field}: unknown capability: "${full}"`, { capability: full })
  return full
}

/**
 * The capabilities of a container. `bounding` is what this daemon may give at all: a capability beyond it is left out, as
 * execve would fail otherwise (docker does the same inside another container).
 */
export function effectiveCapabilities(options: {
  readonly add: readonly string[]
  readonly drop: readonly string[]
  readonly privileged: boolean
  readonly bounding: readonly string[]
}): readonly string[] {
  const { privileged, bounding } = options
  if (privileged) return bounding
  const add = options.add.map((c) => normalizeCapability(c, 'CapAdd'))
  const drop = options.drop.map((c) => normalizeCapability(c, 'CapDrop'))
  let wanted: readonly string[]
  if (add.includes(ALL)) wanted = CAPABILITIES.filter((c) => !drop.includes(c))
  else if (drop.includes(ALL)) wanted = CAPABILITIES.filter((c) => add.includes(c))
  else wanted = CAPABILITIES.filter((c) => add.includes(c) || (DEFAULT_CAPABILITIES.includes(c) && !drop.includes(c)))
  return wanted.filter((c) => bounding.includes(c))
}

/** From the CapBnd line of /proc/self/status. */
export function parseCapabilityMask(hex: string): readonly string[] {
  const mask = BigInt(`0x${hex}`)
  return CAPABILITIES.filter((_, number) => (mask >> BigInt(number)) & 1n)
}
