import { invalid } from '../../common/index.js'

/** What a name or an expression stands for: text, a record that can be indexed, or nothing. */
export type TemplateValue = string | boolean | number | { readonly [key: string]: TemplateValue } | undefined

export type TemplateFunction = (...args: readonly TemplateValue[]) => TemplateValue

type Expression =
  | { readonly kind: 'literal'; readonly value: TemplateValue }
  | { readonly kind: 'field'; readonly path: readonly string[] }
  | { readonly kind: 'call'; readonly name: string; readonly args: readonly Expression[] }

type Part =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'value'; readonly expression: Expression }
  | {
      readonly kind: 'if'
      readonly condition: Expression
      readonly body: readonly Part[]
      readonly otherwise: readonly Part[]
    }

const BUILT_IN: Readonly<Record<string, TemplateFunction>> = {
  index: (value, ...keys) =>
    keys.reduce<TemplateValue>((v, k) => (typeof v === 'object' ? own(v, String(k)) : undefined), value),
  eq: (first, ...others) => others.some((o) => o === first),
  ne: (a, b) => a !== b,
  not: (a) => !isTrue(a),
  and: (...args) => args.find((a) => !isTrue(a)) ?? args.at(-1),
  or: (...args) => args.find(isTrue) ?? args.at(-1),
  len: (a) => (typeof a === 'string' ? Buffer.byteLength(a) : typeof a === 'object' ? Object.keys(a).length : 0),
  print: (...args) => args.map(textOf).join(''),
  printf: (format, ...args) => {
    let next = 0
    return textOf(format).replace(/%([%svdq])/g, (_, verb: string) =>
      verb === '%' ? '%' : verb === 'q' ? JSON.stringify(textOf(args[next++])) : textOf(args[next++]),
    )
  },
}

/**
 * Expands the part of Go's text/template that service specs use: fields (`{{.Node.Hostname}}`), `index`, `eq`, `ne`, `not`, `and`,
 * `or`, `len`, `print`, `printf`, pipelines, parentheses, `if`/`else if`/`else`/`end`, comments and trim markers, and the functions handed in.
 * Throws invalid `badTemplate` that names what was not understood; an unknown field is an error, a missing label is empty.
 */
export function expandTemplate(
  text: string,
  values: TemplateValue,
  functions: Readonly<Record<string, TemplateFunction>> = {},
): string {
  if (!text.includes('{{')) return text
  const all = { ...BUILT_IN, ...functions }
  const tokens = lex(text)
  const { parts, end } = parse(tokens, 0, text)
  if (end !== tokens.length) throw bad(text, 'an "end" or "else" without an "if"')
  return render(parts, values, all, text)
}

const bad = (text: string, why: string): Error =>
  invalid('badTemplate', `template ${JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text)}: ${why}`)

interface Token {
  readonly isAction: boolean
  readonly body: string
}

function lex(text: string): Token[] {
  const tokens: Token[] = []
  let rest = text
  let trimNext = false
  for (;;) {
    const open = rest.indexOf('{{')
    let plain = open < 0 ? rest : rest.slice(0, open)
    if (trimNext) plain = plain.trimStart()
    if (open < 0) {
      tokens.push({ isAction: false, body: plain })
      return tokens
    }
    let close = open + 2
    // A quoted string may hold the closing braces.
    for (let quote = ''; close < rest.length; close++) {
      const c = rest[close]!
      if (quote !== '') {
        if (c === '\\' && quote === '"') close++
        else if (c === quote) quote = ''
      } else if (c === '"' || c === '`') quote = c
      else if (rest.startsWith('}}', close)) break
    }
    if (!rest.startsWith('}}', close)) throw bad(text, 'an action is not closed with "}}"')
    let body = rest.slice(open + 2, close)
    if (/^-\s/.test(body)) {
      plain = plain.trimEnd()
      body = body.slice(1)
    }
    trimNext = /\s-$/.test(body)
    if (trimNext) body = body.slice(0, -1)
    tokens.push({ isAction: false, body: plain })
    body = body.trim()
    if (!/^\/\*[\s\S]*\*\/$/.test(body)) tokens.push({ isAction: true, body })
    rest = rest.slice(close + 2)
  }
}

/** Parts up to the end, or up to the `else` or `end` that closes the caller's `if`. */
function parse(tokens: readonly Token[], from: number, text: string): { readonly parts: Part[]; readonly end: number } {
  const parts: Part[] = []
  let i = from
  while (i < tokens.length) {
    const { isAction, body } = tokens[i]!
    if (!isAction) {
      if (body !== '') parts.push({ kind: 'text', text: body })
      i++
    } else if (body === 'end' || body === 'else' || body.startsWith('else ')) break
    else if (/^if\s/.test(body)) {
      const branch = parseIf(tokens, i, body.slice(3), text)
      parts.push(branch.part)
      i = branch.end
    } else {
      parts.push({ kind: 'value', expression: parsePipeline(body, text) })
      i++
    }
  }
  return { parts, end: i }
}

