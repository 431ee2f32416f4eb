import { gzipSync } from 'node:zlib'
import type { Rng } from '../../src/common/index.js'

type Json = null | boolean | number | string | Json[] | { [key: string]: Json }
export type Schema = { readonly [key: string]: unknown }

/** What exists on the host under test, so that requests get past the first look-up. */
export interface Known {
  /** Names and ids of containers, images, networks, ... that are there, by path: "containers" → [...]. */
  readonly ids: Readonly<Record<string, readonly string[]>>
  readonly registry: string
  /** A directory of the lab: the only absolute path of the host that a request may name. */
  readonly directory: string
}

export const pick = <T>(rng: Rng, from: readonly T[]): T => from[Math.floor(rng.random() * from.length)] as T
export const chance = (rng: Rng, p: number): boolean => rng.random() < p

const WORDS = [
  '',
  'x',
  'a-name',
  'A',
  '..',
  '../../etc',
  '.',
  '-',
  '--',
  'a/b',
  'a:b',
  'a:b:c:d',
  'a,b',
  '=',
  'a=',
  '=b',
  'a=b',
  '*',
  '[',
  '(a+)+$',
  '{{.ID}}',
  '%s%n',
  '%00',
  '\u0000',
  '\ud800',
  '\u202e',
  'ünï',
  '🐟',
  'true',
  'false',
  'null',
  '0',
  '1',
  '-1',
  '99999999999999999999',
  '1.5',
  '1e9',
  'NaN',
  '10m',
  '-10m',
  '2026-01-01T00:00:00Z',
  'SIGKILL',
  'SIGNOPE',
  '9',
  '64',
  'host',
  'none',
  'bridge',
  'default',
  'container:base',
  'container:nosuch',
  'private',
  'shareable',
  'service:x',
  '127.0.0.1',
  '::1',
  '10.0.0.0/8',
  '10.200.1.0/24',
  '256.1.1.1',
  '80',
  '80/tcp',
  '80-90/udp',
  '0/tcp',
  '70000/tcp',
  'tcp',
  'json-file',
  'local',
  'no',
  'always',
  'unless-stopped',
  'on-failure',
  'volume',
  'tmpfs',
  'bind',
  'rshared',
  'ro',
  'ALL',
  'NET_ADMIN',
  'seccomp=unconfined',
  'no-new-privileges',
  'linux/amd64',
  'windows/arm',
  'sha256:',
  `sha256:${'0'.repeat(64)}`,
  'nosuch',
  'overlay',
  'macvlan',
  'next-exit',
  'removed',
  'not-running',
  'ctrl-p,ctrl-q',
  'ctrl-',
  '/',
  '/etc',
  '/etc/passwd/x',
  '/proc/self/root',
  '{"a":',
  '{"name":["x"]}',
  '{"label":{"a=b":true}}',
  '[]',
  'é'.repeat(200),
  'a'.repeat(300),
  'a'.repeat(5000),
  '/'.repeat(5000),
] as const
const NUMBERS = [
  0,
  1,
  -1,
  2,
  7,
  80,
  255,
  1024,
  65535,
  65536,
  6291456,
  2 ** 31,
  -(2 ** 31),
  2 ** 32,
  2 ** 53,
  -(2 ** 53),
  1.5,
  1e300,
  4e9,
] as const

/** Commands that a container of the fuzz may run, whatever else it may do. */
const COMMANDS: readonly Json[] = [['true'], ['sleep', '1'], ['sh', '-c', 'exit 3'], ['nosuch'], [''], [], 'true', null]

export const word = (rng: Rng, known: Known): string =>
  chance(rng, 0.3) ? pick(rng, Object.values(known.ids).flat()) : chance(rng, 0.05) ? known.directory : pick(rng, WORDS)

/** A name of an image that costs no look-up outside the lab. */
export const imageName = (rng: Rng, known: Known): string =>
  pick(rng, [
    `${known.registry}/web:1`,
    `${known.registry}/web`,
    `${known.registry}/nosuch`,
    `${known.registry}/web@sha256:${'0'.repeat(64)}`,
    '127.0.0.1:1/x',
    'UPPER',
    'a b',
    ':',
    '@',
    `x@sha256:12`,
    `${'a/'.repeat(200)}x`,
    '../x',
    ...(known.ids.images ?? []),
  ])

