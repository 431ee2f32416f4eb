import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import test from 'ava'
import { ShoalError } from '../../src/common/index.js'
import { applyChanges } from '../../src/runtime/image/instructions.js'
import { humanSize, progressBar } from '../../src/runtime/image/progress.js'
import { tarHeader } from '../../src/runtime/image/save.js'
import {
  type Host,
  importTar,
  newHost,
  openHost,
  recorder,
  streamOf,
  type TarEntry,
  tarOf,
  temporaryDirectory,
  tool,
} from './image-kit.js'

async function collect(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const c of stream) chunks.push(c as Buffer)
  return Buffer.concat(chunks)
}

const unused = { force: false, prune: true, inUse: () => null }

/** Base with one layer, and an image of two layers on it. */
async function twoImages(host: Host): Promise<{ base: string; made: string }> {
  const base = await importTar(
    host,
    tarOf([
      { name: 'a', data: 'aaa' },
      { name: 'd/', type: 'directory' },
    ]),
    'base',
  )
  await host.snapshots.prepare('c', base.id)
  await host.snapshots.withMounted('c', async (root) => writeFileSync(join(root, 'd/b'), 'bb'))
  const made = await host.images.commit({
    container: 'c',
    image: base.id,
    config: { Cmd: ['x'] },
    command: 'x',
    reference: 'made:1',
  })
  await host.snapshots.remove('c')
  return { base: base.id, made: made.id }
}

test('images saved and loaded elsewhere have the same ids, names and manifest digests, and the same tar comes out again', async (t) => {
  const a = await newHost(t)
  const { base, made } = await twoImages(a)
  await a.images.tag('base', 'localhost:5000/other/base:v1')
  const tar = await collect(await a.images.save(['base', 'localhost:5000/other/base:v1', 'made:1']))
  const b = await newHost(t)
  const { messages, onProgress } = recorder()
  const loaded = await b.images.load(streamOf(tar), { onProgress })
  t.deepEqual([...loaded].sort(), ['base:latest', 'localhost:5000/other/base:v1', 'made:1'])
  t.true(messages.some((m) => m.stream === 'Loaded image: made:1\n'))
  t.true(messages.some((m) => m.status === 'Loading layer'))
  for (const [name, id] of [
    ['base', base],
    ['made:1', made],
  ] as const) {
    const image = await b.images.get(name)
    t.is(image.id, id)
    t.is(image.manifest?.digest, (await a.images.get(name)).manifest?.digest)
    t.is(image.lastTaggedMs, 0, 'it was loaded, not tagged')
  }
  t.is((await b.images.get(made)).parent, base)
  t.is((await b.images.get(base)).parent, null)
  const manifest = JSON.parse(tar.toString('latin1').match(/\[\{"Config".*?\}\]/)![0]) as { Config: string }[]
  t.deepEqual(
    manifest.map((m) => m.Config),
    [base, made].map((id) => `${id.slice(7)}.json`),
  )
  t.deepEqual(await collect(await b.images.save(['base', 'localhost:5000/other/base:v1', 'made:1'])), tar)
  const plan = await b.snapshots.prepare('x', made)
  t.is(Buffer.from((await b.snapshots.readFile(plan, 'd/b', 10))!).toString(), 'bb')
  // By id there are no names; with a bare repository all tags go.
  const byId = await collect(await a.images.save([base]))
  const c = await newHost(t)
  t.deepEqual(await c.images.load(streamOf(byId), {}), [base])
  t.deepEqual((await c.images.get(base)).repoTags, [])
  await t.throwsAsync(a.images.save(['nothing']), { message: 'No such image: nothing:latest' })
  await t.throwsAsync(a.images.save([]), { instanceOf: ShoalError })
})

