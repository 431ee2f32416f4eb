import type { Api } from '../api.js'
import { type Cli, type Command, Exit, jsonObjects, printList } from '../command.js'
import { binarySize, humanSize } from '../format/units.js'

interface StatsJson {
  id: string
  name: string
  cpu_stats: { cpu_usage: { total_usage: number }; system_cpu_usage?: number; online_cpus?: number }
  precpu_stats: { cpu_usage: { total_usage: number }; system_cpu_usage?: number }
  memory_stats: { usage?: number; limit?: number; stats?: Record<string, number> }
  networks?: Record<string, { rx_bytes: number; tx_bytes: number }>
  blkio_stats: { io_service_bytes_recursive?: { op: string; value: number }[] | null }
  pids_stats: { current?: number }
}

const COLUMNS = {
  ID: 'CONTAINER ID',
  Container: 'CONTAINER',
  Name: 'NAME',
  CPUPerc: 'CPU %',
  MemUsage: 'MEM USAGE / LIMIT',
  MemPerc: 'MEM %',
  NetIO: 'NET I/O',
  BlockIO: 'BLOCK I/O',
  PIDs: 'PIDS',
}
const SHOWN = ['ID', 'Name', 'CPUPerc', 'MemUsage', 'MemPerc', 'NetIO', 'BlockIO', 'PIDs']

/** docker leaves page cache out of what it shows: total_inactive_file on cgroup v1, inactive_file on v2. */
function memoryUsed(m: StatsJson['memory_stats']): number {
  const usage = m.usage ?? 0
  const cache = m.stats?.total_inactive_file ?? m.stats?.inactive_file ?? 0
  return cache < usage ? usage - cache : usage
}

/** A row of the table out of one sample. `asked`: the reference that the user gave. */
export function statsRow(s: StatsJson, asked: string, trunc: boolean): Record<string, string> {
  const cpu = s.cpu_stats.cpu_usage.total_usage - s.precpu_stats.cpu_usage.total_usage
  const system = (s.cpu_stats.system_cpu_usage ?? 0) - (s.precpu_stats.system_cpu_usage ?? 0)
  const percent = system > 0 && cpu > 0 ? (cpu / system) * (s.cpu_stats.online_cpus ?? 1) * 100 : 0
  const used = memoryUsed(s.memory_stats)
  const limit = s.memory_stats.limit ?? 0
  const net = Object.values(s.networks ?? {})
  const sum = (v: readonly number[]): number => v.reduce((a, b) => a + b, 0)
  const io = (op: string): number =>
    sum((s.blkio_stats.io_service_bytes_recursive ?? []).filter((e) => e.op.toLowerCase() === op).map((e) => e.value))
  return {
    BlockIO: `${humanSize(io('read'), 3)} / ${humanSize(io('write'), 3)}`,
    CPUPerc: `${percent.toFixed(2)}%`,
    Container: asked,
    ID: trunc ? s.id.slice(0, 12) : s.id,
    MemPerc: `${(limit > 0 ? (used / limit) * 100 : 0).toFixed(2)}%`,
    MemUsage: `${binarySize(used)} / ${binarySize(limit)}`,
    Name: s.name.replace(/^\//, ''),
    NetIO: `${humanSize(sum(net.map((n) => n.rx_bytes)), 3)} / ${humanSize(sum(net.map((n) => n.tx_bytes)), 3)}`,
    PIDs: String(s.pids_stats.current ?? 0),
  }
}

interface Flags {
  all?: boolean
  format: string
  stream: boolean
  trunc: boolean
}

export function registerStats(parent: Command, cli: Cli): void {
  parent
    .command('stats')
    .description('Display a live stream of container(s) resource usage statistics')
    .argument('[container...]')
    .option('-a, --all', 'show all containers (default shows just running)')
    .option('--format <format>', "format output: 'table', 'table TEMPLATE', 'json' or a Go template", '')
    .option('--no-stream', 'disable streaming stats and only pull the first result')
    .option('--no-trunc', 'do not truncate output')
    .action(async (asked: string[], f: Flags) => {
      const api = await cli.api()
      if (f.stream) return follow(cli, api, asked, f)
      const ids = asked.length > 0 ? asked : await running(api, f.all ?? false)
      const failures: string[] = []
      const rows = await Promise.all(
        ids.map(async (id) => {
          try {
            const s = await api.get<StatsJson>(`/containers/${encodeURIComponent(id)}/stats`, { stream: 'false' })
            return [statsRow(s, id, f.trunc)]
          } catch (e) {
            if (asked.length > 0) failures.push((e as Error).message)
            return [] // It ended since the list was read.
          }
        }),
      )
      if (failures.length > 0) throw new Exit(1, failures.join('\n'))
      show(cli, rows.flat(), f)
    })
}

async function running(api: Api, all: boolean): Promise<string[]> {
  const found = await api.get<{ Id: string }[]>('/containers/json', { all })
  return found.map((c) => c.Id.slice(0, 12))
}

function show(cli: Cli, rows: readonly Record<string, string>[], f: Flags): void {
  printList(cli, rows, { columns: COLUMNS, shown: SHOWN, id: 'ID' }, { format: f.format })
}

/** A stream for each container; the table is drawn twice a second out of the last samples. New containers join by events. */
async function follow(cli: Cli, api: Api, asked: readonly string[], f: Flags): Promise<void> {
  const last = new Map<string, Record<string, string>>()
  const open = new Map<string, Promise<void>>()
  const watch = (id: string): void => {
    if (open.has(id)) return
    open.set(
      id,
      (async () => {
        try {
          const stream = await api.stream('GET', `/containers/${encodeURIComponent(id)}/stats`, {
            query: { stream: true },
          })
          for await (const s of jsonObjects(stream)) last.set(id, statsRow(s as unknown as StatsJson, id, f.trunc))
        } finally {
          last.delete(id)
          open.delete(id)
        }
      })(),
    )
  }
  for (const id of asked.length > 0 ? asked : await running(api, f.all ?? false)) watch(id)
  let failure: Error | null = null
  const fails = (e: Error): void => {
    failure = e
  }
  for (const p of open.values()) p.catch(fails)
  if (asked.length === 0) {
    const events = await api.stream('GET', '/events', { query: { filters: { type: ['container'], event: ['start'] } } })
    ;(async () => {
      for await (const e of jsonObjects(events)) watch((e as { Actor: { ID: string } }).Actor.ID.slice(0, 12))
    })().catch(fails)
  }
  const plain = f.format !== '' && !f.format.startsWith('table')
  for (;;) {
    if (failure) throw failure
    if (!plain) cli.out('\u001b[H\u001b[J')
    show(cli, [...last.values()], f)
    if (asked.length > 0 && open.size === 0) return
    await new Promise((resolve) => setTimeout(resolve, 500))
  }
}
