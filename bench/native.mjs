// npm run bench -- native: create, start and end of a trivial container, shoal-runtime : crun : runc : bare unshare, in one run.
// Medians of ROUNDS; the programs take turns, so that what else the machine does hits all alike. Goals against crun 1.8: bare at most
// 0.75, Docker-like at most 0.28, the same with a filter that was never seen before at most 0.6, exec at most 0.8.
import { spawnSync } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const rounds = Number(process.argv[2] ?? 50)
const build = fileURLToPath(new URL('../build/', import.meta.url))
const { defaultSeccompProfile } = await import(join(build, 'src/runtime/seccomp-profile.js'))
if (process.getuid() !== 0) {
  console.log('skipped: containers need root')
  process.exit(0)
}

// crun 1.8 refuses hosts whose v2 tree has a controller beside v1 hierarchies: everything here runs without that tree in view.
if (!process.env.BENCH_NATIVE_INSIDE) {
  const hide = 'mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified; exec "$@"'
  const r = spawnSync('unshare', ['-m', 'sh', '-c', hide, 'sh', process.execPath, ...process.argv.slice(1)], {
    stdio: 'inherit',
    env: { ...process.env, BENCH_NATIVE_INSIDE: '1' },
  })
  process.exit(r.status ?? 1)
}

const dir = mkdtempSync(join(tmpdir(), 'native-bench-'))
const caps = [
  'CHOWN',
  'DAC_OVERRIDE',
  'FSETID',
  'FOWNER',
  'MKNOD',
  'NET_RAW',
  'SETGID',
  'SETUID',
  'SETFCAP',
  'SETPCAP',
  'NET_BIND_SERVICE',
  'SYS_CHROOT',
  'KILL',
  'AUDIT_WRITE',
].map((c) => `CAP_${c}`)

