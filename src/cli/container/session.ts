import type { Api } from '../api.js'
import { type Cli, type Command, collect, Exit, environment, forEach } from '../command.js'
import { converse, demux, proxySignals } from '../streams.js'
import { envFile } from './body.js'

interface Inspect {
  Id: string
  Config: { Tty: boolean; OpenStdin: boolean }
  State: { ExitCode: number; Running: boolean; Paused: boolean; Restarting: boolean }
}

const at = (id: string): string => `/containers/${encodeURIComponent(id)}`

/** start, attach, exec, logs: what talks with a container's streams. */
export function registerSession(parent: Command, cli: Cli): void {
  registerStart(parent, cli)
  registerExec(parent, cli)
  registerLogs(parent, cli)
}

/** Reads the status that a wait call will tell; the call is made at once, so that no end is missed. */
export async function exitStatus(api: Api, id: string, condition: string): Promise<() => Promise<number>> {
  const stream = await api.stream('POST', `${at(id)}/wait`, { query: { condition } })
  return async () => {
    let text = ''
    for await (const b of stream) text += String(b)
    if (text === '') throw new Exit(125, 'the connection to the daemon ended before the container did')
    const { StatusCode, Error: error } = JSON.parse(text) as { StatusCode: number; Error?: { Message: string } | null }
    if (error?.Message) throw new Exit(125, error.Message)
    return StatusCode
  }
}

interface JoinFlags {
  readonly stdin: boolean
  readonly detachKeys: string
  readonly sigProxy: boolean
  /** Detaching is the end of `attach`, and told; `start` goes quietly. */
  readonly tellDetached: boolean
}

/** Attaches, does `begin`, and talks until the end or the detach keys; the process's status becomes this program's. */
async function join(api: Api, c: Inspect, f: JoinFlags, begin: () => Promise<unknown>): Promise<void> {
  const stdin = f.stdin && c.Config.OpenStdin
  const socket = await api.hijack(`${at(c.Id)}/attach`, {
    query: { stream: true, stdin, stdout: true, stderr: true, detachKeys: f.detachKeys },
    stdin,
  })
  const quiet =
    f.sigProxy && !c.Config.Tty
      ? proxySignals((signal) => api.post(`${at(c.Id)}/kill`, { query: { signal } }))
      : () => {}
  try {
    const ended = await exitStatus(api, c.Id, c.State.Running ? 'not-running' : 'next-exit')
    await begin()
    const how = await converse({ socket, tty: c.Config.Tty, stdin, detachKeys: f.detachKeys }, (w, h) =>
      api.post(`${at(c.Id)}/resize`, { query: { w, h } }),
    )
    if (how === 'detached') {
      if (f.tellDetached) throw new Exit(1, 'read escape sequence')
      return
    }
    process.exitCode = await ended()
  } finally {
    quiet()
    socket.destroy()
  }
}

function registerStart(parent: Command, cli: Cli): void {
  parent
    .command('start')
    .description('Start one or more stopped containers')
    .argument('<container...>')
    .option('-a, --attach', 'attach STDOUT/STDERR and forward signals')
    .option('-i, --interactive', "attach container's STDIN")
    .option('--detach-keys <keys>', 'override the key sequence for detaching a container', '')
    .action(async (ids: string[], f: { attach?: boolean; interactive?: boolean; detachKeys: string }) => {
      const api = await cli.api()
      const start = (id: string) => api.post(`${at(id)}/start`, { query: { detachKeys: f.detachKeys } })
      if (!f.attach && !f.interactive)
        return forEach(cli, ids, start).catch((e: Exit) => {
          const failed = e.message.split('\n').length
          throw new Exit(
            1,
            `${e.message}\nError: failed to start containers: ${ids.slice(0, Math.max(failed, 1)).join(', ')}`,
          )
        })
      if (ids.length > 1) throw new Exit(1, 'you cannot start and attach multiple containers at once')
      const c = await api.get<Inspect>(`${at(ids[0]!)}/json`)
      await join(
        api,
        c,
        { stdin: f.interactive ?? false, detachKeys: f.detachKeys, sigProxy: true, tellDetached: false },
        () => start(c.Id),
      )
    })
  parent
    .command('attach')
    .description('Attach local standard input, output, and error streams to a running container')
    .argument('<container>')
    .option('--no-stdin', 'do not attach STDIN')
    .option('--detach-keys <keys>', 'override the key sequence for detaching a container', '')
    .option('--sig-proxy', 'proxy all received signals to the process', true)
    .action(async (id: string, f: { stdin: boolean; detachKeys: string; sigProxy: boolean }) => {
      const api = await cli.api()
      const c = await api.get<Inspect>(`${at(id)}/json`)
      if (!c.State.Running) throw new Exit(1, 'You cannot attach to a stopped container, start it first')
      if (c.State.Paused) throw new Exit(1, 'You cannot attach to a paused container, unpause it first')
      if (c.State.Restarting) throw new Exit(1, 'You cannot attach to a restarting container, wait until it is running')
      await join(api, c, { ...f, tellDetached: true }, async () => {})
    })
}

interface ExecFlags {
  detach?: boolean
  detachKeys: string
  env?: string[]
  envFile?: string[]
  interactive?: boolean
  privileged?: boolean
  tty?: boolean
  user: string
  workdir: string
}

