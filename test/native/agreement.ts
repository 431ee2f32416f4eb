// The same bundle by shoal-runtime, crun and runc, looked at from inside.
import { chmodSync, existsSync, mkdirSync, readFileSync, readlinkSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Change, hookTrace } from './bundles.js'
import { bin, cgroupFolders, exec, makeConfig, makeImage } from './kit.js'

/** What a bundle's settings look like from inside. A line "== NAME" begins each part. */
const probe = `
  part() { echo "== $1"; }
  part ids; id -u; id -g; id -G; pwd; hostname; umask; ulimit -n
  part env; env | grep -v -E '^(SHLVL|PWD|OLDPWD|_)=' | sort
  part status; grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status; cat /proc/self/oom_score_adj
  part limits; cat /proc/self/limits
  part maps; cat /proc/self/uid_map /proc/self/gid_map
  part namespaces; for n in cgroup ipc mnt net pid time user uts; do echo "$n $(readlink /proc/self/ns/$n)"; done
  part mounts; cat /proc/self/mountinfo
  part dev; ls -lR /dev | grep -v '^total' | tr -s ' ' | cut -d' ' -f1,3,4,5,6; ls -R /dev; readlink /dev/fd /dev/ptmx /dev/stdin
  part kernel; for f in kernel/domainname kernel/shm_rmid_forced kernel/msgmax fs/mqueue/msg_max net/ipv4/ip_forward net/ipv4/ping_group_range net/core/somaxconn; do
    echo "$f $(cat /proc/sys/$f 2>&1)"
  done
  ls /proc/self/fd | wc -l; uname -m
  part cgroup; sort /proc/self/cgroup
  for f in memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes memory/memory.memsw.limit_in_bytes memory/memory.swappiness \\
      memory/memory.oom_control pids/pids.max cpu/cpu.shares cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpu/cpu.rt_runtime_us cpuset/cpuset.cpus \\
      cpuset/cpuset.mems blkio/blkio.throttle.read_bps_device blkio/blkio.throttle.write_iops_device freezer/freezer.state; do
    echo "$f $(grep -v '^oom_kill ' /sys/fs/cgroup/$f 2>&1)"
  done
  part devices; sort /sys/fs/cgroup/devices/devices.list
  part files; ls -ld /tmp /etc/passwd /bound/* /mnt/* /deep/er/file /new/deep 2>&1 | tr -s ' ' | cut -d' ' -f1,3,4; cat /etc/passwd | head -n 2
  part calls; mkdir /tmp/d 2>&1; echo "mkdir $?"; chmod 0777 /bin/busybox 2>&1; echo "chmod $?"; ln -s a /tmp/l 2>&1; echo "symlink $?"
  mknod /tmp/n p 2>&1; echo "mknod $?"; (kill -0 $$) 2>&1; echo "kill $?"; touch /bound/x/t 2>&1; echo "touch $?"
  part end`

type Parts = Map<string, string[]>

