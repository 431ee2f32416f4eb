import { Command, InvalidArgumentError } from 'commander'
import type { Api } from './api.js'
import { formatList, type ListFormat, type Row } from './format/table.js'
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

export function whole(v: string): number {
  if (!/^-?\d+$/.test(v)) throw new InvalidArgumentError(`"${v}" is not a whole number`)
  return Number(v)
}

export function decimal(v: string): number {
  if (!/^-?\d+(\.\d+)?$/.test(v)) throw new InvalidArgumentError(`"${v}" is not a number`)
  return Number(v)
}

/** Bytes. */
export function size(v: string): number {
  const n = v === '-1' ? -1 : parseSize(v)
  if (n === null) throw new InvalidArgumentError(`invalid size: '${v}'`)
  return n
}

/** Nanoseconds. */
export function duration(v: string): number {
  const n = parseDuration(v)
  if (n === null) throw new InvalidArgumentError(`time: invalid duration "${v}"`)
  return n
}

/** --filter a=b --filter a=c → the API's map of lists. */
export function filters(all: readonly string[] | undefined): Record<string, string[]> | undefined {
  if (!all || all.length === 0) return undefined
  const out: Record<string, string[]> = {}
  for (const f of all) {
    const i = f.indexOf('=')
    if (i < 0) throw new Exit(1, `invalid argument "${f}" for "-f, --filter" flag: invalid filter '${f}'`)
    const key = f.slice(0, i).trim().toLowerCase()
    out[key] = [...(out[key] ?? []), f.slice(i + 1).trim()]
  }
  return out
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
    .option('-f, --filter <filter>', 'show only what matches (KEY=VALUE, repeatable)', collect)
    .option('--format <format>', "'table', 'table TEMPLATE', 'json' or a Go template", '')
    .option('-q, --quiet', 'only ids')
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
  format: string | undefined,
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
  if (!format || format === 'json')
    cli.out(`${format === 'json' ? JSON.stringify(found) : JSON.stringify(found, null, 4)}\n`)
  else {
    const template = compile(format)
    for (const f of found) cli.out(`${template(f)}\n`)
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
      await act(r)
      cli.out(`${r}\n`)
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
