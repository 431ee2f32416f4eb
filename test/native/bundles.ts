// Bundles for the comparison of runtimes: several settings changed at once, by seed.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { random } from './bpf.js'
import { defaultCaps, type Json } from './kit.js'

/** Changes a config.json; `dir` is the bundle's folder, in which hooks and mounts may keep their files. */
export type Change = (c: Json, dir: string) => void

/** The comparison also looks at what hooks wrote here. */
export const hookTrace = 'hooks'

export const variants: [string, Change][] = [
  ['plain', () => {}],
  ['another user', (c) => (c['process'].user = { uid: 1000, gid: 1000, additionalGids: [10, 20], umask: 0o077 })],
  ['no new privileges', (c) => (c['process'].noNewPrivileges = true)],
  ['no capabilities', (c) => (c['process'].capabilities = {})],
  [
    'ambient capabilities',
    (c) => {
      c['process'].user = { uid: 1000, gid: 1000 }
      for (const s of ['ambient', 'inheritable']) c['process'].capabilities[s] = ['CAP_NET_RAW', 'CAP_KILL']
    },
  ],
  ['rlimits', (c) => (c['process'].rlimits = [{ type: 'RLIMIT_NOFILE', soft: 64, hard: 128 }])],
  ['read-only root', (c) => (c['root'].readonly = true)],
  ['oom score', (c) => (c['process'].oomScoreAdj = 500)],
  [
    'cpu shares and memory',
    (c) => Object.assign(c['linux'].resources, { cpu: { shares: 333 }, memory: { limit: 33 << 20 } }),
  ],
  [
    'no network namespace',
    (c) => (c['linux'].namespaces = c['linux'].namespaces.filter((n: Json) => n['type'] !== 'network')),
  ],
  ['no masks', (c) => Object.assign(c['linux'], { maskedPaths: [], readonlyPaths: [] })],
  [
    'devices',
    (c) =>
      (c['linux'].devices = [{ path: '/dev/fuse', type: 'c', major: 10, minor: 229, fileMode: 0o600, uid: 7, gid: 8 }]),
  ],
  ['environment', (c) => c['process'].env.push('A=1', 'HOME=/h', 'B=x y')],
  ['a folder of its own', (c) => (c['process'].cwd = '/tmp')],
  ['tmpfs', (c) => tmpfs(c, '/run/x', ['size=1m', 'mode=700', 'noexec'])],
  ['hooks of all kinds', (c, dir) => hooks(c, dir, allHooks)],
  ['a user namespace', (c) => userNamespace(c, 100000)],
  ['every limit', (c) => Object.assign(c['linux'].resources, limits(random(3)))],
  ['a filter', (c) => (c['linux'].seccomp = filter(random(5)))],
]

/** One on a place: of two, the upper one's mode is that of the lower one here, its own in crun, and the image's in runc. */
const tmpfs = (c: Json, destination: string, options: string[]): void => {
  if (c['mounts'].some((m: Json) => m['destination'] === destination)) return
  c['mounts'].push({ destination, type: 'tmpfs', source: 'tmpfs', options })
}

const bind = (c: Json, source: string, destination: string, options: string[]): void => {
  c['mounts'].push({ destination, type: 'bind', source, options })
}

const allHooks = ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart', 'poststop']

/** Each writes its name and the state it was told; what runs inside the container writes to a file bound there. */
function hooks(c: Json, dir: string, kinds: readonly string[]): void {
  const trace = join(dir, hookTrace)
  writeFileSync(trace, '', { mode: 0o666 })
  bind(c, trace, '/hooks', ['bind', 'rw'])
  c['hooks'] = {}
  for (const kind of kinds)
    c['hooks'][kind] = [1, 2].map((i) => ({
      path: '/bin/sh',
      args: [
        'sh',
        '-c',
        `echo "${kind} ${i} $X $(sed 's/.*"status": *"\\([a-z]*\\)".*/\\1/' | head -n1)" >> ${kind === 'startContainer' ? '/hooks' : trace}`,
      ],
      env: ['PATH=/bin:/usr/bin', `X=x${i}`],
      timeout: 20,
    }))
}

