import { Option } from 'commander'
import { type Cli, type Command, confirm, Exit, filterFlag, filters, forEach, inspectAll, whole } from '../command.js'
import { alignTop } from '../format/table.js'
import { humanSize } from '../format/units.js'

/** stop, restart, kill, pause, unpause, rename, rm, wait, inspect, port, top, prune. */
export function registerLifecycle(parent: Command, cli: Cli): void {
  const act = (
    name: string,
    description: string,
    path: (id: string) => string,
    query: (f: Record<string, unknown>) => Record<string, string | number | undefined> = () => ({}),
  ): Command =>
    parent
      .command(name)
      .description(description)
      .argument('<container...>')
      .action(async (ids: string[], f: Record<string, unknown>) => {
        const api = await cli.api()
        await forEach(cli, ids, (id) => api.post(path(encodeURIComponent(id)), { query: query(f) }))
      })
  const timed = (f: Record<string, unknown>) => ({
    t: (f.timeout ?? f.time) as number | undefined,
    signal: f.signal as string | undefined,
  })
  const timeFlags = (c: Command): Command =>
    c
      .option('-t, --timeout <seconds>', 'before it is killed', whole)
      .addOption(new Option('--time <seconds>').argParser(whole).hideHelp())
      .option('-s, --signal <signal>', 'signal to send')
  timeFlags(act('stop', 'Stop running containers', (id) => `/containers/${id}/stop`, timed))
  timeFlags(act('restart', 'Restart containers', (id) => `/containers/${id}/restart`, timed))
  act(
    'kill',
    'Kill running containers',
    (id) => `/containers/${id}/kill`,
    (f) => ({ signal: (f.signal as string) ?? 'SIGKILL' }),
  ).option('-s, --signal <signal>', 'signal to send')
  act('pause', 'Pause all processes in containers', (id) => `/containers/${id}/pause`)
  act('unpause', 'Unpause all processes in containers', (id) => `/containers/${id}/unpause`)

  parent
    .command('rename')
    .description('Rename a container')
    .argument('<container>')
    .argument('<name>')
    .action(async (id: string, name: string) => {
      try {
        await (await cli.api()).post(`/containers/${encodeURIComponent(id)}/rename`, { query: { name } })
      } catch (e) {
        throw new Exit(1, `${(e as Error).message}\nError: failed to rename container named ${id}`)
      }
    })

  parent
    .command('rm')
    .alias('remove')
    .description('Remove containers')
    .argument('<container...>')
    .option('-f, --force', 'kill what runs')
    .option('-v, --volumes', 'with their anonymous volumes')
    .option('-l, --link', 'remove the link')
    .action(async (ids: string[], f: { force?: boolean; volumes?: boolean; link?: boolean }) => {
      const api = await cli.api()
      await forEach(cli, ids, async (id) => {
        try {
          await api.delete(`/containers/${encodeURIComponent(id)}`, {
            force: f.force ?? false,
            v: f.volumes ?? false,
            link: f.link ?? false,
          })
        } catch (e) {
          if (!(f.force && (e as { status?: number }).status === 404)) throw e
          cli.err(`${(e as Error).message}\n`)
          return 'missing'
        }
        return undefined
      })
    })

  parent
    .command('wait')
    .description('Block until containers stop, then print their exit codes')
    .argument('<container...>')
    .action(async (ids: string[]) => {
      const api = await cli.api()
      const failures: string[] = []
      for (const id of ids) {
        try {
          const { StatusCode } = await api.post<{ StatusCode: number }>(`/containers/${encodeURIComponent(id)}/wait`)
          cli.out(`${StatusCode}\n`)
        } catch (e) {
          failures.push((e as Error).message)
        }
      }
      if (failures.length > 0) throw new Exit(1, failures.join('\n'))
    })

  parent
    .command('inspect')
    .description('Display detailed information on containers')
    .argument('<container...>')
    .option('-f, --format <format>', 'Go template')
    .option('-s, --size', 'total file sizes')
    .action(async (ids: string[], f: { format?: string; size?: boolean }) => {
      const api = await cli.api()
      await inspectAll(
        cli,
        ids,
        (id) => api.get(`/containers/${encodeURIComponent(id)}/json`, { size: f.size ?? false }),
        f.format,
      )
    })

  parent
    .command('port')
    .description('List port mappings')
    .argument('<container>')
    .argument('[port]')
    .action(async (id: string, port?: string) => {
      const api = await cli.api()
      const c = await api.get<{
        NetworkSettings: { Ports: Record<string, { HostIp: string; HostPort: string }[] | null> }
      }>(`/containers/${encodeURIComponent(id)}/json`)
      const wanted = port === undefined ? null : port.includes('/') ? port : `${port}/tcp`
      const rows = Object.entries(c.NetworkSettings.Ports).filter(
        ([key, b]) => b && (wanted === null || key === wanted),
      )
      if (wanted !== null && rows.length === 0) throw new Exit(1, `Error: No public port '${port}' published for ${id}`)
      for (const [key, bindings] of rows)
        for (const b of bindings!) {
          const address = b.HostIp.includes(':') ? `[${b.HostIp}]` : b.HostIp
          cli.out(`${wanted === null ? `${key} -> ` : ''}${address}:${b.HostPort}\n`)
        }
    })

  parent
    .command('top')
    .description('Display the running processes of a container')
    .argument('<container>')
    .argument('[psOptions...]')
    .stopAtFirstArgument('CONTAINER [ps OPTIONS]')
    .action(async (id: string, ps: string[]) => {
      const api = await cli.api()
      const top = await api.get<{ Titles: string[]; Processes: string[][] }>(
        `/containers/${encodeURIComponent(id)}/top`,
        { ps_args: ps.join(' ') },
      )
      cli.out(alignTop([top.Titles.join('\t'), ...top.Processes.map((p) => p.join('\t'))]))
    })

  parent
    .command('prune')
    .description('Remove all stopped containers')
    .option('--filter <filter>', 'provide filter values (e.g. "until=<timestamp>")', filterFlag)
    .option('-f, --force', 'do not prompt for confirmation')
    .action(async (f: { filter?: string[]; force?: boolean }) => {
      await confirm(cli, f.force, 'WARNING! This will remove all stopped containers.')
      const done = await (await cli.api()).post<Pruned>('/containers/prune', { query: { filters: filters(f.filter) } })
      if (done.ContainersDeleted && done.ContainersDeleted.length > 0)
        cli.out(`Deleted Containers:\n${done.ContainersDeleted.join('\n')}\n\n`)
      cli.out(`Total reclaimed space: ${humanSize(done.SpaceReclaimed)}\n`)
    })
}

interface Pruned {
  ContainersDeleted: string[] | null
  SpaceReclaimed: number
}
