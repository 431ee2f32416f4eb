// The OCI document as a function of what was asked.
import test from 'ava'
import {
  CAPABILITIES,
  DEFAULT_CAPABILITIES,
  effectiveCapabilities,
  parseCapabilityMask,
} from '../../src/engine/spec/capabilities.js'
import { DEFAULT_PATH, mergeEnvironment, processEnvironment } from '../../src/engine/spec/environment.js'
import { generateSpec, mergedUlimits, type SpecInput } from '../../src/engine/spec/index.js'
import { limits } from '../../src/engine/spec/resources.js'
import { resolveUser } from '../../src/engine/spec/user.js'

const root = { uid: 0, gid: 0, additionalGids: [0], home: '/root' }
const noDevice = (): never => {
  throw new Error('no device expected')
}
const input = (over: Partial<SpecInput> = {}): SpecInput => ({
  id: 'c1',
  config: {},
  host: { IpcMode: 'private' },
  path: 'sh',
  args: ['-c', 'true'],
  hostname: 'box',
  links: [],
  user: root,
  capabilities: ['CAP_KILL'],
  noNewPrivileges: false,
  rootPath: '/run/rootfs',
  cgroupsPath: '/shoal/c1',
  mounts: [],
  files: { hosts: '/d/hosts', hostname: '/d/hostname', resolvConf: '/d/resolv.conf' },
  devices: [],
  deviceNumber: noDevice,
  namespaces: { network: { path: '/ns/net' }, pid: 'private', ipc: 'private', uts: 'private', cgroup: 'host' },
  shmSource: null,
  hostHasMqueue: true,
  defaultUlimits: [],
  ...over,
})
// biome-ignore lint/suspicious/noExplicitAny: the document is loosely typed on purpose
const spec = (over: Partial<SpecInput> = {}): any => generateSpec(input(over))
const destinations = (s: { mounts: { destination: string }[] }): string[] => s.mounts.map((m) => m.destination)

test("a container's ulimits are its own over the daemon's", (t) => {
  const defaults = [
    { Name: 'nofile', Soft: 1, Hard: 2 },
    { Name: 'nproc', Soft: 3, Hard: 4 },
  ]
  const host = { Ulimits: [{ Name: 'nproc', Soft: 5, Hard: 5 }] }
  t.deepEqual(mergedUlimits(host, defaults), [defaults[0]!, host.Ulimits[0]!])
  t.deepEqual(spec({ host, defaultUlimits: defaults }).process.rlimits, [
    { type: 'RLIMIT_NOFILE', soft: 1, hard: 2 },
    { type: 'RLIMIT_NPROC', soft: 5, hard: 5 },
  ])
})

test('a plain container has the default mounts, namespaces, paths and devices', (t) => {
  const s = spec()
  t.deepEqual(destinations(s), [
    '/proc',
    '/dev',
    '/dev/pts',
    '/sys',
    '/sys/fs/cgroup',
    '/dev/mqueue',
    '/dev/shm',
    '/etc/resolv.conf',
    '/etc/hostname',
    '/etc/hosts',
  ])
  t.deepEqual(s.process.args, ['sh', '-c', 'true'])
  t.deepEqual(s.linux.namespaces, [
    { type: 'mount' },
    { type: 'network', path: '/ns/net' },
    { type: 'uts' },
    { type: 'pid' },
    { type: 'ipc' },
  ])
  t.is(s.hostname, 'box')
  t.true(s.linux.maskedPaths.includes('/proc/kcore'))
  t.true(s.linux.readonlyPaths.includes('/proc/sys'))
  t.true(s.mounts.find((m: { destination: string }) => m.destination === '/sys').options.includes('ro'))
  t.false(s.linux.resources.devices[0].allow)
  t.true(s.mounts.find((m: { destination: string }) => m.destination === '/dev/shm').options.includes('size=67108864'))
})

test('a privileged container has no masks, a writable /sys, and every device allowed', (t) => {
  const s = spec({ host: { Privileged: true } })
  t.deepEqual([s.linux.maskedPaths, s.linux.readonlyPaths], [[], []])
  t.false(s.mounts.find((m: { destination: string }) => m.destination === '/sys').options.includes('ro'))
  t.deepEqual(s.linux.resources.devices, [{ allow: true, access: 'rwm' }])
})

test('mounts of the user stand in the order of their depth and take the place of ours', (t) => {
  const bind = (destination: string, rw = true) => ({
    type: 'bind' as const,
    source: '/s',
    destination,
    rw,
    propagation: 'rprivate',
    recursive: true,
    options: [],
  })
  const s = spec({ mounts: [bind('/a/b/c'), bind('/etc/hosts'), bind('/a', false), bind('/dev/shm')] })
  const order = destinations(s)
  t.true(order.indexOf('/a') < order.indexOf('/a/b/c'))
  t.is(order.filter((d) => d === '/etc/hosts').length, 1)
  t.is(order.filter((d) => d === '/dev/shm').length, 1)
  t.deepEqual(s.mounts.find((m: { destination: string }) => m.destination === '/a').options, [
    'rbind',
    'ro',
    'rprivate',
  ])
  t.is(s.linux.rootfsPropagation, undefined)
  t.is(spec({ mounts: [{ ...bind('/a'), propagation: 'rshared' }] }).linux.rootfsPropagation, 'shared')
})

