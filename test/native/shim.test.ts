// The shim with real containers: documents in, a process supervised, its end on disk.
import { execFileSync, spawn } from 'node:child_process'
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { defaultSeccompProfile, native } from '../../src/runtime/index.js'
import {
  bin,
  canRun,
  cgroupFolders,
  controllerMount,
  deadline,
  defaultCaps,
  eventually,
  type Json,
  makeConfig,
  makeDir,
  makeImage,
  removeDir,
  seccompAgent,
  TestContainer,
  traces,
} from './kit.js'

const run = canRun ? test.serial : test.skip
let base = ''
let image = ''

test.before(() => {
  if (!canRun) return
  base = makeDir('shim')
  image = makeImage(join(base, 'image'))
})

test.after.always(async () => {
  if (!canRun) return
  for (const folder of cgroupFolders(`/native-test-${process.pid}`)) rmdirSync(folder)
  await removeDir(base)
})

const sh = (script: string, change?: (c: Json) => void): Json => makeConfig(['/bin/sh', '-c', script], change)
const container = (config: Json, shim: Json = {}): TestContainer => new TestContainer(base, image, config, shim)

run('a container runs, and its exit status, log and state are on disk', async (t) => {
  const c = container(sh('echo out; echo err >&2; exit 3'))
  const lines = await c.start()
  t.deepEqual(
    lines.map((l) => l['stage']),
    ['created', 'running'],
  )
  await c.ended()
  const exit = c.json('exit.json')
  t.is(exit['exitCode'], 3)
  t.is(exit['signal'], 0)
  t.is(exit['oomKilled'], false)
  t.is(c.log('stdout'), 'out\n')
  t.is(c.log('stderr'), 'err\n')
  t.is(c.json('state.json')['status'], 'stopped')
  t.false(c.has('shim.sock'))
})

run('nothing is left behind: no mount, no cgroup, no process', async (t) => {
  const c = container(sh('sleep 0'))
  await c.run()
  t.deepEqual(traces(c.id), [])
  t.deepEqual(cgroupFolders(c.cgroup), [])
  t.deepEqual(readdirSync(join(c.dir, 'rootfs')), [])
})

run('a command that is not found is stage exec with ENOENT, one that is not executable EACCES', async (t) => {
  const missing = container(makeConfig(['no-such-program']))
  const [, last] = await missing.start()
  t.is(last?.['error'].stage, 'exec')
  t.is(last?.['error'].code, 'ENOENT')
  t.regex(last?.['error'].message, /no-such-program/)
  await missing.ended()
  t.false(missing.has('exit.json'))
  t.deepEqual(cgroupFolders(missing.cgroup), [])
  const folder = container(makeConfig(['/etc']))
  t.is((await folder.start()).at(-1)?.['error'].code, 'EACCES')
  const noFile = container(makeConfig(['/nowhere/x']))
  t.is((await noFile.start()).at(-1)?.['error'].code, 'ENOENT')
})

run('an error says its stage, call and path', async (t) => {
  const bad = container(
    makeConfig(['true'], (c) =>
      c['mounts'].push({ destination: '/x', type: 'bind', source: '/no/such/source', options: ['rbind'] }),
    ),
  )
  const [error] = await bad.start()
  t.like(error?.['error'], { stage: 'mount', syscall: 'open_tree', code: 'ENOENT', path: '/no/such/source' })
  const unknown = container(
    makeConfig(['true'], (c) => (c['process'].rlimits = [{ type: 'RLIMIT_FLY', soft: 1, hard: 1 }])),
  )
  t.like((await unknown.start())[0]?.['error'], { stage: 'process', code: 'EINVAL' })
  const limit = container(makeConfig(['true'], (c) => (c['linux'].resources.cpu = { quota: 5 })))
  t.like((await limit.start())[0]?.['error'], { stage: 'cgroup', syscall: 'write' })
  t.deepEqual(cgroupFolders(limit.cgroup), [])
  const sysctl = container(makeConfig(['true'], (c) => (c['linux'].sysctl = { 'kernel.pid_max': '99' })))
  t.like((await sysctl.start())[0]?.['error'], { stage: 'sysctl', code: 'EPERM' })
})

