import { invalid } from '../../common/index.js'

/** One instruction as it is written, its continued lines joined. */
export interface LogicalLine {
  readonly text: string
  /** Of the first and the last line of the file that it is on, from 1. */
  readonly first: number
  readonly last: number
}

export interface Lines {
  readonly lines: readonly LogicalLine[]
  /** Escapes a character, and continues a line at its end. */
  readonly escapeWith: string
  readonly warnings: readonly string[]
}

/** Unicode's spaces without the byte order mark, which JavaScript counts among them. */
export const SPACES = '\\t\\n\\v\\f\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000'
const LEADING = new RegExp(`^[${SPACES}]+`)
const ONE_SPACE = new RegExp(`^[${SPACES}]$`)

export const trimStart = (text: string): string => text.replace(LEADING, '')
export const isSpace = (character: string): boolean => ONE_SPACE.test(character)

/** By hand at the end: a regular expression would try every run of blanks in the line. */
export function trim(text: string): string {
  let end = text.length
  while (end > 0 && isSpace(text[end - 1]!)) end--
  return trimStart(text.slice(0, end))
}

const LINE_BYTES_MAX = 64 * 1024 - 1
const DIRECTIVE = /^#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=(.+)$/
const KNOWN_DIRECTIVES = ['escape', 'syntax']

/** Parser directives: comments of the form name=value before everything else, each once. */
class Directives {
  escapeWith = '\\'
  #isOver = false
  readonly #seen = new Set<string>()

  read(line: string): void {
    if (this.#isOver) return
    const [, name = '', text = ''] = DIRECTIVE.exec(line) ?? []
    const value = trim(text)
    const key = name.toLowerCase()
    if (!KNOWN_DIRECTIVES.includes(key)) {
      this.#isOver = true
      return
    }
    if (this.#seen.has(key)) throw invalid('badDockerfile', `only one ${key} parser directive can be used`)
    this.#seen.add(key)
    if (key !== 'escape') return
    if (value !== '\\' && value !== '`')
      throw invalid('badDockerfile', `invalid escape token '${value}' does not match \` or \\`)
    this.escapeWith = value
  }
}

/** A text's physical lines, without their ends; the empty one behind the last end is none. */
function physicalLines(text: string): string[] {
  const lines = text.replace(/^\ufeff/, '').split('\n')
  if (lines.at(-1) === '') lines.pop()
  return lines.map((line) => line.replace(/\r$/, ''))
}

/** The line without the escape character that continues it, or null when it ends here. A doubled one does not continue. */
function continued(line: string, escapeWith: string): string | null {
  let end = line.length
  while (end > 0 && ' \t'.includes(line[end - 1]!)) end--
  const body = line.slice(0, end)
  if (!body.endsWith(escapeWith)) return null
  const before = body.slice(0, -1)
  return before.endsWith(escapeWith) ? null : before
}

/**
 * A Dockerfile's instructions, one a line: directives read, comments and empty lines left out.
 *
 * @throws invalid `badDockerfile`
 */
export function logicalLines(text: string): Lines {
  const directives = new Directives()
  const lines: LogicalLine[] = []
  const warnings: string[] = []
  const physical = physicalLines(text)
  for (let at = 0; at < physical.length; ) {
    if (Buffer.byteLength(physical[at]!) > LINE_BYTES_MAX)
      throw invalid('badDockerfile', `dockerfile line greater than max allowed size of ${LINE_BYTES_MAX}`)
    const line = trimStart(physical[at++]!)
    directives.read(line)
    const first = at
    let joined = line.startsWith('#') ? '' : line
    let open = continued(joined, directives.escapeWith)
    if (open === null && joined === '') continue
    let hasEmpty = false
    while (open !== null && at < physical.length) {
      joined = open
      const next = physical[at++]!
      const bare = trimStart(next)
      if (bare.startsWith('#')) continue
      if (bare === '') {
        hasEmpty = true
        continue
      }
      const more = continued(next, directives.escapeWith)
      joined += more ?? next
      open = more === null ? null : joined
    }
    joined = open ?? joined
    if (hasEmpty) warnings.push(`[WARNING]: Empty continuation line found in:\n    ${joined}`)
    lines.push({ text: joined, first, last: at })
  }
  if (warnings.length > 0) warnings.push('[WARNING]: Empty continuation lines will become errors in a future release.')
  if (lines.length === 0) throw invalid('badDockerfile', 'file with no instructions')
  return { lines, escapeWith: directives.escapeWith, warnings }
}