test('tmpfs takes its options over the defaults', (t) => {
  const s = spec({
    mounts: [
      {
        type: 'tmpfs',
        source: '',
        destination: '/t',
        rw: true,
        propagation: '',
        recursive: true,
        options: ['exec', 'size=1m'],
      },
    ],
  })
  t.deepEqual(
    s.mounts.find((m: { destination: string }) => m.destination === '/t'),
    {
      destination: '/t',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'nodev', 'exec', 'size=1m'],
    },
  )
})

test('someone other than root keeps capabilities in the bounding set only', (t) => {
  const s = spec({ user: { uid: 5, gid: 6, additionalGids: [6], home: '/' } })
  t.deepEqual(s.process.capabilities, { bounding: ['CAP_KILL'] })
  t.deepEqual(spec().process.capabilities.effective, ['CAP_KILL'])
})

test('host namespaces are left out', (t) => {
  const s = spec({ namespaces: { network: 'host', pid: 'host', ipc: 'host', uts: 'host', cgroup: 'private' } })
  t.deepEqual(s.linux.namespaces, [{ type: 'mount' }, { type: 'cgroup' }])
  t.is(s.hostname, undefined)
})

test('limits: only what was asked for', (t) => {
  t.deepEqual(limits({}, noDevice), {})
  t.deepEqual(limits({ NanoCpus: 1.5e9, Memory: 1e8, MemorySwap: -1, PidsLimit: 7, CpusetCpus: '0-1' }, noDevice), {
    memory: { limit: 1e8, swap: -1 },
    cpu: { period: 100_000, quota: 150_000, cpus: '0-1' },
    pids: { limit: 7 },
  })
  t.deepEqual(
    limits({ BlkioDeviceReadBps: [{ Path: '/dev/x', Rate: 9 }] }, () => ({ type: 'b', major: 8, minor: 1 })),
    { blockIO: { throttleReadBpsDevice: [{ major: 8, minor: 1, rate: 9 }] } },
  )
})

test('capabilities: defaults, add, drop, ALL, and nothing beyond the bounding set', (t) => {
  const of = (o: object) =>
    effectiveCapabilities({ add: [], drop: [], privileged: false, bounding: CAPABILITIES, ...o })
  t.deepEqual([...of({})].sort(), [...DEFAULT_CAPABILITIES].sort())
  t.true(of({ add: ['net_admin'] }).includes('CAP_NET_ADMIN'))
  t.false(of({ drop: ['CAP_CHOWN'] }).includes('CAP_CHOWN'))
  t.deepEqual(of({ drop: ['all'], add: ['KILL'] }), ['CAP_KILL'])
  t.is(of({ add: ['ALL'], drop: ['SYS_ADMIN'] }).length, CAPABILITIES.length - 1)
  t.deepEqual(of({ privileged: true, bounding: ['CAP_KILL'] }), ['CAP_KILL'])
  t.deepEqual(of({ bounding: ['CAP_KILL', 'CAP_SYS_ADMIN'] }), ['CAP_KILL'])
  t.deepEqual(parseCapabilityMask('0000000000000021'), ['CAP_CHOWN', 'CAP_KILL'])
})

test('environment: later entries win in place, an entry without = unsets', (t) => {
  t.deepEqual(mergeEnvironment(['A=1', 'B=2'], ['A=3', 'B', 'C=']), ['A=3', 'C='])
  const links = ['DB_NAME=/h/db', 'DB_PORT=tcp://1.2.3.4:5']
  const env = processEnvironment({ hostname: 'h', tty: true, links, env: ['PATH=/x', 'DB_PORT=own'], home: '/root' })
  t.deepEqual(env, ['PATH=/x', 'HOSTNAME=h', 'TERM=xterm', 'DB_NAME=/h/db', 'DB_PORT=own', 'HOME=/root'])
  const bare = processEnvironment({ hostname: 'h', tty: false, links: [], env: ['HOSTNAME', 'HOME='], home: '/h' })
  t.deepEqual(bare, [`PATH=${DEFAULT_PATH}`, 'HOME=/h'])
})

test('users by name and number, their groups, and groups named with them', (t) => {
  const passwd = 'root:x:0:0::/root:/bin/sh\nweb:x:33:34:w:/var/www:/bin/sh\n'
  const group = 'root:x:0:\nweb:x:34:\nlogs:x:50:web,other\n'
  const of = (user: string, groupAdd: string[] = []) => resolveUser({ user, groupAdd, passwd, group })
  t.deepEqual(of('web'), { uid: 33, gid: 34, additionalGids: [34, 50], home: '/var/www' })
  t.deepEqual(of('33'), of('web'))
  t.deepEqual(of('web:logs'), { uid: 33, gid: 50, additionalGids: [50], home: '/var/www' })
  t.deepEqual(of('1000:2000', ['logs', '9']), { uid: 1000, gid: 2000, additionalGids: [2000, 50, 9], home: '/' })
  t.deepEqual(of('33:50:9'), of('33:50'))
  t.deepEqual(of(''), { uid: 0, gid: 0, additionalGids: [0], home: '/root' })
  for (const bad of ['2147483648', '-1', '-1:nogroup', '1:-1'])
    t.throws(() => of(bad), { message: 'uids and gids must be in range 0-2147483647' })
  t.throws(() => of('nobody'), { message: 'unable to find user nobody: no matching entries in passwd file' })
  t.throws(() => of('0:nope'), { message: 'unable to find group nope: no matching entries in group file' })
  t.is(resolveUser({ user: '7', groupAdd: [], passwd: null, group: null }).uid, 7)
})
