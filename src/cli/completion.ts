import { type Cli, type Command, Exit } from './command.js'
import type { CommandTables } from './commands.js'
import { Command as Line } from './flags.js'

/** The script asks this program for the words that may come next; so it never goes stale. */
const BASH = `# bash completion for shoal: source this, or put it into /etc/bash_completion.d/shoal
_shoal() {
    local IFS=$'\\n'
    COMPREPLY=($(shoal __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _shoal shoal
`
const ZSH = `#compdef shoal
# zsh completion for shoal: source this, or put it as _shoal into a folder of $fpath
_shoal() {
    local -a words_next
    words_next=("\${(@f)$(shoal __complete -- "\${words[@]:1:$((CURRENT-1))}" 2>/dev/null)}")
    compadd -- $words_next
}
compdef _shoal shoal
`

export function registerCompletion(parent: Command, cli: Cli): void {
  parent
    .command('completion')
    .description('Print a shell completion script')
    .argument('<shell>')
    .takes('bash|zsh')
    .action((shell: string) => {
      if (shell === 'bash') cli.out(BASH)
      else if (shell === 'zsh') cli.out(ZSH)
      else throw new Exit(1, `unknown shell "${shell}": bash and zsh are known`)
    })
}

/** __complete -- WORD... LAST: prints what LAST may become, a line each. */
/** `tables` come from commands.ts, which loads this module: handed in, so that the two do not import each other. */
export function registerComplete(parent: Command, cli: Cli, tables: CommandTables): void {
  parent
    .command('__complete', { hidden: true })
    .argument('[words...]')
    .action(async (words: string[]) => {
      for (const w of await candidates(cli, words, tables)) cli.out(`${w}\n`)
    })
}

/** Objects that commands take, by noun. */
const OBJECTS: Readonly<Record<string, { path: string; names(o: Record<string, never>): string[] }>> = {
  container: { path: '/containers/json', names: (c) => (c.Names as string[]).map((n) => n.slice(1)) },
  image: { path: '/images/json', names: (i) => (i.RepoTags as string[] | null) ?? [] },
  network: { path: '/networks', names: (n) => [n.Name] },
  volume: { path: '/volumes', names: (v) => [v.Name] },
  plugin: { path: '/plugins', names: (p) => [p.Name] },
  node: { path: '/nodes', names: (n) => [(n.Description as { Hostname: string }).Hostname] },
  service: { path: '/services', names: (s) => [(s.Spec as { Name: string }).Name] },
  secret: { path: '/secrets', names: (s) => [(s.Spec as { Name: string }).Name] },
  config: { path: '/configs', names: (s) => [(s.Spec as { Name: string }).Name] },
}
/** First-level words whose objects are not containers. */
const OF_IMAGES = ['run', 'create', 'rmi', 'push', 'save', 'tag', 'history', 'images']
const NONE = [
  'ls',
  'ps',
  'create',
  'init',
  'join',
  'leave',
  'prune',
  'pull',
  'load',
  'import',
  'login',
  'logout',
  'info',
  'version',
  'events',
  'df',
]

export async function candidates(
  cli: Cli,
  words: readonly string[],
  { NOUNS, WORDS }: CommandTables,
): Promise<string[]> {
  const last = words[words.length - 1] ?? ''
  const before = words.slice(0, -1)
  const fits = (all: readonly string[]): string[] => all.filter((w) => w.startsWith(last)).sort()
  const [first, second] = before.filter((w) => !w.startsWith('-'))
  if (first === undefined) return fits([...Object.keys(NOUNS), ...Object.keys(WORDS).filter((w) => !WORDS[w]!.hidden)])
  const entry = NOUNS[first] ?? WORDS[first]
  if (!entry) return []
  const program = new Line('shoal')
  const parent = NOUNS[first] ? program.command(first) : program
  ;(await entry.load())(parent as never, cli)
  if (NOUNS[first] && second === undefined)
    return fits(parent.commands.filter((c) => c.name() !== 'dial-stdio').map((c) => c.name()))
  const verb = NOUNS[first] ? second! : first
  const command = parent.commands.find((c) => c.name() === verb || c.aliases().includes(verb))
  if (last.startsWith('-')) return fits([...(command?.options.map((o) => o.long!) ?? []), '--help'])
  const topImages = !NOUNS[first] && OF_IMAGES.includes(first)
  if (
    !topImages &&
    NONE.includes(verb) &&
    !(first === 'service' && verb === 'ps') &&
    !(first === 'node' && verb === 'ps')
  )
    return []
  const kind = OBJECTS[NOUNS[first] ? first : topImages ? 'image' : 'container']
  if (!kind) return []
  const answer = await (await cli.api()).get<unknown>(kind.path, kind.path === '/containers/json' ? { all: true } : {})
  const list = Array.isArray(answer) ? answer : ((answer as { Volumes?: unknown[] | null }).Volumes ?? [])
  return fits(list.flatMap((o) => kind.names(o as Record<string, never>)))
}