/** Fields that would reach beyond the lab, or ask a host for more than it has. */
function special(field: string, rng: Rng, known: Known): { readonly value: Json } | null {
  if (['Cmd', 'Entrypoint', 'Command', 'Args'].includes(field)) return { value: pick(rng, COMMANDS) }
  if (field === 'CgroupParent') return { value: '' }
  if (['Replicas', 'MaxConcurrent', 'TotalCompletions'].includes(field)) return { value: pick(rng, [0, 1, 2, -1, 'x']) }
  if (field === 'Image') return { value: imageName(rng, known) }
  if (field === 'PathOnHost') return { value: pick(rng, ['/dev/null', '/dev/nosuch', '']) }
  if (['RemoteAddrs', 'URL'].includes(field)) return { value: ['127.0.0.1:1'] }
  if (field === 'ForceNewCluster') return { value: false }
  return null
}

/** A value that a schema of the API description allows, but for one place in ten. */
export function fromSchema(
  rng: Rng,
  schema: Schema | undefined,
  at: { known: Known; definitions: Record<string, Schema>; field?: string; depth?: number },
): Json {
  const { known, definitions, field = '', depth = 0 } = at
  const given = special(field, rng, known)
  if (given) return given.value
  if (schema === undefined || depth > 7 || chance(rng, 0.06)) return anything(rng, known, 2)
  const inner = (s: unknown, name: string): Json =>
    fromSchema(rng, s as Schema, { known, definitions, field: name, depth: depth + 1 })
  if (typeof schema.$ref === 'string')
    return fromSchema(rng, definitions[schema.$ref.replace('#/definitions/', '')], { ...at, depth: depth + 1 })
  if (Array.isArray(schema.allOf))
    return Object.assign(
      {},
      ...schema.allOf
        .map((s) => inner(s, field))
        .filter((v) => v !== null && typeof v === 'object' && !Array.isArray(v)),
    )
  if (Array.isArray(schema.enum)) return chance(rng, 0.8) ? (pick(rng, schema.enum) as Json) : word(rng, known)
  switch (schema.type) {
    case 'boolean':
      return chance(rng, 0.5)
    case 'integer':
    case 'number':
      return pick(rng, NUMBERS)
    case 'array':
      return Array.from({ length: Math.floor(rng.random() * 3) }, () => inner(schema.items, field))
    case 'string':
      return chance(rng, 0.2) && typeof schema.example === 'string' && !schema.example.startsWith('/')
        ? schema.example
        : word(rng, known)
  }
  const out: { [key: string]: Json } = {}
  const properties = (schema.properties ?? {}) as Record<string, Schema>
  const likely = depth === 0 ? 0.35 : 0.2
  for (const [name, s] of Object.entries(properties)) if (chance(rng, likely)) out[name] = inner(s, name)
  if (schema.additionalProperties)
    for (let i = Math.floor(rng.random() * 3); i > 0; i--)
      out[word(rng, known)] = inner(schema.additionalProperties, field)
  if (chance(rng, 0.05)) out[word(rng, known)] = anything(rng, known, 1)
  return out
}

function anything(rng: Rng, known: Known, depth: number): Json {
  const kind = Math.floor(rng.random() * (depth > 0 ? 6 : 4))
  if (kind === 0) return null
  if (kind === 1) return chance(rng, 0.5)
  if (kind === 2) return pick(rng, NUMBERS)
  if (kind === 3) return word(rng, known)
  if (kind === 4) return Array.from({ length: Math.floor(rng.random() * 3) }, () => anything(rng, known, depth - 1))
  return { [word(rng, known)]: anything(rng, known, depth - 1) }
}

// ---------------------------------------------------------------------------------------------- tars