function parseIf(
  tokens: readonly Token[],
  at: number,
  condition: string,
  text: string,
): { readonly part: Part; readonly end: number } {
  const body = parse(tokens, at + 1, text)
  const closing = tokens[body.end]?.body
  if (closing === undefined) throw bad(text, 'an "if" has no "end"')
  const expression = parsePipeline(condition, text)
  if (closing === 'end')
    return { part: { kind: 'if', condition: expression, body: body.parts, otherwise: [] }, end: body.end + 1 }
  const next = /^else\s+if\s+([\s\S]*)$/.exec(closing)
  if (next) {
    // "else if" is an "if" of its own inside of the else; they share one "end".
    const inner = parseIf(tokens, body.end, next[1]!, text)
    return { part: { kind: 'if', condition: expression, body: body.parts, otherwise: [inner.part] }, end: inner.end }
  }
  const otherwise = parse(tokens, body.end + 1, text)
  if (tokens[otherwise.end]?.body !== 'end') throw bad(text, 'an "else" has no "end"')
  return {
    part: { kind: 'if', condition: expression, body: body.parts, otherwise: otherwise.parts },
    end: otherwise.end + 1,
  }
}

const WORD = /\s*("(?:[^"\\]|\\.)*"|`[^`]*`|\(|\)|\||-?\d+(?:\.\d+)?|\.[\w.]*|[A-Za-z_]\w*)/y

function parsePipeline(body: string, text: string): Expression {
  const words: string[] = []
  WORD.lastIndex = 0
  while (WORD.lastIndex < body.trimEnd().length) {
    const at = WORD.lastIndex
    const m = WORD.exec(body)
    if (m === null) throw bad(text, `"${body.slice(at).trim()}" is not understood`)
    words.push(m[1]!)
  }
  let i = 0
  const pipeline = (): Expression => {
    let expression = command(null)
    while (words[i] === '|') {
      i++
      expression = command(expression)
    }
    return expression
  }
  /** One stage; what the stage before gave is its last argument. */
  const command = (piped: Expression | null): Expression => {
    const head = words[i]
    if (head !== undefined && /^[A-Za-z_]/.test(head) && head !== 'true' && head !== 'false') {
      i++
      const args: Expression[] = []
      while (i < words.length && words[i] !== '|' && words[i] !== ')') args.push(operand())
      if (piped !== null) args.push(piped)
      return { kind: 'call', name: head, args }
    }
    if (piped !== null) throw bad(text, 'a pipe must lead into a function')
    return operand()
  }
  const operand = (): Expression => {
    const word = words[i++]
    if (word === undefined) throw bad(text, 'an action is empty')
    if (word === '(') {
      const inner = pipeline()
      if (words[i++] !== ')') throw bad(text, 'a parenthesis is not closed')
      return inner
    }
    if (word.startsWith('"')) {
      try {
        return { kind: 'literal', value: JSON.parse(word) as string }
      } catch {
        throw bad(text, `${word} is no string`)
      }
    }
    if (word.startsWith('`')) return { kind: 'literal', value: word.slice(1, -1) }
    if (/^-?\d/.test(word)) return { kind: 'literal', value: Number(word) }
    if (word === 'true' || word === 'false') return { kind: 'literal', value: word === 'true' }
    if (word.startsWith('.')) return { kind: 'field', path: word.split('.').filter((p) => p !== '') }
    if (/^[A-Za-z_]/.test(word)) return { kind: 'call', name: word, args: [] }
    throw bad(text, `"${word}" is out of place`)
  }
  const expression = pipeline()
  if (i !== words.length) throw bad(text, `"${words[i]}" is out of place`)
  return expression
}

function render(
  parts: readonly Part[],
  values: TemplateValue,
  functions: Readonly<Record<string, TemplateFunction>>,
  text: string,
): string {
  const evaluate = (e: Expression): TemplateValue => {
    if (e.kind === 'literal') return e.value
    if (e.kind === 'field') {
      let value = values
      for (const [depth, name] of e.path.entries()) {
        if (typeof value !== 'object') throw bad(text, `there is no .${e.path.slice(0, depth + 1).join('.')}`)
        if (!Object.hasOwn(value, name) && !isOpen(e.path.slice(0, depth)))
          throw bad(text, `there is no .${e.path.slice(0, depth + 1).join('.')}`)
        value = own(value, name)
      }
      return value
    }
    const fn = functions[e.name]
    if (fn === undefined || !Object.hasOwn(functions, e.name)) throw bad(text, `there is no function "${e.name}"`)
    return fn(...e.args.map(evaluate))
  }
  return parts
    .map((p) => {
      if (p.kind === 'text') return p.text
      if (p.kind === 'value') return textOf(evaluate(p.expression))
      return render(isTrue(evaluate(p.condition)) ? p.body : p.otherwise, values, functions, text)
    })
    .join('')
}

/** Label maps hold what users put there: a name that is not there is empty, not an error. */
const isOpen = (path: readonly string[]): boolean => path.at(-1) === 'Labels'
const own = (value: { readonly [key: string]: TemplateValue }, key: string): TemplateValue =>
  Object.hasOwn(value, key) ? value[key] : undefined
const isTrue = (value: TemplateValue): boolean =>
  typeof value === 'object'
    ? Object.keys(value).length > 0
    : value !== undefined && value !== '' && value !== false && value !== 0
const textOf = (value: TemplateValue): string =>
  value === undefined
    ? ''
    : typeof value === 'object'
      ? `map[${Object.keys(value)
          .sort()
          .map((k) => `${k}:${textOf(value[k])}`)
          .join(' ')}]`
      : String(value)
