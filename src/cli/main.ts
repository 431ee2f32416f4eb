import { Command, CommanderError } from 'commander'
import type { Api } from './api.js'
import { type Cli, Exit } from './command.js'
import { TemplateError } from './format/template.js'

const VERSION = '0.1.0'

/** A noun or an alias of one of its verbs; its module is loaded only when it is asked for. */
type Loader = (program: Command, cli: Cli) => Promise<void>

const noun =
  (name: string, description: string, load: () => Promise<(parent: Command, cli: Cli) => void>): Loader =>
  async (program, cli) => {
    const register = await load()
    register(configured(program.command(name).description(description)), cli)
  }

const container = async (): Promise<(parent: Command, cli: Cli) => void> => {
  const [{ registerRun }, { registerLs }, { registerLifecycle }] = await Promise.all([
    import('./container/run.js'),
    import('./container/ls.js'),
    import('./container/lifecycle.js'),
  ])
  return (parent, cli) => {
    registerRun(parent, cli)
    registerLs(parent, cli, 'ls', ['list', 'ps'])
    registerLifecycle(parent, cli)
  }
}

const COMMANDS: Readonly<Record<string, { readonly text: string; readonly load: Loader }>> = {}
const add = (names: readonly string[], text: string, load: Loader): void => {
  for (const n of names) (COMMANDS as Record<string, { text: string; load: Loader }>)[n] = { text, load }
}
for (const [name, text, load] of [
  ['container', 'Manage containers', container],
  ['image', 'Manage images', async () => (await import('./image/index.js')).registerImage],
  ['network', 'Manage networks', async () => (await import('./network/index.js')).registerNetwork],
  ['volume', 'Manage volumes', async () => (await import('./volume/index.js')).registerVolume],
  ['swarm', 'Manage the swarm', async () => (await import('./swarm/index.js')).registerSwarm],
  ['node', 'Manage swarm nodes', async () => (await import('./node/index.js')).registerNode],
  ['service', 'Manage swarm services', async () => (await import('./service/index.js')).registerService],
  ['system', 'Manage the engine', async () => (await import('./system/index.js')).registerSystem],
] as const)
  add([name], text, noun(name, text, load))
add(['run', 'create'], 'Create a container, and run it', async (p, cli) =>
  (await import('./container/run.js')).registerRun(p, cli),
)
add(['ps'], 'List containers', async (p, cli) => (await import('./container/ls.js')).registerLs(p, cli, 'ps', []))
add(
  [
    'exec',
    'logs',
    'start',
    'stop',
    'restart',
    'kill',
    'pause',
    'unpause',
    'rename',
    'rm',
    'wait',
    'port',
    'top',
    'attach',
    'inspect',
  ],
  'Container commands',
  async (p, cli) => (await import('./container/lifecycle.js')).registerLifecycle(p, cli),
)
add(['images'], 'List images', async (p, cli) => (await import('./image/index.js')).registerImagesAlias(p, cli))
add(['pull', 'push'], 'Move images from and to a registry', async (p, cli) => {
  const { registerPull, registerPush } = await import('./image/index.js')
  registerPull(p, cli)
  registerPush(p, cli)
})
add(['rmi'], 'Remove images', async (p, cli) => (await import('./image/index.js')).registerRmi(p, cli, 'rmi', []))
add(['load', 'save', 'import', 'tag'], 'Move images from and to tar files', async (p, cli) =>
  (await import('./image/index.js')).registerTransfer(p, cli),
)
add(['history'], 'Show the history of an image', async (p, cli) =>
  (await import('./image/index.js')).registerHistory(p, cli),
)
add(['version'], 'Show version information', async (p, cli) =>
  (await import('./system/index.js')).registerVersion(p, cli, VERSION),
)
add(['info'], 'Display system-wide information', async (p, cli) =>
  (await import('./system/index.js')).registerInfo(p, cli),
)
add(['events'], 'Get real time events', async (p, cli) => (await import('./system/index.js')).registerEvents(p, cli))

function configured(c: Command): Command {
  return c
    .exitOverride()
    .enablePositionalOptions()
    .configureOutput({ writeErr: () => {} })
}