run('the process sees the hostname, user, capabilities, limits and environment of its document', async (t) => {
  const c = container(
    sh(
      'hostname; id -u; id -g; id -G; pwd; echo $HOME $X; grep -E "^(Cap|NoNew|Seccomp:)" /proc/self/status; ulimit -n; umask',
      (c) => {
        c['process'].user = { uid: 1000, gid: 1000, additionalGids: [5, 7], umask: 0o027 }
        c['process'].cwd = '/made/by/the/shim'
        c['process'].noNewPrivileges = true
        c['process'].env.push('X=y')
        c['process'].capabilities.ambient = ['CAP_NET_RAW']
        c['process'].capabilities.inheritable = ['CAP_NET_RAW']
        c['process'].rlimits = [{ type: 'RLIMIT_NOFILE', soft: 6, hard: 222 }] // fewer than its making takes
      },
    ),
  )
  t.is((await c.run())['exitCode'], 0)
  const caps = '00000000a80425fb'
  t.deepEqual(c.log('stdout').trim().split('\n'), [
    'box',
    '1000',
    '1000',
    '1000 5 7',
    '/made/by/the/shim',
    '/home/web y',
    'CapInh:\t0000000000002000',
    'CapPrm:\t0000000000002000',
    'CapEff:\t0000000000002000',
    `CapBnd:\t${caps}`,
    'CapAmb:\t0000000000002000',
    'NoNewPrivs:\t1',
    'Seccomp:\t0',
    '6',
    '0027',
  ])
})

run('masked and read-only paths hold, and standard devices work', async (t) => {
  const c = container(
    sh(`wc -c < /proc/keys; ls /sys/firmware | wc -l; (echo 1 > /proc/sys/vm/swappiness) 2>&1
        head -c 4 /dev/zero | wc -c; echo x > /dev/null; (mknod /tmp/d b 8 0 && head -c1 /tmp/d) 2>&1; ls /dev`),
  )
  t.is((await c.run())['exitCode'], 0)
  const out = c.log('stdout')
  t.regex(out, /^0\n0\n/)
  t.regex(out, /swappiness: Read-only file system/)
  t.regex(out, /^4$/m)
  t.regex(out, /\/tmp\/d: Operation not permitted/)
  for (const name of ['full', 'null', 'ptmx', 'random', 'stdin', 'tty', 'urandom', 'zero'])
    t.regex(out, new RegExp(`^${name}$`, 'm'))
})

run('limits are in the cgroup, seen from both sides', async (t) => {
  const c = container(
    sh('cat /proc/self/cgroup; echo end:/; read x', (c) => {
      c['linux'].resources.memory = { limit: 50 << 20, swap: 60 << 20, reservation: 10 << 20 }
      c['linux'].resources.cpu = { shares: 512, quota: 20000, period: 50000, cpus: '0' }
      c['linux'].resources.pids = { limit: 33 }
    }),
    { stdin: true },
  )
  await c.start()
  const read = (controller: string, v1: string, v2: string): string => {
    const m = controllerMount(controller)
    return readFileSync(join(m.path + c.cgroup, m.v2 ? v2 : v1), 'utf8').trim()
  }
  t.is(read('memory', 'memory.limit_in_bytes', 'memory.max'), String(50 << 20))
  t.is(read('pids', 'pids.max', 'pids.max'), '33')
  t.is(read('cpuset', 'cpuset.cpus', 'cpuset.cpus'), '0')
  if (!controllerMount('cpu').v2) {
    t.is(read('cpu', 'cpu.shares', ''), '512')
    t.is(read('cpu', 'cpu.cfs_quota_us', ''), '20000')
    t.is(read('cpu', 'cpu.cfs_period_us', ''), '50000')
  }
  const s = await c.connect()
  const answer = await s.ask({ op: 'update', resources: { memory: { limit: 40 << 20 }, pids: { limit: 44 } } })
  t.true(answer['ok'])
  t.is(read('pids', 'pids.max', 'pids.max'), '44')
  t.is(read('memory', 'memory.limit_in_bytes', 'memory.max'), String(40 << 20))
  await eventually(() => c.log().includes('end:/'), 'the end of the list')
  await s.ask({ op: 'signal', signal: 9, all: true })
  await c.ended()
  for (const line of c.log().trim().split('\n')) t.regex(line, /:\/$/) // the cgroup namespace's root is the container's group
})

