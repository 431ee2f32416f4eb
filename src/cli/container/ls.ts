import { type Cli, type Command, filters, type ListFlags, listFlags, labels, printList, whole } from '../command.js'
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

/** "0.0.0.0:8080->80/tcp"; runs of ports with the same shift are joined. */
export function portsText(ports: Summary['Ports']): string {
  const groups: { ip: string; from: number; to: number; hostFrom: number; hostTo: number; type: string }[] = []
  for (const p of [...ports].sort((a, b) => a.PrivatePort - b.PrivatePort)) {
    const last = groups.find(
      (g) =>
        g.ip === (p.IP ?? '') &&
        g.type === p.Type &&
        g.to + 1 === p.PrivatePort &&
        (p.PublicPort === undefined ? g.hostTo === 0 : g.hostTo + 1 === p.PublicPort),
    )
    if (last) {
      last.to = p.PrivatePort
      if (p.PublicPort !== undefined) last.hostTo = p.PublicPort
    } else
      groups.push({
        ip: p.IP ?? '',
        from: p.PrivatePort,
        to: p.PrivatePort,
        hostFrom: p.PublicPort ?? 0,
        hostTo: p.PublicPort ?? 0,
        type: p.Type,
      })
  }
  const range = (a: number, b: number): string => (a === b ? String(a) : `${a}-${b}`)
  return groups
    .map(
      (g) =>
        `${g.hostFrom ? `${g.ip.includes(':') ? `[${g.ip}]` : g.ip}:${range(g.hostFrom, g.hostTo)}->` : ''}${range(g.from, g.to)}/${g.type}`,
    )
    .join(', ')
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
          size: f.size ?? /\.Size\b/.test(f.format ?? ''),
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
