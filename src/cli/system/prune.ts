import type { ApiError } from '../api.js'
import { type Cli, type Command, confirm, Exit, filterFlag, filters } from '../command.js'
import { humanSize } from '../format/units.js'

interface Pruned {
  ContainersDeleted?: string[] | null
  NetworksDeleted?: string[] | null
  VolumesDeleted?: string[] | null
  ImagesDeleted?: { Untagged?: string; Deleted?: string }[] | null
  CachesDeleted?: string[] | null
  SpaceReclaimed?: number
}

export function registerPrune(parent: Command, cli: Cli): void {
  parent
    .command('prune')
    .description('Remove unused data')
    .option('-a, --all', 'remove all unused images not just dangling ones')
    .option('--filter <filter>', 'provide filter values (e.g. "label=<key>=<value>")', filterFlag)
    .option('-f, --force', 'do not prompt for confirmation')
    .option('--volumes', 'prune anonymous volumes')
    .action(async (f: { all?: boolean; filter?: string[]; force?: boolean; volumes?: boolean }) => {
      const wanted = filters(f.filter) ?? {}
      if (f.volumes && wanted.until) throw new Exit(1, 'ERROR: The "until" filter is not supported with "--volumes"')
      const what = [
        'all stopped containers',
        'all networks not used by at least one container',
        ...(f.volumes ? ['all anonymous volumes not used by at least one container'] : []),
        f.all ? 'all images without at least one container associated to them' : 'all dangling images',
        f.all ? 'all build cache' : 'unused build cache',
      ]
      const limits = f.filter?.length
        ? `\n  Items to be pruned will be filtered with:\n${f.filter.map((x) => `  - ${x}\n`).join('')}`
        : ''
      await confirm(cli, f.force, `WARNING! This will remove:\n${what.map((w) => `  - ${w}\n`).join('')}${limits}`)
      const api = await cli.api()
      let space = 0
      const prune = async (path: string, more: Record<string, string[]> = {}): Promise<Pruned> => {
        const done = await api.post<Pruned>(`/${path}/prune`, { query: { filters: { ...wanted, ...more } } })
        space += done.SpaceReclaimed ?? 0
        return done
      }
      const list = (title: string, all: readonly string[] | null | undefined): void => {
        if (all && all.length > 0) cli.out(`Deleted ${title}:\n${all.join('\n')}\n\n`)
      }
      list('Containers', (await prune('containers')).ContainersDeleted)
      list('Networks', (await prune('networks')).NetworksDeleted)
      if (f.volumes) list('Volumes', (await prune('volumes')).VolumesDeleted)
      const images = (await prune('images', { dangling: [f.all ? 'false' : 'true'] })).ImagesDeleted ?? []
      list(
        'Images',
        images.map((d) => (d.Untagged ? `untagged: ${d.Untagged}` : `deleted: ${d.Deleted}`)),
      )
      try {
        const cache = await api.post<Pruned>('/build/prune', { query: { all: f.all ?? false, filters: wanted } })
        space += cache.SpaceReclaimed ?? 0
        list('build cache objects', cache.CachesDeleted)
      } catch (e) {
        // An engine without a builder has no build cache.
        if ((e as ApiError).status !== 404) throw e
      }
      cli.out(`Total reclaimed space: ${humanSize(space)}\n`)
    })
}
