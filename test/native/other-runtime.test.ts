// shim.json's `runtime`: the shim with crun and runc in the place of its own library, behind the same protocol.
import { existsSync, readFileSync, rmdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { defaultSeccompProfile } from '../../src/runtime/index.js'
import {
  canRun,
  cgroupFolders,
  controllerMount,
  defaultCaps,
  type Json,
  makeConfig,
  makeDir,
  makeImage,
  removeDir,
  TestContainer,
  traces,
} from './kit.js'

let base = ''
let image = ''

test.before(() => {
  if (!canRun) return
  base = makeDir('other')
  image = makeImage(join(base, 'image'))
})

test.after.always(async () => {
  if (!canRun) return
  for (const folder of cgroupFolders(`/native-test-${process.pid}`)) rmdirSync(folder)
  await removeDir(base)
})

/** crun 1.8 refuses a host with v1 hierarchies and a controller in the v2 tree: it gets to see none. */
const hidden = [
  '/usr/bin/unshare',
  '-m',
  '/bin/sh',
  '-c',
  'mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified; exec "$0" "$@"',
]

const runtimes: Record<string, { path: string; through: string[] }> = {
  runc: { path: ['/usr/sbin/runc', '/usr/bin/runc'].find(existsSync) ?? '', through: [] },
  crun: { path: ['/usr/bin/crun', '/usr/local/bin/crun'].find(existsSync) ?? '', through: hidden },
}

for (const [name, { path, through }] of Object.entries(runtimes)) {
  const run = canRun && path !== '' ? test.serial : test.skip
  const make = (config: Json, shim: Json = {}): TestContainer => {
    const c = new TestContainer(base, image, config, { runtime: path, ...shim })
    c.through = through
    return c
  }
  const sh = (script: string, change?: (c: Json) => void): Json => makeConfig(['/bin/sh', '-c', script], change)
  const clean = (c: TestContainer): string[] => [...traces(c.id), ...cgroupFolders(c.cgroup)]

  run(`${name}: a container runs; status, log, state and limits are as with the library`, async (t) => {
    const c = make(sh('echo out; echo err >&2; cat /proc/1/comm; exit 3'))
    const lines = await c.start()
    t.deepEqual(
      lines.map((l) => l['stage']),
      ['created', 'running'],
    )
    await c.ended()
    t.is(c.json('exit.json')['exitCode'], 3)
    t.is(c.log('stdout'), 'out\nsh\n')
    t.is(c.log('stderr'), 'err\n')
    t.is(c.json('state.json')['status'], 'stopped')
    t.deepEqual(clean(c), [])
    t.false(existsSync(join(c.dir, 'oci/state', c.id)), 'the runtime keeps nothing')
  })

  run(`${name}: waits for start, takes input, and its cgroup is where shim.json says`, async (t) => {
    const c = make(sh('read x; echo "got $x"'), { stdin: true, stdinOnce: true })
    await c.start('--wait-start')
    t.is(c.json('state.json')['status'], 'created')
    const s = await c.connect()
    await s.ask({ op: 'attach', stdin: true, stdout: true, stderr: true })
    await s.ask({ op: 'subscribe' })
    t.true((await s.ask({ op: 'start' }))['ok'])
    const memory = controllerMount('memory')
    t.is(
      readFileSync(join(memory.path, c.cgroup, memory.v2 ? 'memory.max' : 'memory.limit_in_bytes'), 'utf8').trim(),
      String(64 << 20),
    )
    s.send('i', 'hello\n')
    await s.event('exit')
    await s.event('eof')
    t.is(s.stdout, 'got hello\n')
    await c.ended()
    t.deepEqual(clean(c), [])
    s.close()
  })

  run(`${name}: exec, signal, pause, resume, update and delete`, async (t) => {
    const c = make(sh('trap "exit 4" TERM; echo ready; while :; do sleep 0.05; done'))
    await c.start()
    const s = await c.connect()
    await s.ask({ op: 'subscribe' })
    const made = await s.ask({
      op: 'exec',
      exec: 'e1',
      stdin: true,
      process: {
        args: ['/bin/sh', '-c', 'read x; echo "exec $x"; echo e >&2; exit 6'],
        cwd: '/',
        env: ['PATH=/bin'],
        user: { uid: 0, gid: 0 },
      },
    })
    t.true(made['ok'], JSON.stringify(made))
    t.deepEqual((await s.ask({ op: 'signal', exec: 'e1', signal: 9 }))['error']['code'], 'ESRCH')
    await s.ask({ op: 'attach', exec: 'e1', stdin: true, stdout: true, stderr: true })
    const started = await s.ask({ op: 'execStart', exec: 'e1' })
    t.true(started['ok'], JSON.stringify(started))
    s.send('i', 'word\n')
    t.is((await s.event('execExit'))['exitCode'], 6)
    await s.event('eof')
    t.is(s.stdout, 'exec word\n')
    t.is(s.stderr, 'e\n')

    t.true((await s.ask({ op: 'pause' }))['ok'])
    t.is((await s.ask({ op: 'hello', version: 1 }))['status'], 'paused')
    t.true((await s.ask({ op: 'resume' }))['ok'])
    t.is((await s.ask({ op: 'hello', version: 1 }))['status'], 'running')
    const updated = await s.ask({ op: 'update', resources: { pids: { limit: 77 } } })
    t.true(updated['ok'], JSON.stringify(updated))
    t.is(readFileSync(join(controllerMount('pids').path, c.cgroup, 'pids.max'), 'utf8').trim(), '77')

    t.is((await s.ask({ op: 'delete' }))['error']['code'], 'EBUSY')
    t.true((await s.ask({ op: 'signal', signal: 15 }))['ok'])
    t.is((await s.event('exit'))['exitCode'], 4)
    await c.ended()
    t.deepEqual(clean(c), [])
    s.close()
  })

  run(`${name}: a terminal, with its size, for the container and for exec`, async (t) => {
    const c = make(sh('stty size; read x; echo "tty $x"; sleep 1000'), { tty: true, ttyWidth: 91, ttyHeight: 17 })
    await c.start('--wait-start')
    const s = await c.connect()
    await s.ask({ op: 'attach', stdin: true, stdout: true, stderr: true })
    t.true((await s.ask({ op: 'start' }))['ok'])
    s.send('i', 'words\n')
    await s.until(() => /tty words/.test(s.stdout), 'the answer at the terminal')
    t.regex(s.stdout, /17 91/)
    const x = await c.connect()
    await x.ask({ op: 'subscribe' })
    const process = {
      terminal: true,
      args: ['/bin/sh', '-c', 'test -t 0 && echo a terminal'],
      cwd: '/',
      env: ['PATH=/bin'],
      user: { uid: 0, gid: 0 },
    }
    t.true((await x.ask({ op: 'exec', exec: 'tt', tty: true, process }))['ok'])
    await x.ask({ op: 'attach', exec: 'tt', stdout: true, stderr: true })
    const started = await x.ask({ op: 'execStart', exec: 'tt' })
    t.true(started['ok'], JSON.stringify(started))
    t.is((await x.event('execExit'))['exitCode'], 0)
    await x.until(() => /a terminal/.test(x.stdout), 'the output of the exec')
    t.true((await x.ask({ op: 'delete', force: true }))['ok'])
    await c.ended()
    t.is(c.json('exit.json')['exitCode'], 137)
    t.deepEqual(clean(c), [])
    s.close()
    x.close()
  })

  run(`${name}: a command that is not there is ENOENT at stage exec, and all is undone`, async (t) => {
    const c = make(makeConfig(['/bin/nothing']))
    const error = (await c.start()).at(-1)!['error']
    t.is(error['code'], 'ENOENT', JSON.stringify(error))
    t.is(error['stage'], 'exec')
    t.true((error['message'] as string).includes(path))
    await c.ended()
    t.false(c.has('exit.json'))
    t.deepEqual(clean(c), [])

    const live = make(sh('sleep 1000'))
    await live.start()
    const s = await live.connect()
    await s.ask({ op: 'subscribe' })
    await s.ask({ op: 'exec', exec: 'no', process: { args: ['/bin/nothing'], cwd: '/', user: { uid: 0, gid: 0 } } })
    const answer = await s.ask({ op: 'execStart', exec: 'no' })
    t.is(answer['error']['code'], 'ENOENT', JSON.stringify(answer))
    t.is((await s.event('execExit'))['exitCode'], 127)
    await s.ask({ op: 'delete', force: true })
    await live.ended()
    t.deepEqual(clean(live), [])
    s.close()
  })

  run(`${name}: seccomp in Docker's form is resolved, the init program is pid 1`, async (t) => {
    const config = sh(
      'mkdir /tmp/x || echo refused; unshare -U true 2>/dev/null || echo no namespace; cat /proc/1/comm',
      (c) => {
        const profile = defaultSeccompProfile(defaultCaps) as unknown as Json
        profile['syscalls'].push({
          names: ['unshare'],
          action: 'SCMP_ACT_ALLOW',
          includes: { caps: ['CAP_SYS_ADMIN'] },
        })
        profile['syscalls'][0].names = profile['syscalls'][0].names.filter((n: string) => !n.startsWith('mkdir'))
        c['linux'].seccomp = profile
      },
    )
    const c = make(config, { initPath: join(base, 'init') })
    const init = new URL('../../native/shoal-init', import.meta.url).pathname
    t.true(statSync(init).isFile())
    const { copyFileSync } = await import('node:fs')
    copyFileSync(init, join(base, 'init'))
    t.is((await c.run())['exitCode'], 0, readFileSync(join(c.dir, 'shim.log'), 'utf8'))
    t.is(c.log('stdout'), 'refused\nno namespace\ndocker-init\n')
    t.deepEqual(clean(c), [])
  })
}

const run = canRun ? test.serial : test.skip
run('a runtime that is not there is named in the error', async (t) => {
  const c = new TestContainer(base, image, makeConfig(['/bin/true']), { runtime: '/opt/no/such/runtime' })
  const error = (await c.start()).at(-1)!['error']
  t.is(error['code'], 'ENOENT')
  t.regex(error['message'], /cannot run the runtime \/opt\/no\/such\/runtime/)
  await c.ended()
  t.deepEqual([...traces(c.id), ...cgroupFolders(c.cgroup)], [])
})