run('started with --wait-start, the process runs only when start is asked for, and attach loses nothing', async (t) => {
  const c = container(sh('cat; echo bye >&2'), { stdin: true, stdinOnce: true })
  const lines = await c.start('--wait-start')
  t.deepEqual(
    lines.map((l) => l['stage']),
    ['created'],
  )
  t.is(c.json('state.json')['status'], 'created')
  const s = await c.connect()
  t.true((await s.ask({ op: 'subscribe' }))['ok'])
  t.true((await s.ask({ op: 'attach', stdin: true, stdout: true, stderr: true }))['ok'])
  t.true((await s.ask({ op: 'start' }))['ok'])
  t.is((await s.ask({ op: 'start' }))['error'].code, 'EALREADY')
  t.is((await s.ask({ op: 'hello', version: 7 }))['status'], 'running')
  s.send('i', 'one\n')
  await s.until(() => s.stdout === 'one\n', 'the echo')
  s.send('i', 'two\n')
  s.send('i', '')
  await s.event('eof')
  t.is(s.stdout, 'one\ntwo\n')
  t.is(s.stderr, 'bye\n')
  t.is((await s.event('exit'))['exitCode'], 0)
  t.true(c.has('exit.json'))
  await c.ended()
})

run('a failed start answers the error, leaves nothing, and ends the shim with status 1', async (t) => {
  const c = container(makeConfig(['nope']))
  await c.start('--wait-start')
  const s = await c.connect()
  const answer = await s.ask({ op: 'start' })
  t.like(answer['error'], { stage: 'exec', code: 'ENOENT' })
  await c.ended()
  t.false(c.has('exit.json'))
  t.deepEqual(cgroupFolders(c.cgroup), [])
  t.deepEqual(traces(c.id), [])
})

run('several clients see the same output, and one that does not read holds up nobody', async (t) => {
  const c = container(sh('read x; yes 0123456789abcdef | head -c 6000000; echo; echo end'), { stdin: true })
  await c.start('--wait-start')
  const [fast, slow] = [await c.connect(), await c.connect()]
  for (const s of [fast, slow]) await s.ask({ op: 'attach', stdout: true, stderr: true, stdin: s === fast })
  await fast.ask({ op: 'start' })
  slow.pauseReading()
  fast.send('i', 'go\n')
  await fast.event('eof')
  slow.resumeReading()
  await slow.event('eof')
  const lost = slow.events.filter((e) => e['event'] === 'dropped').reduce((n, e) => n + (e['bytes'] as number), 0)
  t.true(lost > 0)
  const total = 6_000_000 + '\nend\n'.length
  t.is(slow.stdout.length + lost, total)
  const gaps = fast.events.filter((e) => e['event'] === 'dropped').reduce((n, e) => n + (e['bytes'] as number), 0)
  t.is(fast.stdout.length + gaps, total)
  await c.ended()
  t.is(c.log().length, total)
})

run('a terminal has a size, echoes, and is resized', async (t) => {
  const c = container(
    makeConfig(['/bin/sh'], (c) => (c['process'].terminal = true)),
    { tty: true, ttyWidth: 101, ttyHeight: 33 },
  )
  await c.start('--wait-start')
  const s = await c.connect()
  await s.ask({ op: 'attach', stdin: true, stdout: true, stderr: true })
  await s.ask({ op: 'start' })
  s.send('i', 'stty size; test -t 0 && readlink /proc/self/fd/0; ls -l /dev/console\n')
  await s.until(
    () => s.stdout.includes('33 101') && s.stdout.includes('/dev/pts/0') && /crw.*\/dev\/console/.test(s.stdout),
    'size and name',
  )
  t.true((await s.ask({ op: 'resize', width: 90, height: 20 }))['ok'])
  s.send('i', 'stty size\n')
  await s.until(() => s.stdout.includes('20 90'), 'the new size')
  s.send('i', 'exit 7\n')
  t.truthy(await s.event('eof'))
  await c.ended()
  t.is(c.json('exit.json')['exitCode'], 7)
  t.is(c.log('stderr'), '')
})