function registerExec(parent: Command, cli: Cli): void {
  parent
    .command('exec')
    .description('Execute a command in a running container')
    .option('-d, --detach', 'detached mode: run command in the background')
    .option('--detach-keys <keys>', 'override the key sequence for detaching a container', '')
    .option('-e, --env <list>', 'set environment variables', collect)
    .option('--env-file <list>', 'read in a file of environment variables', collect)
    .option('-i, --interactive', 'keep STDIN open even if not attached')
    .option('--privileged', 'give extended privileges to the command')
    .option('-t, --tty', 'allocate a pseudo-TTY')
    .option('-u, --user <user>', 'username or UID (format: "<name|uid>[:<group|gid>]")', '')
    .option('-w, --workdir <dir>', 'working directory inside the container', '')
    .argument('<container>')
    .argument('<command>')
    .argument('[args...]')
    .stopAtFirstArgument('CONTAINER COMMAND [ARG...]')
    .action(async (id: string, command: string, args: string[], f: ExecFlags) => {
      const stdin = (f.interactive ?? false) && !f.detach
      const tty = f.tty ?? false
      if (tty && stdin && process.stdin.isTTY !== true) throw new Exit(1, 'the input device is not a TTY')
      const api = await cli.api()
      const made = await api.post<{ Id: string }>(`${at(id)}/exec`, {
        body: {
          AttachStdin: stdin,
          AttachStdout: !f.detach,
          AttachStderr: !f.detach,
          DetachKeys: f.detachKeys,
          Tty: tty,
          Env: environment([...(f.envFile ?? []).flatMap(envFile), ...(f.env ?? [])]),
          Cmd: [command, ...args],
          Privileged: f.privileged ?? false,
          User: f.user,
          WorkingDir: f.workdir,
          ...(tty && process.stdout.isTTY ? { ConsoleSize: [process.stdout.rows, process.stdout.columns] } : {}),
        },
      })
      if (f.detach) {
        await api.post(`/exec/${made.Id}/start`, { body: { Detach: true, Tty: tty } })
        return
      }
      const socket = await api.hijack(`/exec/${made.Id}/start`, { body: { Detach: false, Tty: tty }, stdin })
      const how = await converse({ socket, tty, stdin, detachKeys: f.detachKeys }, (w, h) =>
        api.post(`/exec/${made.Id}/resize`, { query: { w, h } }),
      )
      socket.destroy()
      if (how === 'detached') throw new Exit(1, 'read escape sequence')
      const { ExitCode } = await api.get<{ ExitCode: number | null }>(`/exec/${made.Id}/json`)
      process.exitCode = ExitCode ?? 125
    })
}

interface LogFlags {
  details?: boolean
  follow?: boolean
  since?: string
  until?: string
  tail: string
  timestamps?: boolean
}

function registerLogs(parent: Command, cli: Cli): void {
  parent
    .command('logs')
    .description('Fetch the logs of a container')
    .argument('<container>')
    .option('--details', 'show extra details provided to logs')
    .option('-f, --follow', 'follow log output')
    .option('--since <time>', 'show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m")')
    .option('--until <time>', 'show logs before a timestamp or relative')
    .option('-n, --tail <lines>', 'number of lines to show from the end of the logs', 'all')
    .option('-t, --timestamps', 'show timestamps')
    .action(async (id: string, f: LogFlags) => {
      const api = await cli.api()
      const c = await api.get<Inspect>(`${at(id)}/json`)
      const stream = await api.stream('GET', `${at(c.Id)}/logs`, {
        query: {
          stdout: true,
          stderr: true,
          details: f.details ?? false,
          follow: f.follow ?? false,
          since: timestamp(f.since),
          until: timestamp(f.until),
          tail: f.tail,
          timestamps: f.timestamps ?? false,
        },
      })
      if (!c.Config.Tty) return demux(stream, process.stdout, process.stderr)
      for await (const chunk of stream) process.stdout.write(chunk as Buffer)
    })
}

/** A time for the API: seconds since 1970 as they are; dates and durations ago are reckoned here, in this clock. */
export function timestamp(text: string | undefined, now: number = Date.now()): string | undefined {
  if (!text) return undefined
  if (/^\d+(\.\d+)?$/.test(text)) return text
  const ago = /^(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+$/.test(text)
  if (ago) {
    let ms = 0
    const unit: Record<string, number> = { ns: 1e-6, us: 1e-3, µs: 1e-3, ms: 1, s: 1e3, m: 60e3, h: 3600e3 }
    for (const [, n, u] of text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g)) ms += Number(n) * unit[u!]!
    return ((now - ms) / 1000).toFixed(9)
  }
  // "2013-01-02", "2013-01-02T13:23" and the rest of RFC 3339, local time without a zone, nanoseconds kept.
  const m = /^(\d{4}-\d\d-\d\d)(?:T(\d\d(?::\d\d(?::\d\d)?)?)(\.\d+)?)?(Z|[+-]\d\d:\d\d)?$/.exec(text)
  if (!m) throw new Exit(1, `invalid value for "since"/"until": failed to parse value as time or duration: "${text}"`)
  const clock = `${m[2] ?? '00:00:00'}:00:00`.slice(0, 8)
  const ms = Date.parse(`${m[1]}T${clock}${m[4] ?? ''}`)
  return `${Math.floor(ms / 1000)}${(m[3] ?? '.0').padEnd(10, '0')}`
}
