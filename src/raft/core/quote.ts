/** Quoting of bytes as Go's %q does it, since the test data were printed that way. */
const ESCAPES: Record<number, string> = {
  7: '\\a',
  8: '\\b',
  9: '\\t',
  10: '\\n',
  11: '\\v',
  12: '\\f',
  13: '\\r',
  34: '\\"',
  92: '\\\\',
}
const PRINTABLE = /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$/u

/** In double quotes; what is not printable or not UTF-8 is escaped. */
export function quoteBytes(bytes: Uint8Array): string {
  let text = '"'
  for (let i = 0; i < bytes.length; ) {
    const { point, length } = decodeAt(bytes, i)
    if (point < 0) text += `\\x${bytes[i]!.toString(16).padStart(2, '0')}`
    else text += quotePoint(point)
    i += length
  }
  return `${text}"`
}

function quotePoint(point: number): string {
  const known = ESCAPES[point]
  if (known !== undefined) return known
  if (point >= 32 && point < 127) return String.fromCharCode(point)
  if (point < 128) return `\\x${point.toString(16).padStart(2, '0')}`
  const char = String.fromCodePoint(point)
  if (PRINTABLE.test(char)) return char
  return point < 0x10000 ? `\\u${point.toString(16).padStart(4, '0')}` : `\\U${point.toString(16).padStart(8, '0')}`
}

/** One UTF-8 sequence; point −1 and length 1 for a byte that starts none (overlong, surrogate, cut off). */
function decodeAt(bytes: Uint8Array, at: number): { point: number; length: number } {
  const first = bytes[at]!
  if (first < 0x80) return { point: first, length: 1 }
  const length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2
  const bad = { point: -1, length: 1 }
  if (first < 0xc2 || first > 0xf4 || at + length > bytes.length) return bad
  let point = first & (0x7f >> length)
  for (let i = 1; i < length; i++) {
    const byte = bytes[at + i]!
    if ((byte & 0xc0) !== 0x80) return bad
    point = point * 64 + (byte & 0x3f)
  }
  const least = length === 4 ? 0x10000 : length === 3 ? 0x800 : 0x80
  if (point < least || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) return bad
  return { point, length }
}
