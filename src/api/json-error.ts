/** V8's words for what is wrong with a JSON text → Go's, which dockerd's clients look for. */
const WORDS: readonly (readonly [RegExp, string])[] = [
  [/^Expected property name|^Expected double-quoted property name/, 'looking for beginning of object key string'],
  [/^Expected ':'/, 'after object key'],
  [/^Expected ',' or '}'/, 'after object key:value pair'],
  [/^Expected ',' or '\]'/, 'after array element'],
  [/^Unexpected non-whitespace/, 'after top-level value'],
  [/^Unexpected token/, 'looking for beginning of value'],
]

/** A JSON.parse error of `text` as Go's encoding/json tells it; V8's own message where there is no such sentence. */
export function goJsonError(text: string, message: string): string {
  if (/^Unexpected end/.test(message)) return 'unexpected EOF'
  const position = Number(/at position (\d+)/.exec(message)?.[1] ?? Number.NaN)
  if (position >= text.length) return 'unexpected EOF'
  const where = WORDS.find(([pattern]) => pattern.test(message))?.[1]
  const character = text[position] ?? /^Unexpected token '(.)'/u.exec(message)?.[1]
  return where && character ? `invalid character '${character}' ${where}` : message
}
