// The same bundle by shoal-runtime, crun and runc, looked at from inside.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { random } from './bpf.js'
import { bin, exec, type Json, makeConfig, makeImage } from './kit.js'

const probe = `
  id -u; id -g; id -G; pwd; hostname; umask; ulimit -n; env | grep -v -E '^(SHLVL|PWD|OLDPWD|_)=' | sort
  grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status
  cat /proc/self/oom_score_adj
  cut -d' ' -f5,6 /proc/self/mountinfo | sort
  ls -l /dev | cut -c1-10 | sort; ls /dev | sort
  readlink /dev/fd /dev/ptmx /dev/stdin
  cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward; ls /proc/self/fd | wc -l
  cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null; cat /sys/fs/cgroup/devices/devices.list | sort`

export const variants: [string, (c: Json) => void][] = [
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
  [
    'tmpfs',
    (c) =>
      c['mounts'].push({
        destination: '/run/x',
        type: 'tmpfs',
        source: 'tmpfs',
        options: ['size=1m', 'mode=700', 'noexec'],
      }),
  ],
]

/** Where the three are known to differ, and why; a line is compared only after this. */
function normalise(text: string): string[] {
  return text
    .split('\n')
    .map((l) => l.trim())
    .filter((l) => !/\/sys\/fs\/cgroup/.test(l)) // v1 hierarchies: crun leaves out the named one, runc the unified one
    .filter((l) => !/^[cb] \d+:\d+|^[cb] \*:|^[cb] \d+:\*/.test(l)) // devices.list: each adds its own customary devices (tun, console)
    .filter((l) => !/^(lrwxrwxrwx|core)$/.test(l)) // /dev/core: made where the host has /proc/kcore
    .filter((l) => l !== '')
}

let count = 0

/** What shoal-runtime shows that neither of the others does, and what it lacks that both show. Both lists should be empty. */
export async function disagreement(
  base: string,
  change: (c: Json) => void,
): Promise<{ differences: string[]; missing: string[]; errors: string }> {
  const results: Record<string, string[]> = {}
  let errors = ''
  let refused = 0
  for (const program of ['shoal', 'crun', 'runc']) {
    const id = `ag${process.pid}x${++count}`
    const dir = join(base, id)
    mkdirSync(dir)
    makeImage(join(dir, 'rootfs'))
    const config = makeConfig(['/bin/sh', '-c', probe], change)
    config['linux'].cgroupsPath = `/native-ag-${id}`
    writeFileSync(join(dir, 'config.json'), JSON.stringify(config))
    // crun 1.8 refuses a host whose v2 tree has a controller beside v1 hierarchies: it gets a view without that tree.
    const hide = 'mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified; exec "$@"'
    const args = ['--root', join(base, `state-${program}`), 'run', '--bundle', dir, id]
    const r =
      program === 'crun'
        ? await exec('unshare', ['-m', 'sh', '-c', hide, 'sh', 'crun', ...args])
        : await exec(program === 'shoal' ? bin('shoal-runtime') : program, args)
    if (r.code !== 0) refused++
    if (r.code !== 0) errors += `${program}: ${r.code} ${r.stderr}\n`
    results[program] = normalise(r.stdout)
  }
  // What all three refuse (this host may not raise a limit, say) they agree on.
  if (refused === 3) return { differences: [], missing: [], errors: '' }
  const { shoal: own, crun, runc } = results as Record<'shoal' | 'crun' | 'runc', string[]>
  for (const [program, lines] of Object.entries(results))
    if (lines.length <= 20) errors += `${program} shows ${lines.length} lines only\n`
  return {
    differences: own.filter((l) => !crun.includes(l) && !runc.includes(l)),
    missing: crun.filter((l) => runc.includes(l) && !own.includes(l)),
    errors,
  }
}

const capabilities = ['CHOWN', 'DAC_OVERRIDE', 'FOWNER', 'KILL', 'NET_ADMIN', 'NET_RAW', 'SETGID', 'SETUID', 'SYS_ADMIN', 'SYS_CHROOT', 'SYS_PTRACE'] // biome-ignore format: a list

/** A bundle with several settings changed at once, by seed. */
export function generated(seed: number): (c: Json) => void {
  return (c) => {
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
        const set = some(capabilities).map((n) => `CAP_${n}`)
        p.capabilities = { bounding: set, effective: set, permitted: set }
        if (r(2)) p.capabilities.inheritable = p.capabilities.ambient = some(set)
      },
      () =>
        (p.rlimits = some(['NOFILE', 'NPROC', 'CORE', 'STACK', 'MEMLOCK', 'FSIZE'])
          .map((n) => ({
            type: `RLIMIT_${n}`,
            soft: n === 'NOFILE' || n === 'NPROC' ? 500 : 1 << 23,
            hard: n === 'NOFILE' || n === 'NPROC' ? 900 : 1 << 23,
          }))
          .concat(r(2) ? [{ type: 'RLIMIT_CPU', soft: 100, hard: 200 }] : [])),
      () => (p.oomScoreAdj = pick([0, 1, 100, 999])),
      () => p.env.push(...some(['A=1', 'B=', 'C=x=y', 'LONG='.padEnd(2000, 'z'), 'HOME=/tmp'])),
      () => (p.cwd = pick(['/', '/tmp', '/etc', '/new/deep/folder'])),
      () => (c['root'].readonly = r(2) === 1),
      () => (c['hostname'] = pick(['h', 'a-longer-name', 'x'.repeat(60)])),
      () => (c['domainname'] = pick(['d', 'example.org'])),
      () =>
        Object.assign(l.resources, {
          cpu: { shares: pick([2, 100, 512, 4096]) },
          memory: { limit: pick([32, 48, 200]) << 20 },
        }),
      () => (l.resources.pids = { limit: pick([20, 55, 1000]) }),
      () => (l.maskedPaths = some(l.maskedPaths)),
      () => (l.readonlyPaths = some(l.readonlyPaths)),
      () => (l.namespaces = l.namespaces.filter((n: Json) => pick(['network', 'ipc', 'cgroup']) !== n['type'])),
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
        ]),
      () => {
        for (const destination of some(['/mnt/a', '/mnt/b', '/tmp']))
          c['mounts'].push({
            destination,
            type: 'tmpfs',
            source: 'tmpfs',
            options: ['size=1m', ...some(['noexec', 'nosuid', 'nodev', 'ro', 'noatime', 'mode=711'])],
          })
      },
      () => {
        for (const destination of some(['/bound/x', '/bound/y']))
          c['mounts'].push({
            destination,
            type: 'bind',
            source: '/usr/share',
            options: [
              pick(['bind', 'rbind']),
              ...some(['ro', 'nosuid', 'nodev', 'noexec']),
              ...(r(2) ? [pick(['private', 'rprivate', 'slave', 'rslave'])] : []),
            ],
          })
      },
      () =>
        (l.sysctl = Object.fromEntries(
          some([
            ['net.ipv4.ip_forward', '1'],
            ['kernel.shm_rmid_forced', '1'],
            ['net.ipv4.ping_group_range', '0 100'],
          ]),
        )),
    ]
    for (let n = r(7) + 2; n > 0; n--) pick(changes)()
    // A sysctl of a namespace that the container shares is the host's: all three refuse it.
    const types = l.namespaces.map((n: Json) => n['type'])
    if (!types.includes('network') || !types.includes('ipc')) delete l.sysctl
  }
}
