import { Command as Base, InvalidArgumentError, type Option } from 'commander'

/** A command line that docker would refuse with the same words; `status` is 125 for flags and 1 for arguments. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message)
  }
}

/**
 * A commander command whose flags are read in docker's way (pflag): booleans never take the next word, `--x=false` works
 * for each of them, short flags combine (`-itd`, `-p80:80`). commander keeps the declarations, help and dispatch.
 */
export class Command extends Base {
  /** False: everything from the first argument on belongs to the command in the container. */
  interspersed = true
  /** What follows OPTIONS in the usage line, where the arguments' names do not say it. */
  argumentsText: string | null = null

  override createCommand(name?: string): Command {
    return new Command(name)
  }

  /** `text`: e.g. "IMAGE [COMMAND] [ARG...]". */
  stopAtFirstArgument(text: string): this {
    this.interspersed = false
    this.argumentsText = text
    return this
  }

  takes(text: string): this {
    this.argumentsText = text
    return this
  }

  /** "shoal container run" */
  get path(): string {
    return this.parent ? `${(this.parent as Command).path} ${this.name()}` : this.name()
  }

  get usageLine(): string {
    const options = this.options.some((o) => !o.hidden) ? ' [OPTIONS]' : ''
    if (this.commands.length > 0) return `${this.path}${options} COMMAND`
    const args =
      this.argumentsText ??
      this.registeredArguments
        .map((a) => {
          const name = a.name().toUpperCase()
          if (a.variadic) return a.required ? `${name} [${name}...]` : `[${name}...]`
          return a.required ? name : `[${name}]`
        })
        .join(' ')
    return `${this.path}${options}${args ? ` ${args}` : ''}`
  }
}

/** strconv.ParseBool */
function parseBool(text: string): boolean {
  if (['1', 't', 'T', 'TRUE', 'true', 'True'].includes(text)) return true
  if (['0', 'f', 'F', 'FALSE', 'false', 'False'].includes(text)) return false
  throw new InvalidArgumentError(`strconv.ParseBool: parsing "${text}": invalid syntax`)
}

/**
 * Reads the flags at the start of `argv` (anywhere in it, when the command allows that) into the command's option values,
 * and returns what is left. `help`: --help was among them.
 */
export function readFlags(c: Command, argv: readonly string[]): { rest: string[]; help: boolean } {
  const rest: string[] = []
  let help = false
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i]!
    if (word === '--') {
      rest.push(...argv.slice(i + 1))
      break
    }
    if (!word.startsWith('-') || word === '-') {
      if (!c.interspersed || c.commands.length > 0) {
        rest.push(...argv.slice(i))
        break
      }
      rest.push(word)
      continue
    }
    if (word.startsWith('--')) {
      const eq = word.indexOf('=')
      const name = eq < 0 ? word : word.slice(0, eq)
      const given = eq < 0 ? null : word.slice(eq + 1)
      if (name === '--help') {
        help = true
        continue
      }
      const option = c.options.find((o) => o.long === name)
      if (!option) throw flagError(c, name === '--' ? `bad flag syntax: ${word}` : `unknown flag: ${name}`)
      if (!takesValue(option)) setBoolean(c, option, given ?? 'true')
      else if (given !== null) setValue(c, option, given)
      else if (i + 1 < argv.length) setValue(c, option, argv[++i]!)
      else throw flagError(c, `flag needs an argument: ${name}`)
      continue
    }
    // A cluster of short flags; the first that takes a value takes the rest of the word, or the next word.
    for (let letters = word.slice(1); letters !== ''; ) {
      const letter = letters[0]!
      const option = c.options.find((o) => o.short === `-${letter}`)
      letters = letters.slice(1)
      if (!option) {
        if (letter === 'h') {
          help = true
          continue
        }
        throw flagError(c, `unknown shorthand flag: '${letter}' in ${word}`)
      }
      if (!takesValue(option)) {
        if (letters.startsWith('=')) {
          setBoolean(c, option, letters.slice(1))
          break
        }
        setBoolean(c, option, 'true')
        continue
      }
      if (letters !== '') setValue(c, option, letters.startsWith('=') ? letters.slice(1) : letters)
      else if (i + 1 < argv.length) setValue(c, option, argv[++i]!)
      else throw flagError(c, `flag needs an argument: '${letter}' in ${word}`)
      break
    }
  }
  return { rest, help }
}

