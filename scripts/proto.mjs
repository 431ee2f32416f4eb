// Compiles proto/*.proto into build/proto/shoal.js and shoal.d.ts.
//
// protobufjs parses the files and does the wire format; this adds what its own static target lacks: plain, complete
// objects (every field is an own property, absent messages and optionals are null) that can be spread, frozen, compared
// and cloned, and service descriptors for @grpc/grpc-js. All messages and enums are top-level; names are package-unique.
import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import protobuf from 'protobufjs'

const top = join(dirname(fileURLToPath(import.meta.url)), '..')
const protoDir = join(top, 'proto')
const outDir = join(top, 'build/proto')
const files = readdirSync(protoDir)
  .filter((f) => f.endsWith('.proto'))
  .sort()
  .map((f) => join(protoDir, f))

const mtime = (f) => statSync(f, { throwIfNoEntry: false })?.mtimeMs ?? 0
const newest = Math.max(...files.map(mtime), mtime(fileURLToPath(import.meta.url)))
if (Math.min(mtime(join(outDir, 'shoal.js')), mtime(join(outDir, 'shoal.d.ts'))) > newest) process.exit(0)

const root = new protobuf.Root()
root.resolvePath = (_origin, target) => (target.startsWith('/') ? target : join(protoDir, target))
root.loadSync(files, { alternateCommentMode: true })
root.resolveAll()

const types = []
const enums = []
const services = []
const walk = (ns) => {
  for (const o of ns.nestedArray ?? []) {
    if (o instanceof protobuf.Type) types.push(o)
    else if (o instanceof protobuf.Enum) enums.push(o)
    else if (o instanceof protobuf.Service) services.push(o)
    else walk(o)
  }
}
walk(root)

const LONG = new Set(['int64', 'uint64', 'sint64', 'fixed64', 'sfixed64'])
const scalarType = (t) =>
  t === 'string' ? 'string' : t === 'bytes' ? 'Uint8Array' : t === 'bool' ? 'boolean' : 'number'
const scalarDefault = (t) => (t === 'string' ? "''" : t === 'bytes' ? 'EMPTY' : t === 'bool' ? 'false' : '0')
const isMessage = (f) => f.resolvedType instanceof protobuf.Type
const isEnum = (f) => f.resolvedType instanceof protobuf.Enum
const baseType = (f) => (f.resolvedType ? f.resolvedType.name : scalarType(f.type))
const optional = (f) => !f.map && !f.repeated && (isMessage(f) || f.partOf != null)
const tsType = (f) =>
  f.map
    ? `Record<string, ${baseType(f)}>`
    : f.repeated
      ? `${baseType(f)}[]`
      : baseType(f) + (optional(f) ? ' | null' : '')
const defaultOf = (f) =>
  f.map ? '{}' : f.repeated ? '[]' : optional(f) ? 'null' : isEnum(f) ? '0' : scalarDefault(f.type)
const wire = (f) =>
  isMessage(f) || f.type === 'string' || f.type === 'bytes'
    ? 2
    : /fixed64|double/.test(f.type)
      ? 1
      : /fixed32|float/.test(f.type)
        ? 5
        : 0
const scalarName = (f) => (isEnum(f) ? 'int32' : f.type)
const doc = (o, indent) => (o.comment ? `${indent}/** ${o.comment.replaceAll('\n', `\n${indent} * `)} */\n` : '')

let js = `// Generated from proto/*.proto by scripts/proto.mjs; do not edit.
import pb from 'protobufjs/minimal.js'
pb.util.Long = undefined
pb.configure()
const EMPTY = new Uint8Array(0)
// A large message that fills its writer's buffer is handed out without another copy.
const isFull = (w) => w.pos > 65536 && w.buf.length - w.pos < w.pos / 8
function codec(name, create, write, read) {
  return Object.freeze({
    name, create, write, read,
    encode: (m) => { const w = pb.Writer.create(); write(m, w); return w.finish(isFull(w)) },
    decode: (b) => { const r = pb.Reader.create(b); return read(r, r.len) },
  })
}
`
let dts = `// Generated from proto/*.proto by scripts/proto.mjs; do not edit.
import type { Reader, Writer } from 'protobufjs/minimal.js'
/** Wire format of one message type. Decoded objects are plain and complete: absent messages and optionals are null. */
export interface Codec<T> {
  readonly name: string
  /** A complete object: the given fields over the defaults. */
  create(fields?: Partial<T>): T
  encode(message: T): Uint8Array
  /** Throws RangeError or Error on malformed bytes. Unknown fields are skipped. */
  decode(bytes: Uint8Array): T
  write(message: T, writer: Writer): void
  read(reader: Reader, end: number): T
}
export interface Method<Q, S> {
  readonly path: string
  readonly requestStream: boolean
  readonly responseStream: boolean
  readonly request: Codec<Q>
  readonly response: Codec<S>
}
`
for (const e of enums) {
  js += `export const ${e.name} = Object.freeze(${JSON.stringify(e.values)})\n`
  dts += `${doc(e, '')}export declare const ${e.name}: {\n`
  for (const [k, v] of Object.entries(e.values))
    dts += `${e.comments[k] ? `  /** ${e.comments[k]} */\n` : ''}  readonly ${k}: ${v}\n`
  dts += `}\nexport type ${e.name} = ${[...new Set(Object.values(e.values))].join(' | ')}\n`
}