test('the archives of older dockers load: plain layers, links between layers, several names', async (t) => {
  const source = await newHost(t)
  const image = await importTar(source, tarOf([{ name: 'f', data: 'f' }]), 'x')
  const layer = tarOf([{ name: 'f', data: 'f' }])
  const hex = image.id.slice(7)
  const archive = tarOf([
    { name: 'one/', type: 'directory' },
    { name: 'one/layer.tar', data: layer },
    { name: 'two/', type: 'directory' },
    { name: 'two/layer.tar', type: 'symlink', link: '../one/layer.tar' },
    { name: `${hex}.json`, data: Buffer.from(image.rawConfig) },
    {
      name: 'manifest.json',
      data: JSON.stringify([{ Config: `${hex}.json`, RepoTags: ['x:1', 'me/y:2'], Layers: ['two/layer.tar'] }]),
    },
  ])
  const host = await newHost(t)
  const other = await importTar(host, tarOf([{ name: 'g', data: 'g' }]), 'me/y:2')
  const { messages, onProgress } = recorder()
  t.deepEqual(await host.images.load(streamOf(archive), { onProgress }), ['x:1', 'me/y:2'])
  t.deepEqual(
    messages.filter((m) => /already exists/.test(m.stream ?? '')).map((m) => m.stream),
    [`The image me/y:2 already exists, renaming the old one with ID ${other.id} to empty string\n`],
  )
  t.is((await host.images.get('me/y:2')).id, image.id)
  t.is((await host.images.get('x:1')).manifest?.digest, image.manifest?.digest)
})

test('an archive of before docker 1.10 loads: an image is a layer over its parent, and one may be empty', async (t) => {
  const [low, high] = ['a'.repeat(64), 'b'.repeat(64)] as const
  const of = (id: string, json: object, layer: Buffer | string): TarEntry[] => [
    { name: `${id}/`, type: 'directory' },
    { name: `${id}/json`, data: JSON.stringify({ id, os: 'linux', architecture: 'amd64', ...json }) },
    { name: `${id}/layer.tar`, data: layer },
  ]
  const archive = tarOf([
    ...of(high, { parent: low, author: 'me', config: { Cmd: ['/f'] } }, tarOf([{ name: 'f', data: 'f' }])),
    ...of(low, { container_config: { Cmd: ['nop'] } }, ''),
    { name: 'repositories', data: JSON.stringify({ old: { '1': high, '2': high } }) },
  ])
  const host = await newHost(t)
  t.deepEqual(await host.images.load(streamOf(archive), {}), ['old:1', 'old:2'])
  const { config } = await host.images.get('old:2')
  t.like(config, { author: 'me', config: { Cmd: ['/f'] } })
  t.is(config.rootfs.diff_ids.length, 2)
  t.like(config.history, [{ created_by: 'nop' }, { author: 'me' }])
})

