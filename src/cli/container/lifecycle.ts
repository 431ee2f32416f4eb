import { type Cli, type Command, collect, Exit, environment, forEach, inspectAll, whole } from '../command.js'
import { align } from '../format/table.js'
import { converse } from '../streams.js'
import { startStatus } from './run.js'

/** start, stop, restart, kill, pause, unpause, rename, rm, wait, inspect, port, top, exec, attach, logs. */
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
      .option('--time <seconds>', 'same', whole)
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
      await (await cli.api()).post(`/containers/${encodeURIComponent(id)}/rename`, { query: { name } })
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
        }
      })
    })

  parent
    .command('wait')
    .description('Block until containers stop, then print their exit codes')
    .argument('<container...>')
    .action(async (ids: string[]) => {
      const api = await cli.api()
      for (const id of ids)
        cli.out(
          `${(await api.post<{ StatusCode: number }>(`/containers/${encodeURIComponent(id)}/wait`)).StatusCode}\n`,
        )
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
      if (wanted !== null && rows.length === 0) throw new Exit(1, `no public port '${wanted}' published for ${id}`)
      for (const [key, bindings] of rows)
        for (const b of bindings!) cli.out(`${wanted === null ? `${key} -> ` : ''}${b.HostIp}:${b.HostPort}\n`)
    })

  parent
    .command('top')
    .description('Display the running processes of a container')
    .argument('<container>')
    .argument('[psOptions...]')
    .passThroughOptions()
    .action(async (id: string, ps: string[]) => {
      const api = await cli.api()
      const top = await api.get<{ Titles: string[]; Processes: string[][] }>(
        `/containers/${encodeURIComponent(id)}/top`,
        { ps_args: ps.join(' ') },
      )
      cli.out(align([top.Titles.join('\t'), ...top.Processes.map((p) => p.join('\t'))]))
    })
  registerStart(parent, cli)
  registerExec(parent, cli)
  registerLogs(parent, cli)
}

interface Inspect {
  Id: string
  Config: { Tty: boolean; OpenStdin: boolean }
  State: { ExitCode: number; Running: boolean }
}

function registerStart(parent: Command, cli: Cli): void {
  const join = async (
    id: string,
    f: { interactive?: boolean; detachKeys?: string },
    before: () => Promise<unknown>,
  ): Promise<void> => {
    const api = await cli.api()
    const c = await api.get<Inspect>(`/containers/${encodeURIComponent(id)}/json`)
    const stdin = (f.interactive ?? false) && c.Config.OpenStdin
    const socket = await api.hijack(`/containers/${c.Id}/attach`, {
      query: { stream: true, stdin, stdout: true, stderr: true, detachKeys: f.detachKeys },
      stdin,
    })
    await before()
    await converse(api, { socket, tty: c.Config.Tty, stdin }, (w, h) =>
      api.post(`/containers/${c.Id}/resize`, { query: { w, h } }),
    )
    const after = await api.get<Inspect>(`/containers/${c.Id}/json`).catch(() => null)
    if (after && !after.State.Running) process.exitCode = after.State.ExitCode
  }
  parent
    .command('start')
    .description('Start stopped containers')
    .argument('<container...>')
    .option('-a, --attach', 'attach stdout and stderr')
    .option('-i, --interactive', 'attach stdin')
    .option('--detach-keys <keys>', 'keys to detach with')
    .action(async (ids: string[], f: { attach?: boolean; interactive?: boolean; detachKeys?: string }) => {
      const api = await cli.api()
      if (!f.attach && !f.interactive)
        return forEach(cli, ids, (id) => api.post(`/containers/${encodeURIComponent(id)}/start`))
      if (ids.length > 1) throw new Exit(1, 'you cannot start and attach multiple containers at once')
      await join(ids[0]!, f, () => api.post(`/containers/${encodeURIComponent(ids[0]!)}/start`))
    })
  parent
    .command('attach')
    .description("Attach this terminal to a running container's process")
    .argument('<container>')
    .option('--no-stdin', 'do not attach stdin')
    .option('--detach-keys <keys>', 'keys to detach with')
    .action((id: string, f: { stdin: boolean; detachKeys?: string }) =>
      join(id, { interactive: f.stdin, detachKeys: f.detachKeys }, async () => {}),
    )
}

