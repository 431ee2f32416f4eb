import { invalid } from '../../common/index.js'
import type { HealthcheckConfig } from '../../engine/index.js'
import { goDuration, goQuote } from './go-text.js'
import { trim } from './lines.js'
import { blankWords, jsonList, nameAndRest, quotedWords, splitCommand } from './words.js'

export interface Pair {
  readonly name: string
  readonly value: string
}

/** A command line: words to execute, or one text for the shell. */
export interface CommandLine {
  readonly words: readonly string[]
  readonly isShell: boolean
}

interface Written {
  /** As it stands in the file: printed with its step. */
  readonly code: string
}
export type CopyInstruction = Written & {
  readonly kind: 'add' | 'copy'
  readonly sources: readonly string[]
  readonly destination: string
  readonly chown: string
  readonly chmod: string
  /** A stage or an image; "": the context. */
  readonly from: string
}
export type ArgInstruction = Written & {
  readonly kind: 'arg'
  readonly args: readonly { readonly name: string; readonly value: string | null }[]
}
export type Instruction =
  | CopyInstruction
  | ArgInstruction
  | (Written & { readonly kind: 'cmd' | 'entrypoint'; readonly line: CommandLine })
  | (Written & { readonly kind: 'run'; readonly line: CommandLine; readonly flags: readonly string[] })
  | (Written & { readonly kind: 'env'; readonly pairs: readonly Pair[] })
  /** `isLiteral`: given with the request, no variables in it. */
  | (Written & { readonly kind: 'label'; readonly pairs: readonly Pair[]; readonly isLiteral: boolean })
  | (Written & { readonly kind: 'expose'; readonly ports: readonly string[] })
  | (Written & { readonly kind: 'healthcheck'; readonly health: HealthcheckConfig })
  | (Written & { readonly kind: 'maintainer' | 'stopsignal' | 'user'; readonly value: string })
  | (Written & { readonly kind: 'workdir'; readonly value: string })
  | (Written & { readonly kind: 'onbuild'; readonly trigger: string })
  | (Written & { readonly kind: 'shell'; readonly words: readonly string[] })
  | (Written & { readonly kind: 'volume'; readonly paths: readonly string[] })

export interface From extends Written {
  readonly kind: 'from'
  readonly image: string
  /** In lower case; "": the stage has only a number. */
  readonly name: string
  readonly platform: string
}

const bad = (message: string): Error => invalid('badDockerfile', message)
const atLeastOne = (command: string): Error => bad(`${command} requires at least one argument`)
const exactlyOne = (command: string): Error => bad(`${command} requires exactly one argument`)

/** The values of an instruction's flags, of those it has. */
function readFlags(flags: readonly string[], known: readonly string[]): Map<string, string> {
  const values = new Map<string, string>()
  for (const flag of flags) {
    const [, name = '', value] = /^--([^=]*)(?:=(.*))?$/s.exec(flag) ?? []
    if (!known.includes(name)) throw bad(`Unknown flag: ${name}`)
    if (values.has(name)) throw bad(`Duplicate flag specified: ${name}`)
    if (value === undefined) throw bad(`Missing a value on flag: ${name}`)
    values.set(name, value)
  }
  return values
}

/** A line taken apart by the rules that stand before the meaning of any instruction: these faults are told of the whole file. */
export interface Statement {
  readonly command: string
  readonly flags: readonly string[]
  readonly rest: string
  readonly code: string
  /** The rest, where it is a JSON list. */
  readonly list: string[] | null
  /** ENV and LABEL. */
  readonly pairs: readonly Pair[]
}

const TAKES_LIST = ['add', 'cmd', 'copy', 'entrypoint', 'run', 'shell', 'volume']

