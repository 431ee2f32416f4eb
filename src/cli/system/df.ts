import { type Cli, type Command, printList } from '../command.js'
import { align, formatList, type Row } from '../format/table.js'
import { ago, humanSize } from '../format/units.js'
import { splitTag } from '../image/reference.js'

interface Usage {
  LayersSize: number
  Images:
    | {
        Id: string
        RepoTags: string[] | null
        RepoDigests: string[] | null
        Created: number
        Size: number
        SharedSize: number
        Containers: number
      }[]
    | null
  Containers:
    | {
        Id: string
        Names: string[]
        Image: string
        Command: string
        Created: number
        State: string
        Status: string
        SizeRw?: number
        Mounts?: { Type: string }[] | null
      }[]
    | null
  Volumes: { Name: string; UsageData?: { Size: number; RefCount: number } }[] | null
  BuildCache:
    | {
        ID: string
        Type: string
        Size: number
        InUse: boolean
        Shared: boolean
        CreatedAt: string
        LastUsedAt?: string
        UsageCount: number
      }[]
    | null
}

const COLUMNS = { Type: 'TYPE', TotalCount: 'TOTAL', Active: 'ACTIVE', Size: 'SIZE', Reclaimable: 'RECLAIMABLE' }
const sum = (v: readonly number[]): number => v.reduce((a, b) => a + b, 0)
const share = (part: number, whole: number): string =>
  whole > 0 ? `${humanSize(part)} (${Math.trunc((part * 100) / whole)}%)` : humanSize(part)

/** The four rows of system df. */
export function summary(u: Usage): Row[] {
  const [images, containers, volumes, cache] = [u.Images ?? [], u.Containers ?? [], u.Volumes ?? [], u.BuildCache ?? []]
  // As docker reckons: what only used images have is kept, all other layers count as reclaimable.
  const used = sum(
    images.filter((i) => i.Containers !== 0 && i.Size !== -1 && i.SharedSize !== -1).map((i) => i.Size - i.SharedSize),
  )
  const free = u.LayersSize - used
  const active = containers.filter((c) => ['running', 'paused', 'restarting'].includes(c.State))
  const rw = sum(containers.map((c) => c.SizeRw ?? 0))
  const idle = rw - sum(active.map((c) => c.SizeRw ?? 0))
  const sizes = volumes.filter((v) => (v.UsageData?.Size ?? -1) !== -1)
  const volumeSize = sum(sizes.map((v) => v.UsageData!.Size))
  const unused = sum(sizes.filter((v) => v.UsageData!.RefCount === 0).map((v) => v.UsageData!.Size))
  const cacheSize = sum(cache.filter((c) => !c.Shared).map((c) => c.Size))
  const cacheFree = sum(cache.filter((c) => !c.Shared && !c.InUse).map((c) => c.Size))
  const row = (Type: string, total: number, inUse: number, size: number, Reclaimable: string): Row => ({
    Type,
    TotalCount: String(total),
    Active: String(inUse),
    Size: humanSize(size),
    Reclaimable,
  })
  return [
    row(
      'Images',
      images.length,
      images.filter((i) => i.Containers > 0).length,
      u.LayersSize,
      share(Math.max(free, 0), u.LayersSize),
    ),
    row('Containers', containers.length, active.length, rw, share(idle, rw)),
    row(
      'Local Volumes',
      volumes.length,
      volumes.filter((v) => (v.UsageData?.RefCount ?? 0) > 0).length,
      volumeSize,
      share(unused, volumeSize),
    ),
    row('Build Cache', cache.length, cache.filter((c) => c.InUse).length, cacheSize, humanSize(cacheFree)),
  ]
}

export function registerDf(parent: Command, cli: Cli): void {
  parent
    .command('df')
    .description('Show docker disk usage')
    .option('--format <format>', "format output: 'table', 'table TEMPLATE', 'json' or a Go template", '')
    .option('-v, --verbose', 'show detailed information on space usage')
    .action(async (f: { format: string; verbose?: boolean }) => {
      const usage = await (await cli.api()).get<Usage>('/system/df')
      if (f.verbose && f.format === '') return cli.out(verbose(usage))
      printList(cli, summary(usage), { columns: COLUMNS, shown: Object.keys(COLUMNS), id: 'Type' }, f)
    })
}

