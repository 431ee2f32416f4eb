import { invalid } from '../../common/index.js'
import { goQuote } from './go-text.js'
import { isSpace } from './lines.js'

const fault = (message: string): Error => invalid('badSubstitution', message)
/** Parameters of a shell that have no letters as names. */
const SPECIAL = '@*#?-$!'
const DIGIT = /^\p{Nd}$/u
const NAME_START = /^[\p{L}_]$/u
const NAME_PART = /^[\p{L}\p{Nd}_]$/u

/** Collects characters into words, which blanks outside of quotes divide. */
class Words {
  readonly #done: string[] = []
  #word = ''

  /** Divides at blanks. */
  add(text: string): void {
    for (const c of text) {
      if (!isSpace(c)) this.#word += c
      else this.#end()
    }
  }

  /** Quoted or escaped: blanks are characters like others. */
  addRaw(text: string): void {
    this.#word += text
  }

  #end(): void {
    if (this.#word !== '') this.#done.push(this.#word)
    this.#word = ''
  }

  all(): string[] {
    this.#end()
    return this.#done
  }
}

class Expansion {
  readonly #text: readonly string[]
  #at = 0

  constructor(
    text: string,
    private readonly env: ReadonlyMap<string, string>,
    private readonly escapeWith: string,
  ) {
    this.#text = [...text]
  }

  get #next(): string | undefined {
    return this.#text[this.#at]
  }

  /** Up to `stop`, which is passed over; null: up to the end. */
  run(stop: string | null): { text: string; words: string[] } {
    let text = ''
    const words = new Words()
    for (let c = this.#next; c !== undefined; c = this.#next) {
      if (c === stop) {
        this.#at++
        return { text, words: words.all() }
      }
      let more: string
      if (c === "'" || c === '"') {
        more = c === "'" ? this.#singleQuoted() : this.#doubleQuoted()
        words.addRaw(more)
      } else if (c === '$') {
        more = this.#variable()
        words.add(more)
      } else if (c === this.escapeWith) {
        more = this.#text[this.#at + 1] ?? ''
        this.#at += 2
        words.addRaw(more)
      } else {
        more = c
        this.#at++
        words.add(more)
      }
      text += more
    }
    if (stop !== null) throw fault("syntax error: missing '}'")
    return { text, words: words.all() }
  }

  #singleQuoted(): string {
    const end = this.#text.indexOf("'", this.#at + 1)
    if (end < 0) throw fault('unexpected end of statement while looking for matching single-quote')
    const inside = this.#text.slice(this.#at + 1, end).join('')
    this.#at = end + 1
    return inside
  }

  #doubleQuoted(): string {
    let text = ''
    this.#at++
    for (let c = this.#next; c !== undefined; c = this.#next) {
      if (c === '"') {
        this.#at++
        return text
      }
      if (c === '$') {
        text += this.#variable()
        continue
      }
      const after = this.#text[this.#at + 1]
      const isEscaping = c === this.escapeWith && (after === '"' || after === '$' || after === this.escapeWith)
      text += isEscaping ? after : c === this.escapeWith && after === undefined ? '' : c
      this.#at += isEscaping ? 2 : 1
    }
    throw fault('unexpected end of statement while looking for matching double-quote')
  }

  #variable(): string {
    this.#at++
    if (this.#next !== '{') {
      const name = this.#name()
      return name === '' ? '$' : (this.env.get(name) ?? '')
    }
    this.#at++
    if (this.#next === undefined) throw fault("syntax error: missing '}'")
    if ('{}:'.includes(this.#next)) throw fault('syntax error: bad substitution')
    const name = this.#name()
    const value = this.env.get(name)
    const operator = this.#text[this.#at++]
    if (operator === '}') return value ?? ''
    if (operator === '?') return this.#required(name, value, this.run('}').text, false)
    if (operator !== ':') throw fault("missing ':' in substitution")
    const modifier = this.#text[this.#at++] ?? ''
    const word = this.run('}').text
    if (modifier === '+') return value ? word : (value ?? '')
    if (modifier === '-') return value || word
    if (modifier === '?') return this.#required(name, value, word, true)
    throw fault(`unsupported modifier (${modifier}) in substitution`)
  }

  #required(name: string, value: string | undefined, message: string, isEmptyBad: boolean): string {
    if (value === undefined) throw fault(`${name}: ${message || 'is not allowed to be unset'}`)
    if (value === '' && isEmptyBad) throw fault(`${name}: ${message || 'is not allowed to be empty'}`)
    return value
  }

  /** Letters, digits and underscores; or digits alone; or one special character. */
  #name(): string {
    const first = this.#next ?? ''
    const rest = DIGIT.test(first) ? DIGIT : NAME_START.test(first) ? NAME_PART : null
    if (rest === null && !(first !== '' && SPECIAL.includes(first))) return ''
    const from = this.#at++
    while (rest?.test(this.#next ?? '')) this.#at++
    return this.#text.slice(from, this.#at).join('')
  }
}

function expansion(
  text: string,
  env: ReadonlyMap<string, string>,
  escapeWith: string,
): { text: string; words: string[] } {
  try {
    return new Expansion(text, env, escapeWith).run(null)
  } catch (caught) {
    throw invalid('badSubstitution', `failed to process ${goQuote(text)}: ${(caught as Error).message}`)
  }
}

/**
 * A word with its variables replaced and its quotes and escapes taken off, as a shell does. Unset variables are empty.
 *
 * @throws invalid `badSubstitution`
 */
export const expandWord = (text: string, env: ReadonlyMap<string, string>, escapeWith: string): string =>
  expansion(text, env, escapeWith).text

/** The same, divided at blanks that come unquoted or out of a variable. */
export const expandWords = (text: string, env: ReadonlyMap<string, string>, escapeWith: string): string[] =>
  expansion(text, env, escapeWith).words

/** Variables by name, of NAME=VALUE; the last one of a name counts. */
export function environment(list: readonly string[]): Map<string, string> {
  const env = new Map<string, string>()
  for (const entry of list) {
    const at = entry.indexOf('=')
    env.set(at < 0 ? entry : entry.slice(0, at), at < 0 ? '' : entry.slice(at + 1))
  }
  return env
}