export function readStatement(line: string, escapeWith: string): Statement {
  const { command, flags, rest } = splitCommand(line)
  if (command === 'onbuild' && rest !== '') readStatement(rest, escapeWith)
  const health = command === 'healthcheck' ? nameAndRest(rest) : null
  return {
    command,
    flags,
    rest,
    code: trim(line),
    list: TAKES_LIST.includes(command) ? jsonList(rest) : health ? jsonList(health[1]) : null,
    pairs: command === 'env' || command === 'label' ? readPairs(rest, command.toUpperCase(), escapeWith) : [],
  }
}

/** `NAME=VALUE ...`, or in the old form one name and everything behind it. */
function readPairs(rest: string, command: string, escapeWith: string): Pair[] {
  const words = quotedWords(rest, escapeWith)
  if (words.length === 0) return []
  if (!words[0]!.includes('=')) {
    const old = nameAndRest(rest)
    if (!old) throw bad(`${command} must have two arguments`)
    return [{ name: old[0], value: old[1] }]
  }
  return words.map((word) => {
    const at = word.indexOf('=')
    if (at < 0) throw bad(`Syntax error - can't find = in ${goQuote(word)}. Must be of the form: name=value`)
    return { name: word.slice(0, at), value: word.slice(at + 1) }
  })
}

/**
 * What a statement means.
 *
 * @throws invalid `badDockerfile`, without the line's number.
 */
export function readInstruction(s: Statement, escapeWith: string): Instruction | From {
  const { command, code, rest, list } = s
  const NAME = command.toUpperCase()
  const words = list ?? blankWords(rest)
  const commandLine: CommandLine = { words: list ?? (rest === '' ? [] : [rest]), isShell: list === null }
  switch (command) {
    case 'add':
    case 'copy': {
      if (words.length < 2)
        throw bad(
          `${NAME} requires at least two arguments, but only one was provided. Destination could not be determined`,
        )
      const flags = readFlags(s.flags, command === 'copy' ? ['chown', 'from', 'chmod'] : ['chown', 'chmod'])
      return {
        kind: command,
        code,
        sources: words.slice(0, -1),
        destination: words.at(-1)!,
        chown: flags.get('chown') ?? '',
        chmod: flags.get('chmod') ?? '',
        from: flags.get('from') ?? '',
      }
    }
    case 'arg': {
      const args = quotedWords(rest, escapeWith)
      if (args.length === 0) throw atLeastOne(NAME)
      return { kind: 'arg', code, args: args.map(readArg) }
    }
    case 'cmd':
    case 'entrypoint':
      readFlags(s.flags, [])
      return { kind: command, code, line: commandLine }
    case 'run':
      return { kind: 'run', code, line: commandLine, flags: [...readFlags(s.flags, ['mount']).keys()] }
    case 'env':
    case 'label':
      readFlags(s.flags, [])
      if (s.pairs.length === 0) throw atLeastOne(NAME)
      if (s.pairs.some((p) => p.name === '')) throw bad(`${NAME} names can not be blank`)
      return { kind: command, code, pairs: s.pairs, isLiteral: false }
    case 'expose':
      if (words.length === 0) throw atLeastOne(NAME)
      readFlags(s.flags, [])
      return { kind: 'expose', code, ports: [...words].sort() }
    case 'from':
      return readFrom(s)
    case 'healthcheck':
      return { kind: 'healthcheck', code, health: readHealthcheck(s) }
    case 'maintainer':
    case 'stopsignal':
    case 'user':
    case 'workdir':
      if (rest === '') throw exactlyOne(NAME)
      if (command !== 'stopsignal') readFlags(s.flags, [])
      return { kind: command, code, value: rest }
    case 'onbuild':
      return { kind: 'onbuild', code, trigger: readTrigger(s) }
    case 'shell':
      readFlags(s.flags, [])
      if (commandLine.words.length === 0) throw atLeastOne(NAME)
      if (!list) throw bad('SHELL requires the arguments to be in JSON form')
      return { kind: 'shell', code, words: list }
    case 'volume': {
      if (words.length === 0) throw atLeastOne(NAME)
      readFlags(s.flags, [])
      const paths = words.map(trim)
      if (paths.includes('')) throw bad('VOLUME specified can not be an empty string')
      return { kind: 'volume', code, paths }
    }
    default:
      throw invalid('unknownInstruction', `unknown instruction: ${NAME}`, { instruction: NAME })
  }
}