run('exec runs beside the process, in its namespaces and cgroup, with its own exit status', async (t) => {
  const c = container(sh('echo $$ > /tmp/pid; sleep 1000'))
  await c.start()
  const watch = await c.connect()
  await watch.ask({ op: 'subscribe' })
  const s = await c.connect()
  const process = {
    ...makeConfig([
      '/bin/sh',
      '-c',
      'cat; hostname; echo e >&2; cat /proc/self/cgroup | head -1; ps | grep -c "[s]leep 1000"; exit 9',
    ])['process'],
  }
  const made = await s.ask({ op: 'exec', exec: 'e1', process, tty: false, stdin: true })
  t.true(made['ok'], JSON.stringify(made))
  t.is(typeof made['pid'], 'number')
  t.is((await s.ask({ op: 'exec', exec: 'e1', process }))['error'].code, 'EEXIST')
  await s.ask({ op: 'attach', exec: 'e1', stdin: true, stdout: true, stderr: true })
  t.true((await s.ask({ op: 'execStart', exec: 'e1' }))['ok'])
  s.send('i', 'typed\n')
  s.send('i', '')
  await s.event('eof')
  t.regex(s.stdout, /^typed\nbox\n\d+:.*:\/\n[12]\n$/)
  t.is(s.stderr, 'e\n')
  const exit = await watch.event('execExit')
  t.like(exit, { exec: 'e1', exitCode: 9 })
  t.is((await s.ask({ op: 'attach', exec: 'e1', stdout: true }))['error'].code, 'ENOENT')
  await s.ask({ op: 'exec', exec: 'e2', process: { ...process, args: ['nothing-here'] } })
  t.like((await s.ask({ op: 'execStart', exec: 'e2' }))['error'], { stage: 'exec', code: 'ENOENT' })
  t.is(c.log(), '')
  await s.ask({ op: 'signal', signal: 9 })
  await c.ended()
  t.is(c.json('exit.json')['exitCode'], 137)
  t.is(c.json('exit.json')['signal'], 9)
})

run('an exec process that a program of the container stops holds up nobody but who waits for it', async (t) => {
  const c = container(sh('sleep 1000'))
  await c.start()
  const s = await c.connect()
  const process_ = makeConfig(['/bin/echo', 'well'])['process']
  const { pid } = (await s.ask({ op: 'exec', exec: 'stopped', process: process_ })) as { pid: number }
  // As root in the container may: the process is one of its pid namespace.
  process.kill(pid, 'SIGSTOP')
  const started = s.ask({ op: 'execStart', exec: 'stopped' })
  t.like(await s.ask({ op: 'hello', version: 1 }), { ok: true, status: 'running' })
  const other = await s.ask({ op: 'exec', exec: 'other', process: process_ })
  t.true(other['ok'])
  await s.ask({ op: 'subscribe' })
  t.true((await s.ask({ op: 'execStart', exec: 'other' }))['ok'])
  t.like(await s.event('execExit'), { exec: 'other', exitCode: 0 })
  process.kill(pid, 'SIGCONT')
  t.true((await started)['ok'])
  await s.until(() => s.events.filter((e) => e['event'] === 'execExit').length === 2, 'the end of both')
  const again = (await s.ask({ op: 'exec', exec: 'again', process: process_ })) as { pid: number }
  process.kill(again.pid, 'SIGSTOP')
  void s.ask({ op: 'execStart', exec: 'again' }).catch(() => {})
  t.true((await s.ask({ op: 'delete', force: true }))['ok'])
  await c.ended()
  t.deepEqual([traces(c.id), cgroupFolders(c.cgroup)], [[], []])
})

run('hooks have signals as usual, whatever the shim ignores and blocks', async (t) => {
  const out = join(base, 'hook-signals')
  const c = container(
    sh('true', (c) => {
      const hook = { path: '/bin/busybox', args: ['grep', '-E', 'Sig(Blk|Ign)', '/proc/self/status'] }
      c['annotations'] = { 'run.oci.hooks.stdout': out }
      c['hooks'] = { prestart: [hook], createRuntime: [hook], poststart: [hook], poststop: [hook] }
    }),
  )
  t.is((await c.run())['exitCode'], 0)
  const masks = [...readFileSync(out, 'utf8').matchAll(/:\t([0-9a-f]{16})$/gm)].map((m) => BigInt(`0x${m[1]}`))
  // From 32 on they are the C library's.
  t.deepEqual(
    masks.map((m) => m & 0x7fffffffn),
    Array(8).fill(0n),
  )
})

