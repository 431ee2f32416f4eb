/** Texts as Go prints them: image histories hold them, and clients compare them. */

const NAMED: Readonly<Record<string, string>> = {
  '\x07': '\\a',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
  '\v': '\\v',
  '\\': '\\\\',
}

function escaped(character: string, quote: string): string {
  if (character === quote) return `\\${quote}`
  const named = NAMED[character]
  if (named) return named
  const code = character.codePointAt(0)!
  if (code === 0x20 || /^[\p{L}\p{M}\p{N}\p{P}\p{S}]$/u.test(character)) return character
  const hex = code.toString(16)
  if (code < 0x80) return `\\x${hex.padStart(2, '0')}`
  return code < 0x10000 ? `\\u${hex.padStart(4, '0')}` : `\\U${hex.padStart(8, '0')}`
}

/** %q of a string. */
export const goQuote = (text: string): string => `"${[...text].map((c) => escaped(c, '"')).join('')}"`

/** %q of a list of strings; an absent one is an empty one. */
export const goQuoteList = (list: readonly string[] | null | undefined): string =>
  `[${(list ?? []).map(goQuote).join(' ')}]`

/** %q of a number: the character with that code. */
export const goQuoteRune = (code: number): string => `'${escaped(String.fromCodePoint(code), "'")}'`

/** %v of a list of strings. */
export const goList = (list: readonly string[]): string => `[${list.join(' ')}]`

const UNITS: readonly [string, number][] = [
  ['ns', 1],
  ['us', 1e3],
  ['µs', 1e3],
  ['μs', 1e3],
  ['ms', 1e6],
  ['s', 1e9],
  ['m', 60e9],
  ['h', 3600e9],
]

/** Nanoseconds of "1h2m3.5s", or what Go says against it. */
export function goDuration(text: string): { readonly nanos: number } | { readonly error: string } {
  const bad = { error: `time: invalid duration ${goQuote(text)}` }
  const unsigned = text.replace(/^[-+]/, '')
  if (unsigned === '0') return { nanos: 0 }
  if (unsigned === '') return bad
  let rest = unsigned
  let nanos = 0
  while (rest !== '') {
    const [whole, number = ''] = /^(\d+(?:\.\d*)?|\.\d+)/.exec(rest) ?? ['']
    if (whole === '') return bad
    rest = rest.slice(whole.length)
    const unit = /^[^\d.]*/.exec(rest)![0]
    if (unit === '') return { error: `time: missing unit in duration ${goQuote(text)}` }
    const known = UNITS.find(([name]) => name === unit)
    if (!known) return { error: `time: unknown unit ${goQuote(unit)} in duration ${goQuote(text)}` }
    nanos += Number(number) * known[1]
    rest = rest.slice(unit.length)
  }
  return { nanos: Math.round(text.startsWith('-') ? -nanos : nanos) }
}

/** A duration as Go prints it: "1h0m30s", "1.5s", "250ms", "0s". */
export function goDurationText(nanos: number): string {
  if (nanos === 0) return '0s'
  const part = (unit: number, name: string): string => `${nanos / unit}${name}`
  if (nanos < 1e3) return part(1, 'ns')
  if (nanos < 1e6) return part(1e3, 'µs')
  if (nanos < 1e9) return part(1e6, 'ms')
  const hours = Math.floor(nanos / 3600e9)
  const minutes = Math.floor((nanos % 3600e9) / 60e9)
  const seconds = (nanos % 60e9) / 1e9
  return `${hours > 0 ? `${hours}h` : ''}${hours > 0 || minutes > 0 ? `${minutes}m` : ''}${seconds}s`
}
