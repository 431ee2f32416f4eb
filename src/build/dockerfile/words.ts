import { invalid } from '../../common/index.js'
import { isSpace, trim, trimStart } from './lines.js'

const BLANKS = /[\t\v\f\r ]+/

/** A line's command word in lower case, its `--flags`, and the rest. */
export function splitCommand(line: string): { command: string; flags: string[]; rest: string } {
  const text = trim(line)
  const gap = BLANKS.exec(text)
  if (!gap) return { command: text.toLowerCase(), flags: [], rest: '' }
  const { flags, rest } = takeFlags(text.slice(gap.index + gap[0].length))
  return { command: text.slice(0, gap.index).toLowerCase(), flags, rest: trim(rest) }
}

/** Words that begin with `--`, unquoted, up to the first that does not, or up to a bare `--`. */
function takeFlags(line: string): { flags: string[]; rest: string } {
  const flags: string[] = []
  let at = 0
  while (at < line.length) {
    while (at < line.length && isSpace(line[at]!)) at++
    if (!line.startsWith('--', at)) return { flags, rest: line.slice(at) }
    let word = ''
    let quote = ''
    for (; at < line.length && (quote !== '' || !isSpace(line[at]!)); at++) {
      const c = line[at]!
      if (c === '\\') word += line[++at] ?? ''
      else if (quote !== '') {
        if (c === quote) quote = ''
        else word += c
      } else if (c === "'" || c === '"') quote = c
      else word += c
    }
    if (word === '--') return { flags, rest: line.slice(at) }
    flags.push(word)
  }
  return { flags, rest: '' }
}

/** Words between blanks; quotes and escapes keep them together and stay in them. */
export function quotedWords(text: string, escapeWith: string): string[] {
  const words: string[] = []
  let word: string | null = null
  let quote = ''
  const characters = [...text]
  for (let i = 0; i < characters.length; i++) {
    const c = characters[i]!
    if (quote === '' && isSpace(c)) {
      if (word) words.push(word)
      word = null
      continue
    }
    word ??= ''
    // Nothing can be escaped between single quotes; at the very end there is nothing to escape.
    if (c === escapeWith && quote !== "'") {
      if (i + 1 < characters.length) word += c + characters[++i]!
      continue
    }
    if (c === quote) quote = ''
    else if (quote === '' && (c === "'" || c === '"')) quote = c
    word += c
  }
  if (word) words.push(word)
  return words
}

export const blankWords = (text: string): string[] => (text === '' ? [] : text.split(BLANKS))

/** A name and what follows it after blanks; null when nothing follows. */
export function nameAndRest(text: string): [string, string] | null {
  const gap = BLANKS.exec(text)
  return gap ? [text.slice(0, gap.index), text.slice(gap.index + gap[0].length)] : null
}

/** Where the JSON list that the text begins with ends; 0 when it has no end. */
function listEnd(text: string): number {
  let depth = 0
  let isQuoted = false
  for (let i = 0; i < text.length; i++) {
    const c = text[i]!
    if (isQuoted) {
      if (c === '\\') i++
      else if (c === '"') isQuoted = false
    } else if (c === '"') isQuoted = true
    else if (c === '[' || c === '{') depth++
    else if ((c === ']' || c === '}') && --depth === 0) return i + 1
  }
  return 0
}

/**
 * The list that the text begins with; what stands behind it is not looked at, as in dockerd. Null when it is no JSON list: then it is
 * a shell's command or words.
 *
 * @throws invalid `badDockerfile` for a list with anything but strings.
 */
export function jsonList(text: string): string[] | null {
  const from = trimStart(text)
  if (!from.startsWith('[')) return null
  let list: unknown
  try {
    list = JSON.parse(from.slice(0, listEnd(from)))
  } catch {
    return null // no JSON: the shell form
  }
  if (!(list as unknown[]).every((x) => typeof x === 'string'))
    throw invalid('badDockerfile', 'when using JSON array syntax, arrays must be comprised of strings only')
  return list as string[]
}
