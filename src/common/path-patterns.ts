import { posix } from 'node:path'
import { invalid } from './errors.js'

/**
 * Patterns over paths, as .dockerignore and COPY have them. Matching takes time as the product of both lengths, whatever the pattern:
 * Dockerfiles of strangers are built.
 */
type Token =
  | { readonly kind: 'one' | 'many'; readonly fits: (character: string) => boolean }
  /** Nothing, or anything that ends in a slash. */
  | { readonly kind: 'directories' }

const isAny = (): boolean => true
const isNoSlash = (c: string): boolean => c !== '/'

class Malformed extends Error {}

/** `*` and `?` stay within a name; `**`, where it means something, does not. */
function compile(pattern: string, hasDoubleStars: boolean): Token[] {
  const tokens: Token[] = []
  const p = [...pattern]
  for (let i = 0; i < p.length; i++) {
    const c = p[i]!
    if (c === '*' && p[i + 1] === '*' && hasDoubleStars) {
      i++
      if (p[i + 1] === '/') i++
      tokens.push(i + 1 >= p.length ? { kind: 'many', fits: isAny } : { kind: 'directories' })
    } else if (c === '*') tokens.push({ kind: 'many', fits: isNoSlash })
    else if (c === '?') tokens.push({ kind: 'one', fits: isNoSlash })
    else if (c === '[') {
      const { fits, end } = readClass(p, i + 1)
      tokens.push({ kind: 'one', fits })
      i = end
    } else {
      if (c === '\\' && i + 1 >= p.length) throw new Malformed()
      const literal = c === '\\' ? p[++i]! : c
      tokens.push({ kind: 'one', fits: (x) => x === literal })
    }
  }
  return tokens
}

/** `[a-z]`, `[^a-z]`; `at` is behind the bracket, `end` the closing one. */
function readClass(p: readonly string[], at: number): { fits: (c: string) => boolean; end: number } {
  const ranges: [string, string][] = []
  let i = at
  const isNegated = p[i] === '^'
  if (isNegated) i++
  const next = (): string => {
    if (p[i] === '\\') i++
    if (p[i] === undefined) throw new Malformed()
    return p[i++]!
  }
  while (p[i] !== ']' || ranges.length === 0) {
    const low = next()
    if (p[i] === '-' && p[i + 1] !== ']') {
      i++
      ranges.push([low, next()])
    } else ranges.push([low, low])
  }
  return { fits: (c) => ranges.some(([low, high]) => low <= c && c <= high) !== isNegated, end: i }
}

/** All ways through the tokens at one time. */
function matches(tokens: readonly Token[], text: string): boolean {
  let at = new Set<number>()
  const enter = (into: Set<number>, i: number): void => {
    for (let n = i; !into.has(n); n++) {
      into.add(n)
      const token = tokens[n]
      if (!token || token.kind === 'one') return
    }
  }
  enter(at, 0)
  for (const c of text) {
    const next = new Set<number>()
    for (const i of at) {
      const token = tokens[i]
      if (!token) continue
      if (token.kind === 'directories') {
        next.add(i)
        if (c === '/') enter(next, i + 1)
      } else if (token.fits(c)) enter(next, token.kind === 'many' ? i : i + 1)
    }
    if (next.size === 0) return false
    at = next
  }
  return at.has(tokens.length)
}

/** The patterns of a .dockerignore, cleaned; exceptions keep their "!". */
export function readIgnoreFile(text: string): string[] {
  return text
    .replace(/^\ufeff/, '')
    .split('\n')
    .filter((line) => !line.startsWith('#'))
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .map((line) => {
      const isException = line.startsWith('!')
      const pattern = (isException ? line.slice(1) : line).trim()
      if (pattern === '') return line
      const clean = posix.normalize(pattern).replace(/(?<=.)\/$/, '')
      return (isException ? '!' : '') + (clean.length > 1 ? clean.replace(/^\//, '') : clean)
    })
}

/**
 * Whether a path is left out: the last pattern that fits it, or a directory above it, decides.
 *
 * @throws invalid `badPattern`
 */
export function isIgnored(path: string, patterns: readonly string[]): boolean {
  const parents = path.split('/').map((_, i, parts) => parts.slice(0, i + 1).join('/'))
  let ignored = false
  for (const text of patterns) {
    const isException = text.startsWith('!')
    const pattern = isException ? text.slice(1) : text
    if (isException && pattern === '') throw invalid('badPattern', 'illegal exclusion pattern: "!"')
    let tokens: Token[]
    try {
      tokens = compile(pattern, true)
    } catch (cause) {
      throw invalid(
        'badPattern',
        `error in the .dockerignore pattern "${text}": syntax error in pattern`,
        {},
        { cause },
      )
    }
    if (parents.some((p) => matches(tokens, p))) ignored = !isException
  }
  return ignored
}

/** Whether a name of COPY or ADD is a pattern, not a name. */
export const hasWildcards = (name: string): boolean => /[*?[]/.test(name.replace(/\\./gs, ''))

/** A pattern of COPY or ADD (Go's filepath.Match). A malformed one fits nothing. */
export function matchesPattern(pattern: string, path: string): boolean {
  try {
    return matches(compile(pattern, false), path)
  } catch (caught) {
    if (caught instanceof Malformed) return false
    throw caught
  }
}
