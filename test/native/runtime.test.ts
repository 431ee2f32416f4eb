// shoal-runtime as a command: the life of a container, the specification's corners, attacks by images, and agreement with crun and runc.
import { mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { defaultSeccompProfile } from '../../src/runtime/index.js'
import { disagreement } from './agreement.js'
import { generated, variants } from './bundles.js'
import { cgroupFolders, defaultCaps, eventually, exec, type Json, makeConfig, type Output, traces } from './kit.js'
import { run, runtime, runtimeKit, sh } from './runtime-kit.js'

const kit = runtimeKit('rt', { ownRoots: true })
const { bundle, call, quietly } = kit

run('run gives output and exit status, and leaves nothing', async (t) => {
  const r = await kit.run(sh('echo hello; echo oops >&2; exit 42'))
  t.is(r.code, 42)
  t.is(r.stdout, 'hello\n')
  t.is(r.stderr, 'oops\n')
  t.deepEqual(cgroupFolders(`/native-rt-${r.id}`), [])
  t.deepEqual(traces(r.id), [])
  t.is((await call('state', r.id)).code, 1)
  t.is((await kit.run(sh('kill -9 $$'))).code, 0) // pid 1 of a namespace is deaf to its own SIGKILL
})

run('create, state, start, exec, ps, update, pause, resume, kill, delete', async (t) => {
  const b = bundle(sh('while :; do sleep 1; done'))
  const status = async (): Promise<string> => (JSON.parse((await call('state', b.id)).stdout) as Json)['status']
  const pidFile = join(b.dir, 'pid')
  t.is((await quietly('create', '--bundle', b.dir, '--pid-file', pidFile, b.id)).code, 0)
  t.is(await status(), 'created')
  t.true(Number(readFileSync(pidFile, 'utf8')) > 0)
  const again = await call('create', '--bundle', b.dir, b.id)
  t.is(again.code, 1)
  t.regex(again.stderr, /exists already/)
  t.is((await call('start', b.id)).code, 0)
  t.is(await status(), 'running')
  t.regex((await call('start', b.id)).stderr, /is running, not created/)
  const e = await call(
    'exec',
    '--env',
    'A=b',
    '--cwd',
    '/tmp',
    '--user',
    '1000:1000',
    b.id,
    '/bin/sh',
    '-c',
    'echo $A; pwd; id -u; hostname; exit 6',
  )
  t.deepEqual([e.code, e.stdout], [6, 'b\n/tmp\n1000\nbox\n'], e.stderr)
  t.is((await call('exec', b.id, 'nothing')).code, 255)
  const document = join(b.dir, 'process.json')
  writeFileSync(document, JSON.stringify({ ...makeConfig(['/bin/echo', 'from file'])['process'] }))
  t.is((await call('exec', '--process', document, b.id)).stdout, 'from file\n')
  t.regex((await call('ps', b.id)).stdout, new RegExp(`^PID\n(\\d+\n)*${readFileSync(pidFile, 'utf8')}\n`))
  t.is((await call('update', '--pids-limit', '77', b.id)).code, 0)
  t.regex((await call('events', '--stats', b.id)).stdout, /"pids":\{"current":\d+,"limit":77\}/)
  t.is((await call('pause', b.id)).code, 0)
  t.is(await status(), 'paused')
  t.is((await call('resume', b.id)).code, 0)
  t.is(await status(), 'running')
  t.regex((await call('list')).stdout, new RegExp(b.id))
  t.regex((await call('delete', b.id)).stderr, /is running/)
  t.is((await call('kill', b.id, 'KILL')).code, 0)
  await eventually(
    () =>
      !readdirSync('/proc').includes(readFileSync(pidFile, 'utf8')) ||
      /^State:\tZ/m.test(readFileSync(`/proc/${readFileSync(pidFile, 'utf8')}/status`, 'utf8')),
    'the end',
  )
  t.is(await status(), 'stopped')
  t.is((await call('delete', b.id)).code, 0)
  t.is((await call('state', b.id)).code, 1)
  t.is((await call('delete', '--force', b.id)).code, 0)
  t.deepEqual(cgroupFolders(`/native-rt-${b.id}`), [])
})

run('errors name stage and cause, in the log file too', async (t) => {
  const b = bundle(makeConfig(['no-such']))
  const log = join(b.dir, 'log')
  const r = await exec(runtime, [
    '--root',
    join(kit.base, 'state'),
    '--log',
    log,
    '--log-format',
    'json',
    'run',
    '--bundle',
    b.dir,
    b.id,
  ])
  t.is(r.code, 1)
  t.regex(r.stderr, /exec: "no-such": executable file not found in \$PATH/)
  t.like(JSON.parse(readFileSync(log, 'utf8')) as Json, { level: 'error', stage: 'exec', errno: 2 })
  t.regex((await exec(runtime, ['--systemd-cgroup', 'list'])).stderr, /--systemd-cgroup/)
  t.regex((await call('run', '--bundle', b.dir, '../x')).stderr, /invalid container ID/)
})

run('all six kinds of hooks run in order, with the state on standard input', async (t) => {
  const out = join(kit.base, 'hooks.txt')
  const hook = (kind: string): Json => ({ path: '/bin/busybox', args: ['sh', '-c', `echo ${kind} $(cat) >> ${out}`] })
  const r = await kit
    .run(
      sh(`echo main`, (c) => {
        c['mounts'].push({ destination: out, type: 'bind', source: out, options: ['bind'] })
        c['hooks'] = {}
        for (const k of ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart', 'poststop'])
          c['hooks'][k] = [hook(k)]
      }),
    )
    .catch((e: Error) => e)
  // The file must be there to be bound: the first try without it fails, and leaves nothing behind.
  t.is((r as Output).code, 1)
  writeFileSync(out, '')
  const ok = await kit.run(
    sh(`echo main`, (c) => {
      c['mounts'].push({ destination: out, type: 'bind', source: out, options: ['bind'] })
      c['hooks'] = {}
      for (const k of ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart', 'poststop'])
        c['hooks'][k] = [hook(k)]
    }),
  )
  t.is(ok.code, 0, ok.stderr)
  const lines = readFileSync(out, 'utf8').trim().split('\n')
  t.deepEqual(
    lines.map((l) => l.split(' ')[0]),
    ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart', 'poststop'],
  )
  const states = lines.map((l) => JSON.parse(l.slice(l.indexOf(' ') + 1)) as Json)
  t.deepEqual(
    states.map((s) => s['status']),
    ['created', 'created', 'created', 'created', 'running', 'stopped'],
  )
  for (const s of states) t.is(s['id'], ok.id)
})

run('a hook that fails or takes too long ends create, and everything is undone', async (t) => {
  const failing = await kit.run(sh('true', (c) => (c['hooks'] = { createRuntime: [{ path: '/bin/false' }] })))
  t.is(failing.code, 1)
  t.regex(failing.stderr, /createRuntime hook failed with exit code 1: \/bin\/false/)
  const slow = await kit.run(
    sh('true', (c) => (c['hooks'] = { prestart: [{ path: '/bin/sleep', args: ['sleep', '1000'], timeout: 1 }] })),
  )
  t.regex(slow.stderr, /did not end within its 1 s/)
  for (const r of [failing, slow]) t.deepEqual([cgroupFolders(`/native-rt-${r.id}`), traces(r.id)], [[], []])
})

run('a user namespace maps ids, and root inside is nobody outside', async (t) => {
  const r = await kit.run(
    sh('id -u; cat /proc/self/uid_map; ls -ln /dev/null | cut -c1-10; hostname; grep CapEff /proc/self/status', (c) => {
      c['linux'].namespaces.push({ type: 'user' })
      c['linux'].uidMappings = [
        { containerID: 0, hostID: 0, size: 1 },
        { containerID: 1, hostID: 100001, size: 1000 },
      ]
      c['linux'].gidMappings = [{ containerID: 0, hostID: 0, size: 1000 }]
    }),
  )
  t.is(r.code, 0, r.stderr)
  t.regex(r.stdout, /^0\n +0 +0 +1\n +1 +100001 +1000\ncrw-rw-rw-\nbox\nCapEff:\t00000000a80425fb\n$/)
})

run('a time namespace takes its offsets', async (t) => {
  const r = await kit.run(
    sh('cut -d. -f1 /proc/uptime', (c) => {
      c['linux'].namespaces.push({ type: 'time' })
      c['linux'].timeOffsets = { boottime: { secs: 1_000_000, nanosecs: 0 } }
    }),
  )
  t.is(r.code, 0, r.stderr)
  t.true(Number(r.stdout) >= 1_000_000)
})

run('mount options, propagation and recursive attributes', async (t) => {
  const src = join(kit.base, 'tree')
  mkdirSync(src, { recursive: true })
  const r = await kit.run(
    sh("grep ' /m' /proc/self/mountinfo | cut -d' ' -f5-7", (c) =>
      c['mounts'].push(
        {
          destination: '/m1',
          type: 'tmpfs',
          source: 'tmpfs',
          options: ['noexec', 'nosuid', 'nodev', 'noatime', 'size=1m', 'ro'],
        },
        { destination: '/m2', type: 'bind', source: src, options: ['rbind', 'rro', 'rnosuid', 'private'] },
        { destination: '/m3', type: 'bind', source: src, options: ['bind', 'rw', 'nodiratime', 'shared'] },
        { destination: '/m4', type: 'tmpfs', source: 'tmpfs', options: ['nosymfollow', 'unbindable'] },
      ),
    ),
  )
  t.is(r.code, 0, r.stderr)
  const [m1, m2, m3, m4] = r.stdout.trim().split('\n')
  t.regex(m1!, /^\/m1 ro,nosuid,nodev,noexec,noatime/)
  t.regex(m2!, /^\/m2 ro,nosuid,/)
  t.regex(m3!, /^\/m3 rw,.*nodiratime.* shared:/)
  t.regex(m4!, /^\/m4 rw,.*nosymfollow.* unbindable/)
})

run('tmpcopyup keeps what the image has, and read-only root is read-only', async (t) => {
  const r = await kit.run(
    sh('cat /etc/passwd | wc -l; touch /etc/new && echo yes; (touch /x) 2>&1', (c) => {
      c['root'].readonly = true
      c['mounts'].push({ destination: '/etc', type: 'tmpfs', source: 'tmpfs', options: ['tmpcopyup'] })
    }),
  )
  t.regex(r.stdout, /^2\nyes\ntouch: \/x: Read-only file system\n$/)
})

run('linux.seccomp is compiled and enforced; a bad profile is an error', async (t) => {
  const ok = await kit.run(
    sh(
      'unshare -m true 2>&1; mkdir /tmp/a && echo made',
      (c) => (c['linux'].seccomp = defaultSeccompProfile(defaultCaps)),
    ),
  )
  t.regex(ok.stdout, /unshare.*Operation not permitted\nmade\n/, ok.stderr)
  const errno = await kit.run(
    sh(
      'mkdir /tmp/a 2>&1',
      (c) =>
        (c['linux'].seccomp = {
          defaultAction: 'SCMP_ACT_ALLOW',
          syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 28 }],
        }),
    ),
  )
  t.regex(errno.stdout, /No space left/)
  const bad = await kit.run(sh('true', (c) => (c['linux'].seccomp = { defaultAction: 'SCMP_ACT_DANCE' })))
  t.regex(bad.stderr, /unknown seccomp action 'SCMP_ACT_DANCE'/)
})

run('labels that this kernel cannot apply are refused', async (t) => {
  const r = await kit.run(sh('true', (c) => (c['process'].apparmorProfile = 'some-profile')))
  t.is(r.code, 1)
  t.regex(r.stderr, /AppArmor/)
})

// --- attacks by an image -----------------------------------------------------------------------------------------------

run('a link in the image does not lead a mount to the host (CVE-2021-30465)', async (t) => {
  const secret = join(kit.base, 'host-dir')
  mkdirSync(secret)
  const b = bundle(
    sh('ls -d /data; touch /data/f; ls -la /evil', (c) =>
      c['mounts'].push({ destination: '/evil/sub', type: 'tmpfs', source: 'tmpfs', options: [] }),
    ),
  )
  symlinkSync(`../../../../../../../..${secret}`, join(b.rootfs, 'evil'))
  await call('run', '--bundle', b.dir, b.id)
  t.deepEqual(readdirSync(secret), [])
  t.deepEqual(traces(secret), [])
})

run('proc is not mounted through a link (CVE-2019-19921)', async (t) => {
  const b = bundle(sh('true'))
  rmSync(join(b.rootfs, 'proc'), { recursive: true })
  symlinkSync('/tmp', join(b.rootfs, 'proc'))
  const r = await call('run', '--bundle', b.dir, b.id)
  t.is(r.code, 1)
  t.regex(r.stderr, /ordinary directory/)
})

run('nothing may be laid over files of /proc that are not known to be harmless', async (t) => {
  const r = await kit.run(
    sh('true', (c) =>
      c['mounts'].push({ destination: '/proc/self/attr', type: 'tmpfs', source: 'tmpfs', options: [] }),
    ),
  )
  t.is(r.code, 1)
  t.regex(r.stderr, /lies inside \/proc/)
})

run('a working directory that leads to a leaked descriptor is refused (CVE-2024-21626)', async (t) => {
  for (const fd of [3, 4, 5, 6, 7, 8, 9]) {
    const r = await kit.run(sh('pwd', (c) => (c['process'].cwd = `/proc/self/fd/${fd}`)))
    t.not(r.code, 0)
    t.notRegex(r.stdout, /etc|usr/)
  }
})

run('/dev/null that is something else does not mask files (CVE-2025-31133)', async (t) => {
  const r = await kit.run(
    sh('cat /proc/keys', (c) => {
      c['mounts'] = c['mounts'].filter((m: Json) => m['destination'] !== '/dev')
      c['mounts'].push({ destination: '/dev/null', type: 'bind', source: '/etc/hostname', options: ['bind'] })
    }),
  )
  t.is(r.code, 1)
  t.regex(r.stderr, /null/)
})

run('the program behind /proc/self/exe cannot be written from a container (CVE-2019-5736)', async (t) => {
  const b = bundle(sh('sleep 1000'))
  writeFileSync(join(b.rootfs, 'bin/evil'), '#!/proc/self/exe\n', { mode: 0o755 })
  const before = readFileSync(runtime)
  await quietly('run', '--detach', '--bundle', b.dir, b.id)
  // Inside: keep trying to open whatever the joining process runs for writing.
  const attack = call(
    'exec',
    b.id,
    '/bin/sh',
    '-c',
    'for i in $(seq 200); do for p in /proc/[0-9]*; do (echo pwned > $p/exe) 2>/dev/null && readlink $p/exe; done; done; true',
  )
  for (let i = 0; i < 5; i++) await call('exec', b.id, '/bin/evil')
  await attack
  await call('delete', '--force', b.id)
  t.deepEqual(readFileSync(runtime), before)
})

// --- agreement with crun and runc ---------------------------------------------------------------------------------------

for (const [name, change] of variants)
  run(`seen from inside, shoal-runtime, crun and runc agree: ${name}`, async (t) => {
    t.deepEqual(await disagreement(kit.base, change), { differences: [], missing: [], errors: '' })
  })

for (const seed of [1, 2, 3, 4, 5, 6, 7, 8])
  run(`seen from inside, shoal-runtime, crun and runc agree: generated bundle ${seed}`, async (t) => {
    t.deepEqual(await disagreement(kit.base, generated(seed)), { differences: [], missing: [], errors: '' })
  })
