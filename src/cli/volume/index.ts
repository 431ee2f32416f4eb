import {
  type Cli,
  type Command,
  collect,
  confirm,
  filterFlag,
  filters,
  forEach,
  inspectAll,
  type ListFlags,
  labels,
  listFlags,
  pairs,
  printList,
} from '../command.js'
import { humanSize } from '../format/units.js'

interface VolumeJson {
  Name: string
  Driver: string
  Mountpoint: string
  Scope: string
  Labels: Record<string, string> | null
}

const COLUMNS = {
  Driver: 'DRIVER',
  Name: 'VOLUME NAME',
  Mountpoint: 'MOUNTPOINT',
  Scope: 'SCOPE',
  Labels: 'LABELS',
  Availability: 'AVAILABILITY',
  Group: 'GROUP',
  Links: 'LINKS',
  Size: 'SIZE',
  Status: 'STATUS',
}

export function registerVolume(parent: Command, cli: Cli): void {
  listFlags(parent.command('ls').alias('list').description('List volumes')).action(async (f: ListFlags) => {
    const { Volumes } = await (await cli.api()).get<{ Volumes: VolumeJson[] | null }>('/volumes', {
      filters: filters(f.filter),
    })
    const rows = (Volumes ?? [])
      .sort((a, b) => (a.Name < b.Name ? -1 : 1))
      .map((v) => ({
        Driver: v.Driver,
        Name: v.Name,
        Mountpoint: v.Mountpoint,
        Scope: v.Scope,
        Availability: 'N/A',
        Group: 'N/A',
        Links: 'N/A',
        Size: 'N/A',
        Status: 'N/A',
        ...labels(v.Labels),
      }))
    printList(
      cli,
      rows,
      {
        columns: COLUMNS,
        shown: ['Driver', 'Name'],
        id: 'Name',
      },
      f,
    )
  })
  parent
    .command('create')
    .description('Create a volume')
    .argument('[volume]')
    .option('-d, --driver <driver>', 'volume driver', 'local')
    .option('--label <key=value>', 'label (repeatable)', collect)
    .option('-o, --opt <key=value>', 'option of the driver (repeatable)', collect)
    .action(async (name: string | undefined, f: { driver: string; label?: string[]; opt?: string[] }) => {
      const v = await (await cli.api()).post<VolumeJson>('/volumes/create', {
        body: { Name: name ?? '', Driver: f.driver, DriverOpts: pairs(f.opt), Labels: pairs(f.label) },
      })
      cli.out(`${v.Name}\n`)
    })
  parent
    .command('inspect')
    .description('Display detailed information on volumes')
    .argument('<volume...>')
    .option('-f, --format <format>', 'Go template')
    .action(async (names: string[], f: { format?: string }) => {
      const api = await cli.api()
      await inspectAll(cli, names, (n) => api.get(`/volumes/${encodeURIComponent(n)}`), f.format)
    })
  parent
    .command('rm')
    .alias('remove')
    .description('Remove volumes')
    .argument('<volume...>')
    .option('-f, --force', 'no error for a missing one')
    .action(async (names: string[], f: { force?: boolean }) => {
      const api = await cli.api()
      await forEach(cli, names, (n) => api.delete(`/volumes/${encodeURIComponent(n)}`, { force: f.force ?? false }))
    })
  parent
    .command('prune')
    .description('Remove unused volumes')
    .option('-a, --all', 'named ones too')
    .option('--filter <filter>', 'provide filter values (e.g. "label=<label>")', filterFlag)
    .option('-f, --force', 'do not prompt for confirmation')
    .action(async (f: { all?: boolean; filter?: string[]; force?: boolean }) => {
      await confirm(
        cli,
        f.force,
        `WARNING! This will remove ${f.all ? 'all' : 'anonymous'} local volumes not used by at least one container.`,
      )
      const done = await (await cli.api()).post<{ VolumesDeleted: string[] | null; SpaceReclaimed: number }>(
        '/volumes/prune',
        { query: { filters: { ...filters(f.filter), ...(f.all ? { all: ['true'] } : {}) } } },
      )
      if (done.VolumesDeleted && done.VolumesDeleted.length > 0)
        cli.out(`Deleted Volumes:\n${done.VolumesDeleted.join('\n')}\n\n`)
      cli.out(`Total reclaimed space: ${humanSize(done.SpaceReclaimed)}\n`)
    })
}
