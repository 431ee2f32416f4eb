import { readFileSync } from 'node:fs'
import { Ajv, type ErrorObject, type ValidateFunction } from 'ajv'
import { parse } from 'yaml'
import type { Exchange } from './recorder.js'

type Json = null | boolean | number | string | Json[] | { [key: string]: Json }
type Schema = { [key: string]: Json }
const isObject = (v: unknown): v is Schema => v !== null && typeof v === 'object' && !Array.isArray(v)

interface Operation {
  readonly produces?: readonly string[]
  readonly responses: Readonly<Record<string, { readonly schema?: Schema }>>
}

/** One thing about an answer that the description does not allow. */
export interface Violation {
  /** "GET /containers/{id}/json 200". */
  readonly operation: string
  /** JSON pointer into the answer, with numbers and map keys as they came. */
  readonly pointer: string
  readonly message: string
}

/** Names of images and plugins have slashes; all else in a path is one segment. */
const pattern = (template: string): RegExp =>
  new RegExp(
    `^${template.replace(/[.*+?^$()|[\]\\]/g, '\\$&').replace(/\{(\w+)\}/g, ['/images/', '/distribution/', '/plugins/'].some((p) => template.startsWith(p)) ? '(.+)' : '([^/]+)')}$`,
  )

/** What is marked with x-nullable may be null. */
function toJsonSchema(value: Json): Json {
  if (Array.isArray(value)) return value.map(toJsonSchema)
  if (!isObject(value)) return value
  const out: Schema = {}
  for (const [k, v] of Object.entries(value)) {
    if (['example', 'description', 'x-nullable', 'x-omitempty', 'readOnly', 'discriminator', 'title'].includes(k)) {
      // A property may have such a name: then its value is a schema.
      if (isObject(v)) out[k] = toJsonSchema(v)
      continue
    }
    out[k] = toJsonSchema(v)
  }
  if (value['x-nullable'] === true) return { anyOf: [{ type: 'null' }, out] }
  return out
}

