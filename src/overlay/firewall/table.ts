/**
 * One nftables table as plain data. All that changes often is elements of sets and maps, so two states of a table can
 * be compared and the difference written as a few element commands. Pure.
 */
export interface TableModel {
  readonly family: 'inet' | 'ip' | 'bridge'
  readonly name: string
  readonly sets: Readonly<Record<string, SetModel>>
  /** Statements of each chain; the first of a base chain is its "type ... hook ..." line. */
  readonly chains: Readonly<Record<string, readonly string[]>>
}

export interface SetModel {
  readonly kind: 'set' | 'map'
  /** Such as "type ipv4_addr; flags interval;". */
  readonly spec: string
  /** Key to value; the value of a set's element is "". */
  readonly elements: ReadonlyMap<string, string>
}

/** Elements that one command carries; longer lists are cut. */
const ELEMENTS_A_COMMAND = 500

const element = ([key, value]: readonly [string, string]): string => (value === '' ? key : `${key} : ${value}`)

/** Replaces the table whole, in one transaction. */
export function renderTable(m: TableModel): string {
  const out = [`table ${m.family} ${m.name}`, `delete table ${m.family} ${m.name}`, `table ${m.family} ${m.name} {`]
  for (const [name, s] of Object.entries(m.sets)) {
    const elements = s.elements.size === 0 ? '' : ` elements = { ${[...s.elements].map(element).join(', ')} };`
    out.push(`  ${s.kind} ${name} { ${s.spec}${elements} }`)
  }
  for (const [name, lines] of Object.entries(m.chains))
    out.push(`  chain ${name} {`, ...lines.map((l) => `    ${l}`), '  }')
  out.push('}')
  return `${out.join('\n')}\n`
}

export const deleteTable = (m: Pick<TableModel, 'family' | 'name'>): string =>
  `table ${m.family} ${m.name}\ndelete table ${m.family} ${m.name}\n`

const isBase = (lines: readonly string[]): boolean => lines[0]?.startsWith('type ') ?? false

/** Commands that make `from` into `to`, "" when they are the same, null when only replacing it whole will do. */
export function renderDifference(from: TableModel, to: TableModel): string | null {
  if (from.family !== to.family || from.name !== to.name) return null
  const table = `${to.family} ${to.name}`
  const names = Object.keys(to.sets)
  if (names.length !== Object.keys(from.sets).length) return null
  for (const n of names) if (from.sets[n]?.spec !== to.sets[n]?.spec) return null

  const before: string[] = []
  const after: string[] = []
  for (const [name, lines] of Object.entries(to.chains)) {
    const old = from.chains[name]
    if (old && old.join('\n') === lines.join('\n')) continue
    if (old || isBase(lines)) return null
    before.push(`add chain ${table} ${name}`, ...lines.map((l) => `add rule ${table} ${name} ${l}`))
  }
  for (const [name, lines] of Object.entries(from.chains)) {
    if (to.chains[name]) continue
    if (isBase(lines)) return null
    after.push(`flush chain ${table} ${name}`, `delete chain ${table} ${name}`)
  }

  const out = [...before]
  const cut = (verb: string, set: string, items: string[]): void => {
    for (let i = 0; i < items.length; i += ELEMENTS_A_COMMAND)
      out.push(`${verb} element ${table} ${set} { ${items.slice(i, i + ELEMENTS_A_COMMAND).join(', ')} }`)
  }
  for (const n of names) {
    const old = from.sets[n]!.elements
    const now = to.sets[n]!.elements
    cut(
      'delete',
      n,
      [...old.keys()].filter((k) => now.get(k) !== old.get(k)),
    )
  }
  for (const n of names) {
    const old = from.sets[n]!.elements
    cut('add', n, [...to.sets[n]!.elements].filter(([k, v]) => old.get(k) !== v).map(element))
  }
  out.push(...after)
  return out.length === 0 ? '' : `${out.join('\n')}\n`
}