function header(rng: Rng, name: string, type: string, link: string, size: number): Buffer {
  const h = Buffer.alloc(512)
  h.write(name.slice(0, 100), 0, 'latin1')
  h.write('0000755\0', 100)
  h.write('0000000\0', 108)
  h.write('0000000\0', 116)
  h.write(chance(rng, 0.05) ? '77777777777\0' : `${size.toString(8).padStart(11, '0')}\0`, 124)
  h.write('00000000000\0', 136)
  h.write(type, 156)
  h.write(link.slice(0, 100), 157, 'latin1')
  h.write('ustar\x0000', 257, 'latin1')
  h.write('0000001\0', 329)
  h.write('0000003\0', 337)
  h.fill(' ', 148, 156)
  if (!chance(rng, 0.03))
    h.write(
      `${h
        .reduce((a, b) => a + b, 0)
        .toString(8)
        .padStart(6, '0')}\0 `,
      148,
    )
  return h
}

const TAR_NAMES = [
  'a',
  'a/b',
  'a/b/c',
  './a',
  '../up',
  '../../../../etc/fuzzed',
  '/abs',
  '/etc/../../abs',
  'a/../../up',
  '.wh.a',
  '.wh..wh..opq',
  '.wh.',
  'etc',
  'etc/passwd',
  'bin',
  'dev/null',
  '',
  '.',
  '..',
  '/',
  'manifest.json',
  'repositories',
  'index.json',
  'oci-layout',
  'blobs/sha256/x',
  'x.json',
  'layer.tar',
  'l/layer.tar',
  'proc/self/x',
  'link',
  'link/x',
  'n'.repeat(100),
  '\xff\xfe',
] as const
const TAR_TYPES = ['0', '0', '0', '5', '5', '1', '2', '3', '4', '6', '7', 'x', 'g', 'L', 'K', 'S', 'Z', '\0'] as const
const TAR_TEXTS = [
  '',
  'text',
  '[]',
  '{}',
  '[{"Config":"x.json","RepoTags":["fuzz:1"],"Layers":["layer.tar"]}]',
  '[{"Config":"../../etc/passwd","RepoTags":null,"Layers":["/etc/passwd"]}]',
  '[{"Config":1}]',
  'null',
  '{"rootfs":{"type":"layers","diff_ids":["sha256:0"]}}',
  '{"imageLayoutVersion":"1.0.0"}',
  '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:x","size":-1}]}',
  '30 path=../../../etc/fuzzed\n',
  '999999 path=a\n',
  '20 SCHILY.xattr.x=y\n',
  '25 GNU.sparse.map=9,9,9\n',
  '{"config":{"interface":{}}}',
] as const

/** A tar that may be anything: names that lead out, links, devices, lies about sizes, cut short, packed, or no tar. */
export function hostileTar(rng: Rng): Buffer {
  const parts: Buffer[] = []
  for (let i = Math.floor(rng.random() * 8); i >= 0; i--) {
    const data = Buffer.from(chance(rng, 0.02) ? 'z'.repeat(1 << 20) : pick(rng, TAR_TEXTS), 'latin1')
    parts.push(
      header(rng, pick(rng, TAR_NAMES), pick(rng, TAR_TYPES), pick(rng, TAR_NAMES), data.length),
      data,
      Buffer.alloc((512 - (data.length % 512)) % 512),
    )
  }
  if (chance(rng, 0.8)) parts.push(Buffer.alloc(1024))
  let tar = Buffer.concat(parts)
  if (chance(rng, 0.15)) tar = tar.subarray(0, Math.floor(rng.random() * tar.length))
  if (chance(rng, 0.1))
    for (let i = 0; i < 20 && tar.length > 0; i++)
      tar[Math.floor(rng.random() * tar.length)] = Math.floor(rng.random() * 256)
  if (chance(rng, 0.2)) tar = gzipSync(tar)
  if (chance(rng, 0.02)) tar = gzipSync(Buffer.alloc(16 << 20)) // much out of little
  if (chance(rng, 0.1)) tar = tar.subarray(0, Math.floor(rng.random() * tar.length))
  return tar
}

// ---------------------------------------------------------------------------------------------- bytes that are hardly HTTP

