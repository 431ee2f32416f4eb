import type { HostConfig } from '../types.js'

/** A device number as stat gives it. */
export interface DeviceNumber {
  readonly type: 'c' | 'b'
  readonly major: number
  readonly minor: number
}

export interface DeviceRule {
  readonly allow: boolean
  readonly type?: 'a' | 'c' | 'b'
  readonly major?: number
  readonly minor?: number
  readonly access: string
}

const CPU_PERIOD_US = 100_000

/** cpu quota in µs a period for `--cpus`; 10^9 = one core. */
export const nanoCpusToQuota = (nanoCpus: number): { period: number; quota: number } => ({
  period: CPU_PERIOD_US,
  quota: Math.max(1000, Math.round((nanoCpus * CPU_PERIOD_US) / 1e9)),
})

/** Only what was asked for: an absent member leaves the kernel's default (or, in an update, the present value). */
export function limits(host: HostConfig, deviceNumber: (path: string) => DeviceNumber): Record<string, unknown> {
  const memory = drop({
    limit: positive(host.Memory),
    reservation: positive(host.MemoryReservation),
    swap: host.MemorySwap ? host.MemorySwap : undefined,
    swappiness: host.MemorySwappiness != null && host.MemorySwappiness >= 0 ? host.MemorySwappiness : undefined,
    disableOOMKiller: host.OomKillDisable ? true : undefined,
  })
  const nano = host.NanoCpus ? nanoCpusToQuota(host.NanoCpus) : null
  const cpu = drop({
    shares: positive(host.CpuShares),
    period: nano?.period ?? positive(host.CpuPeriod),
    quota: nano?.quota ?? (host.CpuQuota ? host.CpuQuota : undefined),
    realtimePeriod: positive(host.CpuRealtimePeriod),
    realtimeRuntime: positive(host.CpuRealtimeRuntime),
    cpus: host.CpusetCpus || undefined,
    mems: host.CpusetMems || undefined,
  })
  const throttle = (list: readonly { Path: string; Rate: number }[] | null | undefined) =>
    list?.length
      ? list.map(({ Path, Rate }) => {
          const { major, minor } = deviceNumber(Path)
          return { major, minor, rate: Rate }
        })
      : undefined
  const blockIO = drop({
    weight: positive(host.BlkioWeight),
    weightDevice: host.BlkioWeightDevice?.length
      ? host.BlkioWeightDevice.map(({ Path, Weight }) => {
          const { major, minor } = deviceNumber(Path)
          return { major, minor, weight: Weight }
        })
      : undefined,
    throttleReadBpsDevice: throttle(host.BlkioDeviceReadBps),
    throttleWriteBpsDevice: throttle(host.BlkioDeviceWriteBps),
    throttleReadIOPSDevice: throttle(host.BlkioDeviceReadIOps),
    throttleWriteIOPSDevice: throttle(host.BlkioDeviceWriteIOps),
  })
  return drop({
    memory: nonEmpty(memory),
    cpu: nonEmpty(cpu),
    pids: host.PidsLimit ? { limit: host.PidsLimit } : undefined,
    blockIO: nonEmpty(blockIO),
  })
}

/** What every container may use: the OCI specification's default devices, terminals, and making (not opening) of nodes. */
export const DEFAULT_DEVICE_RULES: readonly DeviceRule[] = [
  { allow: false, access: 'rwm' },
  { allow: true, type: 'c', access: 'm' },
  { allow: true, type: 'b', access: 'm' },
  ...(
    [
      [1, 3], // null
      [1, 5], // zero
      [1, 7], // full
      [1, 8], // random
      [1, 9], // urandom
      [5, 0], // tty
      [5, 1], // console
      [5, 2], // ptmx
    ] as const
  ).map(([major, minor]): DeviceRule => ({ allow: true, type: 'c', major, minor, access: 'rwm' })),
  { allow: true, type: 'c', major: 136, access: 'rwm' }, // pts
]

/** "c 188:* rwm" as `--device-cgroup-rule` has it; null when it is not of that form. */
export function parseDeviceRule(text: string): DeviceRule | null {
  const m = /^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$/.exec(text)
  if (!m) return null
  const number = (s: string): number | undefined => (s === '*' ? undefined : Number(s))
  return drop({
    allow: true,
    type: m[1] as 'a' | 'c' | 'b',
    major: number(m[2]!),
    minor: number(m[3]!),
    access: m[4]!,
  }) as DeviceRule
}

const positive = (n: number | null | undefined): number | undefined => (n && n > 0 ? n : undefined)

function drop<T extends Record<string, unknown>>(o: T): Partial<T> {
  return Object.fromEntries(Object.entries(o).filter(([, v]) => v !== undefined)) as Partial<T>
}

const nonEmpty = <T extends object>(o: T): T | undefined => (Object.keys(o).length > 0 ? o : undefined)