/** Ids from `first` on; the image's files belong to the host's root, which is nobody inside. */
function userNamespace(c: Json, first: number): void {
  c['linux'].namespaces.push({ type: 'user' })
  c['linux'].uidMappings = c['linux'].gidMappings = [{ containerID: 0, hostID: first, size: 65536 }]
  // mqueue and a new sysfs want the namespaces' owner, and what is root's stays root's: as Docker's remapping does it.
  c['process'].user = { uid: 0, gid: 0 }
}

type Random = (n: number) => number

function limits(r: Random): Json {
  const pick = <T>(list: readonly T[]): T => list[r(list.length)]!
  const memory = pick([32, 48, 200]) << 20
  const period = pick([20_000, 50_000, 100_000])
  const cpus = existsSync('/sys/fs/cgroup/cpuset/cpuset.cpus')
    ? readFileSync('/sys/fs/cgroup/cpuset/cpuset.cpus', 'utf8').trim()
    : '0'
  return {
    memory: {
      limit: memory,
      ...(r(2) ? { reservation: memory >> pick([0, 1, 2]) } : {}),
      ...(r(2) ? { swap: pick([memory, memory * 2, -1]) } : {}),
      ...(r(2) ? { swappiness: pick([0, 10, 100]) } : {}),
      ...(r(4) ? {} : { disableOOMKiller: true }),
    },
    cpu: {
      shares: pick([2, 100, 512, 4096]),
      period,
      quota: pick([period, 2 * period, period >> 1, 3 * period]),
      ...(r(2) ? { cpus: pick(['0', cpus]), mems: '0' } : {}),
    },
    pids: { limit: pick([20, 55, 1000, -1]) },
    ...(r(2)
      ? {
          blockIO: {
            throttleReadBpsDevice: [{ major: 7, minor: 0, rate: 1 << 20 }],
            throttleWriteIOPSDevice: [{ major: 7, minor: 0, rate: 99 }],
          },
        }
      : {}),
    devices: [
      { allow: false, access: 'rwm' },
      ...(r(2) ? [{ allow: true, type: 'c', major: 10, minor: 229, access: pick(['rwm', 'r', 'rw']) }] : []),
      ...(r(2) ? [{ allow: true, type: 'b', major: 7, access: 'm' }] : []),
    ],
  }
}

/** What the probe's own calls meet: errors of several numbers, conditions on arguments, and the harder actions. */
function filter(r: Random): Json {
  const pick = <T>(list: readonly T[]): T => list[r(list.length)]!
  const action = (): Json => {
    const name = pick([
      'SCMP_ACT_ERRNO',
      'SCMP_ACT_ERRNO',
      'SCMP_ACT_KILL_PROCESS',
      'SCMP_ACT_KILL',
      'SCMP_ACT_TRAP',
      'SCMP_ACT_LOG',
      'SCMP_ACT_ALLOW',
    ])
    return { action: name, ...(name === 'SCMP_ACT_ERRNO' && r(2) ? { errnoRet: pick([1, 13, 38, 95]) } : {}) }
  }
  const rules: Json[] = [
    { names: ['mkdir', 'mkdirat'], ...action() },
    { names: ['symlink', 'symlinkat'], ...action() },
    { names: ['mknod', 'mknodat'], ...action() },
    // chmod 0777: the second argument of chmod, the third one of fchmodat.
    {
      names: ['chmod'],
      ...action(),
      args: [{ index: 1, value: pick([0o777, 0o755]), op: pick(['SCMP_CMP_EQ', 'SCMP_CMP_NE', 'SCMP_CMP_GE']) }],
    },
    { names: ['kill'], ...action(), args: [{ index: 1, value: 0xff, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }] },
  ]
  return {
    defaultAction: 'SCMP_ACT_ALLOW',
    architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86'],
    // A rule that names the default action is refused by libseccomp of some versions, ignored by others: it says nothing.
    syscalls: rules.filter((rule) => rule['action'] !== 'SCMP_ACT_ALLOW' && r(3)),
    ...(r(8) ? {} : { flags: ['SECCOMP_FILTER_FLAG_LOG'] }), // runc 1.1 refuses any
  }
}