const VALUE_FLAGS = new Set([
  '-H',
  '--host',
  '-c',
  '--context',
  '--config',
  '-l',
  '--log-level',
  '--tlscacert',
  '--tlscert',
  '--tlskey',
])

/** The first word that is no flag and no flag's value. */
function firstWord(argv: readonly string[]): string | undefined {
  for (let i = 0; i < argv.length; i++) {
    const a = argv[i]!
    if (!a.startsWith('-')) return a
    if (VALUE_FLAGS.has(a)) i++
  }
  return undefined
}

function usage(): string {
  const rows = Object.entries(COMMANDS).map(([name, c]) => `  ${name.padEnd(12)}${c.text}`)
  return `Usage:  shoal [OPTIONS] COMMAND\n\nContainers on this host, and on a swarm of hosts\n\nCommands:\n${rows.join('\n')}\n\nGlobal Options:\n  -H, --host ADDRESS     engine to talk to\n  -c, --context NAME     context to use\n  -v, --version          version\n\nRun 'shoal COMMAND --help' for more information on a command.\n`
}

async function main(argv: readonly string[]): Promise<void> {
  const cli: Cli & { flags: { host?: string; context?: string; tlsverify?: boolean } } = {
    flags: {},
    async api(): Promise<Api> {
      return (await import('./api.js')).Api.fromFlags(cli.flags)
    },
    out: (t) => void process.stdout.write(t),
    err: (t) => void process.stderr.write(t),
  }
  const program = configured(new Command('shoal'))
    .option('-H, --host <address>', 'engine to talk to')
    .option('-c, --context <name>', 'context to use')
    .option('--tlsverify', 'TLS with verification')
    .option('-D, --debug', 'debug')
    .version(`Shoal version ${VERSION}`, '-v, --version')
    .hook('preAction', () => {
      cli.flags = program.opts()
    })
  const word = firstWord(argv)
  if (word === undefined) {
    if (argv.some((a) => a === '-v' || a === '--version')) cli.out(`Shoal version ${VERSION}\n`)
    else cli.out(usage())
    return
  }
  const command = COMMANDS[word]
  if (!command)
    throw new Exit(
      1,
      word === 'help' ? usage() : `shoal: unknown command: shoal ${word}\n\nRun 'shoal --help' for more information`,
    )
  await command.load(program, cli)
  await program.parseAsync([...argv], { from: 'user' })
}

/** Words of commander in docker's way; 125 is what docker answers to wrong flags of run and create. */
function usageFailure(e: CommanderError, argv: readonly string[]): Exit {
  const words = argv.filter((a) => !a.startsWith('-'))
  const path = ['container', 'image', 'network', 'volume', 'swarm', 'node', 'service', 'system'].includes(
    words[0] ?? '',
  )
    ? words.slice(0, 2)
    : words.slice(0, 1)
  const text = e.message.replace(/^error: /, '').replace(/^unknown option '(.*)'$/, 'unknown flag: $1')
  const verb = path[path.length - 1]
  return new Exit(
    verb === 'run' || verb === 'create' ? 125 : 1,
    `${text}\n\nUsage:  shoal ${path.join(' ')} --help shows how it is used`,
  )
}

const argv = process.argv.slice(2)
// The reader of a pipe may go first (| head): that is no error.
process.stdout.on('error', (e: NodeJS.ErrnoException) => {
  if (e.code === 'EPIPE') process.exit(0)
  throw e
})
main(argv).catch((e: unknown) => {
  if (e instanceof CommanderError && e.exitCode === 0) return
  const exit =
    e instanceof CommanderError ? usageFailure(e, argv) : e instanceof Exit ? e : new Exit(1, (e as Error).message)
  if (
    e instanceof Error &&
    !(
      e instanceof CommanderError ||
      e instanceof Exit ||
      e instanceof TemplateError ||
      e.name === 'ApiError' ||
      e.name === 'ShoalError'
    ) &&
    process.env.SHOAL_DEBUG
  )
    process.stderr.write(`${e.stack}\n`)
  if (exit.message) process.stderr.write(`${exit.message}\n`)
  process.exitCode = exit.status
})
