/**
 * The part of Go's text/template that people use with --format: fields, pipelines, if, range, with, and docker's
 * functions (json, join, split, upper, lower, title, truncate, println, printf, len, index, eq, ne, lt, le, gt, ge,
 * and, or, not).
 */

export class TemplateError extends Error {
  override readonly name = 'TemplateError'
}

type Node =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'output'; readonly pipe: Pipe }
  | {
      readonly kind: 'if' | 'range' | 'with'
      readonly pipe: Pipe
      readonly variables: readonly string[]
      readonly body: readonly Node[]
      readonly otherwise: readonly Node[]
    }
  | { readonly kind: 'assign'; readonly variable: string; readonly pipe: Pipe }

type Term =
  | { readonly kind: 'field'; readonly root: 'dot' | 'dollar' | string; readonly path: readonly string[] }
  | { readonly kind: 'literal'; readonly value: unknown }
  | { readonly kind: 'function'; readonly name: string }
  | { readonly kind: 'pipe'; readonly pipe: Pipe; readonly path: readonly string[] }
/** Each command's value is the last argument of the next. */
type Pipe = readonly (readonly Term[])[]

interface Scope {
  readonly dot: unknown
  readonly root: unknown
  readonly variables: Map<string, unknown>
  readonly strict: boolean
}

export type Template = (value: unknown) => string

/** Throws TemplateError with docker's beginning of the message. `strict`: looking into what is not there is an error. */
export function compile(text: string, { strict = false } = {}): Template {
  const nodes = new Parser(text).parse()
  return (value) => render(nodes, { dot: value, root: value, variables: new Map(), strict })
}

const fail = (why: string): never => {
  throw new TemplateError(`template parsing error: ${why}`)
}

class Parser {
  readonly #tokens: { readonly action: boolean; readonly text: string }[] = []
  #at = 0

  constructor(text: string) {
    let rest = text
    for (;;) {
      const open = rest.indexOf('{{')
      if (open < 0) break
      const close = endOfAction(rest, open + 2)
      let inner = rest.slice(open + 2, close)
      let before = rest.slice(0, open)
      if (/^-\s/.test(inner)) {
        before = before.trimEnd()
        inner = inner.slice(1)
      }
      rest = rest.slice(close + 2)
      if (/\s-$/.test(inner)) {
        inner = inner.slice(0, -1)
        rest = rest.trimStart()
      }
      if (before) this.#tokens.push({ action: false, text: before })
      if (!/^\s*\/\*/.test(inner)) this.#tokens.push({ action: true, text: inner.trim() })
    }
    if (rest) this.#tokens.push({ action: false, text: rest })
  }

  parse(): readonly Node[] {
    const { nodes, end } = this.#list()
    if (end !== null) fail(`unexpected {{${end}}}`)
    return nodes
  }

  #list(): { nodes: Node[]; end: string | null } {
    const nodes: Node[] = []
    while (this.#at < this.#tokens.length) {
      const t = this.#tokens[this.#at++]!
      if (!t.action) {
        nodes.push({ kind: 'text', text: t.text })
        continue
      }
      if (t.text === 'end' || t.text === 'else' || t.text.startsWith('else ')) return { nodes, end: t.text }
      const block = /^(if|range|with)\b(.*)$/s.exec(t.text)
      if (block) {
        nodes.push(this.#block(block[1] as 'if' | 'range' | 'with', block[2]!))
        continue
      }
      const assign = /^(\$\w+)\s*:?=\s*(.*)$/s.exec(t.text)
      if (assign) nodes.push({ kind: 'assign', variable: assign[1]!, pipe: parsePipe(assign[2]!) })
      else nodes.push({ kind: 'output', pipe: parsePipe(t.text) })
    }
    return { nodes, end: null }
  }

  #block(kind: 'if' | 'range' | 'with', head: string): Node {
    const named = /^\s*(\$\w+)(?:\s*,\s*(\$\w+))?\s*:=\s*(.*)$/s.exec(head)
    const variables = named ? [named[1]!, ...(named[2] ? [named[2]] : [])] : []
    const pipe = parsePipe(named ? named[3]! : head)
    const body = this.#list()
    if (body.end === null) fail(`{{${kind}}} without {{end}}`)
    let otherwise: Node[] = []
    if (body.end !== 'end') {
      const chained = /^else\s+if\b(.*)$/s.exec(body.end!)
      if (chained) otherwise = [this.#block('if', chained[1]!)]
      else {
        const rest = this.#list()
        if (rest.end !== 'end') fail(`{{${kind}}} without {{end}}`)
        otherwise = rest.nodes
      }
    }
    return { kind, pipe, variables, body: body.nodes, otherwise }
  }
}

/** The closing braces, not those inside a string. */
function endOfAction(text: string, from: number): number {
  let quote = ''
  for (let i = from; i < text.length; i++) {
    const c = text[i]!
    if (quote) {
      if (c === '\\' && quote === '"') i++
      else if (c === quote) quote = ''
    } else if (c === '"' || c === '`') quote = c
    else if (c === '}' && text[i + 1] === '}') return i
  }
  return fail('unclosed action')
}

