// The runtime over the real shim, without any engine.
import { spawn } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { nullLogger, ShoalError, systemClock } from '../../../src/common/index.js'
import {
  createContainerRuntime,
  isExitRecord,
  type LaunchSpec,
  native,
  nativeDirectory,
} from '../../../src/runtime/index.js'
import { busyboxTree, whyNoEngine } from '../../engine/support/lab.js'
import { cgroupFolders } from '../../native/kit.js'

const reason = whyNoEngine()
if (reason) console.log(`skipped: ${reason}`)
const run = reason ? test.serial.skip : test.serial

const root = mkdtempSync(join(tmpdir(), 'engine-shims-'))
const cgroup = `/engine-shims-${process.pid}`
const runtime = () =>
  createContainerRuntime(
    { execRoot: root, shimPath: join(nativeDirectory, 'shoal-shim') },
    { clock: systemClock, logger: nullLogger, native: native() },
  )

test.before(() => {
  if (!reason) busyboxTree(join(root, 'tree'))
})
// The clock's timers keep no process alive, and a daemon has servers; a test has neither.
const alive = setInterval(() => {}, 1000)

test.after.always(() => {
  clearInterval(alive)
  for (const mount of readdirSync('/sys/fs/cgroup'))
    try {
      rmdirSync(join('/sys/fs/cgroup', mount, cgroup))
    } catch {
      // not made in this hierarchy
    }
  rmSync(root, { recursive: true, force: true })
})

function launch(id: string, script: string, over: Partial<LaunchSpec> = {}): LaunchSpec {
  mkdirSync(join(root, 'rootfs'), { recursive: true })
  mkdirSync(join(root, id, 'upper'), { recursive: true })
  mkdirSync(join(root, id, 'work'), { recursive: true })
  return {
    id,
    spec: {
      ociVersion: '1.2.0',
      process: {
        terminal: false,
        user: { uid: 0, gid: 0 },
        args: ['sh', '-c', script],
        env: ['PATH=/bin'],
        cwd: '/',
        capabilities: { bounding: [], effective: [], permitted: [] },
      },
      root: { path: join(root, 'rootfs'), readonly: false },
      mounts: [{ destination: '/proc', type: 'proc', source: 'proc' }],
      linux: { namespaces: [{ type: 'mount' }, { type: 'pid' }], cgroupsPath: `${cgroup}/${id}`, resources: {} },
    },
    rootfs: { lower: [join(root, 'tree')], upper: join(root, id, 'upper'), work: join(root, id, 'work') },
    tty: false,
    stdin: false,
    stdinOnce: false,
    log: null,
    cgroup: `${cgroup}/${id}`,
    seccomp: null,
    initPath: null,
    runtime: null,
    ...over,
  }
}

run('a container is created, started, seen by a second runtime, and deleted', async (t) => {
  const first = runtime()
  const live = await first.create(launch('one', 'read x; exit 5', { stdin: true }))
  t.true(live.pid > 0)
  t.is(live.startedAtMs, 0)
  const streams = await live.attach({ stdin: true, stdout: true, stderr: true })
  await live.start()
  const second = runtime()
  t.deepEqual(await second.list(), ['one'])
  const adopted = await second.adopt('one')
  if (!adopted || isExitRecord(adopted)) return t.fail('it lives and must be adopted')
  t.is(adopted.pid, live.pid)
  t.is(adopted.startedAtMs, live.startedAtMs)
  streams.stdin!.write('go\n')
  t.like(await adopted.exited, { exitCode: 5, signal: 0 })
  t.like(await live.exited, { exitCode: 5, signal: 0 })
  const record = await runtime().adopt('one')
  t.true(isExitRecord(record) && record.exitCode === 5)
  await second.delete('one')
  await second.delete('one')
  t.is(await runtime().adopt('one'), null)
  t.deepEqual(await second.list(), [])
})

run('one that was paused and that somebody thawed is adopted as running, and the other way round', async (t) => {
  const first = runtime()
  const live = await first.create(launch('iced', 'sleep 600'))
  await live.start()
  await live.pause()
  const isPausedNow = async (): Promise<boolean> => {
    const adopted = await runtime().adopt('iced')
    return adopted !== null && !isExitRecord(adopted) && adopted.isPaused
  }
  t.true(await isPausedNow())
  const freeze = (on: boolean): void => {
    for (const folder of cgroupFolders(`${cgroup}/iced`))
      for (const [file, text] of [
        ['freezer.state', on ? 'FROZEN' : 'THAWED'],
        ['cgroup.freeze', on ? '1' : '0'],
      ] as const)
        if (existsSync(join(folder, file))) writeFileSync(join(folder, file), text)
  }
  freeze(false)
  t.false(await isPausedNow())
  freeze(true)
  t.true(await isPausedNow())
  freeze(false)
  await first.delete('iced')
})

