/** "name value" lines of cpu.stat, memory.stat and the like. */
export function parseFlat(text: string): Record<string, number> {
  const values: Record<string, number> = {}
  for (const line of text.split('\n')) {
    const [name, value] = line.split(' ')
    if (name && value !== undefined) values[name] = Number(value)
  }
  return values
}

export interface BlkioCounter {
  readonly major: number
  readonly minor: number
  readonly op: string
  readonly bytes: number
  readonly ops: number
}

/** cgroup v2 io.stat: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0". */
export function parseIoStat(text: string): BlkioCounter[] {
  return text.split('\n').flatMap((line) => {
    const [device = '', ...pairs] = line.trim().split(' ')
    const [major, minor] = device.split(':').map(Number)
    if (major === undefined || minor === undefined || Number.isNaN(major)) return []
    const values = Object.fromEntries(pairs.map((p) => p.split('=') as [string, string]))
    return [
      { major, minor, op: 'read', bytes: Number(values.rbytes ?? 0), ops: Number(values.rios ?? 0) },
      { major, minor, op: 'write', bytes: Number(values.wbytes ?? 0), ops: Number(values.wios ?? 0) },
    ]
  })
}

/** cgroup v1 blkio.throttle.io_service_bytes with its io_serviced: "8:0 Read 4096". */
export function parseBlkio(bytes: string, ops: string): BlkioCounter[] {
  const read = (text: string): Map<string, number> => {
    const values = new Map<string, number>()
    for (const line of text.split('\n')) {
      const [device, op, value] = line.split(' ')
      if (device && op && value !== undefined) values.set(`${device} ${op.toLowerCase()}`, Number(value))
    }
    return values
  }
  const counts = read(ops)
  return [...read(bytes)].map(([key, value]) => {
    const [device = '', op = ''] = key.split(' ')
    const [major = 0, minor = 0] = device.split(':').map(Number)
    return { major, minor, op, bytes: value, ops: counts.get(key) ?? 0 }
  })
}

/** Clock ticks of /proc and cpuacct.stat: USER_HZ is 100 on every Linux of today (sysconf(3)). */
const NS_PER_TICK = 1e7

/** The host's whole CPU time in ns, and how many CPUs are on line, from /proc/stat (proc(5)). */
export function parseProcStat(text: string): { readonly systemNs: number; readonly onlineCpus: number } {
  let systemNs = 0
  let onlineCpus = 0
  for (const line of text.split('\n')) {
    const [name = '', ...fields] = line.split(/\s+/)
    // user nice system idle iowait irq softirq; guest time is in user already.
    if (name === 'cpu') systemNs = fields.slice(0, 7).reduce((sum, f) => sum + Number(f), 0) * NS_PER_TICK
    else if (/^cpu\d+$/.test(name)) onlineCpus++
  }
  return { systemNs, onlineCpus }
}

export const ticksToNs = (ticks: number): number => ticks * NS_PER_TICK
