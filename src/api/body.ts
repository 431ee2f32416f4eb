import { invalid } from '../common/index.js'

type Kind =
  | 'string'
  | 'number'
  | 'float'
  | 'boolean'
  | 'object'
  | 'map'
  | 'string[]'
  | 'string[][]'
  | 'number[]'
  | 'words'

/**
 * Field name → what it holds: a number is a whole one but for "float"; "map" an object of strings, "words" one string or an array of
 * them; a nested table an object, in brackets an array of such objects. The field "*" stands for every field.
 */
export type Shape = { readonly [field: string]: Kind | Shape | readonly [Shape] }

/** The table that a type needs: with it no field of the type is taken unlooked at. */
export type ShapeOf<T> = { readonly [K in keyof T]-?: FieldOf<NonNullable<T[K]>> }
type FieldOf<V> = [V] extends [string]
  ? 'string'
  : [V] extends [number]
    ? 'number' | 'float'
    : [V] extends [boolean]
      ? 'boolean'
      : [V] extends [readonly string[]]
        ? 'string[]' | 'words'
        : [V] extends [readonly string[] | string]
          ? 'words'
          : [V] extends [readonly number[]]
            ? 'number[]'
            : [V] extends [readonly string[][]]
              ? 'string[][]'
              : [V] extends [readonly (infer E)[]]
                ? readonly [ShapeOf<E>]
                : string extends keyof V
                  ? MapOf<NonNullable<V[keyof V]>>
                  : [keyof V] extends [never]
                    ? 'object'
                    : ShapeOf<V>
type MapOf<E> = [E] extends [string] ? 'map' : { readonly '*': FieldOf<E> }

/** Stands for a body that says it is something else than JSON; it is still to be read from the request. */
export class NotJson {
  constructor(readonly contentType: string) {}
}

const typeName = (v: unknown): string => (v === null ? 'null' : Array.isArray(v) ? 'array' : typeof v)

export function checkPresent(body: unknown, what: string): void {
  if (body instanceof NotJson)
    throw invalid('badContentType', `Content-Type specified (${body.contentType}) must be 'application/json'`)
  if (body === undefined || body === null)
    throw invalid('bodyMissing', `${what}: invalid JSON: got EOF while reading request body`)
}

/**
 * The body as an object whose known fields have the right types; null and absent are the same. A wrong type names the
 * field, what came and what is wanted. Fields that the table does not know are kept.
 */
export function object<T extends object>(body: unknown, shape: Shape, what: string): T {
  checkPresent(body, what)
  if (typeof body !== 'object' || Array.isArray(body))
    throw invalid('badBody', `${what}: the body must be a JSON object, not ${typeName(body)}`)
  check(body as Record<string, unknown>, shape, what)
  return body as T
}

/** Go's clients and dockerd do not tell "detachKeys" from "DetachKeys": a field in other letters is the one we know. */
function spellAsKnown(value: Record<string, unknown>, shape: Shape): void {
  const unknown = Object.keys(value).filter((key) => !Object.hasOwn(shape, key))
  if (unknown.length === 0) return
  const known = new Map(Object.keys(shape).map((field) => [field.toLowerCase(), field]))
  for (const key of unknown) {
    const field = known.get(key.toLowerCase())
    if (field === undefined || Object.hasOwn(value, field)) continue
    value[field] = value[key]
    delete value[key]
  }
}

function check(value: Record<string, unknown>, shape: Shape, path: string): void {
  const each = shape['*']
  if (each) for (const [field, v] of Object.entries(value)) checkField(v, each, `${path}.${field}`)
  else {
    spellAsKnown(value, shape)
    for (const [field, want] of Object.entries(shape)) checkField(value[field], want, `${path}.${field}`)
  }
}

function checkField(v: unknown, want: Shape[string], where: string): void {
  if (v === undefined || v === null) return
  if (isList(want)) {
    if (!Array.isArray(v)) throw wrong(where, v, 'array of objects')
    for (const [i, x] of v.entries()) {
      if (!isObject(x)) throw wrong(`${where}[${i}]`, x, 'object')
      check(x, want[0], `${where}[${i}]`)
    }
  } else if (typeof want === 'object') {
    if (!isObject(v)) throw wrong(where, v, 'object')
    check(v, want, where)
  } else if (want === 'object') {
    if (!isObject(v)) throw wrong(where, v, want)
  } else if (want === 'map') {
    if (!isObject(v)) throw wrong(where, v, 'object of strings')
    for (const [k, x] of Object.entries(v)) if (typeof x !== 'string') throw wrong(`${where}.${k}`, x, 'string')
  } else if (want === 'string[][]') {
    if (!Array.isArray(v)) throw wrong(where, v, 'array of arrays of strings')
    for (const [i, x] of v.entries()) checkElements(x, 'string', `${where}[${i}]`)
  } else if (want === 'string[]' || (want === 'words' && typeof v !== 'string')) checkElements(v, 'string', where)
  else if (want === 'number[]') checkElements(v, 'number', where)
  else if (want === 'number' || want === 'float') {
    if (typeof v !== 'number') throw wrong(where, v, 'number')
    if (!(want === 'float' ? Number.isFinite(v) : Number.isInteger(v)))
      throw wrong(where, v, want === 'float' ? 'finite number' : 'whole number')
  } else if (want !== 'words' && typeof v !== want) throw wrong(where, v, want)
}

const isObject = (v: unknown): v is Record<string, unknown> => typeof v === 'object' && v !== null && !Array.isArray(v)

/** Paths of what a checked body holds beyond its table, nulls apart: what a newer client asks for and nobody here would heed. */
export function unknownFields(body: object, shape: Shape, path = ''): string[] {
  return Object.entries(body).flatMap(([field, v]) => {
    if (v === null || v === undefined) return []
    const want = Object.hasOwn(shape, field) ? shape[field] : shape['*']
    const where = `${path}${field}`
    if (want === undefined) return [where]
    if (isList(want)) return (v as object[]).flatMap((x, i) => unknownFields(x, want[0], `${where}[${i}].`))
    return typeof want === 'object' ? unknownFields(v, want, `${where}.`) : []
  })
}

const isList = (want: Shape[string]): want is readonly [Shape] => Array.isArray(want)

function checkElements(v: unknown, type: 'string' | 'number', where: string): void {
  if (!Array.isArray(v)) throw wrong(where, v, `array of ${type}s`)
  for (const [i, x] of v.entries()) {
    if (x === null || x === undefined) throw wrong(`${where}[${i}]`, x, type)
    checkField(x, type, `${where}[${i}]`)
  }
}

const wrong = (where: string, v: unknown, want: string): Error =>
  invalid(
    'badBody',
    `${where}: expected ${want}, got ${typeName(v)} ${JSON.stringify(v)?.slice(0, 80) ?? ''}`.trimEnd(),
  )