test('hostile archives are refused and leave nothing', async (t) => {
  const host = await newHost(t)
  const config = JSON.stringify({
    os: 'linux',
    architecture: 'amd64',
    rootfs: { type: 'layers', diff_ids: [`sha256:${'0'.repeat(64)}`] },
  })
  const manifest = (m: object): TarEntry => ({ name: 'manifest.json', data: JSON.stringify([m]) })
  const rows: [string, readonly TarEntry[], RegExp][] = [
    ['empty', [], /holds no image/],
    ['no json', [{ name: 'manifest.json', data: '{' }], /no JSON/],
    ['no list', [{ name: 'manifest.json', data: '{}' }], /no list/],
    ['wrong types', [manifest({ Config: 1, Layers: [] })], /others than strings/],
    ['config outside', [manifest({ Config: '../../../../etc/passwd', Layers: [] })], /not in it|no file of its own/],
    [
      'config by link',
      [{ name: 'c', type: 'symlink', link: '/etc/passwd' }, manifest({ Config: 'c', Layers: [] })],
      /not in it|no file of its own/,
    ],
    ['fifo', [{ name: 'c', type: 'fifo' }, manifest({ Config: 'c', Layers: [] })], /no file of its own/],
    [
      'layer by link',
      [
        { name: 'c', data: config },
        { name: 'l', type: 'symlink', link: '/etc/shadow' },
        manifest({ Config: 'c', Layers: ['l'] }),
      ],
      /not in it|no file of its own/,
    ],
    [
      'layer count',
      [{ name: 'c', data: config }, manifest({ Config: 'c', Layers: [] })],
      /layers length mismatch: expected 1, got 0/,
    ],
    [
      'wrong layer',
      [{ name: 'c', data: config }, { name: 'l', data: tarOf([]) }, manifest({ Config: 'c', Layers: ['l'] })],
      /layer verification failed/,
    ],
    [
      'bad tag',
      [
        { name: 'c', data: config },
        { name: 'l', data: tarOf([]) },
        manifest({ Config: 'c', RepoTags: ['Bad'], Layers: ['l'] }),
      ],
      /invalid reference format/,
    ],
    ['old, elsewhere', [{ name: 'repositories', data: '{"x":{"1":"../etc"}}' }], /its ids are 64 hex digits/],
    ['old, no id', [{ name: 'repositories', data: '{"x":{"1":{}}}' }], /has no id for x:1/],
    [
      'old, its own parent',
      [
        { name: 'repositories', data: `{"x":{"1":"${'a'.repeat(64)}"}}` },
        { name: `${'a'.repeat(64)}/json`, data: `{"parent":"${'a'.repeat(64)}"}` },
      ],
      /more than 127 layers/,
    ],
    ['escape', [{ name: '../x', data: '' }], /leads out of the tree/],
    [
      'lying blob',
      [
        { name: 'oci-layout', data: '{}' },
        {
          name: 'index.json',
          data: JSON.stringify({
            schemaVersion: 2,
            manifests: [{ mediaType: 'm', size: 1, digest: `sha256:${'1'.repeat(64)}` }],
          }),
        },
        { name: `blobs/sha256/${'1'.repeat(64)}`, data: 'x' },
      ],
      /has the digest/,
    ],
  ]
  for (const [what, entries, message] of rows) {
    const e = await t.throwsAsync(host.images.load(streamOf(tarOf(entries)), {}), { instanceOf: ShoalError }, what)
    t.regex(e!.message, message, what)
    t.is(e!.kind, 'invalid', what)
  }
  t.deepEqual(await host.images.list(), [])
  t.deepEqual(readdirSync(join(host.root, 'ingest')), [])
  t.deepEqual(readdirSync(join(host.root, 'layers')), ['empty'])
})

test('removing takes names first, then the image, its layers and blobs, and its unnamed parents', async (t) => {
  const host = await newHost(t)
  const { base, made } = await twoImages(host)
  const events: string[] = []
  host.images.onEvent((e) => events.push(`${e.action} ${e.name}`))
  await host.images.tag('base', 'again:2')
  t.deepEqual(await host.images.remove('base', unused), [{ Untagged: 'base:latest' }])
  await t.throwsAsync(host.images.remove(base, unused), {
    message: new RegExp(
      `^conflict: unable to delete ${base.slice(7, 19)} \\(cannot be forced\\) - image has dependent child images`,
    ),
  })
  // The last name goes, though images stand on the image: docker keeps it without a name.
  t.deepEqual(await host.images.remove('again:2', unused), [{ Untagged: 'again:2' }])
  t.deepEqual((await host.images.get(base)).repoTags, [])
  const report = await host.images.remove('made:1', unused)
  t.deepEqual(
    report.filter((r) => 'Untagged' in r),
    [{ Untagged: 'made:1' }],
  )
  const deleted = report.flatMap((r) => ('Deleted' in r ? [r.Deleted] : []))
  t.true(deleted.includes(made) && deleted.includes(base))
  t.deepEqual(await host.images.list(), [])
  t.deepEqual(readdirSync(join(host.root, 'blobs/sha256')), [])
  t.deepEqual(readdirSync(join(host.root, 'layers')), ['empty'])
  t.deepEqual(events, [
    'tag again:2',
    `untag ${base}`,
    `untag ${base}`,
    `untag ${made}`,
    `delete ${made}`,
    `delete ${base}`,
  ])
  await t.throwsAsync(host.images.remove('made:1', unused), { message: 'No such image: made:1' })
})