run('exec with a terminal', async (t) => {
  const c = container(sh('sleep 1000'))
  await c.start()
  const s = await c.connect()
  const process = { ...makeConfig(['/bin/sh'])['process'], terminal: true, consoleSize: { width: 77, height: 22 } }
  await s.ask({ op: 'exec', exec: 't', process, tty: true, stdin: true })
  await s.ask({ op: 'attach', exec: 't', stdin: true, stdout: true })
  await s.ask({ op: 'execStart', exec: 't' })
  s.send('i', 'stty size\n')
  await s.until(() => s.stdout.includes('22 77'), 'the size')
  t.true((await s.ask({ op: 'resize', exec: 't', width: 60, height: 10 }))['ok'])
  s.send('i', 'stty size; exit\n')
  await s.event('eof')
  t.regex(s.stdout, /10 60/)
  await s.ask({ op: 'delete', force: true })
  await c.ended()
})

run('signals reach the process, and a trap sees them', async (t) => {
  const c = container(sh('trap "echo caught; exit 5" TERM; echo ready; while :; do sleep 0.1; done'))
  await c.start()
  const s = await c.connect()
  await eventually(() => c.log().includes('ready'), 'the trap')
  t.is((await s.ask({ op: 'signal', signal: 0 }))['error'].code, 'EINVAL')
  t.true((await s.ask({ op: 'signal', signal: 15 }))['ok'])
  await c.ended()
  t.is(c.json('exit.json')['exitCode'], 5)
  t.is(c.log(), 'ready\ncaught\n')
})

run('pause stops the process, resume lets it go on, and a paused container can be killed', async (t) => {
  const c = container(sh('i=0; while :; do i=$((i+1)); echo $i > /tmp/n; usleep 1000; done'))
  await c.start()
  const s = await c.connect()
  const n = (): string => (existsSync(join(c.dir, 'diff/tmp/n')) ? readFileSync(join(c.dir, 'diff/tmp/n'), 'utf8') : '')
  await eventually(() => n() !== '', 'the counter')
  t.true((await s.ask({ op: 'pause' }))['ok'])
  t.is((await s.ask({ op: 'hello', version: 1 }))['status'], 'paused')
  t.is(c.json('state.json')['status'], 'paused')
  const still = n()
  await new Promise((resolve) => setTimeout(resolve, 50))
  t.is(n(), still)
  t.true((await s.ask({ op: 'resume' }))['ok'])
  await eventually(() => n() !== still, 'the counter going on')
  await s.ask({ op: 'pause' })
  t.is((await s.ask({ op: 'delete' }))['error'].code, 'EBUSY')
  t.true((await s.ask({ op: 'delete', force: true }))['ok'])
  await c.ended()
  t.deepEqual(cgroupFolders(c.cgroup), [])
})

run('a process killed for memory is recorded as such, with an event', async (t) => {
  const c = container(
    sh(
      'head -c 200000000 /dev/zero | tail; sleep 0',
      (c) => (c['linux'].resources.memory = { limit: 20 << 20, swap: 20 << 20 }),
    ),
  )
  await c.start('--wait-start')
  const s = await c.connect()
  await s.ask({ op: 'subscribe' })
  await s.ask({ op: 'start' })
  t.truthy(await s.event('oom'))
  t.true((await s.event('exit'))['oomKilled'])
  await c.ended()
  t.true(c.json('exit.json')['oomKilled'])
})

run('a process that waits for memory because it is not to be killed has the event too', async (t) => {
  if (controllerMount('memory').v2) {
    t.pass('cgroup v2 always kills')
    return
  }
  const c = container(
    sh(
      'x=a; while true; do x=$x$x$x$x; done',
      (c) => (c['linux'].resources.memory = { limit: 20 << 20, swap: 20 << 20, disableOOMKiller: true }),
    ),
  )
  await c.start('--wait-start')
  const s = await c.connect()
  await s.ask({ op: 'subscribe' })
  await s.ask({ op: 'start' })
  t.truthy(await s.event('oom'))
  t.true((await s.ask({ op: 'delete', force: true }))['ok'])
  await c.ended()
})

