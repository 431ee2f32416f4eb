import { type Cli, type Command, filters, type ListFlags, labels, listFlags, printList, whole } from '../command.js'
import { ago, goTime, humanSize } from '../format/units.js'

interface Summary {
  Id: string
  Names: string[]
  Image: string
  ImageID: string
  Command: string
  Created: number
  Ports: { IP?: string; PrivatePort: number; PublicPort?: number; Type: string }[]
  Labels: Record<string, string>
  State: string
  Status: string
  SizeRw?: number
  SizeRootFs?: number
  Mounts: { Name?: string; Source: string; Type: string }[]
  NetworkSettings: { Networks: Record<string, object> }
}

const COLUMNS = {
  ID: 'CONTAINER ID',
  Image: 'IMAGE',
  Command: 'COMMAND',
  CreatedAt: 'CREATED AT',
  RunningFor: 'CREATED',
  Ports: 'PORTS',
  State: 'STATE',
  Status: 'STATUS',
  Size: 'SIZE',
  Names: 'NAMES',
  Labels: 'LABELS',
  LocalVolumes: 'LOCAL VOLUMES',
  Mounts: 'MOUNTS',
  Networks: 'NETWORKS',
}

const ellipsis = (s: string, n: number): string => ([...s].length > n ? `${[...s].slice(0, n - 1).join('')}…` : s)

/**
 * "9000-9001/udp, 0.0.0.0:8080->80/tcp": neighbours are joined where the host's port is the container's, or there is none;
 * the others follow, each by itself.
 */
export function portsText(ports: Summary['Ports']): string {
  const address = (ip: string): string => (ip.includes(':') ? `[${ip}]` : ip)
  const groups = new Map<string, { ip: string; type: string; first: number; last: number }>()
  const done: string[] = []
  const mapped: string[] = []
  const text = (g: { ip: string; type: string; first: number; last: number }): string => {
    const range = g.first === g.last ? String(g.first) : `${g.first}-${g.last}`
    return `${g.ip ? `${address(g.ip)}:${range}->` : ''}${range}/${g.type}`
  }
  const sorted = [...ports].sort(
    (a, b) =>
      a.PrivatePort - b.PrivatePort ||
      (a.IP ?? '').localeCompare(b.IP ?? '') ||
      (a.PublicPort ?? 0) - (b.PublicPort ?? 0) ||
      a.Type.localeCompare(b.Type),
  )
  for (const p of sorted) {
    if (p.IP && p.PublicPort !== p.PrivatePort) {
      mapped.push(`${address(p.IP)}:${p.PublicPort}->${p.PrivatePort}/${p.Type}`)
      continue
    }
    const key = `${p.IP ?? ''}/${p.Type}`
    const group = groups.get(key)
    if (group && group.last + 1 === p.PrivatePort) {
      group.last = p.PrivatePort
      continue
    }
    if (group) done.push(text(group))
    groups.set(key, { ip: p.IP ?? '', type: p.Type, first: p.PrivatePort, last: p.PrivatePort })
  }
  return [...done, ...[...groups.values()].map(text), ...mapped].join(', ')
}

export function registerLs(parent: Command, cli: Cli, name: string, aliases: readonly string[]): void {
  listFlags(parent.command(name).aliases(aliases).description('List containers'))
    .option('-a, --all', 'all containers, not only running ones')
    .option('-n, --last <n>', 'the last N created', whole)
    .option('-l, --latest', 'the last created')
    .option('--no-trunc', 'whole ids and commands')
    .option('-s, --size', 'total file sizes')
    .action(
      async (f: ListFlags & { all?: boolean; last?: number; latest?: boolean; size?: boolean; trunc: boolean }) => {
        const api = await cli.api()
        const limit = f.latest ? 1 : f.last !== undefined && f.last > 0 ? f.last : undefined
        const found = await api.get<Summary[]>('/containers/json', {
          all: f.all ?? false,
          limit,
          // A template that shows sizes asks for them.
          size: f.size ?? /\.Size\b|json \.\s*\}/.test(f.format ?? ''),
          filters: filters(f.filter),
        })
        const rows = found.map((c) => ({
          ID: f.trunc ? c.Id.slice(0, 12) : c.Id,
          Image: c.Image,
          Command: JSON.stringify(f.trunc ? ellipsis(c.Command, 20) : c.Command),
          CreatedAt: goTime(c.Created * 1000),
          RunningFor: ago(Date.now() - c.Created * 1000),
          Platform: null,
          Ports: portsText(c.Ports),
          State: c.State,
          Status: c.Status,
          Size:
            c.SizeRw === undefined && c.SizeRootFs === undefined
              ? '0B'
              : `${humanSize(c.SizeRw ?? 0, 3)} (virtual ${humanSize(c.SizeRootFs ?? 0, 3)})`,
          // Names of links (/other/alias) are not shown, unless nothing is cut.
          Names: c.Names.map((n) => n.slice(1))
            .filter((n) => !f.trunc || !n.includes('/'))
            .join(','),
          ...labels(c.Labels),
          LocalVolumes: String(c.Mounts.filter((m) => m.Type === 'volume').length),
          Mounts: c.Mounts.map((m) => (f.trunc ? ellipsis(m.Name ?? m.Source, 15) : (m.Name ?? m.Source))).join(','),
          Networks: Object.keys(c.NetworkSettings.Networks).join(','),
        }))
        const shown = ['ID', 'Image', 'Command', 'RunningFor', 'Status', 'Ports', 'Names', ...(f.size ? ['Size'] : [])]
        printList(cli, rows, { columns: COLUMNS, shown, id: 'ID' }, f)
      },
    )
}