/** The Engine API's description: answers are checked against it. */
export class Swagger {
  readonly #document: {
    paths: Record<string, Record<string, Operation>>
    definitions: Record<string, Schema>
    responses?: Schema
  }
  readonly #ajv: Ajv
  readonly #compiled = new Map<Schema, ValidateFunction>()
  readonly #templates: { readonly template: string; readonly pattern: RegExp }[]

  constructor(path: string) {
    this.#document = parse(readFileSync(path, 'utf8'), { maxAliasCount: -1, merge: true })
    this.#ajv = new Ajv({ strict: false, allErrors: true, verbose: true, formats: FORMATS, unicodeRegExp: false })
    this.#ajv.addSchema({ $id: 'swagger', definitions: toJsonSchema(this.#document.definitions as Json) as object })
    this.#templates = Object.keys(this.#document.paths)
      .sort((a, b) => b.replace(/\{\w+\}/g, '').length - a.replace(/\{\w+\}/g, '').length)
      .map((template) => ({ template, pattern: pattern(template) }))
  }

  /** Number of JSON documents that were checked (a stream has many), and what was wrong with them. */
  check(x: Exchange): { readonly operation: string; readonly checked: number; readonly violations: Violation[] } {
    const path = x.url.replace(/\?.*$/, '').replace(/^\/v\d+\.\d+(?=\/)/, '')
    const template = this.#templates.find((t) => t.pattern.test(path))?.template
    const operation = template && this.#document.paths[template]![x.method.toLowerCase()]
    const name = `${x.method} ${template ?? path} ${x.status}`
    const wrong = (message: string, pointer = ''): Violation => ({ operation: name, pointer, message })
    if (!operation) return { operation: name, checked: 0, violations: [wrong('the description has no such operation')] }
    const response = operation.responses[String(x.status)]
    if (!response) return { operation: name, checked: 0, violations: [wrong('the description has no such status')] }
    const type = String(x.headers['content-type'] ?? '')
    const violations: Violation[] = []
    if (x.status >= 400 && type !== 'application/json') violations.push(wrong(`an error with content type "${type}"`))
    if (x.isUpgraded || x.method === 'HEAD') return { operation: name, checked: 0, violations }
    if (!type.startsWith('application/json')) {
      if (x.body !== '' && response.schema?.$ref !== undefined)
        violations.push(wrong(`content type "${type}", not JSON`))
      return { operation: name, checked: 0, violations }
    }
    if (!response.schema)
      return {
        operation: name,
        checked: 0,
        violations: x.body.trim() === '' ? violations : [wrong('a body where none is described')],
      }
    // The client left before anything was said.
    if (x.body === '' && !x.isWhole) return { operation: name, checked: 0, violations }
    const documents = documentsOf(x.body)
    if (documents === null)
      return { operation: name, checked: 0, violations: [wrong(`not JSON: ${x.body.slice(0, 100)}`)] }
    for (const document of documents)
      violations.push(...this.#validate(response.schema, document).map((v) => wrong(v.message, v.pointer)))
    return { operation: name, checked: documents.length, violations }
  }

  #validate(schema: Schema, document: unknown): { pointer: string; message: string }[] {
    let validate = this.#compiled.get(schema)
    if (!validate) {
      const absolute = JSON.parse(
        JSON.stringify(toJsonSchema(schema)).replaceAll('"#/definitions/', '"swagger#/definitions/'),
      )
      validate = this.#ajv.compile(absolute)
      this.#compiled.set(schema, validate)
    }
    const found: { pointer: string; message: string }[] = []
    if (!validate(document))
      for (const e of validate.errors ?? []) {
        // The two branches of a nullable: the one that is not "null" says what is wrong.
        if (isNil(e)) continue
        if (e.keyword === 'anyOf' || (e.keyword === 'type' && e.params.type === 'null')) continue
        found.push({
          pointer: e.instancePath,
          message: `${e.message ?? e.keyword}${e.keyword === 'enum' ? ` (${JSON.stringify(e.params.allowedValues)})` : ''}`,
        })
      }
    return [...found, ...this.#unknown(schema, document, '')]
  }

  /** Fields that the description does not know are most often misspelt ones. */
  #unknown(schema: Schema, value: unknown, pointer: string): { pointer: string; message: string }[] {
    const { properties, items, map } = this.#shape(schema)
    if (Array.isArray(value)) return items ? value.flatMap((v, i) => this.#unknown(items, v, `${pointer}/${i}`)) : []
    if (!isObject(value)) return []
    if (properties.size === 0 && !map) return []
    return Object.entries(value).flatMap(([k, v]) => {
      const known = properties.get(k) ?? (isObject(map) ? map : null)
      if (known) return this.#unknown(known, v, `${pointer}/${k}`)
      return map === true ? [] : [{ pointer: `${pointer}/${k}`, message: 'the description has no such field' }]
    })
  }

  #shape(schema: Schema): { properties: Map<string, Schema>; items: Schema | null; map: Schema | boolean } {
    if (typeof schema.$ref === 'string') return this.#shape(this.#document.definitions[schema.$ref.split('/').at(-1)!]!)
    const properties = new Map(Object.entries((schema.properties ?? {}) as Record<string, Schema>))
    let items = isObject(schema.items) ? schema.items : null
    let map: Schema | boolean = isObject(schema.additionalProperties)
      ? schema.additionalProperties
      : schema.additionalProperties === true
    for (const part of (schema.allOf ?? []) as Schema[]) {
      const s = this.#shape(part)
      for (const [k, v] of s.properties) properties.set(k, v)
      items ??= s.items
      if (map === false) map = s.map
    }
    return { properties, items, map }
  }
}

/**
 * Go's encoder writes null for a slice or map that was never filled. The description marks few of these places, clients
 * know all of them, and dockerd does send null there (`"CapAdd": null`). For a struct, a number or a text null stays wrong.
 */
function isNil(e: ErrorObject): boolean {
  if (e.keyword !== 'type' || e.data !== null) return false
  const schema = e.parentSchema as Schema
  return schema.type === 'array' || (schema.type === 'object' && schema.properties === undefined)
}

/** One document, or a stream of them: a line each. Null: not JSON. */
function documentsOf(body: string): unknown[] | null {
  try {
    return [JSON.parse(body)]
  } catch {
    // A stream that its reader left may end within a line.
    const lines = body.split('\n')
    if (lines.length < 2) return null
    const whole = body.endsWith('\n') ? lines : lines.slice(0, -1)
    try {
      return whole.filter((l) => l.trim() !== '').map((l) => JSON.parse(l))
    } catch {
      return null
    }
  }
}

const FORMATS = {
  'date-time': /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/,
  dateTime: /^(|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d))$/,
  int64: true,
  uint64: true,
  int32: true,
  uint32: true,
  uint16: true,
  int8: true,
  binary: true,
  'ip-address': true,
  double: true,
  float: true,
  byte: true,
  uint8: true,
  int: true,
  CIDR: true,
  cidr: true,
  json: true,
  uri: true,
} as const