run('long lines are cut at 16 KiB, the log rotates, and extra attributes stand in each line', async (t) => {
  const c = container(
    sh('head -c 40000 /dev/zero | tr "\\0" x; echo; for i in $(seq 300); do echo line $i; done; printf tail'),
    {
      log: {
        driver: 'json-file',
        path: join(base, 'rot.log'),
        maxSizeBytes: 20000,
        maxFiles: 3,
        mode: 'non-blocking',
        bufferBytes: 1024,
        extra: { a: 'b' },
      },
    },
  )
  await c.run()
  const files = ['rot.log.2', 'rot.log.1', 'rot.log'].map((f) => join(base, f)).filter(existsSync)
  t.is(files.length, 3)
  t.false(existsSync(join(base, 'rot.log.3')))
  const lines = files.flatMap((f) => readFileSync(f, 'utf8').trim().split('\n')).map((l) => JSON.parse(l) as Json)
  for (const l of lines) {
    t.deepEqual(l['attrs'], { a: 'b' })
    t.regex(l['time'], /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$/)
    t.true((l['log'] as string).length <= 16384)
  }
  t.is(lines.at(-1)?.['log'], 'tail')
  t.is(lines.at(-2)?.['log'], 'line 300\n')
})

run('a log of one file is replaced, not cut short: who reads the old one reads it out', async (t) => {
  const path = join(base, 'one.log')
  const c = container(sh('echo first; read x; for i in $(seq 300); do echo line $i; done'), {
    stdin: true,
    log: {
      driver: 'json-file',
      path,
      maxSizeBytes: 4000,
      maxFiles: 1,
      mode: 'blocking',
      bufferBytes: 1024,
      extra: null,
    },
  })
  await c.start()
  await eventually(() => existsSync(path) && readFileSync(path, 'utf8').includes('first'), 'the first line')
  const fd = openSync(path, 'r')
  try {
    const s = await c.connect()
    await s.ask({ op: 'attach', stdin: true, stdout: false, stderr: false })
    s.send('i', 'go\n')
    await c.ended()
    t.is(fstatSync(fd).nlink, 0)
    t.regex(readFileSync(fd, 'utf8'), /first/)
    t.regex(readFileSync(path, 'utf8'), /line 300/)
    t.false(existsSync(`${path}.next`))
  } finally {
    closeSync(fd)
  }
})

run('a disk that takes no new file stops the rotation before anything moves, and the log goes on', async (t) => {
  const disk = join(base, 'few-files')
  mkdirSync(disk)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'nr_inodes=4', 'few', disk])
  try {
    const path = join(disk, 'l.log')
    writeFileSync(`${path}.1`, 'newer\n')
    writeFileSync(`${path}.2`, 'older\n')
    const c = container(sh('for i in $(seq 300); do echo line $i; done'), {
      log: {
        driver: 'json-file',
        path,
        maxSizeBytes: 2000,
        maxFiles: 3,
        mode: 'blocking',
        bufferBytes: 1024,
        extra: null,
      },
    })
    await c.run()
    t.is(readFileSync(`${path}.1`, 'utf8'), 'newer\n')
    t.is(readFileSync(`${path}.2`, 'utf8'), 'older\n')
    t.is(readFileSync(path, 'utf8').trim().split('\n').length, 300)
  } finally {
    execFileSync('umount', [disk])
  }
})

run('bytes that are not UTF-8 and control characters stay valid JSON', async (t) => {
  const c = container(sh("printf 'a\\377b\\001\"\\\\\\n'"))
  await c.run()
  t.is(c.log(), 'a\ufffdb\u0001"\\\n')
})

run('every byte, at any place of a line, comes back as it was', async (t) => {
  const text = Buffer.concat(
    [0, 7, 8].flatMap((before) =>
      Array.from({ length: 256 }, (_, byte) =>
        Buffer.concat([Buffer.alloc(before, 'é'), Buffer.from([byte]), Buffer.from('tail € \u{1f600}\n')]),
      ),
    ),
  )
  const c = container(sh(`printf '${[...text].map((b) => `\\${b.toString(8).padStart(3, '0')}`).join('')}'`))
  await c.run()
  t.is(c.log(), text.toString('utf8'))
})

