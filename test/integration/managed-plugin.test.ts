// Managed plugins, by the stock docker commands, through a registry.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { mountsBelow } from '../../src/lab/kernel.js'
import { call, DOCKERS, docker, type Lab, type LabHost, lab, ok, until, webImage } from './support.js'
import { Walk } from './walk-kit.js'

const CONFIG = {
  description: 'A shelf for tests',
  documentation: 'https://example.com/shelf',
  interface: { types: ['docker.volumedriver/1.0'], socket: 'shelf.sock' },
  entrypoint: ['/shelf'],
  workdir: '/',
  network: { type: 'host' },
  linux: { capabilities: ['CAP_SYS_ADMIN'], allowAllDevices: false, devices: null },
  propagatedMount: '/mnt/volumes',
  // Left out until somebody sets it.
  mounts: [
    {
      name: 'key',
      description: '',
      source: '',
      destination: '/key',
      type: 'bind',
      options: ['ro'],
      settable: ['source'],
    },
  ],
  env: [
    { name: 'GREETING', description: 'said at start', value: 'hello', settable: ['value'] },
    { name: 'EXIT', description: 'ends at once', value: '', settable: ['value'] },
    { name: 'FIXED', description: 'not to be set', value: 'x', settable: null },
  ],
}

/** May be made, as with dockerd, and not run. */
const UNFIT = { interface: { types: ['.docker.dummy/1.0/'], socket: '../x' } }

const walk = new Walk()
let l: Lab
let h: LabHost
let image: string
let remote: string
let context: string

test.before(async () => {
  l = await lab('mplug', '10.92.22', 1, 0)
  await walk.start(l)
  h = walk.hosts[0]!
  image = await webImage(l, h)
  remote = `${l.plan.registry}/shelf`
  context = join(l.plan.dir, 'shelf')
  for (const d of ['rootfs/run/docker/plugins', 'rootfs/mnt/volumes', 'rootfs/etc'])
    mkdirSync(join(context, d), { recursive: true })
  for (const f of ['etc/hosts', 'etc/resolv.conf']) writeFileSync(join(context, 'rootfs', f), '')
  writeFileSync(join(context, 'config.json'), JSON.stringify(CONFIG))
  execFileSync('cc', ['-static', '-O1', '-o', join(context, 'rootfs/shelf'), 'test/support/managed-plugin.c'])
})
test.after.always(async () => {
  await walk.stop()
  await l?.down()
})

const pluginDirs = (): string[] => readdirSync(join(h.dataRoot, 'plugins'))
const pluginLog = (): string => readFileSync(join(h.dataRoot, 'plugins', pluginDirs()[0]!, 'plugin.log'), 'utf8')
const refused = async (args: readonly string[], expected: RegExp): Promise<readonly [boolean, string]> => {
  const r = await docker(h, args)
  return [r.status !== 0 && expected.test(r.stderr), `${args.join(' ')}: ${r.status} ${r.stderr}`]
}

test.serial('a plugin is made from a directory, pushed, and removed', async (t) => {
  t.is(await ok(h, 'plugin', 'create', `${remote}:1`, context), `${remote}:1`)
  t.like(await call(h.socket, 'GET', `/plugins/${remote}:1/json`), {
    Name: `${remote}:1`,
    Enabled: false,
    PluginReference: `${remote}:1`,
    Settings: {
      Env: ['GREETING=hello', 'EXIT=', 'FIXED=x'],
      Args: [],
      Mounts: [{ Name: 'key', Source: '' }],
      Devices: [],
    },
  })
  t.true(...(await refused(['plugin', 'create', `${remote}:1`, context], /already exists/)))
  t.regex(await ok(h, 'plugin', 'push', `${remote}:1`), /1: digest: sha256:[0-9a-f]{64} size: \d+/)
  t.is(await ok(h, 'plugin', 'rm', `${remote}:1`), `${remote}:1`)
  t.deepEqual(pluginDirs(), [])
  t.is(await ok(h, 'plugin', 'ls', '-q'), '')
})

