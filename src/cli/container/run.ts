import { existsSync, writeFileSync } from 'node:fs'
import type { Api } from '../api.js'
import { ApiError } from '../api.js'
import { type Cli, type Command, Exit } from '../command.js'
import { showProgress } from '../progress.js'
import { registryAuthHeader } from '../registry-auth.js'
import { converse, proxySignals } from '../streams.js'
import { type ContainerFlags, containerFlags, createBody } from './body.js'
import { exitStatus } from './session.js'

/** docker's statuses of its own: 127 the program was not found, 126 it cannot be executed, 125 all else. */
export function startStatus(message: string): number {
  if (/executable file not found|no such file or directory|system cannot find the file/i.test(message)) return 127
  if (/permission denied|is a directory/i.test(message)) return 126
  return 125
}

/** `run` ends with its own statuses, and says where help is. */
const runFailure = (message: string, status: number): Exit =>
  new Exit(status, `shoal: ${message}\n\nRun 'shoal run --help' for more information`)

async function pull(cli: Cli, api: Api, image: string, f: ContainerFlags): Promise<void> {
  const stream = await api.stream('POST', '/images/create', {
    query: { fromImage: image, tag: /[:@][^/]*$/.test(image) ? '' : 'latest', platform: f.platform },
    headers: registryAuthHeader(image),
  })
  await showProgress({ ...cli, out: cli.err }, stream, {
    quiet: f.quiet ?? false,
    terminal: process.stderr.isTTY === true,
  })
}

interface Created {
  Id: string
  Warnings: string[] | null
}

/** Creates, pulling what is missing. */
async function create(
  cli: Cli,
  api: Api,
  image: string,
  command: string[],
  f: ContainerFlags,
  attached: { stdin: boolean; stdout: boolean; stderr: boolean },
): Promise<string> {
  if (!['always', 'missing', 'never', ''].includes(f.pull))
    throw new Exit(125, `invalid pull option: '${f.pull}': must be one of "always", "missing" or "never"`)
  if (f.cidfile && existsSync(f.cidfile))
    throw new Exit(125, `container ID file found, make sure the other container isn't running or delete ${f.cidfile}`)
  const body = createBody(image, command, f, attached)
  if (f.pull === 'always') await pull(cli, api, image, f)
  const attempt = () => api.post<Created>('/containers/create', { query: { name: f.name, platform: f.platform }, body })
  let made: Created
  try {
    made = await attempt()
  } catch (e) {
    const imageMissing = e instanceof ApiError && e.status === 404 && /no such image/i.test(e.message)
    if (!imageMissing || f.pull === 'never') throw e
    if (!f.quiet) cli.err(`Unable to find image '${/[:@][^/]*$/.test(image) ? image : `${image}:latest`}' locally\n`)
    await pull(cli, api, image, f)
    made = await attempt()
  }
  for (const w of made.Warnings ?? []) cli.err(`WARNING: ${w}\n`)
  if (f.cidfile) writeFileSync(f.cidfile, made.Id)
  return made.Id
}

type RunFlags = ContainerFlags & { detach?: boolean; detachKeys: string; sigProxy: boolean }

export function registerRun(parent: Command, cli: Cli): void {
  containerFlags(parent.command('create').description('Create a new container'))
    .argument('<image>')
    .argument('[command...]')
    .stopAtFirstArgument('IMAGE [COMMAND] [ARG...]')
    .action(async (image: string, command: string[], f: ContainerFlags) => {
      const attached = { stdin: f.interactive ?? false, stdout: true, stderr: true }
      cli.out(`${await create(cli, await cli.api(), image, command, f, attached)}\n`)
    })

  containerFlags(parent.command('run').description('Create and run a new container from an image'))
    .option('-d, --detach', 'run container in background and print container ID')
    .option('--detach-keys <keys>', 'override the key sequence for detaching a container', '')
    .option('--sig-proxy', 'proxy received signals to the process', true)
    .argument('<image>')
    .argument('[command...]')
    .stopAtFirstArgument('IMAGE [COMMAND] [ARG...]')
    .action(async (image: string, command: string[], f: RunFlags) => {
      try {
        process.exitCode = await run(cli, image, command, f)
      } catch (e) {
        const { message } = e as Error
        // Mistakes at this terminal are told as they are.
        if (e instanceof Exit && e.status === 1) throw e
        throw runFailure(message, e instanceof Exit ? e.status : startStatus(message))
      }
    })
}

async function run(cli: Cli, image: string, command: string[], f: RunFlags): Promise<number> {
  const streams = (f.attach ?? []).map((s) => s.toLowerCase())
  for (const s of streams)
    if (!['stdin', 'stdout', 'stderr'].includes(s))
      throw new Exit(125, `invalid argument "${s}" for "-a, --attach" flag: valid streams are STDIN, STDOUT and STDERR`)
  if (f.detach && streams.length > 0) throw new Exit(125, 'Conflicting options: -a and -d')
  if (f.tty && f.interactive && !f.detach && process.stdin.isTTY !== true)
    throw new Exit(1, 'the input device is not a TTY')
  const api = await cli.api()
  const attached = f.detach
    ? { stdin: false, stdout: false, stderr: false }
    : streams.length > 0
      ? { stdin: streams.includes('stdin'), stdout: streams.includes('stdout'), stderr: streams.includes('stderr') }
      : { stdin: f.interactive ?? false, stdout: true, stderr: true }
  const id = await create(cli, api, image, command, f, attached)
  if (f.detach) {
    await api.post(`/containers/${id}/start`)
    cli.out(`${id}\n`)
    return 0
  }
  const tty = f.tty ?? false
  const socket = await api.hijack(`/containers/${id}/attach`, {
    query: { stream: true, ...attached, detachKeys: f.detachKeys },
    stdin: attached.stdin,
  })
  const quiet =
    f.sigProxy && !tty ? proxySignals((signal) => api.post(`/containers/${id}/kill`, { query: { signal } })) : () => {}
  try {
    const ended = await exitStatus(api, id, f.rm ? 'removed' : 'next-exit')
    await api.post(`/containers/${id}/start`)
    const how = await converse({ socket, tty, stdin: attached.stdin, detachKeys: f.detachKeys }, (w, h) =>
      api.post(`/containers/${id}/resize`, { query: { w, h } }),
    )
    return how === 'detached' ? 0 : await ended()
  } finally {
    quiet()
    socket.destroy()
  }
}