run('SIGKILL of the parent leaves the container running, and a new parent finds everything', async (t) => {
  const c = container(sh('read x; echo got $x; exit 4'), { stdin: true })
  const script = `
    import { native } from ${JSON.stringify(new URL('../../src/runtime/index.js', import.meta.url).href)}
    const r = native().spawnShim({ path: ${JSON.stringify(bin('shoal-shim'))}, args: [${JSON.stringify(c.dir)}], cwd: ${JSON.stringify(c.dir)} })
    process.stdout.write(String(r.pid)); setInterval(() => {}, 1000)`
  const parent = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await deadline(new Promise((resolve) => parent.stdout.once('data', resolve)), 'the shim')
  await eventually(() => c.has('state.json') && c.json('state.json')['status'] === 'running', 'running')
  const dead = new Promise((resolve) => parent.once('exit', resolve))
  parent.kill('SIGKILL')
  await deadline(dead, 'the end of the parent')
  const state = c.json('state.json')
  t.true(existsSync(`/proc/${state['pid']}`))
  const gone = native().pidfdWait(state['shimPid'], state['shimStartTicks'])
  const s = await c.connect()
  await s.ask({ op: 'attach', stdin: true, stdout: true })
  s.send('i', 'again\n')
  await s.event('eof')
  t.is(s.stdout, 'got again\n')
  await deadline(gone, 'the end of the shim')
  t.is(c.json('exit.json')['exitCode'], 4)
  t.deepEqual(traces(c.id), [])
})

run('SIGKILL of the shim while it waits for start takes the created process with it', async (t) => {
  const c = container(sh('sleep 1000'))
  await c.start('--wait-start')
  const pid = c.json('state.json')['pid'] as number
  process.kill(c.shim!.pid, 'SIGKILL')
  await c.ended()
  await eventually(
    () => !existsSync(`/proc/${pid}`) || /^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'utf8')),
    'the end of the process',
  )
  for (const folder of cgroupFolders(c.cgroup)) rmdirSync(folder)
  t.deepEqual(traces(c.id), [])
})

run('an idle shim is one thread within one MiB of memory', async (t) => {
  const c = container(sh('sleep 1000'))
  await c.start()
  const status = readFileSync(`/proc/${c.shim!.pid}/status`, 'utf8')
  const rss = Number(/^VmRSS:\s+(\d+) kB/m.exec(status)![1])
  t.log(`VmRSS ${rss} kB`)
  t.true(rss <= 1024)
  t.regex(status, /^Threads:\t1$/m)
  const s = await c.connect()
  await s.ask({ op: 'delete', force: true })
  await c.ended()
})

run('the default filter is enforced, also on exec', async (t) => {
  const bpf = await native().seccompCompile(JSON.stringify(defaultSeccompProfile(defaultCaps)), defaultCaps)
  const c = container(sh('grep Seccomp: /proc/self/status; unshare -m true 2>&1; sleep 1000'), {
    seccomp: 'seccomp.bpf',
  })
  writeFileSync(join(c.dir, 'seccomp.bpf'), bpf)
  await c.start()
  await eventually(() => /unshare/.test(c.log()), 'the refusal')
  t.regex(c.log(), /Seccomp:\t2\n.*unshare.*Operation not permitted/s)
  const s = await c.connect()
  await s.ask({
    op: 'exec',
    exec: 'x',
    process: makeConfig(['/bin/sh', '-c', 'grep Seccomp: /proc/self/status'])['process'],
  })
  await s.ask({ op: 'attach', exec: 'x', stdout: true })
  await s.ask({ op: 'execStart', exec: 'x' })
  await s.event('eof')
  t.is(s.stdout, 'Seccomp:\t2\n')
  await s.ask({ op: 'delete', force: true })
  await c.ended()
})

run('exec processes have a descriptor of their own at the seccomp agent', async (t) => {
  const listenerPath = join(base, 'agent.sock')
  const agent = await seccompAgent(listenerPath)
  t.teardown(agent.stop)
  const profile = { defaultAction: 'SCMP_ACT_ALLOW', listenerPath }
  const config = sh('sleep 1000', (c) => {
    c['linux'].seccomp = profile
  })
  const c = container(config, { seccomp: 'seccomp.bpf' })
  writeFileSync(join(c.dir, 'seccomp.bpf'), await native().seccompCompile(JSON.stringify(profile), []))
  await c.start()
  const s = await c.connect()
  const { pid } = await s.ask({ op: 'exec', exec: 'x', process: makeConfig(['/bin/sleep', '1000'])['process'] })
  await s.ask({ op: 'execStart', exec: 'x' })
  await eventually(() => agent.told.length === 2, 'both descriptors')
  t.is(agent.told[1]!['pid'], pid)
  t.is(agent.told[1]!['state'].status, 'running')
  await s.ask({ op: 'delete', force: true })
  await c.ended()
})

