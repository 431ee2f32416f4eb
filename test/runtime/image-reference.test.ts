import test from 'ava'
import { ShoalError } from '../../src/common/index.js'
import { familiarString, parseReference } from '../../src/runtime/index.js'
import { parseChallenges } from '../../src/runtime/registry/auth.js'
import { choosePlatform, type ManifestIndex, parseManifest } from '../../src/runtime/registry/media-types.js'
import { canonicalString, withDefaultTag } from '../../src/runtime/registry/reference.js'
import { isInsecure } from '../../src/runtime/registry/transport.js'
import { chainIds } from '../../src/runtime/snapshot/layer-store.js'

const D = `sha256:${'a1'.repeat(32)}`

test('names are taken apart and shown as docker does', (t) => {
  const rows: [string, string, string][] = [
    ['busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['busybox:1.36', 'docker.io/library/busybox:1.36', 'busybox:1.36'],
    ['me/app', 'docker.io/me/app:latest', 'me/app:latest'],
    ['docker.io/busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['index.docker.io/library/busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['docker.io/library/a/b', 'docker.io/library/a/b:latest', 'library/a/b:latest'],
    ['localhost/x', 'localhost/x:latest', 'localhost/x:latest'],
    ['localhost:5000/x:y', 'localhost:5000/x:y', 'localhost:5000/x:y'],
    ['10.0.0.1:5000/a/b', '10.0.0.1:5000/a/b:latest', '10.0.0.1:5000/a/b:latest'],
    ['[fd00::1]:5000/a', '[fd00::1]:5000/a:latest', '[fd00::1]:5000/a:latest'],
    ['gcr.io/p/a--b/c__d', 'gcr.io/p/a--b/c__d:latest', 'gcr.io/p/a--b/c__d:latest'],
    [`busybox@${D}`, `docker.io/library/busybox@${D}`, `busybox@${D}`],
    [`busybox:1@${D}`, `docker.io/library/busybox@${D}`, `busybox:1@${D}`],
    ['HOST/app', 'HOST/app:latest', 'HOST/app:latest'],
  ]
  for (const [text, canonical, familiar] of rows) {
    const r = withDefaultTag(parseReference(text))
    t.is(canonicalString(r), canonical, text)
    t.is(familiarString(r), familiar, text)
  }
})

test("what is no name is refused with docker's words", (t) => {
  const rows: [string, RegExp][] = [
    ['', /^invalid reference format$/],
    ['a b', /^invalid reference format$/],
    [':tag', /^invalid reference format$/],
    ['a:', /^invalid reference format$/],
    ['a/', /^invalid reference format$/],
    ['/a', /^invalid reference format$/],
    ['a//b', /^invalid reference format$/],
    ['-a', /^invalid reference format$/],
    ['Busybox', /repository name \(library\/Busybox\) must be lowercase/],
    ['localhost:5000/Foo', /must be lowercase/],
    ['a'.repeat(64), /cannot specify 64-byte hexadecimal strings/],
    [`a:${'t'.repeat(129)}`, /^invalid reference format$/],
    ['a@sha256:abc', /digest/],
    [`${'a/'.repeat(150)}a`, /not be more than 255 characters/],
    ['a:b:c', /^invalid reference format$/],
  ]
  for (const [text, message] of rows) {
    const e = t.throws(() => parseReference(text), { instanceOf: ShoalError }, text)
    t.is(e!.code, 'badReference')
    t.regex(e!.message, message, text)
  }
})

test('challenges are read with quotes, several schemes, and scopes with commas', (t) => {
  t.deepEqual(
    parseChallenges('Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push"'),
    [
      {
        scheme: 'bearer',
        parameters: { realm: 'https://auth.example/token', service: 'r.example', scope: 'repository:a/b:pull,push' },
      },
    ],
  )
  t.deepEqual(parseChallenges('Basic realm="Registry \\"Realm\\""'), [
    { scheme: 'basic', parameters: { realm: 'Registry "Realm"' } },
  ])
  t.deepEqual(
    parseChallenges(['Negotiate abc=', 'Basic realm=x']).map((c) => c.scheme),
    ['basic'],
  )
  t.deepEqual(parseChallenges(undefined), [])
})

test('the platform is chosen by variant: the same, else the nearest lower one, never a higher one or an attestation', (t) => {
  const index = (...platforms: [string, string, string?][]): ManifestIndex => ({
    schemaVersion: 2,
    manifests: platforms.map(([os, architecture, variant], i) => ({
      mediaType: 'm',
      size: 1,
      digest: `sha256:${String(i).padStart(64, '0')}`,
      platform: { os, architecture, ...(variant ? { variant } : {}) },
    })),
  })
  const pick = (i: ManifestIndex, architecture: string, variant?: string): number | null => {
    const d = choosePlatform(i, { os: 'linux', architecture, ...(variant ? { variant } : {}) })
    return d ? i.manifests.indexOf(d) : null
  }
  const many = index(
    ['unknown', 'unknown'],
    ['windows', 'amd64'],
    ['linux', 'arm', 'v6'],
    ['linux', 'arm', 'v7'],
    ['linux', 'arm64', 'v8'],
    ['linux', 'amd64'],
    ['linux', 'amd64', 'v3'],
  )
  t.is(pick(many, 'amd64'), 5)
  t.is(pick(many, 'amd64', 'v3'), 6)
  t.is(pick(many, 'amd64', 'v2'), 5)
  t.is(pick(many, 'arm', 'v7'), 3)
  t.is(pick(many, 'arm', 'v6'), 2)
  t.is(pick(many, 'arm', 'v5'), null)
  t.is(pick(many, 'arm64'), 4)
  t.is(pick(many, 's390x'), null)
})

test('manifests that lie about their form are refused', (t) => {
  const parse = (doc: unknown): unknown => parseManifest(Buffer.from(JSON.stringify(doc)), 'x')
  const config = { mediaType: 'c', digest: D, size: 1 }
  t.notThrows(() => parse({ schemaVersion: 2, config, layers: [config] }))
  for (const doc of [
    null,
    [],
    {},
    { schemaVersion: 1, fsLayers: [] },
    { schemaVersion: 2 },
    { schemaVersion: 2, config, layers: 'x' },
    { schemaVersion: 2, config: { ...config, digest: 'sha256:../../etc' }, layers: [] },
    { schemaVersion: 2, config: { ...config, size: -1 }, layers: [] },
    { schemaVersion: 2, config: { ...config, size: undefined }, layers: [] },
    { schemaVersion: 2, config, layers: [{ ...config, digest: 'md5:abc' }] },
    { schemaVersion: 2, manifests: [{}] },
  ])
    t.notRegex(t.throws(() => parse(doc), { instanceOf: ShoalError }).message, /undefined|NaN/)
  t.throws(() => parseManifest(Buffer.from('{'), 'x'), { instanceOf: ShoalError, message: /no JSON/ })
})

test('loopback and listed registries may do without TLS', (t) => {
  for (const host of ['localhost', 'localhost:5000', '127.0.0.1:5000', '127.9.9.9', '[::1]:5000'])
    t.true(isInsecure(host, []), host)
  for (const host of ['example.com', '10.0.0.1:5000', 'docker.io']) t.false(isInsecure(host, []), host)
  t.true(isInsecure('10.0.0.1:5000', ['10.0.0.0/8']))
  t.true(isInsecure('r.example:5000', ['r.example:5000']))
  t.false(isInsecure('r.example:5001', ['r.example:5000']))
})

test('chain ids follow the image specification', (t) => {
  t.deepEqual(chainIds([]), [])
  const [a, b] = [`sha256:${'0'.repeat(64)}`, `sha256:${'1'.repeat(64)}`]
  const chain = chainIds([a!, b!])
  t.is(chain[0], a)
  // printf 'sha256:000... sha256:111...' | sha256sum
  t.is(chain[1], 'sha256:f94b891e05f6e37c90d87edfd5bb98a02d618a437c35f3a94b3b00e48e894631')
})
