import { compile, ROW } from './template.js'

/** Columns of a list: Go template name → heading; in the order in which they are shown by default. */
export interface Columns {
  readonly [field: string]: string
}

export interface ListFormat {
  /** What --format gave; empty for the default. */
  readonly format: string
  readonly quiet: boolean
  readonly columns: Columns
  /** Fields shown without --format. */
  readonly shown: readonly string[]
  /** Field printed by -q. */
  readonly id: string
}

export type Row = Readonly<Record<string, unknown>> & { readonly [LABELS]?: Readonly<Record<string, string>> }

/** Labels as a map, beside the column that shows them. */
export const LABELS = Symbol('labels')

/** Prints rows as docker does: aligned table, `table TEMPLATE`, a template a line, or `json`. */
export function formatList(rows: readonly Row[], f: ListFormat): string {
  const known = rows.map((r) => ({
    ...r,
    ...(r[LABELS] ? { Label: (key: string) => r[LABELS]?.[key] ?? '' } : {}),
    [ROW]: true,
  }))
  if (f.quiet && f.format === '') return lines(known.map((r) => String((r as Row)[f.id] ?? '')))
  const format =
    f.format === '' || f.format === 'table' ? `table ${f.shown.map((s) => `{{.${s}}}`).join('\t')}` : f.format
  if (format === 'json' || format === '{{json .}}') return lines(rows.map(jsonRow))
  if (!format.startsWith('table ')) {
    const template = compile(unescaped(format))
    return lines(known.map(template))
  }
  const template = compile(unescaped(format.slice(6)))
  // A label's heading is its key's last part.
  const label = (key: string): string => key.replace(/^.*[./]/, '').replaceAll(/[-_]/g, ' ')
  const heading = template({ ...f.columns, Label: label, [ROW]: true })
  return align([heading, ...known.map(template)])
}

/** As Go writes a row: keys in order, and what HTML would read escaped. */
export function jsonRow(row: Row): string {
  const sorted = Object.fromEntries(Object.entries(row).sort(([a], [b]) => (a < b ? -1 : 1)))
  return JSON.stringify(sorted).replace(
    /[<>&\u2028\u2029]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

/** Two-character escapes that people type in shells. */
const unescaped = (s: string): string => s.replaceAll('\\t', '\t').replaceAll('\\n', '\n')

const lines = (all: readonly string[]): string => all.map((l) => `${l}\n`).join('')

/** `docker top` pads to 20 columns at least, and one space apart. */
export const alignTop = (all: readonly string[]): string => align(all, { least: 20, apart: 1 })

/** Columns are separated by tabs, padded to at least `least` and `apart` spaces' distance, like Go's tabwriter in docker. */
export function align(all: readonly string[], { least, apart } = { least: 10, apart: 3 }): string {
  const cells = all.map((l) => l.split('\t'))
  const widths: number[] = []
  for (const row of cells) {
    row.slice(0, -1).forEach((c, i) => {
      widths[i] = Math.max(widths[i] ?? least, [...c].length + apart)
    })
  }
  return cells
    .map((row) => {
      const padded = row.map((c, i) => (i === row.length - 1 ? c : c + ' '.repeat(widths[i]! - [...c].length)))
      return `${padded.join('')}\n`
    })
    .join('')
}
