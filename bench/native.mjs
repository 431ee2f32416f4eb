// npm run bench -- native: create, start and end of a trivial container, shoal-runtime : crun : runc : bare unshare, in one run.
// Medians of ROUNDS; the programs take turns, so that what else the machine does hits all alike, and the ratio is the median of the
// ratios of neighbours. CPU time (user + system, with that of the container's processes) is the calmer figure on a busy machine. Goals
// against crun 1.8: bare at most 0.75, Docker-like at most 0.28, the same with a filter that was never seen before at most 0.6, exec at
// most 0.8; peak memory at most 1.6 MB; an idle shim at most 1 MiB resident, one thread.
import { spawn, spawnSync } from 'node:child_process'
import {
  closeSync,
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
const warmUp = 3
const build = fileURLToPath(new URL('../build/', import.meta.url))
const { defaultSeccompProfile } = await import(join(build, 'src/runtime/seccomp-profile.js'))
const { native } = await import(join(build, 'src/runtime/native.js'))
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
const available = Object.keys(programs).filter(
  (name) => spawnSync(programs[name], ['--version'], { stdio: 'ignore' }).error === undefined,
)
const root = (name) => ['--root', join(dir, `state-${name}`)]
const median = (list) => list.toSorted((a, b) => a - b)[list.length >> 1]

/** CPU milliseconds of all children that have ended so far. The kernel counts in nanoseconds and shows hundredths of a second: single
 *  differences are coarse, their sum over the rounds is not. */
function childrenCpu() {
  const fields = readFileSync('/proc/self/stat', 'utf8').split(') ')[1].split(' ')
  return (Number(fields[13]) + Number(fields[14])) * 10
}

function timed(file, args) {
  const cpu = childrenCpu()
  const from = process.hrtime.bigint()
  const r = spawnSync(file, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  const ms = Number(process.hrtime.bigint() - from) / 1e6
  if (r.status !== 0) throw new Error(`${file} ${args.join(' ')}: ${r.status ?? r.signal} ${r.stderr}`)
  return { ms, cpu: childrenCpu() - cpu }
}

/** Each round runs every candidate once, in turn. */
function interleave(title, candidates) {
  const wall = {}
  const cpu = {}
  for (const name of Object.keys(candidates)) {
    wall[name] = []
    cpu[name] = 0
  }
  for (let i = 0; i < rounds + warmUp; i++)
    for (const [name, once] of Object.entries(candidates)) {
      const r = once()
      if (i < warmUp) continue
      wall[name].push(r.ms)
      cpu[name] += r.cpu
    }
  const text = Object.keys(wall).map(
    (name) => `${name} ${median(wall[name]).toFixed(1)} ms (${(cpu[name] / rounds).toFixed(1)} CPU)`,
  )
  let ratio = ''
  if (wall.crun) {
    const pairs = wall.shoal.map((ms, i) => ms / wall.crun[i])
    ratio = `  shoal/crun ${median(pairs).toFixed(2)}, CPU ${(cpu.shoal / cpu.crun).toFixed(2)}`
  }
  console.log(`${title.padEnd(24)} ${text.join('  ')}${ratio}`)
}

let counter = 0
function compare(title, kind, change) {
  const candidates = {}
  for (const name of available)
    candidates[name] = () => {
      const b = join(dir, kind)
      if (change) writeFileSync(join(b, 'config.json'), JSON.stringify(change(config(kind, ['/bin/true']))))
      return timed(programs[name], [...root(name), 'run', '--bundle', b, `b${process.pid}x${counter++}`])
    }
  const spaces = ['-m', '-p', '-n', '-i', '-u', ...(kind === 'bare' ? [] : ['-C'])]
  candidates.unshare = () => timed('unshare', [...spaces, '-f', '/bin/busybox', 'true'])
  interleave(title, candidates)
}

/** True once the process is gone, or nothing but its exit status is left of it. */
function over(pid) {
  try {
    return /\) [ZX]/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return true
  }
}

/** Where the time goes: the verbs of the specification one by one. "end" is from the answer of start to the end of the process. */
function stages(title, kind) {
  const wall = {}
  for (let i = 0; i < rounds + warmUp; i++)
    for (const name of available) {
      const id = `s${process.pid}x${counter++}`
      const pidFile = join(dir, `${name}.pid`)
      const took = { create: 0, start: 0, end: 0, delete: 0 }
      const verb = (word, ...args) => {
        const from = process.hrtime.bigint()
        const r = spawnSync(programs[name], [...root(name), word, ...args], { stdio: 'ignore' })
        took[word] = Number(process.hrtime.bigint() - from) / 1e6
        if (r.status !== 0) throw new Error(`${name} ${word}: ${r.status ?? r.signal}`)
      }
      verb('create', '--bundle', join(dir, kind), '--pid-file', pidFile, id)
      const pid = readFileSync(pidFile, 'utf8')
      verb('start', id)
      const from = process.hrtime.bigint()
      while (!over(pid));
      took.end = Number(process.hrtime.bigint() - from) / 1e6
      verb('delete', id)
      if (i < warmUp) continue
      wall[name] ??= { create: [], start: [], end: [], delete: [] }
      for (const stage of Object.keys(took)) wall[name][stage].push(took[stage])
    }
  for (const name of available) {
    const parts = Object.entries(wall[name]).map(([stage, list]) => `${stage} ${median(list).toFixed(1)}`)
    console.log(`${title.padEnd(24)} ${name.padEnd(5)} ${parts.join('  ')} ms`)
  }
}

const longId = (name) => `long-${name}-${process.pid}`

function compareExec() {
  bundle('long', 'bare', ['/bin/sleep', '1000'])
  const candidates = {}
  for (const name of available) {
    // Started by hand: a detached container keeps the standard streams of its runtime.
    const r = spawnSync(
      programs[name],
      [...root(name), 'run', '--detach', '--bundle', join(dir, 'long'), longId(name)],
      {
        stdio: 'ignore',
      },
    )
    if (r.status !== 0) throw new Error(`${name} run --detach: ${r.status ?? r.signal}`)
    candidates[name] = () => timed(programs[name], [...root(name), 'exec', longId(name), '/bin/true'])
  }
  interleave('exec', candidates)
}

const statusOf = (pid, key) =>
  readFileSync(`/proc/${pid}/status`, 'utf8').match(new RegExp(`^${key}:\\s+(\\d+)`, 'm'))?.[1]

async function until(condition, what) {
  for (const end = Date.now() + 20_000; !condition(); ) {
    if (Date.now() > end) throw new Error(`${what} did not happen within 20 s`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** The highest resident size of the runtime in front of a running container; the filter was compiled by then. */
async function peakMemory() {
  bundle('peak', 'docker', ['/bin/sleep', '1000'])
  const peaks = []
  for (const name of available) {
    const id = `peak-${name}-${process.pid}`
    const child = spawn(programs[name], [...root(name), 'run', '--bundle', join(dir, 'peak'), id], { stdio: 'ignore' })
    const ended = new Promise((resolve) => child.once('exit', resolve))
    const running = () =>
      /"status": "running"/.test(
        spawnSync(programs[name], [...root(name), 'state', id], { encoding: 'utf8' }).stdout ?? '',
      )
    try {
      await until(running, `start of ${name}`)
      peaks.push(`${name} ${statusOf(child.pid, 'VmHWM')} KiB`)
    } finally {
      spawnSync(programs[name], [...root(name), 'delete', '--force', id], { stdio: 'ignore' })
      await ended
    }
  }
  console.log(`${'peak memory'.padEnd(24)} ${peaks.join('  ')}`)
}

async function idleShim() {
  const b = bundle('shim', 'docker', ['/bin/sleep', '1000'])
  const id = `shim-${process.pid}`
  writeFileSync(
    join(b, 'shim.json'),
    JSON.stringify({
      version: 1,
      id,
      rootfs: null,
      tty: false,
      stdin: false,
      log: { driver: 'json-file', path: join(b, 'c.log'), maxFiles: 1, mode: 'blocking', bufferBytes: 1 << 20 },
      cgroup: `/native-bench-${id}`,
      seccomp: null,
      initPath: null,
      runtime: null,
    }),
  )
  const { pid, statusFd } = native().spawnShim({ path: join(build, 'native/shoal-shim'), args: [b], cwd: b })
  const gone = native().pidfdWait(pid, 0)
  try {
    const state = () =>
      existsSync(join(b, 'state.json')) ? JSON.parse(readFileSync(join(b, 'state.json'), 'utf8')) : {}
    await until(() => state().status === 'running', 'the start of the shim')
    const parts = ['RssAnon', 'RssFile', 'Threads'].map((k) => `${k} ${statusOf(pid, k)}`)
    console.log(`${'idle shim'.padEnd(24)} VmRSS ${statusOf(pid, 'VmRSS')} KiB (${parts.join(', ')})`)
    process.kill(state().pid, 'SIGKILL')
  } catch (e) {
    process.kill(pid, 'SIGKILL')
    throw e
  } finally {
    closeSync(statusFd)
    // A pending wait does not keep Node alive.
    const alive = setInterval(() => {}, 1000)
    await gone
    clearInterval(alive)
  }
}

function cleanUp() {
  for (const name of available)
    for (const id of [longId(name), `peak-${name}-${process.pid}`])
      spawnSync(programs[name], [...root(name), 'delete', '--force', id], { stdio: 'ignore' })
  if (readFileSync('/proc/self/mountinfo', 'utf8').includes(dir)) {
    console.error(`something is still mounted below ${dir}: it stays`)
    process.exitCode = 1
    return
  }
  rmSync(dir, { recursive: true, force: true })
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
  stages('bare, stages', 'bare')
  stages('docker-like, stages', 'docker')
  compareExec()
  await peakMemory()
  await idleShim()
} finally {
  cleanUp()
}