for (const path of DOCKERS)
  test.serial(`${path}: a plugin is installed with what it asks for, serves volumes, and goes`, async (t) => {
    const run = async (args: readonly string[], input?: string): Promise<string> => {
      const r = await docker(h, args, { docker: path, ...(input ? { input } : {}) })
      if (r.status !== 0) throw new Error(`${args.join(' ')}: ${r.stderr}`)
      return r.stdout.trim()
    }
    t.deepEqual(pluginDirs(), [])
    // Shown, and not taken without a yes.
    const asked = await docker(h, ['plugin', 'install', `${remote}:1`], { docker: path, input: 'n\n' })
    t.regex(asked.stdout, /network: \[host\]/)
    t.regex(asked.stdout, /capabilities: \[CAP_SYS_ADMIN\]/)
    t.deepEqual(pluginDirs(), [])
    const said = await run(['plugin', 'install', '--alias', 'shelf', `${remote}:1`, 'GREETING=hi'], 'y\n')
    t.regex(said, /Installed plugin/)
    t.is(
      await run(['plugin', 'ls', '--format', '{{.Name}} {{.Enabled}} {{.Description}}']),
      'shelf:latest true A shelf for tests',
    )
    t.is(
      await run(['plugin', 'ls', '-q', '-f', 'enabled=true', '-f', 'capability=volumedriver', '--no-trunc']),
      pluginDirs()[0],
    )
    t.is(
      await run(['plugin', 'inspect', '-f', '{{.Enabled}} {{.PluginReference}} {{index .Settings.Env 2}}', 'shelf']),
      `true ${remote}:1 GREETING=hi`,
    )
    t.regex(pluginLog(), /greeting hi/)

    t.is(await run(['volume', 'create', '-d', 'shelf', 'v1']), 'v1')
    t.is(
      await run(['run', '--rm', '-v', 'v1:/v', image, 'sh', '-c', 'grep " /v " /proc/mounts | cut -d" " -f1,3']),
      'shelf tmpfs',
    )
    const id = await run(['run', '-d', '-v', 'v1:/v', image, 'sh', '-c', 'echo kept > /v/f; sleep 600'])
    t.is(await run(['volume', 'inspect', '-f', '{{.Driver}}', 'v1']), 'shelf:latest')
    t.true(...(await refused(['plugin', 'disable', 'shelf'], /is in use/)))
    t.true(...(await refused(['plugin', 'rm', 'shelf'], /is enabled/)))
    t.true(...(await refused(['plugin', 'set', 'shelf', 'GREETING=x'], /disable plugin/)))
    t.is(await run(['exec', id, 'cat', '/v/f']), 'kept')
    await run(['rm', '-f', id])
    await run(['volume', 'rm', 'v1'])

    t.is(await run(['plugin', 'disable', 'shelf']), 'shelf')
    t.true(...(await refused(['volume', 'create', '-d', 'shelf', 'v2'], /plugin "shelf" not found/)))
    await run(['plugin', 'set', 'shelf', 'GREETING=moin'])
    t.true(...(await refused(['plugin', 'set', 'shelf', 'FIXED=1'], /"FIXED" is not settable/)))
    t.true(...(await refused(['plugin', 'set', 'shelf', 'NONE=1'], /setting "NONE" not found/)))
    t.regex(
      await run(['plugin', 'upgrade', '--grant-all-permissions', 'shelf', `${remote}:1`]),
      /Upgraded plugin shelf/,
    )
    await run(['plugin', 'set', 'shelf', 'EXIT=1'])
    t.true(...(await refused(['plugin', 'enable', 'shelf'], /ended with status 3 before it answered/)))
    t.is(await run(['plugin', 'inspect', '-f', '{{.Enabled}}', 'shelf']), 'false')
    await run(['plugin', 'set', 'shelf', 'EXIT='])
    await run(['plugin', 'enable', '--timeout', '20', 'shelf'])
    t.is(await run(['plugin', 'rm', '-f', 'shelf']), 'shelf')
    t.deepEqual(pluginDirs(), [])
    t.deepEqual(mountsBelow(join(h.dataRoot, 'plugins')), [])
  })

