import { existsSync, writeFileSync } from 'node:fs'
import type { Api } from '../api.js'
import { ApiError } from '../api.js'
import { type Cli, type Command, Exit } from '../command.js'
import { showProgress } from '../progress.js'
import { registryAuthHeader } from '../registry-auth.js'
import { converse, proxySignals } from '../streams.js'
import { type ContainerFlags, containerFlags, createBody } from './body.js'

/** docker's statuses of its own: 125 the engine refused, 126 not executable, 127 not found. */
export function startStatus(message: string): number {
  if (/executable file not found|no such file or directory|system cannot find the file/i.test(message)) return 127
  if (/permission denied|is a directory/i.test(message)) return 126
  return 125
}

const runFailure = (e: unknown): Exit => {
  const message = (e as Error).message
  return e instanceof Exit
    ? e
    : new Exit(startStatus(message), `shoal: ${message}\n\nRun 'shoal run --help' for more information`)
}

async function pull(
  cli: Cli,
  api: Api,
  image: string,
  f: { platform: string; quiet?: boolean },
  out: 'stdout' | 'stderr',
): Promise<void> {
  const stream = await api.stream('POST', '/images/create', {
    query: { fromImage: image, tag: /[:@][^/]*$/.test(image) ? '' : 'latest', platform: f.platform },
    headers: registryAuthHeader(image),
  })
  await showProgress(out === 'stderr' ? { ...cli, out: cli.err } : cli, stream, { quiet: f.quiet ?? false })
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
  if (f.cidfile && existsSync(f.cidfile))
    throw new Exit(125, `container ID file found, make sure the other container isn't running or delete ${f.cidfile}`)
  if (f.pull === 'always') await pull(cli, api, image, f, 'stderr')
  const attempt = () =>
    api.post<{ Id: string; Warnings: string[] | null }>('/containers/create', {
      query: { name: f.name, platform: f.platform },
      body: createBody(image, command, f, attached),
    })
  let made: { Id: string; Warnings: string[] | null }
  try {
    made = await attempt()
  } catch (e) {
    if (!(e instanceof ApiError) || e.status !== 404 || f.pull === 'never') throw e
    if (!f.quiet) cli.err(`Unable to find image '${/[:@][^/]*$/.test(image) ? image : `${image}:latest`}' locally\n`)
    await pull(cli, api, image, f, 'stderr')
    made = await attempt()
  }
  for (const w of made.Warnings ?? []) cli.err(`WARNING: ${w}\n`)
  if (f.cidfile) writeFileSync(f.cidfile, made.Id)
  return made.Id
}

async function exitCode(api: Api, id: string, condition: string): Promise<() => Promise<number>> {
  const stream = await api.stream('POST', `/containers/${id}/wait`, { query: { condition } })
  return async () => {
    let text = ''
    for await (const b of stream) text += String(b)
    const { StatusCode, Error: error } = JSON.parse(text || '{"StatusCode":125}') as {
      StatusCode: number
      Error?: { Message: string }
    }
    return error && StatusCode < 0 ? 125 : StatusCode
  }
}

export function registerRun(parent: Command, cli: Cli): void {
  containerFlags(parent.command('create').description('Create a new container'))
    .argument('<image>')
    .argument('[command...]')
    .passThroughOptions()
    .action(async (image: string, command: string[], f: ContainerFlags) => {
      try {
        cli.out(
          `${await create(cli, await cli.api(), image, command, f, { stdin: f.interactive ?? false, stdout: true, stderr: true })}\n`,
        )
      } catch (e) {
        throw runFailure(e)
      }
    })

  containerFlags(parent.command('run').description('Create and run a new container from an image'))
    .option('-d, --detach', 'run in the background and print the id')
    .option('--detach-keys <keys>', 'keys to detach with', '')
    .option('--no-sig-proxy', 'do not pass signals on')
    .argument('<image>')
    .argument('[command...]')
    .passThroughOptions()
    .action(
      async (
        image: string,
        command: string[],
        f: ContainerFlags & { detach?: boolean; detachKeys: string; sigProxy: boolean },
      ) => {
        try {
          process.exitCode = await run(cli, image, command, f)
        } catch (e) {
          throw runFailure(e)
        }
      },
    )
}

async function run(
  cli: Cli,
  image: string,
  command: string[],
  f: ContainerFlags & { detach?: boolean; detachKeys: string; sigProxy: boolean },
): Promise<number> {
  if (f.tty && f.interactive && !f.detach && process.stdin.isTTY !== true)
    throw new Exit(1, 'the input device is not a TTY')
  const api = await cli.api()
  const streams = (f.attach ?? []).map((s) => s.toLowerCase())
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
  const socket = await api.hijack(`/containers/${id}/attach`, {
    query: { stream: true, ...attached, detachKeys: f.detachKeys },
    stdin: attached.stdin,
  })
  const ended = await exitCode(api, id, f.rm ? 'removed' : 'next-exit')
  const quiet =
    f.sigProxy && !f.tty
      ? proxySignals((signal) => api.post(`/containers/${id}/kill`, { query: { signal } }))
      : () => {}
  try {
    await api.post(`/containers/${id}/start`)
    await converse(api, { socket, tty: f.tty ?? false, stdin: attached.stdin }, (w, h) =>
      api.post(`/containers/${id}/resize`, { query: { w, h } }),
    )
    const state = await api.get<{ State: { Running: boolean } }>(`/containers/${id}/json`).catch(() => null)
    // The stream ended and the container runs on: the detach keys were typed.
    if (state?.State.Running) return 0
    return await ended()
  } finally {
    quiet()
    socket.destroy()
  }
}