function writeOne(f, v) {
  if (isMessage(f)) return `w.uint32(${(f.id << 3) | 2}).fork(); write${f.resolvedType.name}(${v}, w); w.ldelim()`
  return `w.uint32(${((f.id << 3) | wire(f)) >>> 0}).${scalarName(f)}(${v})`
}
function readOne(f) {
  if (isMessage(f)) return `read${f.resolvedType.name}(r, r.uint32() + r.pos)`
  return LONG.has(f.type) ? `Number(r.${f.type}())` : `r.${scalarName(f)}()`
}

for (const t of types) {
  const n = t.name
  const fields = t.fieldsArray
  dts += `${doc(t, '')}export interface ${n} {\n${fields.map((f) => `${doc(f, '  ')}  ${f.name}: ${tsType(f)}\n`).join('')}}\nexport declare const ${n}: Codec<${n}>\n`
  js += `function create${n}(p) { return { ${fields.map((f) => `${f.name}: p?.${f.name} ?? ${defaultOf(f)}`).join(', ')} } }\n`
  js += `function write${n}(m, w) {\n`
  for (const f of fields) {
    const v = `m.${f.name}`
    if (f.map) {
      // Keys are written in order, so that equal objects have equal bytes.
      js += `  for (const k of Object.keys(${v}).sort()) { w.uint32(${(f.id << 3) | 2}).fork().uint32(10).string(k); ${writeOne({ ...pick(f), id: 2 }, `${v}[k]`)}; w.ldelim() }\n`
    } else if (f.repeated) {
      if (f.packed && wire(f) !== 2)
        js += `  if (${v}.length) { w.uint32(${(f.id << 3) | 2}).fork(); for (const x of ${v}) w.${scalarName(f)}(x); w.ldelim() }\n`
      else js += `  for (const x of ${v}) { ${writeOne(f, 'x')} }\n`
    } else if (optional(f)) js += `  if (${v} !== null) { ${writeOne(f, v)} }\n`
    else js += `  if (${f.type === 'bytes' ? `${v}.length` : v}) { ${writeOne(f, v)} }\n`
  }
  js += `}\nfunction read${n}(r, end) {\n  const m = create${n}()\n  while (r.pos < end) {\n    const tag = r.uint32()\n    switch (tag >>> 3) {\n`
  for (const f of fields) {
    js += `      case ${f.id}: `
    if (f.map) {
      const def = isMessage(f) ? `create${f.resolvedType.name}()` : isEnum(f) ? '0' : scalarDefault(f.type)
      js += `{ const e = r.uint32() + r.pos; let k = '', v = ${def}; while (r.pos < e) { const t = r.uint32(); if (t >>> 3 === 1) k = r.string(); else if (t >>> 3 === 2) v = ${readOne(f)}; else r.skipType(t & 7) } m.${f.name}[k] = v; break }\n`
    } else if (f.repeated && wire(f) !== 2) {
      js += `if ((tag & 7) === 2) { const e = r.uint32() + r.pos; while (r.pos < e) m.${f.name}.push(${readOne(f)}) } else m.${f.name}.push(${readOne(f)}); break\n`
    } else if (f.repeated) js += `m.${f.name}.push(${readOne(f)}); break\n`
    else js += `m.${f.name} = ${readOne(f)}; break\n`
  }
  js += `      default: r.skipType(tag & 7)\n    }\n  }\n  return m\n}\n`
  js += `export const ${n} = codec('${n}', create${n}, write${n}, read${n})\n`
}
function pick(f) {
  return { id: f.id, type: f.type, resolvedType: f.resolvedType, map: false, repeated: false }
}
for (const s of services) {
  js += `export const ${s.name} = Object.freeze({\n`
  dts += `${doc(s, '')}export declare const ${s.name}: {\n`
  for (const m of s.methodsArray) {
    const q = m.resolvedRequestType.name
    const a = m.resolvedResponseType.name
    js += `  ${m.name}: Object.freeze({ path: '/shoal.${s.name}/${m.name}', requestStream: ${!!m.requestStream}, responseStream: ${!!m.responseStream}, request: ${q}, response: ${a} }),\n`
    dts += `${doc(m, '  ')}  readonly ${m.name}: Method<${q}, ${a}>\n`
  }
  js += '})\n'
  dts += '}\n'
}
mkdirSync(outDir, { recursive: true })
writeFileSync(join(outDir, 'shoal.js'), js)
writeFileSync(join(outDir, 'shoal.d.ts'), dts)