test("an image in use is kept, with docker's reasons, and its layers outlive a forced removal", async (t) => {
  const host = await newHost(t)
  const image = await importTar(host, tarOf([{ name: 'a', data: 'aaa' }]), 'x')
  const short = image.id.slice(7, 19)
  const id = 'c0ffee'.repeat(10)
  await host.snapshots.prepare(id, image.id)
  const by = (running: boolean, force: boolean) => ({ force, prune: true, inUse: () => ({ container: id, running }) })
  await t.throwsAsync(host.images.remove('x', by(false, false)), {
    message: `conflict: unable to remove repository reference "x" (must force) - container ${id.slice(0, 12)} is using its referenced image ${short}`,
  })
  await t.throwsAsync(host.images.remove(image.id, by(false, false)), {
    message: `conflict: unable to delete ${short} (must be forced) - image is being used by stopped container ${id.slice(0, 12)}`,
  })
  await t.throwsAsync(host.images.remove(image.id, by(true, true)), {
    message: `conflict: unable to delete ${short} (cannot be forced) - image is being used by running container ${id.slice(0, 12)}`,
  })
  t.deepEqual(await host.images.remove('x', by(true, true)), [{ Untagged: 'x:latest' }])
  t.is((await host.images.list()).length, 1)
  await host.images.tag(image.id, 'a/b')
  await host.images.tag(image.id, 'c/d')
  await t.throwsAsync(host.images.remove(short, by(true, false)), { message: /cannot be forced/ })
  await t.throwsAsync(host.images.remove(short, unused), {
    message: `conflict: unable to delete ${short} (must be forced) - image is referenced in multiple repositories`,
  })
  await host.images.remove(short, by(false, true))
  t.deepEqual(await host.images.list(), [])
  const plan = await host.snapshots.get(id)
  t.is(Buffer.from((await host.snapshots.readFile(plan, 'a', 10))!).toString(), 'aaa')
  await host.snapshots.remove(id)
  t.deepEqual(readdirSync(join(host.root, 'layers')), ['empty'])
})

test('images are found by name, id and unique beginnings', async (t) => {
  const host = await newHost(t)
  const image = await importTar(host, tarOf([{ name: 'a', data: '1' }]), 'repo/x:1')
  await importTar(host, tarOf([{ name: 'a', data: '2' }]))
  for (const name of [
    'repo/x:1',
    'docker.io/repo/x:1',
    image.id,
    image.id.slice(7),
    image.id.slice(7, 19),
    image.id.slice(0, 19),
  ])
    t.is((await host.images.get(name)).id, image.id, name)
  for (const name of ['repo/x', 'x:1', 'ffffffffffff', 'sha256:', 'Bad Name'])
    await t.throwsAsync(host.images.get(name), { instanceOf: ShoalError }, name)
  await host.images.tag('repo/x:1', 'moved')
  await host.images.tag((await host.images.list()).find((i) => i.id !== image.id)!.id, 'moved')
  t.deepEqual((await host.images.get('repo/x:1')).repoTags, ['repo/x:1'])
  await t.throwsAsync(host.images.tag('repo/x:1', `y@sha256:${'0'.repeat(64)}`), {
    message: 'refusing to create a tag with a digest reference',
  })
  await t.throwsAsync(host.images.tag('nothing', 'y'), { message: 'No such image: nothing:latest' })
})

test('records survive a restart, leftovers of a crash do not, and sizes tell what is shared', async (t) => {
  const root = join(temporaryDirectory(t), 'data')
  const host = await openHost(root)
  const { base, made } = await twoImages(host)
  const usage = await host.images.usage()
  t.is(usage.layersBytes, 5)
  t.is(usage.sharedBytes.get(base), 3)
  t.is(usage.sharedBytes.get(made), 3)
  await host.snapshots.prepare('kept', made)
  const before = await host.images.list()
  await host.stop()
  mkdirSync(join(root, 'layers', 'tmp-left', 'diff'), { recursive: true })
  mkdirSync(join(root, 'layers', 'f'.repeat(64), 'diff'), { recursive: true })
  mkdirSync(join(root, 'containers', 'ghost', 'upper'), { recursive: true })
  writeFileSync(join(root, 'blobs/sha256', '0'.repeat(64)), 'left')
  writeFileSync(join(root, 'ingest', 'tmp-x'), 'left')
  const later = await openHost(root)
  t.deepEqual(
    (await later.images.list()).map((i) => [i.id, i.repoTags, i.sizeBytes]),
    before.map((i) => [i.id, i.repoTags, i.sizeBytes]),
  )
  t.deepEqual(await later.snapshots.list(), ['kept'])
  await later.snapshots.prepare('new', made)
  t.deepEqual(readdirSync(join(root, 'containers')).sort(), ['kept', 'new'])
  t.is(readdirSync(join(root, 'layers')).length, 3)
  t.deepEqual(readdirSync(join(root, 'ingest')), [])
  t.is(readdirSync(join(root, 'blobs/sha256')).length, 6)
  await later.stop()
})

