import { posix } from 'node:path'
import type { HostConfig } from '../types.js'

export interface OciMount {
  readonly destination: string
  readonly type: string
  readonly source: string
  readonly options: readonly string[]
}

/** A mount of the container with the path on the host that backs it. */
export interface SpecMount {
  readonly type: 'bind' | 'volume' | 'tmpfs'
  /** Empty for tmpfs. */
  readonly source: string
  readonly destination: string
  readonly rw: boolean
  readonly propagation: string
  readonly recursive: boolean
  /** tmpfs options beyond the defaults ("size=64m"). */
  readonly options: readonly string[]
}

export const DEFAULT_SHM_BYTES = 64 * 1024 * 1024

export const MASKED_PATHS: readonly string[] = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/interrupts',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/sys/devices/virtual/powercap',
  '/sys/firmware',
]

export const READONLY_PATHS: readonly string[] = [
  '/proc/bus',
  '/proc/fs',
  '/proc/irq',
  '/proc/sys',
  '/proc/sysrq-trigger',
]

const m = (destination: string, type: string, source: string, options: readonly string[]): OciMount => ({
  destination,
  type,
  source,
  options,
})

/**
 * What is in every container: proc, dev, pts, sys, cgroup, mqueue, shm. `shm` null leaves /dev/shm to the caller (host or
 * another container's), and `mqueue` false likewise.
 */
export function baseMounts(options: {
  readonly privileged: boolean
  readonly shm: { readonly bytes: number } | null
  /** "host": bound from there; "none": left out (the host has none to share). */
  readonly mqueue: 'own' | 'host' | 'none'
}): OciMount[] {
  const writable = options.privileged ? [] : ['ro']
  return [
    m('/proc', 'proc', 'proc', ['nosuid', 'noexec', 'nodev']),
    m('/dev', 'tmpfs', 'tmpfs', ['nosuid', 'strictatime', 'mode=755', 'size=65536k']),
    m('/dev/pts', 'devpts', 'devpts', ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5']),
    m('/sys', 'sysfs', 'sysfs', ['nosuid', 'noexec', 'nodev', ...writable]),
    m('/sys/fs/cgroup', 'cgroup', 'cgroup', [...writable, 'nosuid', 'noexec', 'nodev']),
    ...(options.mqueue === 'own'
      ? [m('/dev/mqueue', 'mqueue', 'mqueue', ['nosuid', 'noexec', 'nodev'])]
      : options.mqueue === 'host'
        ? [m('/dev/mqueue', 'bind', '/dev/mqueue', ['rbind', 'rprivate'])]
        : []),
    ...(options.shm
      ? [m('/dev/shm', 'tmpfs', 'shm', ['nosuid', 'noexec', 'nodev', 'mode=1777', `size=${options.shm.bytes}`])]
      : []),
  ]
}

/** hosts, hostname and resolv.conf of a container, unless a mount of its own covers them. */
export function fileMounts(files: {
  readonly hosts: string
  readonly hostname: string
  readonly resolvConf: string
  /** As the root is. */
  readonly readonly: boolean
}): OciMount[] {
  const bind = (source: string, destination: string): OciMount =>
    m(destination, 'bind', source, ['rbind', 'rprivate', ...(files.readonly ? ['ro'] : [])])
  return [
    bind(files.resolvConf, '/etc/resolv.conf'),
    bind(files.hostname, '/etc/hostname'),
    bind(files.hosts, '/etc/hosts'),
  ]
}

function userMount(mount: SpecMount): OciMount {
  if (mount.type === 'tmpfs')
    return m(mount.destination, 'tmpfs', 'tmpfs', [
      ...['nosuid', 'nodev', 'noexec'].filter((o) => !mount.options.includes(o.slice(2))),
      ...mount.options,
      ...(mount.rw || mount.options.includes('ro') ? [] : ['ro']),
    ])
  return m(mount.destination, 'bind', mount.source, [
    mount.recursive ? 'rbind' : 'bind',
    ...(mount.rw ? [] : ['ro']),
    mount.propagation || 'rprivate',
  ])
}

/** Base mounts, files, then the user's, each before what lies below it; one of the user's replaces a base mount. */
export function composeMounts(base: readonly OciMount[], files: readonly OciMount[], user: readonly SpecMount[]) {
  const destinations = new Set(user.map((u) => posix.normalize(u.destination)))
  const depth = (mount: OciMount): number => posix.normalize(mount.destination).split('/').length
  const ours = [...user.map(userMount), ...files.filter((f) => !destinations.has(f.destination))]
  return [
    // A mount on /dev takes the place of the tmpfs there, but what is below /dev is still wanted.
    ...base.filter((b) => !destinations.has(b.destination)),
    ...ours.sort((a, b) => depth(a) - depth(b)),
  ]
}

/** The propagation of the root that a bind's propagation needs (mount_namespaces(7)). */
export function rootPropagation(mounts: readonly SpecMount[]): string | undefined {
  if (mounts.some((b) => b.propagation.endsWith('shared'))) return 'shared'
  if (mounts.some((b) => b.propagation.endsWith('slave'))) return 'rslave'
  return undefined
}

export const shmBytes = (host: HostConfig): number =>
  host.ShmSize && host.ShmSize > 0 ? host.ShmSize : DEFAULT_SHM_BYTES