function verbose(u: Usage): string {
  const now = Date.now()
  const table = (columns: Record<string, string>, rows: readonly Row[]): string =>
    rows.length === 0
      ? align([Object.values(columns).join('\t')])
      : formatList(rows, { format: '', quiet: false, columns, shown: Object.keys(columns), id: '' })
  const images = (u.Images ?? []).map((i) => {
    const name = i.RepoTags?.[0] ? splitTag(i.RepoTags[0]) : { repository: '<none>', tag: '<none>' }
    return {
      Repository: name.repository,
      Tag: name.tag,
      ID: i.Id.replace('sha256:', '').slice(0, 12),
      CreatedSince: ago(now - i.Created * 1000),
      Size: humanSize(i.Size, 3),
      SharedSize: humanSize(Math.max(i.SharedSize, 0)),
      UniqueSize: humanSize(i.Size - Math.max(i.SharedSize, 0)),
      Containers: String(Math.max(i.Containers, 0)),
    }
  })
  const containers = (u.Containers ?? []).map((c) => ({
    ID: c.Id.slice(0, 12),
    Image: c.Image,
    Command: JSON.stringify(c.Command.length > 20 ? `${c.Command.slice(0, 19)}…` : c.Command),
    LocalVolumes: String((c.Mounts ?? []).filter((m) => m.Type === 'volume').length),
    Size: humanSize(c.SizeRw ?? 0, 3),
    RunningFor: ago(now - c.Created * 1000),
    Status: c.Status,
    Names: c.Names.map((n) => n.slice(1)).join(','),
  }))
  const volumes = (u.Volumes ?? []).map((v) => ({
    Name: v.Name,
    Links: String(v.UsageData?.RefCount ?? 'N/A'),
    Size: v.UsageData && v.UsageData.Size >= 0 ? humanSize(v.UsageData.Size) : 'N/A',
  }))
  const cache = (u.BuildCache ?? []).map((c) => ({
    ID: c.ID.slice(0, 12),
    CacheType: c.Type,
    Size: humanSize(c.Size),
    CreatedSince: ago(now - Date.parse(c.CreatedAt)),
    LastUsedSince: c.LastUsedAt ? ago(now - Date.parse(c.LastUsedAt)) : '',
    UsageCount: String(c.UsageCount),
    Shared: String(c.Shared),
  }))
  const total = humanSize(sum((u.BuildCache ?? []).filter((c) => !c.Shared).map((c) => c.Size)))
  return [
    'Images space usage:\n\n',
    table(
      {
        Repository: 'REPOSITORY',
        Tag: 'TAG',
        ID: 'IMAGE ID',
        CreatedSince: 'CREATED',
        Size: 'SIZE',
        SharedSize: 'SHARED SIZE',
        UniqueSize: 'UNIQUE SIZE',
        Containers: 'CONTAINERS',
      },
      images,
    ),
    '\nContainers space usage:\n\n',
    table(
      {
        ID: 'CONTAINER ID',
        Image: 'IMAGE',
        Command: 'COMMAND',
        LocalVolumes: 'LOCAL VOLUMES',
        Size: 'SIZE',
        RunningFor: 'CREATED',
        Status: 'STATUS',
        Names: 'NAMES',
      },
      containers,
    ),
    '\nLocal Volumes space usage:\n\n',
    table({ Name: 'VOLUME NAME', Links: 'LINKS', Size: 'SIZE' }, volumes),
    `\nBuild cache usage: ${total}\n\n`,
    table(
      {
        ID: 'CACHE ID',
        CacheType: 'CACHE TYPE',
        Size: 'SIZE',
        CreatedSince: 'CREATED',
        LastUsedSince: 'LAST USED',
        UsageCount: 'USAGE',
        Shared: 'SHARED',
      },
      cache,
    ),
  ].join('')
}