test('directories that a layer does not describe look as in the layers below', async (t) => {
  const host = await newHost(t)
  const config = (layers: Buffer[]): object => ({
    os: 'linux',
    architecture: 'amd64',
    rootfs: { type: 'layers', diff_ids: layers.map(sha) },
  })
  const bottom = tarOf([
    { name: './', type: 'directory', mode: 0o700 },
    { name: 'home/', type: 'directory', mode: 0o711, uid: 7, gid: 8, mtime: '1500000000' },
  ])
  const top = tarOf([{ name: 'home/me/file', data: 'x' }])
  const archive = tarOf([
    { name: 'c', data: JSON.stringify(config([bottom, top])) },
    { name: 'b', data: bottom },
    { name: 't', data: top },
    { name: 'manifest.json', data: JSON.stringify([{ Config: 'c', RepoTags: ['x'], Layers: ['b', 't'] }]) },
  ])
  await host.images.load(streamOf(archive), {})
  await host.snapshots.prepare('c', (await host.images.get('x')).id)
  const { lstatSync } = await import('node:fs')
  await host.snapshots.withMounted('c', async (root) => {
    const home = lstatSync(join(root, 'home'))
    t.deepEqual([home.mode & 0o7777, home.uid, home.gid, home.mtimeMs], [0o711, 7, 8, 1500000000000])
    t.is(lstatSync(`${root}/.`).mode & 0o777, 0o755, 'the root itself is open to all users, as with dockerd')
    t.is(lstatSync(join(root, 'home/me')).mode & 0o777, 0o755)
  })
})

test('files are read from the merged tree, links inside it, and never from outside', async (t) => {
  const host = await newHost(t)
  const image = await importTar(
    host,
    tarOf([
      { name: 'usr/etc/passwd', data: 'inside' },
      { name: 'etc', type: 'symlink', link: '/usr/etc' },
      { name: 'escape', type: 'symlink', link: '../../../../../../etc/hostname' },
      { name: 'loop', type: 'symlink', link: 'loop' },
      { name: 'pipe', type: 'fifo' },
      { name: 'big', data: Buffer.alloc(5000) },
    ]),
  )
  const plan = await host.snapshots.prepare('c', image.id)
  const read = async (path: string, max = 100): Promise<string | null> => {
    const r = await host.snapshots.readFile(plan, path, max)
    return r && Buffer.from(r).toString()
  }
  t.is(await read('/etc/passwd'), 'inside')
  t.is(await read('/etc/../etc/./passwd'), 'inside')
  t.is(await read('/escape'), null)
  for (const absent of ['/nothing', '/loop', '/big/x', '/etc/passwd/x']) t.is(await read(absent), null, absent)
  await t.throwsAsync(read('/pipe'), { message: /not a regular file/ })
  await t.throwsAsync(read('/usr'), { message: /not a regular file/ })
  await t.throwsAsync(read('/big'), { message: /more than the 100 allowed/ })
  await host.snapshots.withMounted('c', async (root) => writeFileSync(join(root, 'usr/etc/passwd'), 'changed'))
  t.is(await read('/etc/passwd'), 'changed')
})

test('callers that mount one container at one time share the tree, and it is gone afterwards', async (t) => {
  const host = await newHost(t)
  const image = await importTar(host, tarOf([{ name: 'a', data: 'a' }]))
  await host.snapshots.prepare('c', image.id)
  const roots = await Promise.all(
    [1, 2, 3].map((i) =>
      host.snapshots.withMounted('c', async (root) => {
        writeFileSync(join(root, `f${i}`), 'x')
        return root
      }),
    ),
  )
  await t.throwsAsync(
    host.snapshots.withMounted('c', async () => {
      throw new Error('from inside')
    }),
    { message: 'from inside' },
  )
  for (const root of roots) t.throws(() => readdirSync(root))
  t.false(readFileSync('/proc/self/mountinfo', 'utf8').includes(host.root))
  const plan = await host.snapshots.get('c')
  t.deepEqual(readdirSync(plan.upper).sort(), ['f1', 'f2', 'f3'])
  await t.throwsAsync(host.snapshots.get('nobody'), { message: /no writable layer/ })
  await t.throwsAsync(host.snapshots.prepare('../x', image.id), { message: /cannot be the id/ })
  await t.throwsAsync(host.snapshots.prepare('d', `sha256:${'0'.repeat(64)}`), { message: /No such image/ })
})