function readArg(word: string): { name: string; value: string | null } {
  const at = word.indexOf('=')
  if (at === 0) throw bad('ARG names can not be blank')
  return at < 0 ? { name: word, value: null } : { name: word.slice(0, at), value: word.slice(at + 1) }
}

function readFrom(s: Statement): From {
  const words = blankWords(s.rest)
  let name = ''
  if (words.length === 3 && words[1]!.toLowerCase() === 'as') {
    name = words[2]!.toLowerCase()
    if (!/^[a-z][a-z0-9-_.]*$/.test(name))
      throw bad(
        `invalid name for build stage: ${goQuote(words[2]!)}, name can't start with a number or contain symbols`,
      )
  } else if (words.length !== 1) throw bad('FROM requires either one or three arguments')
  const flags = readFlags(s.flags, ['platform'])
  return { kind: 'from', code: s.code, image: words[0]!, name, platform: flags.get('platform') ?? '' }
}

function readTrigger(s: Statement): string {
  const trigger = splitCommand(s.rest).command.toUpperCase()
  if (trigger === '') throw atLeastOne('ONBUILD')
  readFlags(s.flags, [])
  if (trigger === 'ONBUILD') throw bad("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
  if (trigger === 'MAINTAINER' || trigger === 'FROM') throw bad(`${trigger} isn't allowed as an ONBUILD trigger`)
  return s.code.replace(/^ONBUILD\s*/i, '')
}

const DURATION_NANOS_MIN = 1e6

function readHealthcheck(s: Statement): HealthcheckConfig {
  if (s.rest === '') throw atLeastOne('HEALTHCHECK')
  const [type = '', rest = ''] = nameAndRest(s.rest) ?? [s.rest]
  if (type.toUpperCase() === 'NONE') {
    if (rest !== '') throw bad('HEALTHCHECK NONE takes no arguments')
    return { Test: ['NONE'] }
  }
  const flags = readFlags(s.flags, ['interval', 'timeout', 'start-period', 'retries'])
  if (type.toUpperCase() !== 'CMD') throw bad(`Unknown type ${goQuote(type.toUpperCase())} in HEALTHCHECK (try CMD)`)
  const command = s.list ?? (rest === '' ? [] : [rest])
  if (command.length === 0) throw bad('Missing command after HEALTHCHECK CMD')
  const duration = (name: string): number => {
    const text = flags.get(name) ?? ''
    if (text === '') return 0
    const read = goDuration(text)
    if ('error' in read) throw bad(read.error)
    if (read.nanos < DURATION_NANOS_MIN) throw bad(`Interval ${goQuote(name)} cannot be less than 1ms`)
    return read.nanos
  }
  return {
    Test: [s.list ? 'CMD' : 'CMD-SHELL', ...command],
    ...nonZero('Interval', duration('interval')),
    ...nonZero('Timeout', duration('timeout')),
    ...nonZero('StartPeriod', duration('start-period')),
    ...nonZero('Retries', readRetries(flags.get('retries') ?? '')),
  }
}

const nonZero = (name: string, n: number): Record<string, number> => (n === 0 ? {} : { [name]: n })

function readRetries(text: string): number {
  if (text === '') return 0
  if (!/^[-+]?\d+$/.test(text)) throw bad(`strconv.ParseInt: parsing ${goQuote(text)}: invalid syntax`)
  const retries = Number(text)
  if (retries > 2 ** 31 - 1) throw bad(`strconv.ParseInt: parsing ${goQuote(text)}: value out of range`)
  if (retries < 1) throw bad(`--retries must be at least 1 (not ${retries})`)
  return retries
}
