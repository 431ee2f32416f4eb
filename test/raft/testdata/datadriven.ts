/**
 * The file format of the test data: directives with arguments and input, `----`, the expected output, a blank line.
 * Comments and blank lines between directives are kept for the rewrite mode.
 */
export interface Argument {
  readonly key: string
  readonly values: readonly string[]
}

export interface Directive {
  readonly command: string
  readonly args: readonly Argument[]
  readonly input: string
  readonly expected: string
  /** 1-based line of the directive. */
  readonly line: number
  /** Everything before the expected output, since the last directive's end, as it stands in the file. */
  readonly source: readonly string[]
}

export interface DataFile {
  readonly directives: readonly Directive[]
  /** Lines after the last directive. */
  readonly rest: readonly string[]
}

const SEPARATOR = '----'
const isFiller = (line: string): boolean => line.trim() === '' || line.trim().startsWith('#')

export function parseFile(text: string): DataFile {
  const lines = text.split('\n')
  if (lines.at(-1) === '') lines.pop()
  const directives: Directive[] = []
  let at = 0
  let sourceFrom = 0
  while (at < lines.length) {
    if (isFiller(lines[at]!)) {
      at++
      continue
    }
    const line = at + 1
    let head = lines[at++]!.trim()
    while (head.endsWith('\\') && at < lines.length) head = `${head.slice(0, -1).trimEnd()} ${lines[at++]!.trim()}`
    const input: string[] = []
    while (at < lines.length && lines[at] !== SEPARATOR) input.push(lines[at++]!)
    if (at >= lines.length) throw new Error(`line ${line}: directive "${head}" without ${SEPARATOR}`)
    at++
    const source = lines.slice(sourceFrom, at)
    const output = readOutput(lines, at)
    at = output.end
    sourceFrom = at
    const { command, args } = parseDirective(head, line)
    directives.push({ command, args, input: input.join('\n').trim(), expected: output.text, line, source })
  }
  return { directives, rest: lines.slice(sourceFrom) }
}

/** Up to the first blank line, or between two separators if the output has blank lines of its own. */
function readOutput(lines: readonly string[], from: number): { text: string; end: number } {
  let at = from
  const out: string[] = []
  if (lines[at] === SEPARATOR) {
    at++
    while (at < lines.length && !(lines[at] === SEPARATOR && lines[at + 1] === SEPARATOR)) out.push(lines[at++]!)
    if (at >= lines.length) throw new Error(`line ${from}: output without its closing ${SEPARATOR} lines`)
    at += 2
  } else {
    while (at < lines.length && lines[at]!.trim() !== '') out.push(lines[at++]!)
  }
  return { text: out.map((l) => `${l}\n`).join(''), end: at }
}

/** `cmd key key=value key=(v1, v2)`. */
export function parseDirective(head: string, line: number): { command: string; args: Argument[] } {
  const [command] = head.split(/\s/, 1) as [string]
  const args: Argument[] = []
  let rest = head.slice(command.length).trim()
  while (rest !== '') {
    const list = /^([^\s=()]+)=\(([^()]*)\)(?=\s|$)/.exec(rest)
    const single = list ? null : /^([^\s=]+)(?:=(\S*))?(?=\s|$)/.exec(rest)
    const match = list ?? single
    if (!match) throw new Error(`line ${line}: cannot read the arguments "${rest}"`)
    if (list) {
      const inner = list[2]!.trim()
      args.push({ key: list[1]!, values: inner === '' ? [] : inner.split(',').map((v) => v.trim()) })
    } else {
      args.push({ key: match[1]!, values: match[2] === undefined ? [] : [match[2]] })
    }
    rest = rest.slice(match[0].length).trim()
  }
  return { command, args }
}

/** The form in which outputs are compared: a newline at the end unless empty. */
export const normalize = (output: string): string => (output === '' || output.endsWith('\n') ? output : `${output}\n`)

export function render(file: DataFile, outputs: readonly string[]): string {
  let text = ''
  file.directives.forEach((d, i) => {
    text += d.source.map((l) => `${l}\n`).join('')
    const output = outputs[i]!
    text += /^\s*$/m.test(output.replace(/\n$/, '')) && output !== '' ? `----\n${output}----\n----\n` : output
  })
  return text + file.rest.map((l) => `${l}\n`).join('')
}

export const findArg = (d: Directive, key: string): Argument | undefined => d.args.find((a) => a.key === key)

/** The value of `key=value`; undefined if the argument is absent. */
export function stringArg(d: Directive, key: string): string | undefined {
  return findArg(d, key)?.values[0]
}

export function numberArg(d: Directive, key: string): number | undefined {
  const value = stringArg(d, key)
  return value === undefined ? undefined : parseNumber(value, d)
}

/** A bare key counts as true. */
export function booleanArg(d: Directive, key: string): boolean {
  const arg = findArg(d, key)
  if (!arg) return false
  const value = arg.values[0] ?? 'true'
  if (value !== 'true' && value !== 'false')
    throw new Error(`line ${d.line}: ${key}=${value} is neither true nor false`)
  return value === 'true'
}

export function numbersArg(d: Directive, key: string): number[] {
  return (findArg(d, key)?.values ?? []).map((v) => parseNumber(v, d))
}

/** Arguments without a value that are numbers, in order. */
export const positionalNumbers = (d: Directive): number[] =>
  d.args.filter((a) => a.values.length === 0 && /^\d+$/.test(a.key)).map((a) => parseNumber(a.key, d))

export function parseNumber(text: string, d: Directive): number {
  if (!/^\d+$/.test(text)) throw new Error(`line ${d.line}: "${text}" is not a number`)
  return Number(text)
}
