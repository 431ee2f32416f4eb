import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { nullLogger, ShoalError, systemClock, systemRng } from '../../src/common/index.js'
import { createVolumeService, type VolumeService } from '../../src/runtime/index.js'
import { LAYER_TOOL, temporaryDirectory } from './image-kit.js'

async function open(root: string): Promise<VolumeService> {
  const v = createVolumeService(
    { root: join(root, 'volumes'), layerTool: LAYER_TOOL },
    { clock: systemClock, rng: systemRng, logger: nullLogger },
  )
  await v.start()
  return v
}

const mounted = (path: string): boolean => readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${path} `)

test('a volume is made once, survives a restart, tells its size, and goes with its data', async (t) => {
  const root = temporaryDirectory(t)
  const v = await open(root)
  const made = await v.create({ name: 'data', labels: { a: 'b' } })
  t.like(made, {
    name: 'data',
    driver: 'local',
    mountpoint: join(root, 'volumes/data/_data'),
    labels: { a: 'b' },
    options: null,
    anonymous: false,
  })
  t.deepEqual(await v.create({ name: 'data', labels: { other: 'x' } }), made)
  t.is(await v.mount('data', 'c1'), made.mountpoint)
  writeFileSync(join(made.mountpoint, 'f'), 'x'.repeat(1000))
  t.is(await v.usage('data'), 1000)
  const anonymous = await v.create({})
  t.regex(anonymous.name, /^[0-9a-f]{64}$/)
  t.true(anonymous.anonymous)
  const later = await open(root)
  t.deepEqual((await later.list()).map((x) => x.name).sort(), [anonymous.name, 'data'].sort())
  t.deepEqual(await later.get('data'), made)
  await later.remove('data', { force: false })
  t.deepEqual(readdirSync(join(root, 'volumes')), [anonymous.name])
  await t.throwsAsync(later.get('data'), { message: 'get data: no such volume' })
  await t.throwsAsync(later.remove('data', { force: false }), { message: 'get data: no such volume' })
  await later.remove('data', { force: true })
  rmSync(join(root, 'volumes', anonymous.name), { recursive: true })
  await later.remove(anonymous.name, { force: false })
  t.deepEqual(await later.list(), [])
})

test('a volume in use is kept until its last user goes', async (t) => {
  const v = await open(temporaryDirectory(t))
  await v.create({ name: 'used' })
  await v.mount('used', 'c1')
  await v.mount('used', 'c2')
  await v.mount('used', 'c2')
  t.deepEqual(v.users('used'), ['c1', 'c2'])
  await v.unmount('used', 'c1')
  await t.throwsAsync(v.remove('used', { force: true }), { message: 'remove used: volume is in use - [c2]' })
  await v.unmount('used', 'c2')
  await v.unmount('used', 'c2')
  await v.remove('used', { force: false })
})

test("bad names, drivers and options are refused with docker's words", async (t) => {
  const v = await open(temporaryDirectory(t))
  const rows: [Parameters<VolumeService['create']>[0], RegExp][] = [
    [{ name: '../x' }, /includes invalid characters for a local volume name/],
    [{ name: 'a/b' }, /If you intended to pass a host directory, use absolute path/],
    [{ name: 'x' }, /volume name is too short/],
    [{ name: '.tmp-x' }, /includes invalid characters/],
    [{ name: 'a'.repeat(256) }, /at most 255/],
    [{ name: 'ok', driver: 'rexray' }, /error looking up volume plugin rexray: plugin "rexray" not found/],
    [{ name: 'ok', options: { what: 'x' } }, /invalid option: "what"/],
    [{ name: 'ok', options: { type: 'tmpfs' } }, /missing required option: "device"/],
    [{ name: 'ok', options: { device: 'tmpfs' } }, /missing required option: "type"/],
  ]
  for (const [spec, message] of rows)
    t.regex((await t.throwsAsync(v.create(spec), { instanceOf: ShoalError }))!.message, message)
  t.deepEqual(await v.list(), [])
})

test('tmpfs and bind volumes are mounted for their first user, with their options, and unmounted after the last', async (t) => {
  const root = temporaryDirectory(t)
  const v = await open(root)
  const tmp = await v.create({
    name: 'tmp',
    options: { type: 'tmpfs', device: 'tmpfs', o: 'size=1m,uid=1000,mode=700,noexec' },
  })
  t.false(mounted(tmp.mountpoint))
  await v.mount('tmp', 'c1')
  await v.mount('tmp', 'c2')
  const line = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .find((l) => l.includes(` ${tmp.mountpoint} `))!
  t.regex(line, /noexec/)
  t.regex(line, /size=1024k/)
  t.is(statSync(tmp.mountpoint).uid, 1000)
  await v.unmount('tmp', 'c1')
  t.true(mounted(tmp.mountpoint))
  await v.unmount('tmp', 'c2')
  t.false(mounted(tmp.mountpoint))

  mkdirSync(join(root, 'source'))
  writeFileSync(join(root, 'source/f'), 'x')
  const bind = await v.create({ name: 'bind', options: { type: 'none', device: join(root, 'source'), o: 'bind,ro' } })
  await v.mount('bind', 'c1')
  t.is(readFileSync(join(bind.mountpoint, 'f'), 'utf8'), 'x')
  t.throws(() => writeFileSync(join(bind.mountpoint, 'g'), ''), { code: 'EROFS' })
  // The daemon dies here: the mount stays, is found, and is not made twice.
  const later = await open(root)
  await later.mount('bind', 'c1')
  await later.unmount('bind', 'c1')
  t.false(mounted(bind.mountpoint))
  await later.mount('bind', 'c3')
  // The next daemon takes away what a user that is no more had mounted.
  const last = await open(root)
  t.deepEqual(last.users('bind'), ['c3'])
  last.settle(() => false)
  await last.remove('bind', { force: false })
  t.false(mounted(bind.mountpoint))
  t.is(readFileSync(join(root, 'source/f'), 'utf8'), 'x')
  const missing = await last.create({
    name: 'missing',
    options: { type: 'none', device: join(root, 'nothing'), o: 'bind' },
  })
  const e = await t.throwsAsync(last.mount('missing', 'c'), { instanceOf: ShoalError })
  t.regex(e!.message, /failed to mount local volume: mount .*nothing.*No such file/)
  t.deepEqual(last.users('missing'), [])
  t.false(mounted(missing.mountpoint))
})

test('what a crash left half made is cleared, what is no volume is left alone', async (t) => {
  const root = temporaryDirectory(t)
  mkdirSync(join(root, 'volumes/.tmp-half/_data'), { recursive: true })
  mkdirSync(join(root, 'volumes/strange'), { recursive: true })
  const v = await open(root)
  t.deepEqual(readdirSync(join(root, 'volumes')), ['strange'])
  t.deepEqual(await v.list(), [])
  t.is(execFileSync('ls', [join(root, 'volumes')], { encoding: 'utf8' }), 'strange\n')
})