const capabilities = ['CHOWN', 'DAC_OVERRIDE', 'FOWNER', 'KILL', 'NET_ADMIN', 'NET_RAW', 'SETGID', 'SETUID', 'SYS_ADMIN', 'SYS_CHROOT', 'SYS_PTRACE'] // biome-ignore format: a list

/** A bundle with several settings changed at once, by seed. */
export function generated(seed: number): Change {
  return (c, dir) => {
    const r = random(seed)
    const pick = <T>(list: readonly T[]): T => list[r(list.length)]!
    const some = <T>(list: readonly T[]): T[] => list.filter(() => r(2))
    const p = c['process']
    const l = c['linux']
    const changes: (() => void)[] = [
      () =>
        (p.user = {
          uid: pick([0, 1, 1000, 65534]),
          gid: pick([0, 5, 1000]),
          additionalGids: some([5, 10, 20, 44]),
          umask: pick([0, 0o22, 0o77, 0o27]),
        }),
      () => (p.noNewPrivileges = r(2) === 1),
      () => {
        // Each set may hold what the kernel lets it: effective and ambient what is permitted, ambient also what is inheritable.
        const bounding = some(capabilities).map((n) => `CAP_${n}`)
        const permitted = r(2) ? bounding : some(bounding)
        const inheritable = r(2) ? some(bounding) : []
        const both = permitted.filter((n) => inheritable.includes(n))
        p.capabilities = {
          bounding,
          permitted,
          effective: r(2) ? permitted : some(permitted),
          inheritable,
          ambient: r(2) ? some(both) : [],
        }
      },
      () =>
        (p.rlimits = some([
          'NOFILE',
          'NPROC',
          'CORE',
          'STACK',
          'MEMLOCK',
          'FSIZE',
          'AS',
          'DATA',
          'RSS',
          'SIGPENDING',
          'MSGQUEUE',
          'LOCKS',
          'RTTIME',
          'CPU',
        ]).map((n) => {
          const small = ['NOFILE', 'NPROC', 'SIGPENDING'].includes(n)
          const value = small ? 500 : n === 'AS' || n === 'DATA' ? 1 << 30 : n === 'MSGQUEUE' ? 400_000 : 1 << 23
          return { type: `RLIMIT_${n}`, soft: r(2) ? value : value >> 1, hard: value }
        })),
      () => (p.oomScoreAdj = pick([0, 1, 100, 999])),
      () => p.env.push(...some(['A=1', 'B=', 'C=x=y', 'LONG='.padEnd(2000, 'z'), 'HOME=/tmp', 'A=2'])),
      () => (p.cwd = pick(['/', '/tmp', '/etc', '/new/deep/folder'])),
      () => (c['root'].readonly = r(2) === 1),
      () => (c['hostname'] = pick(['h', 'a-longer-name', 'x'.repeat(60)])),
      () => (c['domainname'] = pick(['d', 'example.org'])),
      () => Object.assign(l.resources, limits(r)),
      () => (l.resources.pids = { limit: pick([20, 55, 1000]) }),
      () => (l.maskedPaths = some([...l.maskedPaths, '/tmp', '/etc/passwd', '/not/there'])),
      () => (l.readonlyPaths = some([...l.readonlyPaths, '/bin', '/etc/passwd', '/not/there'])),
      () =>
        (l.namespaces = l.namespaces.filter(
          (n: Json) => pick(['network', 'ipc', 'cgroup', 'uts', 'pid']) !== n['type'],
        )),
      () => (l.rootfsPropagation = pick(['private', 'slave', 'rprivate', 'rslave', 'shared'])),
      () =>
        (l.devices = [
          {
            path: pick(['/dev/fuse', '/dev/deep/er']),
            type: 'c',
            major: 10,
            minor: 229,
            fileMode: pick([0o600, 0o666, 0o640]),
            uid: r(10),
            gid: r(10),
          },
          ...(r(2) ? [{ path: '/dev/loopy', type: 'b', major: 7, minor: 3, fileMode: 0o660, uid: 0, gid: 6 }] : []),
          ...(r(2) ? [{ path: '/dev/pipe', type: 'p', fileMode: 0o622, uid: 3, gid: 3 }] : []),
        ]),
      () => {
        for (const destination of some(['/mnt/a', '/mnt/b', '/tmp']))
          tmpfs(c, destination, [
            'size=1m',
            ...some([
              'noexec',
              'nosuid',
              'nodev',
              'ro',
              'noatime',
              'nodiratime',
              'strictatime',
              'sync',
              'mode=711',
              'nr_inodes=500',
              'uid=3',
              'gid=4',
            ]),
          ])
        if (r(3) === 0) tmpfs(c, '/etc', ['tmpcopyup', 'size=2m'])
      },
      () => {
        for (const destination of some(['/bound/x', '/bound/y'])) {
          const source = join(dir, `source-${destination.at(-1)}`)
          mkdirSync(source, { recursive: true })
          const recursive = r(2) === 1
          bind(c, source, destination, [
            recursive ? 'rbind' : 'bind',
            ...some(['ro', 'nosuid', 'nodev', 'noexec', 'noatime', 'relatime', 'nosymfollow']),
            ...(recursive ? some(['rro', 'rnosuid', 'rnodev', 'rnoexec']) : []),
            ...(r(2) ? [pick(['private', 'rprivate', 'slave', 'rslave', 'shared', 'rshared', 'unbindable'])] : []),
          ])
        }
      },
      () => {
        // Options in the other order, doubled, and turned round again: the last word holds.
        const m = pick(
          c['mounts'].filter((mount: Json) => ['proc', 'sysfs', 'mqueue', 'devpts'].includes(mount['type'])),
        ) as Json
        m['options'] = [...m['options'], ...some(['exec', 'suid', 'dev', 'ro', 'rw', 'noatime', 'relatime'])]
      },
      () => {
        const source = join(dir, 'a file')
        writeFileSync(source, 'x')
        bind(c, source, pick(['/etc/passwd', '/etc/new file', '/deep/er/file']), [
          'bind',
          ...some(['ro', 'nosuid', 'noexec']),
        ])
      },
      () =>
        (l.sysctl = Object.fromEntries(
          some([
            ['net.ipv4.ip_forward', '1'],
            ['kernel.shm_rmid_forced', '1'],
            ['net.ipv4.ping_group_range', '0 100'],
            ['kernel.msgmax', '4000'],
            ['fs.mqueue.msg_max', '20'],
            ['net.core.somaxconn', '77'],
          ]),
        )),
      () => hooks(c, dir, some(allHooks)),
      () => (l.seccomp = filter(r)),
      () => userNamespace(c, pick([0, 1000, 100_000])),
      () => (c['annotations'] = { 'org.example.key': 'value', 'org.example.other': '' }),
    ]
    for (let n = r(7) + 2; n > 0; n--) pick(changes)()
    // A sysctl of a namespace that the container shares is the host's: all three refuse it. A name needs its namespace too.
    const types = l.namespaces.map((n: Json) => n['type'])
    if (!types.includes('network') || !types.includes('ipc')) delete l.sysctl
    if (!types.includes('uts')) {
      delete c['hostname']
      delete c['domainname']
    }
    // sysfs and mqueue of a user namespace are its own only with the namespaces they show.
    if (types.includes('user') && !(types.includes('network') && types.includes('ipc')))
      l.namespaces = l.namespaces.filter((n: Json) => n['type'] !== 'user')
    if (!l.namespaces.some((n: Json) => n['type'] === 'user')) {
      delete l.uidMappings
      delete l.gidMappings
    }
    if (p.capabilities.bounding === undefined) p.capabilities.bounding = defaultCaps
  }
}