/** mountinfo without what differs from mount to mount: what lies where, of what, with which options, shared with others or not. */
function mountLine(line: string, dir: string): string {
  const [left, right] = line.replaceAll(dir, 'BUNDLE').split(' - ') as [string, string]
  const [, , , root, at, options, ...tags] = left.split(' ')
  const shared = tags.map((t) => t.split(':')[0])
  // A masked file is the null device: of the container's /dev or of the host's, read-only or not, it takes no byte either way. So is
  // a device that a user namespace gets by a bind: crun forbids to execute it.
  if (/^\/(null|zero|full|random|urandom|tty)$/.test(root!)) return [at, root, ...shared].join(' ')
  // Read-only paths: crun drops the mount's other options, which the mount below still has.
  if (/^\/proc\//.test(at!)) return [at, root, options!.split(',')[0], ...shared].join(' ')
  // What covers masked folders is one tmpfs with room for nothing here, one each elsewhere.
  if (options === 'ro,relatime' && /^tmpfs \S+ (rw,size=[04]k.*|ro(,.*)?)$/.test(right))
    return [at, 'masked', ...shared].join(' ')
  // The mode of a tmpfs may be given when it is mounted or set afterwards: it is compared as the folder shows it.
  // Whether a read-only mount's file system is read-only too makes no difference inside.
  const what =
    at === '/' ? '' : right.replace(/,mode=\d+/, '').replace(/^(proc|sysfs|mqueue|devpts) (\S+) r[ow]/, '$1 $2')
  return [at, root, options, ...shared, what].join(' ')
}

/** Where all are known to differ, and why: such lines say nothing. */
const apart: Record<string, RegExp> = {
  // v1 hierarchies: crun leaves out the named one, runc the unified one; the order and the tmpfs's size are their own.
  mounts: /^\/sys\/fs\/cgroup/,
  // Each adds its own customary devices (tun, console).
  devices: /^[cb] (\*|5:1|10:200|136:\*)/,
  // /dev/core: crun makes it where the host has /proc/kcore.
  dev: /^core$|^lrwxrwxrwx \S+ \S+ 11 /,
  // For users whom the image's passwd does not name; it may not be readable as such.
  env: /^HOME=\/$/,
  cgroup: /name=systemd|^0::|^\d+:hugetlb/,
}

/** What one of the others leaves undone: where only it took the bundle, nothing can be said. */
const unheard: Record<string, RegExp> = {
  // 1.1 knows no domainname, gives a tmpfs its place's mode whatever was asked for, does not share a root, and tells a poststart hook
  // of a container that is still "created".
  runc: /^kernel: kernel\/domainname|^files: d|^mounts: (\/ |.* shared )|^hooks: poststart/,
  // Adds nosuid, nodev and noexec of its own to these; in a user namespace binds the host's /sys, and lets go of options of binds.
  // Device nodes that it makes there lose the bits of its own umask, and their tmpfs may be executed from.
  // It tells createRuntime and createContainer hooks of a container that is "created" already.
  crun: /^mounts: \/(proc|sys|dev\/(pts|fuse|loopy)|bound\/.|deep\/er\/file) |^dev: [bc]r|^hooks: create/,
}

function parts(text: string, dir: string, trace: string): Parts {
  const found: Parts = new Map()
  let lines: string[] = []
  let name = ''
  for (const line of `${text}\n== hooks\n${trace}`.split('\n')) {
    const head = line.match(/^== (\w+)$/)
    if (head) {
      name = head[1]!
      lines = []
      found.set(name, lines)
    } else if (line.trim()) {
      let shown = name === 'mounts' ? mountLine(line, dir) : line.trim()
      if (name === 'namespaces') {
        const [kind, link] = shown.split(' ') as [string, string]
        shown = `${kind} ${link === readlinkSync(`/proc/self/ns/${kind}`) ? "the host's" : 'its own'}`
      }
      if (!apart[name]?.test(shown)) lines.push(shown)
    }
  }
  return found
}

let count = 0

export interface Disagreement {
  /** "PART: LINE" of what shoal-runtime shows and neither of the others does. */
  readonly differences: string[]
  /** What both others show and shoal-runtime does not. */
  readonly missing: string[]
  /** Who refused the bundle that another one took. */
  readonly errors: string
}

/** All three fields are empty when shoal-runtime shows what crun and runc agree on, and elsewhere what one of them shows. */
export async function disagreement(base: string, change: Change): Promise<Disagreement> {
  const results: Record<string, Parts> = {}
  chmodSync(base, 0o755) // root of a user namespace has to reach the bundle
  const refused: Record<string, string> = {}
  for (const program of ['shoal', 'crun', 'runc']) {
    const id = `ag${process.pid}x${++count}`
    const dir = join(base, id)
    mkdirSync(dir)
    makeImage(join(dir, 'rootfs'))
    const config = makeConfig(['/bin/sh', '-c', probe])
    change(config, dir)
    config['linux'].cgroupsPath = `/native-ag-${id}`
    writeFileSync(join(dir, 'config.json'), JSON.stringify(config))
    // crun 1.8 refuses a host whose v2 tree has a controller beside v1 hierarchies: it gets a view without that tree.
    const hide = 'mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified; exec "$@"'
    const args = ['--root', join(base, `state-${program}`), 'run', '--bundle', dir, id]
    const r =
      program === 'crun'
        ? await exec('unshare', ['-m', 'sh', '-c', hide, 'sh', 'crun', ...args])
        : await exec(program === 'shoal' ? bin('shoal-runtime') : program, args)
    const trace = join(dir, hookTrace)
    results[program] = parts(
      r.stdout.replaceAll(id, 'ID'),
      dir.replaceAll(id, 'ID'),
      existsSync(trace) ? readFileSync(trace, 'utf8') : '',
    )
    // crun leaves an empty group in the named hierarchy. Of shoal-runtime nothing may be left.
    const left = cgroupFolders(`/native-ag-${id}`)
    for (const folder of left) rmdirSync(folder)
    if (program === 'shoal' && left.length) throw new Error(`shoal-runtime left ${left.join(' ')}`)
    if (!results[program].has('end')) refused[program] = `${r.code} ${r.stderr.trim()}`
  }
  const unwilling = Object.keys(refused)
  // What all three refuse (this host may not raise a limit, say) they agree on; so they do when one of the others refuses it like us.
  if (refused['shoal'] && unwilling.length > 1) return { differences: [], missing: [], errors: '' }
  const { shoal, crun, runc } = results as Record<'shoal' | 'crun' | 'runc', Parts>
  const willing = ['crun', 'runc'].filter((p) => !refused[p])
  const others = willing.map((p) => ({ crun, runc })[p as 'crun' | 'runc'])
  const silent = (line: string): boolean => willing.length === 1 && unheard[willing[0]!]!.test(line)
  const differences: string[] = []
  const missing: string[] = []
  for (const [name, own] of refused['shoal'] ? [] : shoal) {
    for (const line of own)
      if (others.length && !others.some((o) => o.get(name)!.includes(line))) differences.push(`${name}: ${line}`)
    for (const line of others[0]?.get(name) ?? [])
      if (others.every((o) => o.get(name)!.includes(line)) && !own.includes(line)) missing.push(`${name}: ${line}`)
  }
  return {
    differences: differences.filter((l) => !silent(l)),
    missing: missing.filter((l) => !silent(l)),
    errors: refused['shoal'] ? `shoal: ${refused['shoal']}` : '',
  }
}