function registerExec(parent: Command, cli: Cli): void {
  parent
    .command('exec')
    .description('Execute a command in a running container')
    .option('-d, --detach', 'in the background')
    .option('--detach-keys <keys>', 'keys to detach with', '')
    .option('-e, --env <key=value>', 'environment variable (repeatable)', collect)
    .option('-i, --interactive', 'keep stdin open')
    .option('--privileged', 'all capabilities')
    .option('-t, --tty', 'a terminal')
    .option('-u, --user <user>', 'user[:group]', '')
    .option('-w, --workdir <dir>', 'working directory', '')
    .argument('<container>')
    .argument('<command>')
    .argument('[args...]')
    .passThroughOptions()
    .action(
      async (
        id: string,
        command: string,
        args: string[],
        f: {
          detach?: boolean
          detachKeys: string
          env?: string[]
          interactive?: boolean
          privileged?: boolean
          tty?: boolean
          user: string
          workdir: string
        },
      ) => {
        if (f.tty && f.interactive && !f.detach && process.stdin.isTTY !== true)
          throw new Exit(1, 'the input device is not a TTY')
        const api = await cli.api()
        const made = await api.post<{ Id: string }>(`/containers/${encodeURIComponent(id)}/exec`, {
          body: {
            AttachStdin: f.interactive ?? false,
            AttachStdout: !f.detach,
            AttachStderr: !f.detach,
            DetachKeys: f.detachKeys,
            Tty: f.tty ?? false,
            Env: environment(f.env),
            Cmd: [command, ...args],
            Privileged: f.privileged ?? false,
            User: f.user,
            WorkingDir: f.workdir,
          },
        })
        if (f.detach) {
          await api.post(`/exec/${made.Id}/start`, { body: { Detach: true } })
          return
        }
        const socket = await api.hijack(`/exec/${made.Id}/start`, {
          body: { Detach: false, Tty: f.tty ?? false },
          stdin: f.interactive ?? false,
        })
        await converse(api, { socket, tty: f.tty ?? false, stdin: f.interactive ?? false }, (w, h) =>
          api.post(`/exec/${made.Id}/resize`, { query: { w, h } }),
        )
        const { ExitCode } = await api.get<{ ExitCode: number | null }>(`/exec/${made.Id}/json`)
        socket.destroy()
        process.exitCode = ExitCode ?? startStatus('')
      },
    )
}

function registerLogs(parent: Command, cli: Cli): void {
  parent
    .command('logs')
    .description('Fetch the logs of a container')
    .argument('<container>')
    .option('--details', 'extra attributes')
    .option('-f, --follow', 'go on with what comes')
    .option('--since <time>', 'from a time, or a duration ago')
    .option('--until <time>', 'up to a time, or a duration ago')
    .option('-n, --tail <lines>', 'lines from the end', 'all')
    .option('-t, --timestamps', 'with times')
    .action(
      async (
        id: string,
        f: { details?: boolean; follow?: boolean; since?: string; until?: string; tail: string; timestamps?: boolean },
      ) => {
        const api = await cli.api()
        const c = await api.get<Inspect>(`/containers/${encodeURIComponent(id)}/json`)
        const stream = await api.stream('GET', `/containers/${c.Id}/logs`, {
          query: {
            stdout: true,
            stderr: true,
            details: f.details ?? false,
            follow: f.follow ?? false,
            since: f.since,
            until: f.until,
            tail: f.tail,
            timestamps: f.timestamps ?? false,
          },
        })
        if (c.Config.Tty) stream.pipe(process.stdout, { end: false })
        else api.demux(stream, process.stdout, process.stderr)
        await new Promise((resolve) => stream.once('end', resolve).once('close', resolve))
      },
    )
}