test.serial('a plugin outlives a killed daemon with its volumes, and is started again when it dies', async (t) => {
  await ok(h, 'plugin', 'install', '--grant-all-permissions', '--alias', 'shelf', `${remote}:1`)
  await ok(h, 'volume', 'create', '-d', 'shelf', 'vol')
  const id = await ok(h, 'run', '-d', '-v', 'vol:/v', image, 'sh', '-c', 'echo kept > /v/f; sleep 600')
  await until('the file is written', 5, async () => (await ok(h, 'exec', id, 'cat', '/v/f')) === 'kept')
  const pid = (): number => {
    const runs = join(h.execRoot, 'plugin-shims/containers')
    const runDir = join(runs, readdirSync(runs)[0]!)
    return Number(JSON.parse(readFileSync(join(runDir, 'state.json'), 'utf8')).pid)
  }
  await ok(h, 'plugin', 'install', '--grant-all-permissions', '--alias', 'idle', `${remote}:1`)
  await ok(h, 'plugin', 'disable', 'idle')
  const before = pid()
  await l.killDaemon(l.plan.hosts[0]!)
  await l.startDaemon(l.plan.hosts[0]!)
  t.is(pid(), before, 'adopted')
  t.is(await ok(h, 'plugin', 'ls', '--format', '{{.Name}} {{.Enabled}}'), 'idle:latest false\nshelf:latest true')
  await ok(h, 'plugin', 'rm', 'idle')
  t.is(await ok(h, 'exec', id, 'cat', '/v/f'), 'kept')
  await ok(h, 'rm', '-f', id)
  t.deepEqual(
    mountsBelow(join(h.dataRoot, 'plugins')).filter((m) => m.endsWith('/vol')),
    [],
  )
  process.kill(before, 'SIGKILL')
  await until('it runs again', 20, async () => {
    try {
      return pid() !== before && (await docker(h, ['volume', 'create', '-d', 'shelf', 'more'])).status === 0
    } catch {
      return false
    }
  })
  await ok(h, 'volume', 'rm', '-f', 'more')
  await docker(h, ['volume', 'rm', '-f', 'vol'])
  const daemon = l.daemonPid(l.plan.hosts[0]!)
  process.kill(daemon, 'SIGTERM')
  await until('the daemon ends', 20, async () => !existsSync(`/proc/${daemon}/root/etc`))
  t.regex(readFileSync(l.plan.hosts[0]!.log, 'utf8'), /\bstopped\b.*\s*$/, 'with its plugins, to the last step')
  await l.startDaemon(l.plan.hosts[0]!)
  await ok(h, 'plugin', 'rm', '-f', 'shelf')
})

test.serial('what is no plugin, asks for more, or lacks its parts is refused, and nothing stays', async (t) => {
  t.true(...(await refused(['plugin', 'install', '--grant-all-permissions', image], /target is image/)))
  t.true(...(await refused(['plugin', 'install', '--grant-all-permissions', `${remote}:none`], /not found/)))
  const post = (body: object): Promise<unknown> =>
    call(h.socket, 'POST', `/plugins/pull?remote=${encodeURIComponent(`${remote}:1`)}`, { body })
  // As with dockerd, it is the pull that tells of a registry which has no such plugin.
  const nowhere = encodeURIComponent(`${remote}:none`)
  t.deepEqual(await call(h.socket, 'GET', `/plugins/privileges?remote=${nowhere}`), [])
  const r = String(await post([]).catch((e: Error) => e.message))
  t.regex(r, /incorrect privileges/)
  const empty = join(l.plan.dir, 'empty')
  mkdirSync(join(empty, 'rootfs'), { recursive: true })
  writeFileSync(join(empty, 'config.json'), JSON.stringify(UNFIT))
  t.is(await ok(h, 'plugin', 'create', 'unfit', empty), 'unfit')
  t.true(...(await refused(['plugin', 'enable', 'unfit'], /Entrypoint must name a program; Interface.Socket: "..\/x"/)))
  await ok(h, 'plugin', 'rm', 'unfit')
  // What a link in the context points to is the host's.
  const linked = join(l.plan.dir, 'linked')
  mkdirSync(linked)
  symlinkSync('/etc', join(linked, 'rootfs'))
  writeFileSync(join(linked, 'config.json'), JSON.stringify(CONFIG))
  t.true(...(await refused(['plugin', 'create', 'linked', linked], /needs a directory rootfs at its top/)))
  t.true(...(await refused(['plugin', 'enable', 'nothing'], /plugin "nothing" not found/)))
  t.deepEqual(pluginDirs(), [])
  t.false(existsSync(join(h.execRoot, 'plugins/nothing')))
})

walk.checkAnswers(10)