test('an image without layers can be prepared', async (t) => {
  const host = await newHost(t)
  const config = JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [] } })
  const archive = tarOf([
    { name: 'c', data: config },
    { name: 'manifest.json', data: JSON.stringify([{ Config: 'c', RepoTags: ['scratch:1'], Layers: [] }]) },
  ])
  await host.images.load(streamOf(archive), {})
  const plan = await host.snapshots.prepare('c', (await host.images.get('scratch:1')).id)
  await host.snapshots.withMounted('c', async (root) => {
    t.true(readdirSync(root).includes('proc'))
    symlinkSync('x', join(root, 'l'))
  })
  t.deepEqual(await host.snapshots.changes('c'), [{ path: '/l', kind: 1 }])
  t.is(plan.lower.length, 2)
  // A commit without a change adds no layer.
  await host.snapshots.prepare('e', (await host.images.get('scratch:1')).id)
  const same = await host.images.commit({
    container: 'e',
    image: (await host.images.get('scratch:1')).id,
    config: {},
    command: '',
  })
  t.deepEqual(same.config.rootfs.diff_ids, [])
  t.true(same.config.history?.at(-1)?.empty_layer)
})

test('images with one layer between them can be made at the same moment', async (t) => {
  const host = await newHost(t)
  const tree = tarOf([{ name: 'a', data: 'aaa' }])
  const made = await Promise.all(Array.from({ length: 20 }, (_, i) => importTar(host, tree, `same:${i}`)))
  t.is(new Set(made.map((i) => i.config.rootfs.diff_ids[0])).size, 1)
  t.deepEqual(
    readdirSync(join(host.root, 'layers')).filter((n) => n.startsWith('tmp-')),
    [],
  )
})

test('changes of import are Dockerfile instructions', (t) => {
  t.deepEqual(
    applyChanges({ Env: ['PATH=/bin', 'A=0'] }, [
      'CMD echo hi',
      'ENTRYPOINT ["/init", "-x"]',
      'ENV A=1 B="two words" C=\\ x',
      'env OLD some value',
      'EXPOSE 80 53/udp 8000-8002/TCP',
      'LABEL a=b "c d"="e f"',
      'USER 1:2',
      'VOLUME /a /b',
      'VOLUME ["/c d"]',
      'WORKDIR /x',
      'WORKDIR y/../z',
      'STOPSIGNAL SIGQUIT',
      'HEALTHCHECK --interval=1m30s --timeout=2s --start-period=500ms --start-interval=1s --retries=3 CMD curl x || exit 1',
      'ONBUILD RUN make',
      '',
    ]),
    {
      Env: ['PATH=/bin', 'A=1', 'B=two words', 'C= x', 'OLD=some value'],
      Cmd: ['/bin/sh', '-c', 'echo hi'],
      Entrypoint: ['/init', '-x'],
      ExposedPorts: { '80/tcp': {}, '53/udp': {}, '8000/tcp': {}, '8001/tcp': {}, '8002/tcp': {} },
      Labels: { a: 'b', 'c d': 'e f' },
      User: '1:2',
      Volumes: { '/a': {}, '/b': {}, '/c d': {} },
      WorkingDir: '/x/z',
      StopSignal: 'SIGQUIT',
      Healthcheck: {
        Test: ['CMD-SHELL', 'curl x || exit 1'],
        Interval: 90e9,
        Timeout: 2e9,
        StartPeriod: 5e8,
        StartInterval: 1e9,
        Retries: 3,
      },
      OnBuild: ['RUN make'],
    },
  )
  t.like(
    applyChanges({ Env: ['PATH=/bin', 'U=me'] }, [
      // biome-ignore lint/suspicious/noTemplateCurlyInString: a Dockerfile's variables
      'ENV PATH=/usr/bin:$PATH A="<${U}>" B=\'$U\' C=\\$U D=${NONE:-x}${U:+y}$NONE.',
      'ENV OLD the $U \\$U',
      'USER $U',
      'WORKDIR /home/$U',
      'LABEL who=$U',
    ]),
    {
      Env: ['PATH=/usr/bin:/bin', 'U=me', 'A=<me>', 'B=$U', 'C=$U', 'D=xy.', 'OLD=the me $U'],
      User: 'me',
      WorkingDir: '/home/me',
      Labels: { who: 'me' },
    },
  )
  t.deepEqual(applyChanges({}, ['HEALTHCHECK NONE']).Healthcheck, { Test: ['NONE'] })
  for (const bad of [
    'RUN x',
    'FROM y',
    'CMD',
    'EXPOSE 99999',
    'EXPOSE x',
    'ENV =x',
    'ENV A=${B',
    'LABEL "a',
    'HEALTHCHECK',
    'HEALTHCHECK --interval=x CMD y',
    'ONBUILD ONBUILD RUN x',
    '!',
  ])
    t.throws(() => applyChanges({}, [bad]), { instanceOf: ShoalError, code: 'badChange' } as never, bad)
})

