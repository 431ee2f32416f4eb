// Volumes of a plugin that somebody else runs, by the stock docker commands.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { call, DOCKERS, docker, type Lab, type LabHost, lab, ok, until, webImage } from './support.js'

const SCRIPT = fileURLToPath(new URL('../support/volume-plugin.js', import.meta.url))

let l: Lab
let h: LabHost
let image: string
let dir: string
let plugin: ChildProcess | null = null

async function startPlugin(): Promise<void> {
  const p = spawn(process.execPath, [SCRIPT, join(h.execRoot, 'plugins/shelf.sock'), dir], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  plugin = p
  await once(p.stdout!, 'data')
}

async function killPlugin(): Promise<void> {
  if (!plugin) return
  const gone = once(plugin, 'exit')
  plugin.kill('SIGKILL')
  await gone
  plugin = null
}

const calls = (): string[] => readFileSync(join(dir, 'calls'), 'utf8').trim().split('\n')
const users = (name: string): string[] =>
  (JSON.parse(readFileSync(join(dir, 'volumes.json'), 'utf8')) as Record<string, { users: string[] }>)[name]!.users

test.before(async () => {
  l = await lab('vplug', '10.92.21', 1, 0)
  h = l.plan.hosts[0]!
  dir = join(l.plan.dir, 'shelf')
  image = await webImage(l, h)
  await startPlugin()
})
test.after.always(async () => {
  await killPlugin()
  await l?.down()
})

for (const path of DOCKERS)
  test.serial(`${path}: a plugin's volume is made, listed, used by containers, and removed`, async (t) => {
    const run = async (...args: string[]): Promise<string> => {
      const r = await docker(h, args, { docker: path })
      if (r.status !== 0) throw new Error(`${args.join(' ')}: ${r.stderr}`)
      return r.stdout.trim()
    }
    t.is(await run('volume', 'create', '-d', 'shelf', '-o', 'size=1', '--label', 'a=b', 'books'), 'books')
    t.true(existsSync(join(dir, 'data/books')))
    t.like(JSON.parse(await run('volume', 'inspect', 'books'))[0], {
      Name: 'books',
      Driver: 'shelf',
      Scope: 'global',
      Mountpoint: '',
      Labels: { a: 'b' },
      Options: { size: '1' },
      Status: { users: 0 },
    })
    t.is(await run('volume', 'ls', '--filter', 'driver=shelf', '--format', '{{.Name}} {{.Driver}}'), 'books shelf')
    t.is(await run('run', '--rm', '-v', 'books:/b', image, 'sh', '-c', 'echo one > /b/f; cat /b/f'), 'one')
    t.is(readFileSync(join(dir, 'data/books/f'), 'utf8'), 'one\n')
    t.deepEqual(users('books'), [], 'unmounted with the container')
    const id = await run(
      'run',
      '-d',
      '--mount',
      'type=volume,source=books,target=/b,volume-driver=shelf',
      image,
      'sleep',
      '600',
    )
    t.deepEqual(users('books'), [id])
    await run('cp', `${id}:/b/f`, join(dir, 'copied'))
    t.true(
      calls().some((c) => c.startsWith(`VolumeDriver.Mount books ${id}:copy`)),
      'a copy holds the volume',
    )
    t.deepEqual(users('books'), [id])
    t.regex((await docker(h, ['volume', 'rm', 'books'], { docker: path })).stderr, /volume is in use/)
    t.is(JSON.parse(await run('inspect', id))[0].Mounts[0].Driver, 'shelf')
    await run('rm', '-f', id)
    t.deepEqual(users('books'), [])
    t.is(await run('run', '--rm', '--volume-driver', 'shelf', '-v', 'new:/n', image, 'ls', '-d', '/n'), '/n')
    await run('volume', 'prune', '-f')
    t.is(await run('volume', 'ls', '-q', '-f', 'driver=shelf'), 'books\nnew', 'a plugin keeps what it has')
    t.deepEqual((await run('volume', 'rm', 'books', 'new')).split('\n'), ['books', 'new'])
    t.false(existsSync(join(dir, 'data/books')))
    t.regex(await run('info', '-f', '{{.Plugins.Volume}}'), /^\[local shelf\]$/)
  })

test.serial(
  "a daemon that is killed keeps its containers' mounts, and gives back those of containers that end meanwhile",
  async (t) => {
    await ok(h, 'volume', 'create', '-d', 'shelf', 'kept')
    const stays = await ok(h, 'run', '-d', '-v', 'kept:/k', image, 'sleep', '600')
    const ends = await ok(
      h,
      'run',
      '-d',
      '-v',
      'kept:/k',
      image,
      'sh',
      '-c',
      'while [ ! -e /k/go ]; do sleep 0.05; done',
    )
    t.deepEqual(users('kept').sort(), [stays, ends].sort())
    const pid = Number(await ok(h, 'inspect', '-f', '{{.State.Pid}}', ends))
    await l.killDaemon(h)
    writeFileSync(join(dir, 'data/kept/go'), '')
    await until('the container ends', 10, async () => !existsSync(`/proc/${pid}/root/k`))
    await l.startDaemon(h)
    await until('its mount is given back', 10, async () => users('kept').length === 1)
    t.deepEqual(users('kept'), [stays])
    t.is(
      calls().filter((c) => c === `VolumeDriver.Mount kept ${stays}`).length,
      1,
      'the one that runs was not mounted again',
    )
    t.is(await ok(h, 'exec', stays, 'ls', '/k'), 'go')
    await ok(h, 'rm', '-f', stays, ends)
    t.deepEqual(users('kept'), [])
    await ok(h, 'volume', 'rm', 'kept')
  },
)

test.serial('a plugin that restarts in the middle of a call is waited for', async (t) => {
  await ok(h, 'volume', 'create', '-d', 'shelf', 'patient')
  await killPlugin()
  const started = ok(h, 'run', '--rm', '-v', 'patient:/p', image, 'touch', '/p/done')
  await startPlugin()
  await started
  t.true(existsSync(join(dir, 'data/patient/done')))
  await ok(h, 'volume', 'rm', 'patient')
})

test.serial('what a plugin refuses, garbles or lacks is told in one line, and nothing stays', async (t) => {
  const refused = async (args: string[], expected: RegExp): Promise<void> => {
    const r = await docker(h, args)
    t.not(r.status, 0, args.join(' '))
    t.regex(r.stderr, expected)
  }
  await refused(
    ['volume', 'create', '-d', 'nowhere', 'x'],
    /error looking up volume plugin nowhere: plugin "nowhere" not found/,
  )
  await refused(
    ['volume', 'create', '-d', 'shelf', '-o', 'fail=Create', 'x'],
    /create x: VolumeDriver.Create: asked to fail Create/,
  )
  await refused(
    ['volume', 'create', '-d', 'shelf', '-o', 'garble=Create', 'x'],
    /plugin "shelf" answers with what is no JSON/,
  )
  t.is(await ok(h, 'volume', 'ls', '-q'), '')
  t.is(existsSync(join(h.dataRoot, 'volumes/x')), false)
  await ok(h, 'volume', 'create', '-d', 'shelf', '-o', 'fail=Mount', 'stuck')
  await refused(
    ['run', '--name', 'no', '-v', 'stuck:/s', image, 'true'],
    /mount stuck: VolumeDriver.Mount: asked to fail Mount/,
  )
  await ok(h, 'rm', 'no')
  await refused(['volume', 'create', '-d', 'local', 'stuck'], /volume name must be unique/)
  // The record of a volume that its plugin does not give up goes by force only.
  await killPlugin()
  rmSync(join(h.execRoot, 'plugins/shelf.sock'), { force: true })
  const listed = await call<{ Volumes: unknown[]; Warnings: string[] }>(h.socket, 'GET', '/volumes')
  t.deepEqual(listed.Volumes, [])
  t.regex(listed.Warnings.join(), /list shelf: .*plugin "shelf" not found/)
  await refused(['volume', 'rm', 'stuck'], /plugin "shelf" not found/)
  await ok(h, 'volume', 'rm', '-f', 'stuck')
  await startPlugin()
  t.is(await ok(h, 'volume', 'ls', '-q'), 'stuck', 'the plugin has it still')
  await ok(h, 'volume', 'rm', 'stuck')
})

test.serial(
  'a name whose volume the plugin has lost can be taken again, by any driver, unless a container has it',
  async (t) => {
    const lose = (Name: string) =>
      call(join(h.execRoot, 'plugins/shelf.sock'), 'POST', '/VolumeDriver.Remove', { body: { Name } })
    const driver = (name: string) => ok(h, 'volume', 'inspect', '-f', '{{.Driver}} {{.Options}}', name)
    await ok(h, 'volume', 'create', '-d', 'shelf', 'lost')
    await lose('lost')
    await ok(h, 'volume', 'create', '-d', 'shelf', '-o', 'a=b', 'lost')
    t.is(await driver('lost'), 'shelf map[a:b]')
    await ok(h, 'create', '--name', 'holds', '-v', 'lost:/l', image, 'true')
    await lose('lost')
    t.regex(
      (await docker(h, ['volume', 'create', 'lost'])).stderr,
      /found references to volume 'lost' in driver 'shelf'/,
    )
    await ok(h, 'rm', 'holds')
    await ok(h, 'volume', 'create', '-d', 'local', 'lost')
    t.regex(await driver('lost'), /^local /)
    await ok(h, 'volume', 'rm', 'lost')
  },
)

test.serial('a plugin is found by its spec file', async (t) => {
  await killPlugin()
  const specs = join(l.plan.dir, 'elsewhere')
  mkdirSync(specs, { recursive: true })
  const p = spawn(process.execPath, [SCRIPT, join(specs, 'p.sock'), join(dir, 'two')], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  plugin = p
  await once(p.stdout!, 'data')
  writeFileSync(join(h.execRoot, 'plugins/far.spec'), `unix://${join(specs, 'p.sock')}\n`)
  await ok(h, 'volume', 'create', '-d', 'far', 'away')
  t.is(await ok(h, 'volume', 'inspect', '-f', '{{.Driver}}', 'away'), 'far')
  await ok(h, 'volume', 'rm', 'away')
  writeFileSync(join(h.execRoot, 'plugins/far.spec'), 'ftp://nonsense\n')
  t.regex(
    (await docker(h, ['volume', 'create', '-d', 'far', 'x'])).stderr,
    /"ftp:\/\/nonsense" is no address of a plugin/,
  )
})