const TOKEN =
  /\s*(?:("(?:[^"\\]|\\.)*")|`([^`]*)`|(-?\d+(?:\.\d+)?)(?![\w.])|(true|false|nil)\b|(\$\w*(?:\.\w+)*|\.(?:\w+(?:\.\w+)*)?)|(\w+)|([()|]))/y

function parsePipe(text: string): Pipe {
  let at = 0
  const pipe = (nested: boolean): Pipe => {
    const commands: Term[][] = [[]]
    for (;;) {
      TOKEN.lastIndex = at
      const m = TOKEN.exec(text)
      if (!m) {
        if (text.slice(at).trim() !== '') fail(`unexpected "${text.slice(at).trim()}" in "${text}"`)
        if (nested) fail(`unclosed parenthesis in "${text}"`)
        break
      }
      at = TOKEN.lastIndex
      const current = commands[commands.length - 1]!
      if (m[1] !== undefined) current.push({ kind: 'literal', value: JSON.parse(m[1]) })
      else if (m[2] !== undefined) current.push({ kind: 'literal', value: m[2] })
      else if (m[3] !== undefined) current.push({ kind: 'literal', value: Number(m[3]) })
      else if (m[4] !== undefined) current.push({ kind: 'literal', value: m[4] === 'nil' ? null : m[4] === 'true' })
      else if (m[5] !== undefined) current.push(field(m[5]))
      else if (m[6] !== undefined) {
        if (!(m[6] in FUNCTIONS)) fail(`function "${m[6]}" not defined`)
        current.push({ kind: 'function', name: m[6] })
      } else if (m[7] === '|') commands.push([])
      else if (m[7] === '(') {
        const inner = pipe(true)
        const after = /^(?:\.\w+)+/.exec(text.slice(at))
        if (after) at += after[0].length
        current.push({ kind: 'pipe', pipe: inner, path: after ? after[0].slice(1).split('.') : [] })
      } else {
        if (!nested) fail(`unexpected ")" in "${text}"`)
        break
      }
    }
    if (commands.some((c) => c.length === 0)) fail(`missing value for command in "${text}"`)
    return commands
  }
  return pipe(false)
}

function field(text: string): Term {
  const parts = text.split('.')
  const head = parts[0]!
  return {
    kind: 'field',
    root: head === '' ? 'dot' : head === '$' ? 'dollar' : head,
    path: parts.slice(1).filter((p) => p !== ''),
  }
}

function render(nodes: readonly Node[], scope: Scope): string {
  let out = ''
  for (const n of nodes) {
    if (n.kind === 'text') out += n.text
    else if (n.kind === 'output') out += show(evaluate(n.pipe, scope))
    else if (n.kind === 'assign') scope.variables.set(n.variable, evaluate(n.pipe, scope))
    else {
      const value = evaluate(n.pipe, scope)
      if (n.kind === 'range') {
        const items: [unknown, unknown][] = Array.isArray(value)
          ? value.map((v, i) => [i, v])
          : value && typeof value === 'object'
            ? Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
            : []
        if (items.length === 0) out += render(n.otherwise, scope)
        for (const [key, item] of items) {
          const variables = new Map(scope.variables)
          if (n.variables.length === 2) variables.set(n.variables[0]!, key)
          if (n.variables.length > 0) variables.set(n.variables[n.variables.length - 1]!, item)
          out += render(n.body, { ...scope, dot: item, variables })
        }
      } else {
        const inner = { ...scope, variables: new Map(scope.variables) }
        if (n.variables[0]) inner.variables.set(n.variables[0], value)
        out += truth(value)
          ? render(n.body, n.kind === 'with' ? { ...inner, dot: value } : inner)
          : render(n.otherwise, scope)
      }
    }
  }
  return out
}

function evaluate(pipe: Pipe, scope: Scope): unknown {
  let value: unknown
  pipe.forEach((command, i) => {
    const [first, ...rest] = command as [Term, ...Term[]]
    const args = [...rest.map((t) => term(t, scope)), ...(i > 0 ? [value] : [])]
    if (first.kind === 'function') value = FUNCTIONS[first.name]!(...args)
    else if (args.length === 0) value = term(first, scope)
    else {
      const method = first.kind === 'field' ? walk(start(first, scope), first.path, scope.strict, false) : undefined
      value = typeof method === 'function' ? method(...args) : fail("can't give argument to non-function")
    }
  })
  return value
}

function term(t: Term, scope: Scope): unknown {
  if (t.kind === 'literal') return t.value
  if (t.kind === 'function') return FUNCTIONS[t.name]!()
  if (t.kind === 'pipe') return walk(evaluate(t.pipe, scope), t.path, scope.strict)
  return walk(start(t, scope), t.path, scope.strict)
}

const start = (t: Term & { kind: 'field' }, scope: Scope): unknown =>
  t.root === 'dot' ? scope.dot : t.root === 'dollar' ? scope.root : scope.variables.get(t.root)

