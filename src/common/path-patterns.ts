import { posix } from 'node:path'
import { invalid } from './errors.js'

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

/** One pattern as a regular expression over a whole path: `*` and `?` stay within a name, `**` does not. */
function expression(pattern: string): RegExp {
  let re = ''
  const characters = [...pattern]
  for (let i = 0; i < characters.length; i++) {
    const c = characters[i]!
    if (c === '*' && characters[i + 1] === '*') {
      i++
      if (characters[i + 1] === '/') i++
      re += i + 1 >= characters.length ? '.*' : '(?:.*/)?'
    } else if (c === '*') re += '[^/]*'
    else if (c === '?') re += '[^/]'
    else if (c === '\\') re += literal(characters[++i] ?? '\\')
    else if (c === '[') {
      const end = characters.indexOf(']', i + 1)
      if (end < 0) throw new SyntaxError('missing ]')
      re += `[${characters
        .slice(i + 1, end)
        .join('')
        .replace(/\\(?![\\\]^-])/g, '\\\\')}]`
      i = end
    } else re += literal(c)
  }
  return new RegExp(`^${re}$`, 'su')
}

const literal = (c: string): string => (/[.$^+(){}|[\]\\/*?]/.test(c) ? `\\${c}` : c)

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
    let re: RegExp
    try {
      re = expression(pattern)
    } catch (cause) {
      throw invalid(
        'badPattern',
        `error in the .dockerignore pattern "${text}": syntax error in pattern`,
        {},
        { cause },
      )
    }
    if (parents.some((p) => re.test(p))) ignored = !isException
  }
  return ignored
}

/** Whether a name of COPY or ADD is a pattern (Go's filepath.Match), not a name. */
export const hasWildcards = (name: string): boolean => /^(?:[^\\*?[]|\\.)*[*?[]/s.test(name)

/**
 * A pattern of COPY or ADD over a path: `*`, `?` and `[…]`, none of which crosses a slash. A malformed one fits nothing.
 */
export function matchesPattern(pattern: string, path: string): boolean {
  let re = ''
  const characters = [...pattern]
  for (let i = 0; i < characters.length; i++) {
    const c = characters[i]!
    if (c === '*') re += '[^/]*'
    else if (c === '?') re += '[^/]'
    else if (c === '\\') re += literal(characters[++i] ?? '')
    else if (c === '[') {
      const from = i
      i++
      if (characters[i] === '^') i++
      while (i < characters.length && characters[i] !== ']') i += characters[i] === '\\' ? 2 : 1
      if (i >= characters.length) return false
      re += `(?!/)${characters.slice(from, i + 1).join('')}`
    } else re += literal(c)
  }
  try {
    return new RegExp(`^${re}$`, 'su').test(path)
  } catch {
    return false // Go's Match would call it malformed
  }
}