run('a creation that cannot be leaves nothing, and says where it failed', async (t) => {
  const r = runtime()
  const spec = launch('two', 'true')
  const bad = {
    ...spec,
    spec: { ...spec.spec, mounts: [{ destination: '/x', type: 'bind', source: '/no/such/dir', options: ['bind'] }] },
  }
  const error = await t.throwsAsync(r.create(bad))
  t.like(error, { kind: 'internal', code: 'nativeFailure', fields: { stage: 'mount', errno: 'ENOENT' } })
  t.deepEqual(await r.list(), [])
  for (const mount of readdirSync('/sys/fs/cgroup')) t.false(existsSync(join('/sys/fs/cgroup', mount, cgroup, 'two')))
  const dead = createContainerRuntime(
    { execRoot: root, shimPath: '/bin/false' },
    { clock: systemClock, logger: nullLogger, native: native() },
  )
  t.like(await t.throwsAsync(dead.create(launch('three', 'true'))), { code: 'shimDied' })
  t.deepEqual(await r.list(), [])
})

run('a pause just behind a SIGKILL does not keep the process from dying', async (t) => {
  for (let i = 0; i < 10; i++) {
    const live = await runtime().create(launch(`killed${i}`, 'exec sleep 100'))
    await live.start()
    const killed = live.signal(9)
    const paused = live.pause().then(
      () => null,
      (caught: unknown) => caught,
    )
    await killed
    t.is((await live.exited).exitCode, 137)
    // Or its shim has ended with it by then.
    const refusal = ShoalError.from(await paused)
    t.true(refusal.fields.errno === 'ESRCH' || refusal.kind === 'unavailable', refusal.message)
    await runtime().delete(`killed${i}`)
  }
})

run('what was never started is deleted, with its process', async (t) => {
  const r = runtime()
  const live = await r.create(launch('four', 'true'))
  await runtime().delete('four')
  await live.exited
  t.false(existsSync(`/proc/${live.pid}`))
  t.deepEqual(await r.list(), [])
})

run(
  'an exec asked for while the container is paused waits for its resumption, and the shim goes on answering',
  async (t) => {
    const owner = runtime()
    const live = await owner.create(launch('frozen', 'read x', { stdin: true }))
    await live.start()
    await live.pause()
    let isMade = false
    const process = {
      terminal: false,
      user: { uid: 0, gid: 0 },
      args: ['sh', '-c', 'exit 4'],
      env: ['PATH=/bin'],
      cwd: '/',
      capabilities: { bounding: [], effective: [], permitted: [] },
    }
    const making = live.exec({ id: 'probe', tty: false, stdin: false, process }).then((handle) => {
      isMade = true
      return handle
    })
    // Two round trips to the shim: an exec that had been sent would have kept it from answering.
    await live.update({})
    await live.update({})
    t.false(isMade)
    await live.resume()
    const handle = await making
    await handle.start()
    t.is(await handle.exited, 4)
    await live.signal(9)
    await live.exited
    await owner.delete('frozen')
  },
)

const freezer = '/sys/fs/cgroup/freezer'
const onV1 = !reason && existsSync(join(freezer, 'cgroup.procs')) ? test.serial : test.serial.skip
onV1('a shim that was killed leaves no group behind, whatever is frozen below', async (t) => {
  const owner = runtime()
  const live = await owner.create(launch('five', 'read x', { stdin: true }))
  await live.start()
  const below = join(freezer, cgroup, 'five/.below')
  mkdirSync(below)
  const sleeper = spawn('sleep', ['1000'])
  const ended = new Promise((resolve) => sleeper.once('exit', resolve))
  writeFileSync(join(below, 'tasks'), String(sleeper.pid))
  writeFileSync(join(below, 'freezer.state'), 'FROZEN')
  const state = JSON.parse(readFileSync(join(root, 'containers/five/state.json'), 'utf8')) as { shimPid: number }
  process.kill(state.shimPid, 'SIGKILL')
  await live.exited
  await owner.delete('five')
  await ended
  t.false(existsSync(join(freezer, cgroup, 'five')))
})