const takesValue = (o: Option): boolean => o.required || o.optional

const flagError = (c: Command, why: string): UsageError =>
  new UsageError(`${why}\n\nUsage:  ${c.usageLine}\n\nRun '${c.path} --help' for more information`, 125)

function setBoolean(c: Command, option: Option, text: string): void {
  const on = converted(c, option, text, () => parseBool(text)) as boolean
  c.setOptionValueWithSource(option.attributeName(), option.negate ? !on : on, 'cli')
}

function setValue(c: Command, option: Option, text: string): void {
  const name = option.attributeName()
  const before = c.getOptionValueSource(name) === 'cli' ? c.getOptionValue(name) : undefined
  const parse = option.parseArg as ((value: string, previous: unknown) => unknown) | undefined
  c.setOptionValueWithSource(
    name,
    converted(c, option, text, () => (parse ? parse(text, before) : text)),
    'cli',
  )
}

function converted(c: Command, option: Option, text: string, convert: () => unknown): unknown {
  try {
    return convert()
  } catch (e) {
    if (!(e instanceof InvalidArgumentError)) throw e
    const flag = option.short ? `${option.short}, ${option.long}` : option.long
    throw flagError(c, `invalid argument "${text}" for "${flag}" flag: ${e.message}`)
  }
}

/** Docker's words for too few or too many arguments. */
export function checkArguments(c: Command, given: number): void {
  const required = c.registeredArguments.filter((a) => a.required).length
  const most = c.registeredArguments.some((a) => a.variadic) ? Number.POSITIVE_INFINITY : c.registeredArguments.length
  if (given >= required && given <= most) return
  const count = (n: number): string => `${n} argument${n === 1 ? '' : 's'}`
  const what =
    most === 0
      ? 'accepts no arguments'
      : required === most
        ? `requires ${count(required)}`
        : most === Number.POSITIVE_INFINITY
          ? `requires at least ${count(required)}`
          : required === 0
            ? `requires at most ${count(most)}`
            : `requires at least ${required} and at most ${count(most)}`
  throw new UsageError(
    `shoal: '${c.path}' ${what}\n\nUsage:  ${c.usageLine}\n\n${most === Number.POSITIVE_INFINITY ? 'See' : 'Run'} '${c.path} --help' for more information`,
    1,
  )
}

/** The command's page, in docker's order. */
export function helpText(c: Command, aliases: readonly string[] = []): string {
  const rows = (all: readonly [string, string][]): string => {
    const width = Math.max(...all.map(([a]) => a.length)) + 3
    return all.map(([a, b]) => `  ${a.padEnd(width)}${b}\n`).join('')
  }
  let out = `Usage:  ${c.usageLine}\n\n${c.description()}\n`
  const names = [...new Set([...aliases, ...c.aliases().map((a) => `${(c.parent as Command).path} ${a}`)])]
  if (names.length > 0) out += `\nAliases:\n  ${[c.path, ...names].join(', ')}\n`
  if (c.commands.length > 0)
    out += `\nCommands:\n${rows(
      [...c.commands]
        .sort((a, b) => (a.name() < b.name() ? -1 : 1))
        .map((x): [string, string] => [x.name(), x.description()]),
    )}`
  const options = c.options.filter((o) => !o.hidden)
  if (options.length > 0)
    out += `\nOptions:\n${rows(
      [...options]
        .sort((a, b) => (a.long! < b.long! ? -1 : 1))
        .map((o): [string, string] => {
          const value = /[<[](.+)[>\]]/.exec(o.flags)?.[1]
          const standard = o.defaultValue
          const shown =
            standard === undefined || standard === '' || typeof standard === 'boolean'
              ? ''
              : ` (default ${JSON.stringify(standard)})`
          return [
            `${o.short ? `${o.short}, ` : '    '}${o.long}${value ? ` ${value}` : ''}`,
            `${o.description.charAt(0).toUpperCase()}${o.description.slice(1)}${shown}`,
          ]
        }),
    )}`
  if (c.commands.length > 0) out += `\nRun '${c.path} COMMAND --help' for more information on a command.\n`
  return out
}