run('a network namespace given by path is joined', async (t) => {
  const holder = spawn('unshare', ['-n', 'sleep', '1000'], { stdio: 'ignore' })
  try {
    const own = readFileSync('/proc/self/ns/net', { flag: 'r' }).toString()
    t.is(own, '')
  } catch {}
  await eventually(() => {
    try {
      return (
        readdirSync(`/proc/${holder.pid}/ns`).length > 0 &&
        readFileSync(`/proc/${holder.pid}/comm`, 'utf8') === 'sleep\n'
      )
    } catch {
      return false
    }
  }, 'the namespace')
  const { readlinkSync } = await import('node:fs')
  const c = container(
    sh('readlink /proc/self/ns/net', (c) => {
      c['linux'].namespaces = c['linux'].namespaces.map((n: Json) =>
        n['type'] === 'network' ? { type: 'network', path: `/proc/${holder.pid}/ns/net` } : n,
      )
    }),
  )
  await c.run()
  t.is(c.log().trim(), readlinkSync(`/proc/${holder.pid}/ns/net`))
  holder.kill('SIGKILL')
})

run('frames outside of the protocol are refused, unknown operations are answered', async (t) => {
  const c = container(sh('sleep 1000'))
  await c.start()
  const s = await c.connect()
  t.is((await s.ask({ op: 'fly' }))['error'].code, 'ENOSYS')
  t.is((await s.ask({ op: 'exec' }))['error'].code, 'EINVAL')
  t.is((await s.ask({ op: 'attach', exec: 'none' }))['error'].code, 'ENOENT')
  s.send('q', 'x')
  await s.until(() => s.closed, 'the close').catch(() => {})
  const again = await c.connect()
  await again.ask({ op: 'delete', force: true })
  await c.ended()
  t.true(s.closed)
})

run('bind mounts, read-only and read-write, files and folders', async (t) => {
  const src = join(base, 'src')
  mkdirSync(src)
  writeFileSync(join(src, 'f'), 'data')
  const c = container(
    sh('cat /a/f /b/c/file; (touch /a/x) 2>&1; touch /rw/y; ls /rw', (c) =>
      c['mounts'].push(
        { destination: '/a', type: 'bind', source: src, options: ['rbind', 'ro'] },
        { destination: '/b/c/file', type: 'bind', source: join(src, 'f'), options: ['bind'] },
        { destination: '/rw', type: 'bind', source: src, options: ['rbind', 'rprivate'] },
      ),
    ),
  )
  await c.run()
  t.regex(c.log(), /^datadatatouch: \/a\/x: Read-only file system\nf\ny\n$/)
})

run('many containers started at once all end with their own status, and leave nothing', async (t) => {
  const all = Array.from({ length: 40 }, (_, i) => ({ i, c: container(sh(`echo ${i}; exit ${i}`)) }))
  await Promise.all(all.map(({ c }) => c.run()))
  for (const { i, c } of all) {
    t.is(c.json('exit.json')['exitCode'], i)
    t.is(c.log(), `${i}\n`)
    t.deepEqual(cgroupFolders(c.cgroup), [])
  }
  t.deepEqual(traces(`native-test-${process.pid}`), [])
})

run('SIGKILL of the shim at any moment of its start leaves nothing that a kill and rmdir do not clean', async (t) => {
  for (let i = 0; i < 12; i++) {
    const c = container(sh('sleep 1000'))
    const logFd = openSync(join(c.dir, 'shim.log'), 'a')
    const shim = native().spawnShim({ path: bin('shoal-shim'), args: [c.dir], cwd: c.dir, logFd })
    const gone = native().pidfdWait(shim.pid, 0)
    // A moment further on each time, from before its first step to after the process runs.
    await new Promise((resolve) => setTimeout(resolve, i * 3))
    process.kill(shim.pid, 'SIGKILL')
    await deadline(gone, 'the end of the shim')
    closeSync(shim.statusFd)
    closeSync(logFd)
    for (const folder of cgroupFolders(c.cgroup))
      for (const pid of readFileSync(join(folder, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean))
        process.kill(Number(pid), 'SIGKILL')
    await eventually(() => traces(c.id).length === 0, 'the end of its processes')
    await eventually(() => {
      for (const folder of cgroupFolders(c.cgroup)) {
        try {
          rmdirSync(folder)
        } catch {
          return false
        }
      }
      return true
    }, 'the removal of its cgroups')
  }
  t.pass()
})