/** A method of a row (a function without arguments) is called, as Go does. */
function walk(from: unknown, path: readonly string[], strict: boolean, call = true): unknown {
  let v = from
  for (const [i, p] of path.entries()) {
    if (v === null || v === undefined) {
      if (strict && i > 0)
        throw new TemplateError(
          `template parsing error: template: :1: executing "" at <.${path.join('.')}>: map has no entry for key ${JSON.stringify(path[i - 1])}`,
        )
      return undefined
    }
    const next = member(v as Record<string, unknown>, p)
    if (next === undefined && typeof v === 'object' && !Array.isArray(v) && !(p in v) && isRow(v))
      throw new TemplateError(`template: :1: can't evaluate field ${p} in type docker row`)
    v = typeof next === 'function' && call ? (next as () => unknown).call(v) : next
  }
  return v
}

/** A field by its name, or by the name that Go's structures give it: {{.ID}} is "Id" in the API. */
function member(v: Record<string, unknown>, name: string): unknown {
  if (typeof v !== 'object' || name in v || Array.isArray(v)) return v[name]
  const alike = Object.keys(v).filter((k) => k.toLowerCase() === name.toLowerCase())
  return alike.length === 1 ? v[alike[0]!] : undefined
}

/** Rows of tables know all their columns; a wrong name there is a mistake worth telling. */
export const ROW = Symbol('row')
const isRow = (v: object): boolean => ROW in v

function truth(v: unknown): boolean {
  if (Array.isArray(v)) return v.length > 0
  if (v && typeof v === 'object') return Object.keys(v).length > 0
  return v !== null && v !== undefined && v !== false && v !== 0 && v !== ''
}

/** How Go prints a value: maps as map[a:b], lists as [a b], absent as <no value>. */
export function show(v: unknown): string {
  if (v === undefined) return '<no value>'
  if (v === null) return '<nil>'
  if (Array.isArray(v)) return `[${v.map(show).join(' ')}]`
  if (typeof v === 'object')
    return `map[${Object.entries(v)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([k, x]) => `${k}:${show(x)}`)
      .join(' ')}]`
  return String(v)
}

const compare = (a: unknown, b: unknown): number => ((a as number) < (b as number) ? -1 : a === b ? 0 : 1)

// biome-ignore lint/suspicious/noExplicitAny: what a template hands over is known only when it runs
const FUNCTIONS: Readonly<Record<string, (...args: any[]) => unknown>> = {
  json: (v: unknown) =>
    JSON.stringify(v === undefined ? null : v, (_k, x: unknown) =>
      typeof x === 'function' ? (x as () => unknown)() : x,
    ),
  join: (list: readonly unknown[], separator: string) => (list ?? []).map(show).join(separator),
  split: (text: string, separator: string) => text.split(separator),
  upper: (v: unknown) => show(v).toUpperCase(),
  lower: (v: unknown) => show(v).toLowerCase(),
  title: (v: unknown) => show(v).replace(/\b[a-z]/g, (c) => c.toUpperCase()),
  pad: (text: string, left: number, right: number) => ' '.repeat(left) + text + ' '.repeat(right),
  truncate: (text: string, length: number) => show(text).slice(0, length),
  print: (...v: unknown[]) => v.map(show).join(''),
  println: (...v: unknown[]) => `${v.map(show).join(' ')}\n`,
  printf: (format: string, ...v: unknown[]) => {
    let i = 0
    return format.replace(
      /%(-?\d*)(?:\.(\d+))?([vsdqtf%])/g,
      (_all, width: string, precision: string | undefined, verb: string) => {
        if (verb === '%') return '%'
        const x = v[i++]
        const text =
          verb === 'q'
            ? JSON.stringify(show(x))
            : verb === 'f'
              ? Number(x).toFixed(precision === undefined ? 6 : Number(precision))
              : show(x)
        const n = Number(width)
        return n < 0 ? text.padEnd(-n) : text.padStart(n)
      },
    )
  },
  len: (v: unknown) =>
    Array.isArray(v) || typeof v === 'string' ? v.length : v && typeof v === 'object' ? Object.keys(v).length : 0,
  index: (v: unknown, ...keys: (string | number)[]) =>
    keys.reduce<unknown>((x, k) => (x as Record<string, unknown> | undefined)?.[k], v),
  slice: (v: string | unknown[], from = 0, to = v.length) => v.slice(from, to),
  eq: (a: unknown, ...b: unknown[]) => b.some((x) => x === a),
  ne: (a: unknown, b: unknown) => a !== b,
  lt: (a: unknown, b: unknown) => compare(a, b) < 0,
  le: (a: unknown, b: unknown) => compare(a, b) <= 0,
  gt: (a: unknown, b: unknown) => compare(a, b) > 0,
  ge: (a: unknown, b: unknown) => compare(a, b) >= 0,
  and: (...v: unknown[]) => v.find((x) => !truth(x)) ?? v[v.length - 1],
  or: (...v: unknown[]) => v.find(truth) ?? v[v.length - 1],
  not: (v: unknown) => !truth(v),
}
