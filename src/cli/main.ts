import type { Api } from './api.js'
import { type Cli, Exit } from './command.js'
import { NOUNS, WORDS } from './commands.js'
import { Command, checkArguments, helpText, readFlags, UsageError } from './flags.js'
import type { HostFlags } from './host.js'
import { CLIENT_VERSION } from './version.js'

function globalFlags(program: Command): Command {
  return program
    .option('--config <dir>', 'location of client config files')
    .option('-c, --context <name>', 'name of the context to use to connect to the daemon')
    .option('-D, --debug', 'enable debug mode')
    .option('-H, --host <address>', 'daemon socket to connect to')
    .option('-l, --log-level <level>', 'set the logging level', 'info')
    .option('--tls', 'use TLS; implied by --tlsverify')
    .option('--tlscacert <file>', 'trust certs signed only by this CA')
    .option('--tlscert <file>', 'path to TLS certificate file')
    .option('--tlskey <file>', 'path to TLS key file')
    .option('--tlsverify', 'use TLS and verify the remote')
    .option('-v, --version', 'print version information and quit')
}

function usage(program: Command): string {
  const rows = (of: Readonly<Record<string, { text: string; hidden?: boolean }>>): string =>
    Object.entries(of)
      .filter(([, e]) => !e.hidden)
      .map(([name, e]) => `  ${name.padEnd(12)}${e.text}\n`)
      .join('')
  const options = helpText(program).split('\nOptions:\n')[1] ?? ''
  return `Usage:  shoal [OPTIONS] COMMAND\n\nContainers on this host, and on a swarm of hosts\n\nCommands:\n${rows(WORDS)}\nManagement Commands:\n${rows(NOUNS)}\nGlobal Options:\n${options}\nRun 'shoal COMMAND --help' for more information on a command.\n`
}

/** Walks from the program to the verb that was asked for: flags on the way are read, the verb's module is loaded. */
async function main(argv: readonly string[], cli: Cli & { flags: HostFlags }): Promise<void> {
  const program = globalFlags(new Command('shoal').enablePositionalOptions().exitOverride())
  // Something to descend into, so that flags after the first word are left alone.
  program.interspersed = false
  program.takes('COMMAND [ARG...]')
  const top = readFlags(program, argv)
  cli.flags = program.opts()
  if (program.opts().config) process.env.DOCKER_CONFIG = program.opts().config as string
  let [word, ...rest] = top.rest
  if (program.opts().version) return cli.out(`Shoal version ${CLIENT_VERSION}\n`)
  let help = top.help
  if (word === 'help') {
    help = true
    ;[word, ...rest] = rest
  }
  if (word === undefined) return cli.out(usage(program))
  const noun = NOUNS[word]
  if (!noun && !WORDS[word])
    throw new Exit(1, `shoal: unknown command: shoal ${word}\n\nRun 'shoal --help' for more information`)
  let command: Command
  if (noun) {
    const parent = program.command(word).description(noun.text)
    ;(await noun.load())(parent, cli)
    const inner = readFlags(parent, rest)
    const [verb, ...more] = inner.rest
    if (verb === undefined || inner.help) return cli.out(helpText(parent))
    const found = parent.commands.find((c) => c.name() === verb || c.aliases().includes(verb)) as Command | undefined
    if (!found)
      throw new Exit(
        1,
        `shoal: unknown command: ${parent.path} ${verb}\n\nUsage:  ${parent.path}\n\nRun '${parent.path} --help' for more information`,
      )
    command = found
    rest = more
  } else {
    ;(await WORDS[word]!.load())(program, cli)
    command = program.commands.find((c) => c.name() === word) as Command
  }
  const read = readFlags(command, rest)
  if (help || read.help) return cli.out(helpText(command))
  checkArguments(command, read.rest.length)
  const path = noun ? [word, command.name()] : [command.name()]
  await program.parseAsync([...path, '--', ...read.rest], { from: 'user' })
}

const cli: Cli & { flags: HostFlags } = {
  flags: {},
  async api(): Promise<Api> {
    return (await import('./api.js')).Api.fromFlags(cli.flags)
  },
  out: (t) => void process.stdout.write(t),
  err: (t) => void process.stderr.write(t),
}
// The reader of a pipe may go first (| head): that is no error.
process.stdout.on('error', (e: NodeJS.ErrnoException) => {
  if (e.code === 'EPIPE') process.exit(0)
  throw e
})
main(process.argv.slice(2), cli)
  .catch((e: unknown) => {
    const error = e as Error & { status?: number }
    if (process.env.SHOAL_DEBUG) process.stderr.write(`${error.stack}\n`)
    if (error.message) process.stderr.write(`${error.message}\n`)
    process.exitCode = e instanceof Exit || e instanceof UsageError ? e.status : 1
  })
  // Open connections and an unread standard input must not keep the program, but a slow reader of its output does.
  .finally(async () => {
    for (const stream of [process.stdout, process.stderr])
      await new Promise<void>((resolve) => stream.write('', () => resolve()))
    process.exit()
  })
