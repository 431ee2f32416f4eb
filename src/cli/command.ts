import { InvalidArgumentError } from 'commander'
import type { Api } from './api.js'
import { Command } from './flags.js'
import { formatList, LABELS, type ListFormat, type Row } from './format/table.js'
import { compile } from './format/template.js'
import { parseDuration, parseSize } from './format/units.js'

/** What every command is given: the engine (dialled on first use), and where its output goes. */
export interface Cli {
  api(): Promise<Api>
  out(text: string): void
  err(text: string): void
}

/** An end of the program with a status of its own; a message is printed as it is. */
export class Exit extends Error {
  override readonly name = 'Exit'
  constructor(
    readonly status: number,
    message = '',
  ) {
    super(message)
  }
}

export const collect = (v: string, all: string[] = []): string[] => [...all, v]

const number =
  (parser: string, allowed: RegExp) =>
  (v: string): number => {
    if (!allowed.test(v))
      throw new InvalidArgumentError(`strconv.${parser}: parsing ${JSON.stringify(v)}: invalid syntax`)
    return Number(v)
  }

export const whole = number('ParseInt', /^[+-]?\d+$/)
export const unsigned = number('ParseUint', /^\d+$/)
export const decimal = number('ParseFloat', /^[+-]?(\d+(\.\d*)?|\.\d+)$/)

/** CPUs, as a fraction of one. */
export function cpus(v: string): number {
  if (!/^\d*\.?\d+$/.test(v)) throw new InvalidArgumentError(`failed to parse ${v} as a rational number`)
  return Number(v)
}

/** Bytes. */
export function size(v: string): number {
  const n = parseSize(v)
  if (n === null) throw new InvalidArgumentError(`invalid size: '${v}'`)
  return n
}

/** Bytes, or -1 for no limit. */
export const sizeOrUnlimited = (v: string): number => (v === '-1' ? -1 : size(v))

/** Nanoseconds. */
export function duration(v: string): number {
  const n = parseDuration(v)
  if (n === null) throw new InvalidArgumentError(`time: invalid duration "${v}"`)
  return n
}

/** One --filter: NAME=VALUE. */
export function filterFlag(v: string, all: string[] = []): string[] {
  if (!v.includes('=')) throw new InvalidArgumentError('bad format of filter (expected name=value)')
  return [...all, v]
}

/** --filter a=b --filter a=c → the API's map of lists. */
export function filters(all: readonly string[] | undefined): Record<string, string[]> | undefined {
  if (!all || all.length === 0) return undefined
  const out: Record<string, string[]> = {}
  for (const f of all) {
    const i = f.indexOf('=')
    const key = f.slice(0, i).trim().toLowerCase()
    out[key] = [...(out[key] ?? []), f.slice(i + 1).trim()]
  }
  return out
}

/** Asks before something is removed; anything but yes ends the command. */
export async function confirm(cli: Cli, force: boolean | undefined, warning: string): Promise<void> {
  if (force) return
  cli.out(`${warning}\nAre you sure you want to continue? [y/N] `)
  const answer = (await readLine()).trim().toLowerCase()
  if (answer !== 'y' && answer !== 'yes') throw new Exit(0)
}

/** One line of standard input; empty at its end. */
export async function readLine(): Promise<string> {
  let text = ''
  for await (const b of process.stdin) {
    text += String(b)
    if (text.includes('\n')) break
  }
  process.stdin.pause()
  return text.split('\n')[0]!
}

/** "a=b", "a" → map. */
export function pairs(all: readonly string[] | undefined): Record<string, string> {
  return Object.fromEntries(
    (all ?? []).map((p) => (p.includes('=') ? [p.slice(0, p.indexOf('=')), p.slice(p.indexOf('=') + 1)] : [p, ''])),
  )
}

/** KEY without a value takes it from the caller's environment, or is left out. */
export function environment(all: readonly string[] | undefined): string[] {
  return (all ?? []).flatMap((e) =>
    e.includes('=') ? [e] : process.env[e] !== undefined ? [`${e}=${process.env[e]}`] : [e],
  )
}

export interface ListFlags {
  readonly format?: string
  readonly quiet?: boolean
  readonly filter?: string[]
  readonly trunc?: boolean
}

/** The flags that all lists have. */
export function listFlags(c: Command): Command {
  return c
    .option('-f, --filter <filter>', 'filter output based on conditions provided', filterFlag)
    .option('--format <format>', "format output: 'table', 'table TEMPLATE', 'json' or a Go template", '')
    .option('-q, --quiet', 'only display IDs')
}

/** A row's Labels column, and what {{.Label "key"}} looks into. */
export function labels(all: Record<string, string> | null | undefined): Row {
  const text = Object.entries(all ?? {})
    .map(([k, v]) => `${k}=${v}`)
    .sort()
    .join(',')
  return { Labels: text, [LABELS]: all ?? {} }
}

export function printList(
  cli: Cli,
  rows: readonly Row[],
  f: Omit<ListFormat, 'format' | 'quiet'>,
  flags: ListFlags,
): void {
  cli.out(formatList(rows, { ...f, format: flags.format ?? '', quiet: flags.quiet ?? false }))
}

/** Several references inspected: one JSON list, or a template a line; what is missing is told at the end, with status 1. */
export async function inspectAll(
  cli: Cli,
  references: readonly string[],
  get: (reference: string) => Promise<unknown>,
  format: string | undefined | ((found: object) => string),
): Promise<void> {
  const found: unknown[] = []
  const missing: string[] = []
  for (const r of references) {
    try {
      found.push(await get(r))
    } catch (e) {
      missing.push((e as Error).message)
    }
  }
  if (typeof format === 'function') cli.out(found.map((f) => format(f as object)).join(''))
  else if (!format || format === 'json')
    cli.out(`${format === 'json' ? JSON.stringify(found) : JSON.stringify(found, null, 4)}\n`)
  else {
    const template = compile(format, { strict: true })
    for (const f of found) {
      try {
        cli.out(`${template(f)}\n`)
      } catch (e) {
        cli.out('\n')
        throw e
      }
    }
  }
  if (missing.length > 0) throw new Exit(1, missing.join('\n'))
}

/** One call for each reference; the names of those that worked are printed, the errors of the others at the end. */
export async function forEach(
  cli: Cli,
  references: readonly string[],
  act: (reference: string) => Promise<unknown>,
): Promise<void> {
  const failures: string[] = []
  for (const r of references) {
    try {
      // 'missing': nothing was done, and that is no failure; the name is not printed.
      if ((await act(r)) !== 'missing') cli.out(`${r}\n`)
    } catch (e) {
      failures.push((e as Error).message)
    }
  }
  if (failures.length > 0) throw new Exit(1, failures.join('\n'))
}

/** A JSON answer stream, object by object. */
export async function* jsonObjects(from: AsyncIterable<Buffer>): AsyncGenerator<Record<string, unknown>> {
  let rest = ''
  const decoder = new TextDecoder()
  for await (const chunk of from) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split('\n')
    rest = parts.pop()!
    for (const p of parts) if (p.trim() !== '') yield JSON.parse(p) as Record<string, unknown>
  }
  if (rest.trim() !== '') yield JSON.parse(rest) as Record<string, unknown>
}

export { Command }