test('import takes any compression, and refuses bad names and changes before it reads', async (t) => {
  const host = await newHost(t)
  const { execFileSync } = await import('node:child_process')
  const tar = tarOf([{ name: 'a', data: 'content' }])
  const ids = new Set<string>()
  for (const [program, args] of [
    ['gzip', []],
    ['bzip2', []],
    ['xz', []],
    ['zstd', ['-q']],
    ['cat', []],
  ] as const) {
    const packed = execFileSync(program, [...args], { input: tar })
    const image = await importTar(host, packed)
    ids.add(image.config.rootfs.diff_ids[0]!)
    const manifest = JSON.parse(readFileSync(host.images.store.blobs.path(image.manifest!.digest), 'utf8')) as {
      layers: { mediaType: string }[]
    }
    t.is(
      manifest.layers[0]!.mediaType,
      program === 'zstd'
        ? 'application/vnd.oci.image.layer.v1.tar+zstd'
        : 'application/vnd.docker.image.rootfs.diff.tar.gzip',
    )
  }
  t.is(ids.size, 1)
  await t.throwsAsync(importTar(host, tar, 'Bad'), { message: /must be lowercase/ })
  await t.throwsAsync(importTar(host, tar, 'x', ['RUN x']), { message: /not a valid change command/ })
  await t.throwsAsync(importTar(host, Buffer.from('no tar at all '.repeat(100))), { instanceOf: ShoalError })
  t.deepEqual(readdirSync(join(host.root, 'ingest')), [])
})

test('sizes and bars are drawn as docker draws them', (t) => {
  t.is(humanSize(0), '0B')
  t.is(humanSize(999), '999B')
  t.is(humanSize(2_206_931), '2.207MB')
  t.is(humanSize(1e9), '1GB')
  t.is(progressBar(0, 0), '')
  t.is(progressBar(500, 1000), `[${'='.repeat(25)}>${' '.repeat(25)}]     500B/1kB`)
  t.is(progressBar(1000, 1000), `[${'='.repeat(50)}>]      1kB/1kB`)
})

test('a tar header can say more than eight gigabytes', async (t) => {
  const dir = temporaryDirectory(t)
  const size = 9 * 2 ** 30
  const { execFileSync } = await import('node:child_process')
  writeFileSync(join(dir, 'x.tar'), tarHeader('big', size, false))
  // GNU tar complains of the missing data, after it has listed the entry.
  const listed = (() => {
    try {
      return execFileSync('tar', ['tvf', join(dir, 'x.tar')], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
    } catch (e) {
      return (e as { stdout: string }).stdout
    }
  })()
  t.regex(listed, new RegExp(` ${size} .* big`))
  t.truthy(tool)
})

function sha(b: Buffer): string {
  return `sha256:${createHash('sha256').update(b).digest('hex')}`
}