function config(kind, args) {
  const c = {
    ociVersion: '1.0.2',
    process: {
      terminal: false,
      user: { uid: 0, gid: 0 },
      args,
      env: ['PATH=/bin'],
      cwd: '/',
      capabilities: { bounding: caps, effective: caps, permitted: caps },
    },
    root: { path: 'rootfs' },
    mounts: [{ destination: '/proc', type: 'proc', source: 'proc' }],
    linux: { namespaces: ['mount', 'pid', 'network', 'ipc', 'uts'].map((type) => ({ type })) },
  }
  if (kind === 'bare') return c
  c.mounts.push(
    {
      destination: '/dev',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
    },
    {
      destination: '/dev/pts',
      type: 'devpts',
      source: 'devpts',
      options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
    },
    { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', 'ro'] },
    { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['ro', 'nosuid', 'noexec', 'nodev'] },
    { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev'] },
    {
      destination: '/dev/shm',
      type: 'tmpfs',
      source: 'shm',
      options: ['nosuid', 'noexec', 'nodev', 'mode=1777', 'size=67108864'],
    },
  )
  c.linux.namespaces.push({ type: 'cgroup' })
  c.linux.resources = {
    memory: { limit: 256 << 20 },
    cpu: { shares: 512, quota: 100000, period: 100000 },
    pids: { limit: 100 },
    devices: [{ allow: false, access: 'rwm' }],
  }
  c.linux.maskedPaths = ['/proc/acpi', '/proc/kcore', '/proc/keys', '/proc/timer_list', '/proc/scsi', '/sys/firmware']
  c.linux.readonlyPaths = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger']
  c.linux.seccomp = defaultSeccompProfile(caps)
  return c
}

function bundle(name, kind, args) {
  const b = join(dir, name)
  mkdirSync(join(b, 'rootfs/bin'), { recursive: true })
  copyFileSync('/bin/busybox', join(b, 'rootfs/bin/busybox'))
  for (const a of ['true', 'sleep', 'sh']) symlinkSync('busybox', join(b, 'rootfs/bin', a))
  for (const d of ['proc', 'dev', 'sys']) mkdirSync(join(b, 'rootfs', d))
  writeFileSync(join(b, 'config.json'), JSON.stringify(config(kind, args)))
  return b
}

const programs = { shoal: join(build, 'native/shoal-runtime'), crun: 'crun', runc: 'runc' }
const median = (list) => list.sort((a, b) => a - b)[list.length >> 1]

function timed(file, args) {
  const from = process.hrtime.bigint()
  const r = spawnSync(file, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  const ms = Number(process.hrtime.bigint() - from) / 1e6
  if (r.status !== 0) throw new Error(`${file} ${args.join(' ')}: ${r.status ?? r.signal} ${r.stderr}`)
  return ms
}

let counter = 0
function compare(title, kind, change) {
  const times = { shoal: [], crun: [], runc: [], unshare: [] }
  for (let i = 0; i < rounds + 3; i++)
    for (const name of Object.keys(times)) {
      let ms
      if (name === 'unshare') {
        ms = timed('unshare', [
          '-m',
          '-p',
          '-n',
          '-i',
          '-u',
          ...(kind === 'bare' ? [] : ['-C']),
          '-f',
          '/bin/busybox',
          'true',
        ])
      } else {
        const b = join(dir, kind)
        if (change) writeFileSync(join(b, 'config.json'), JSON.stringify(change(config(kind, ['/bin/true']))))
        ms = timed(programs[name], [
          '--root',
          join(dir, `state-${name}`),
          'run',
          '--bundle',
          b,
          `b${process.pid}x${counter++}`,
        ])
      }
      if (i >= 3) times[name].push(ms)
    }
  report(title, times)
}

function report(title, times) {
  const m = Object.fromEntries(Object.entries(times).map(([k, v]) => [k, median(v)]))
  const text = Object.entries(m).map(([k, v]) => `${k} ${v.toFixed(1)} ms`)
  console.log(`${title.padEnd(28)} ${text.join('  ')}  shoal/crun ${(m.shoal / m.crun).toFixed(2)}`)
}

try {
  bundle('bare', 'bare', ['/bin/true'])
  bundle('docker', 'docker', ['/bin/true'])
  compare('bare', 'bare')
  compare('docker-like', 'docker')
  let n = 0
  compare('docker-like, new filter', 'docker', (c) => {
    // One more call with a number of its own for the argument: never the same filter twice.
    c.linux.seccomp.syscalls.push({
      names: ['quotactl'],
      action: 'SCMP_ACT_ALLOW',
      args: [{ index: 0, value: process.pid * 1000 + n++, op: 'SCMP_CMP_EQ' }],
    })
    return c
  })
  bundle('long', 'bare', ['/bin/sleep', '1000'])
  const times = { shoal: [], crun: [], runc: [] }
  for (const name of Object.keys(times))
    timed(programs[name], [
      '--root',
      join(dir, `state-${name}`),
      'run',
      '--detach',
      '--bundle',
      join(dir, 'long'),
      `long-${name}-${process.pid}`,
    ])
  for (let i = 0; i < rounds + 3; i++)
    for (const name of Object.keys(times)) {
      const ms = timed(programs[name], [
        '--root',
        join(dir, `state-${name}`),
        'exec',
        `long-${name}-${process.pid}`,
        '/bin/true',
      ])
      if (i >= 3) times[name].push(ms)
    }
  for (const name of Object.keys(times))
    timed(programs[name], ['--root', join(dir, `state-${name}`), 'delete', '--force', `long-${name}-${process.pid}`])
  report('exec', times)
  const peak = spawnSync('sh', ['-c', 'command -v time'])
  if (peak.status === 0) {
    const r = spawnSync('time', [
      '-f',
      '%M',
      programs.shoal,
      '--root',
      join(dir, 'state-shoal'),
      'run',
      '--bundle',
      join(dir, 'docker'),
      `peak${process.pid}`,
    ])
    console.log(`peak memory of shoal-runtime   ${String(r.stderr).trim().split('\n').at(-1)} KiB`)
  }
} finally {
  for (const name of ['shoal', 'crun', 'runc'])
    spawnSync(
      programs[name],
      ['--root', join(dir, `state-${name}`), 'delete', '--force', `long-${name}-${process.pid}`],
      { stdio: 'ignore' },
    )
  // A leftover mount makes a recursive remove an accident: say so and leave the folder.
  if (readFileSync('/proc/self/mountinfo', 'utf8').includes(dir)) {
    console.error(`something is still mounted below ${dir}`)
    process.exitCode = 1
  } else if (existsSync(dir)) rmSync(dir, { recursive: true })
}