/** A request as bytes on a socket, and whether our side is closed after it. */
export function hostileBytes(rng: Rng, known: Known): { readonly bytes: Buffer; readonly half: boolean } {
  const path = pick(rng, [
    '/_ping',
    '/containers/create',
    `/containers/${pick(rng, known.ids.containers ?? ['x'])}/exec`,
    '/images/load',
    '/build',
    '/networks/create',
    '/v1.43/info',
    '/v99/info',
    '/v1.1/info',
  ])
  const method = pick(rng, [
    'GET',
    'POST',
    'PUT',
    'DELETE',
    'HEAD',
    'OPTIONS',
    'PATCH',
    'TRACE',
    'CONNECT',
    'get',
    'FOO',
  ])
  const json = 'Content-Type: application/json\r\n'
  const requests: (() => string)[] = [
    () => `${method} ${path} HTTP/1.1\r\nHost: h\r\nX-Big: ${'b'.repeat(200_000)}\r\n\r\n`,
    () => `${method} ${path} HTTP/1.1\r\nHost: h\r\n${'X-Many: 1\r\n'.repeat(5000)}\r\n`,
    () => `POST ${path} HTTP/1.1\r\nHost: h\r\n${json}Content-Length: 1000\r\n\r\n{"Image":"x"`,
    () => `POST ${path} HTTP/1.1\r\nHost: h\r\n${json}Content-Length: 12\r\n\r\n{"Image":"x"`,
    () => `POST ${path} HTTP/1.1\r\nHost: h\r\n${json}Content-Length: -5\r\n\r\n{}`,
    () => `POST ${path} HTTP/1.1\r\nHost: h\r\n${json}Content-Length: 2\r\nContent-Length: 7\r\n\r\n{}`,
    () => `POST ${path} HTTP/1.1\r\nHost: h\r\n${json}Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n`,
    () => `POST ${path} HTTP/1.1\r\nHost: h\r\n${json}Transfer-Encoding: chunked\r\n\r\n5\r\n{"Ima`,
    () =>
      `POST ${path} HTTP/1.1\r\nHost: h\r\n${json}Content-Length: 40000\r\nConnection: close\r\n\r\n${'['.repeat(40000)}`,
    () =>
      `POST ${path} HTTP/1.1\r\nHost: h\r\n${json}Content-Length: 30000\r\nConnection: close\r\n\r\n${'{"HostConfig":'.repeat(2143).slice(0, 30000)}`,
    () =>
      `POST ${path} HTTP/1.1\r\nHost: h\r\n${json}Content-Length: 4\r\nConnection: close\r\n\r\n${pick(rng, ['null', '1234', '"ab"', '[{}]', 'true', '{"a"', '\xff\xfe\x00\x01'])}`,
    () =>
      `POST ${path} HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}`,
    () => `${method} ${path}?${'a=b&'.repeat(10_000)} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`,
    () => `${method} /${'x'.repeat(60_000)} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`,
    () => `${method} /containers/%zz/json HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`,
    () => `${method} /containers/%00/json HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`,
    () => `${method} //containers//json HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`,
    () => `${method} http://elsewhere${path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`,
    () => `${method} ${path} HTTP/1.0\r\n\r\n`,
    () => `${method} ${path}\r\n\r\n`,
    () => `${method} ${path} HTTP/9.9\r\nHost: h\r\n\r\n`,
    () =>
      `POST ${path} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n${json}Content-Length: 20\r\n\r\n{"De`,
    () => `POST ${path} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n`,
    () =>
      `GET /containers/base/attach/ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: ${pick(rng, ['13', '8', ''])}\r\nSec-WebSocket-Key: ${pick(rng, ['', 'x', 'dGhlIHNhbXBsZSBub25jZQ=='])}\r\n\r\n\xff\xff\xff`,
    () => `GET /_ping HTTP/1.1\r\nHost: h\r\n\r\n`.repeat(50),
    () =>
      `POST ${path} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n${json}Content-Length: 2\r\nConnection: close\r\n\r\n{}`,
    () =>
      `GET ${path} HTTP/1.1\r\nHost: h\r\nX-Registry-Auth: ${pick(rng, ['!', 'e30', 'bnVsbA==', 'W10=', 'x'.repeat(9000)])}\r\nConnection: close\r\n\r\n`,
    () => Buffer.from(Array.from({ length: 200 }, () => Math.floor(rng.random() * 256))).toString('latin1'),
    () => '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
    () => '\r\n\r\n\r\n',
  ]
  return { bytes: Buffer.from(pick(rng, requests)(), 'latin1'), half: chance(rng, 0.7) }
}
