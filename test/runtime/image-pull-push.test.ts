import { existsSync, lstatSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { busyboxTar, importTar, newHost, recorder, startRegistry, statuses } from './image-kit.js'

test('an imported image is pushed, pulled elsewhere with the same id and digest, and prepared as overlay directories', async (t) => {
  const registry = await startRegistry(t)
  const a = await newHost(t)
  const image = await importTar(a, busyboxTar(), `${registry.host}/lib/busybox:1`, ['CMD ["/bin/sh"]', 'ENV A=1'])
  t.deepEqual(image.repoTags, [`${registry.host}/lib/busybox:1`])
  t.deepEqual(image.config.config, { Cmd: ['/bin/sh'], Env: ['A=1'] })
  const pushed = recorder()
  await a.images.push(`${registry.host}/lib/busybox:1`, { onProgress: pushed.onProgress })
  const layer = image.config.rootfs.diff_ids[0]!.slice(7, 19)
  t.is(pushed.messages[0]!.status, `The push refers to repository [${registry.host}/lib/busybox]`)
  t.deepEqual(
    pushed.messages.filter((m) => m.id === layer && m.status !== 'Pushing').map((m) => m.status),
    ['Preparing', 'Pushed'],
  )
  const last = pushed.messages.at(-1)!.aux as { Tag: string; Digest: string; Size: number }
  t.is(last.Tag, '1')
  t.is(pushed.messages.at(-2)!.status, `1: digest: ${last.Digest} size: ${last.Size}`)

  const again = recorder()
  await a.images.push(`${registry.host}/lib/busybox:1`, { onProgress: again.onProgress })
  t.true(statuses(again.messages).includes('Layer already exists'))

  const b = await newHost(t)
  const pulled = recorder()
  const got = await b.images.pull(`${registry.host}/lib/busybox:1`, { onProgress: pulled.onProgress })
  t.is(got.id, image.id)
  t.is(got.manifest?.digest, last.Digest)
  t.deepEqual(got.repoDigests, [`${registry.host}/lib/busybox@${last.Digest}`])
  const blob =
    got.manifest &&
    (JSON.parse(readFileSync(b.images.store.blobs.path(last.Digest), 'utf8')) as { layers: { digest: string }[] })
  const id = blob!.layers[0]!.digest.slice(7, 19)
  t.deepEqual(
    pulled.messages.filter((m) => m.status !== 'Downloading').map((m) => [m.id ?? '', m.status]),
    [
      ['1', 'Pulling from lib/busybox'],
      [id, 'Pulling fs layer'],
      [id, 'Verifying Checksum'],
      [id, 'Download complete'],
      [id, 'Pull complete'],
      ['', `Digest: ${last.Digest}`],
      ['', `Status: Downloaded newer image for ${registry.host}/lib/busybox:1`],
    ],
  )
  const plan = await b.snapshots.prepare('c1', got.id)
  t.deepEqual(await b.snapshots.prepare('c1', got.id), plan)
  for (const dir of [...plan.lower, plan.upper, plan.work]) t.true(statSync(dir).isDirectory())
  t.is(lstatSync(join(plan.lower.at(-1)!, 'bin/sh')).ino, lstatSync(join(plan.lower.at(-1)!, 'bin/busybox')).ino)
  t.is(
    Buffer.from((await b.snapshots.readFile(plan, '/etc/passwd', 1000))!).toString(),
    'root:x:0:0:root:/root:/bin/sh\n',
  )
  await b.snapshots.withMounted('c1', async (root) => {
    t.true(readdirSync(root).includes('proc'))
    t.true(existsSync(join(root, 'etc/hosts')))
  })
  t.deepEqual(await b.snapshots.changes('c1'), [])

  const repeat = recorder()
  await b.images.pull(`${registry.host}/lib/busybox:1`, { onProgress: repeat.onProgress })
  t.deepEqual(statuses(repeat.messages).slice(1), [
    `Digest: ${last.Digest}`,
    `Status: Image is up to date for ${registry.host}/lib/busybox:1`,
  ])
})

test('an image of two layers is committed from a container, and only its new layer is sent', async (t) => {
  const registry = await startRegistry(t)
  const a = await newHost(t)
  const base = await importTar(a, busyboxTar(), `${registry.host}/base`)
  await a.images.push(`${registry.host}/base`, {})
  await a.snapshots.prepare('c1', base.id)
  await a.snapshots.withMounted('c1', async (root) => {
    const { mkdirSync, rmSync, writeFileSync } = await import('node:fs')
    writeFileSync(join(root, 'etc/motd'), 'hello\n')
    rmSync(join(root, 'etc/passwd'))
    rmSync(join(root, 'tmp'), { recursive: true })
    mkdirSync(join(root, 'tmp'))
  })
  const changes = await a.snapshots.changes('c1')
  t.deepEqual(changes, [
    { path: '/etc', kind: 0 },
    { path: '/etc/motd', kind: 1 },
    { path: '/etc/passwd', kind: 2 },
    { path: '/tmp', kind: 0 },
  ])
  t.is(await a.snapshots.usage('c1'), 6)
  const made = await a.images.commit({
    container: 'c1',
    command: '/bin/sh -c x',
    image: base.id,
    config: { Cmd: ['/bin/sh', '-c', 'x'] },
    reference: `${registry.host}/made:2`,
    comment: 'c',
    author: 'a',
  })
  t.is(made.parent, base.id)
  t.is(made.config.rootfs.diff_ids.length, 2)
  t.is(made.config.history?.at(-1)?.created_by, '/bin/sh -c x')
  const pushed = recorder()
  await a.images.push(`${registry.host}/made:2`, { onProgress: pushed.onProgress })
  t.true(statuses(pushed.messages).includes('Mounted from base'))
  t.is(statuses(pushed.messages).filter((s) => s === 'Pushed').length, 1)
  const b = await newHost(t)
  const got = await b.images.pull(`${registry.host}/made:2`, {})
  t.is(got.id, made.id)
  const plan = await b.snapshots.prepare('c2', got.id)
  t.is(await b.snapshots.readFile(plan, 'etc/passwd', 1000), null)
  t.is(Buffer.from((await b.snapshots.readFile(plan, 'etc/motd', 1000))!).toString(), 'hello\n')
  const shared = recorder()
  t.is((await b.images.pull(`${registry.host}/base`, { onProgress: shared.onProgress })).id, base.id)
  t.true(statuses(shared.messages).includes('Already exists'))
  const unknown = recorder()
  await t.throwsAsync(b.images.pull(`${registry.host}/base:none`, { onProgress: unknown.onProgress }), {
    message: /not found/,
  })
  t.deepEqual(unknown.messages, [])
})
