// Control groups: the values that a linux.resources document comes to in files of v1 and of v2, by the formulas that runc and crun use,
// and a container on a host that has nothing but the v2 tree.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import {
  bin,
  canRun,
  cgroupFolders,
  controllerMount,
  eventually,
  exec,
  type Json,
  makeConfig,
  makeImage,
  type Output,
  traces,
} from './kit.js'
import { run, runtimeKit, sh } from './runtime-kit.js'

const kit = runtimeKit('cgroup', { ownRoots: true })
let count = 0

/** Files of a made-up group; a limit goes only into a file that is there, as on cgroupfs. */
async function values(
  version: 'v1' | 'v2',
  controllers: string,
  files: string[],
  resources: Json,
): Promise<Record<string, string> | string> {
  const dir = join(kit.base, `group${++count}`)
  mkdirSync(dir)
  for (const f of files) writeFileSync(join(dir, f), '')
  const document = join(kit.base, `resources${count}.json`)
  writeFileSync(document, JSON.stringify(resources))
  const r = await exec(bin('cgroup-values'), [version, controllers, dir, document])
  if (r.code !== 0) return r.stderr.trim()
  return Object.fromEntries(
    readdirSync(dir)
      .map((f) => [f, readFileSync(join(dir, f), 'utf8')] as const)
      .filter(([, text]) => text !== ''),
  )
}

const v2 = (controller: string, files: string[], resources: Json): ReturnType<typeof values> =>
  values('v2', controller, files, resources)
const MiB = 1 << 20

test('v2: shares become a weight', async (t) => {
  for (const [shares, weight] of [
    [2, 1],
    [3, 1],
    [100, 4],
    [512, 20],
    [1024, 39],
    [4096, 157],
    [262144, 10000],
    [1, 1],
    [300000, 10000],
  ] as const)
    t.deepEqual(await v2('cpu', ['cpu.weight'], { cpu: { shares } }), { 'cpu.weight': String(weight) }, String(shares))
  t.deepEqual(await v2('cpu', ['cpu.weight', 'cpu.idle'], { cpu: { shares: 1024, idle: 1 } }), { 'cpu.idle': '1' })
})

test('v2: bandwidth, sets and processes', async (t) => {
  const files = ['cpu.max', 'cpu.max.burst', 'cpuset.cpus', 'cpuset.mems', 'pids.max']
  const of = (cpu: Json, pids?: number): ReturnType<typeof values> =>
    v2('cpu,cpuset,pids', files, { cpu, ...(pids === undefined ? {} : { pids: { limit: pids } }) })
  t.deepEqual(await of({ quota: 50_000, period: 20_000 }), { 'cpu.max': '50000 20000' })
  t.deepEqual(await of({ quota: 50_000 }), { 'cpu.max': '50000 100000' })
  t.deepEqual(await of({ quota: -1, period: 20_000 }), { 'cpu.max': 'max 20000' })
  t.deepEqual(await of({ period: 20_000 }), { 'cpu.max': 'max 20000' })
  t.deepEqual(await of({ quota: 50_000, burst: 3000 }), { 'cpu.max': '50000 100000', 'cpu.max.burst': '3000' })
  t.deepEqual(await of({ cpus: '0-1', mems: '0' }), { 'cpuset.cpus': '0-1', 'cpuset.mems': '0' })
  t.deepEqual(await of({}, 77), { 'pids.max': '77' })
  t.deepEqual(await of({}, 0), { 'pids.max': 'max' })
  t.deepEqual(await of({}, -1), { 'pids.max': 'max' })
})

test('v2: memory without swap is counted apart', async (t) => {
  const of = (memory: Json): ReturnType<typeof values> =>
    v2('memory', ['memory.max', 'memory.swap.max', 'memory.low'], { memory })
  t.deepEqual(await of({ limit: 64 * MiB }), { 'memory.max': String(64 * MiB) })
  t.deepEqual(await of({ limit: 64 * MiB, swap: 96 * MiB }), {
    'memory.max': String(64 * MiB),
    'memory.swap.max': String(32 * MiB),
  })
  t.deepEqual(await of({ limit: 64 * MiB, swap: 64 * MiB }), { 'memory.max': String(64 * MiB), 'memory.swap.max': '0' })
  t.deepEqual(await of({ limit: 64 * MiB, swap: -1 }), { 'memory.max': String(64 * MiB), 'memory.swap.max': 'max' })
  t.deepEqual(await of({ limit: -1 }), { 'memory.max': 'max', 'memory.swap.max': 'max' })
  t.deepEqual(await of({ reservation: 5 * MiB }), { 'memory.low': String(5 * MiB) })
  t.regex((await of({ limit: 64 * MiB, swap: MiB })) as string, /memory.swap is smaller than memory.limit/)
  t.regex((await of({ swap: MiB })) as string, /memory.swap needs memory.limit/)
  t.deepEqual(await v2('memory', ['memory.max'], { memory: { limit: MiB, swap: 2 * MiB } }), {
    'memory.max': String(MiB),
  }) // no swap at all
})

test('v2: blkio becomes io', async (t) => {
  const weight = (n: number, file: string): ReturnType<typeof values> => v2('io', [file], { blockIO: { weight: n } })
  for (const [n, w] of [
    [10, 1],
    [100, 910],
    [500, 4950],
    [1000, 10000],
  ] as const)
    t.deepEqual(await weight(n, 'io.weight'), { 'io.weight': `default ${w}` }, String(n))
  t.deepEqual(await weight(500, 'io.bfq.weight'), { 'io.bfq.weight': '500' })
  for (const [key, name] of [
    ['throttleReadBpsDevice', 'rbps'],
    ['throttleWriteBpsDevice', 'wbps'],
    ['throttleReadIOPSDevice', 'riops'],
    ['throttleWriteIOPSDevice', 'wiops'],
  ] as const) {
    t.deepEqual(await v2('io', ['io.max'], { blockIO: { [key]: [{ major: 8, minor: 16, rate: 4096 }] } }), {
      'io.max': `8:16 ${name}=4096`,
    })
    t.deepEqual(await v2('io', ['io.max'], { blockIO: { [key]: [{ major: 8, minor: 16, rate: 0 }] } }), {
      'io.max': `8:16 ${name}=max`,
    })
  }
})

test('v2: huge pages, rdma and files by name', async (t) => {
  const limit = 4 * MiB
  t.deepEqual(await v2('hugetlb', ['hugetlb.2MB.max'], { hugepageLimits: [{ pageSize: '2MB', limit }] }), {
    'hugetlb.2MB.max': String(limit),
  })
  t.deepEqual(await v2('rdma', ['rdma.max'], { rdma: { mlx5_1: { hcaHandles: 3, hcaObjects: 10000 } } }), {
    'rdma.max': 'mlx5_1 hca_handle=3 hca_object=10000',
  })
  t.deepEqual(
    await v2('memory', ['memory.high', 'io.latency'], {
      unified: { 'memory.high': '1000', 'io.latency': '8:0 target=10' },
    }),
    { 'memory.high': '1000', 'io.latency': '8:0 target=10' },
  )
})

test('v1: what goes into which file', async (t) => {
  const v1 = (controller: string, files: string[], resources: Json): ReturnType<typeof values> =>
    values('v1', controller, files, resources)
  t.deepEqual(
    await v1('blkio', ['blkio.weight', 'blkio.leaf_weight', 'blkio.weight_device'], {
      blockIO: { weight: 500, leafWeight: 300, weightDevice: [{ major: 8, minor: 0, weight: 20 }] },
    }),
    { 'blkio.weight': '500', 'blkio.leaf_weight': '300', 'blkio.weight_device': '8:0 20' },
  )
  t.deepEqual(
    await v1('blkio', ['blkio.bfq.weight', 'blkio.bfq.weight_device'], {
      blockIO: { weight: 500, weightDevice: [{ major: 8, minor: 0, weight: 20 }] },
    }),
    { 'blkio.bfq.weight': '500', 'blkio.bfq.weight_device': '8:0 20' },
  )
  t.deepEqual(
    await v1('hugetlb', ['hugetlb.1GB.limit_in_bytes'], { hugepageLimits: [{ pageSize: '1GB', limit: 2 ** 30 }] }),
    { 'hugetlb.1GB.limit_in_bytes': String(2 ** 30) },
  )
  t.deepEqual(
    await v1('net_cls,net_prio', ['net_cls.classid', 'net_prio.ifpriomap'], {
      network: { classID: 0x100001, priorities: [{ name: 'eth0', priority: 5 }] },
    }),
    { 'net_cls.classid': '1048577', 'net_prio.ifpriomap': 'eth0 5' },
  )
  t.deepEqual(
    await v1('cpu', ['cpu.rt_period_us', 'cpu.rt_runtime_us', 'cpu.idle'], {
      cpu: { realtimePeriod: 1000, realtimeRuntime: 900, idle: 1 },
    }),
    { 'cpu.rt_period_us': '1000', 'cpu.rt_runtime_us': '900', 'cpu.idle': '1' },
  )
  const both = ['memory.limit_in_bytes', 'memory.memsw.limit_in_bytes']
  t.deepEqual(await v1('memory', both, { memory: { limit: -1 } }), { [both[0]!]: '-1', [both[1]!]: '-1' })
  t.deepEqual(
    await v1('memory', ['memory.kmem.tcp.limit_in_bytes', 'memory.oom_control'], {
      memory: { kernelTCP: 9000, disableOOMKiller: true },
    }),
    { 'memory.kmem.tcp.limit_in_bytes': '9000', 'memory.oom_control': '1' },
  )
})

test('a limit without its controller is an error that names both', async (t) => {
  for (const [resources, message] of [
    [{ memory: { limit: MiB } }, /memory/],
    [{ cpu: { shares: 100 } }, /cpu.shares.*'cpu'/],
    [{ cpu: { quota: 1000 } }, /quota.*'cpu'/],
    [{ cpu: { cpus: '0' } }, /cpu.cpus.*'cpuset'/],
    [{ pids: { limit: 5 } }, /pids/],
    [{ blockIO: { weight: 100 } }, /blockIO.*'io'/],
    [{ hugepageLimits: [{ pageSize: '2MB', limit: 1 }] }, /hugepageLimits.*'hugetlb'/],
    [{ rdma: { x: { hcaHandles: 1 } } }, /rdma/],
    [{ network: { classID: 1 } }, /'net_cls'/],
    [{ network: { priorities: [{ name: 'eth0', priority: 1 }] } }, /'net_prio'/],
  ] as const)
    t.regex((await v2('none', [], resources)) as string, message)
  for (const limit of [0, -1]) t.deepEqual(await v2('none', [], { pids: { limit } }), {})
  for (const [key, message] of [
    ['NO-VALUE', /not the form CONTROLLER.VALUE `NO-VALUE`/],
    ['foo.bar', /controller `foo` is not available/],
  ] as const)
    t.regex((await v2('none', [], { unified: { [key]: '1' } })) as string, message)
})

// --- the end of what is in a group ------------------------------------------------------------------------------------------

/** Whatever a test leaves in a group. */
const clean = (cgroup: string): void => {
  for (const folder of cgroupFolders(cgroup)) {
    if (existsSync(join(folder, 'cgroup.kill'))) writeFileSync(join(folder, 'cgroup.kill'), '1')
    if (existsSync(join(folder, 'freezer.state'))) writeFileSync(join(folder, 'freezer.state'), 'THAWED')
  }
}

const onV1 = canRun && !controllerMount('freezer').v2 ? run : test.skip
onV1('groups that a container makes, hides by their name and freezes, end with it', async (t) => {
  const b = kit.bundle(
    sh(
      'd=/sys/fs/cgroup/freezer/.hidden/deep; mkdir -p $d; sleep 1000 & echo $! > $d/tasks; echo FROZEN > $d/freezer.state; echo done > /ready; exec sleep 1000',
      (c) => {
        for (const m of c['mounts']) if (m.type === 'cgroup') m.options = ['nosuid', 'noexec', 'nodev']
      },
    ),
  )
  t.teardown(() => {
    for (const g of ['/.hidden/deep', '/.hidden', '']) clean(b.cgroup + g)
  })
  t.is((await kit.quietly('run', '--detach', '--bundle', b.dir, b.id)).code, 0)
  await eventually(() => existsSync(join(b.rootfs, 'ready')), 'the frozen group')
  const deleted = await kit.call('delete', '--force', b.id)
  t.is(deleted.code, 0, deleted.stderr)
  await eventually(() => traces(b.cgroup).length === 0, 'the end of all processes')
  t.deepEqual(cgroupFolders(b.cgroup), [])
})

// --- a host with v2 alone ---------------------------------------------------------------------------------------------------

/** In a mount namespace of its own, where the only cgroup mount is the v2 tree. */
const onlyV2 = `for m in $(grep -E ' - cgroup2? ' /proc/self/mountinfo | cut -d' ' -f5); do umount "$m" || exit 9; done
  mountpoint -q /sys/fs/cgroup && umount /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup && exec "$@"`

run('v2 alone: born in its group, devices by program, freezer, exec, and all gone afterwards', async (t) => {
  const dir = join(kit.base, 'bundle')
  mkdirSync(dir)
  const config = makeConfig(['/bin/sleep', '1000'])
  config['root'].path = makeImage(join(dir, 'rootfs'))
  const name = `native-v2-${process.pid}`
  const group = `/sys/fs/cgroup/${name}/one`
  config['linux'].cgroupsPath = `/${name}/one`
  const device = (path: string, minor: number): Json => ({ path, type: 'c', major: 10, minor, fileMode: 0o666 })
  config['linux'].devices = [device('/dev/denied', 229), device('/dev/allowed', 200)]
  config['linux'].resources = {
    devices: [
      { allow: false, access: 'rwm' },
      { allow: true, type: 'c', major: 10, minor: 200, access: 'rw' },
    ],
    unified: { 'cgroup.max.depth': '3' },
  }
  writeFileSync(join(dir, 'config.json'), JSON.stringify(config))
  const alone = (...command: string[]): Promise<Output> => exec('unshare', ['-m', 'sh', '-c', onlyV2, 'sh', ...command])
  const call = (...args: string[]): Promise<Output> =>
    alone(bin('shoal-runtime'), '--root', join(kit.base, 'state'), ...args)
  t.teardown(() => call('delete', '--force', 'one'))
  const look = async (file: string): Promise<string> => (await alone('cat', `${group}/${file}`)).stdout.trim()
  // The container keeps the runtime's standard streams: they go to files.
  const started = await alone(
    'sh',
    '-c',
    '"$@" < /dev/null > /dev/null 2> "$0"',
    join(dir, 'err'),
    bin('shoal-runtime'),
    '--root',
    join(kit.base, 'state'),
    'run',
    '--detach',
    '--bundle',
    dir,
    'one',
  )
  t.is(started.code, 0, readFileSync(join(dir, 'err'), 'utf8'))
  const inside =
    'grep ^0: /proc/self/cgroup; for d in denied allowed; do ( : < /dev/$d ) 2>/dev/null && echo $d; done; head -c 1 /dev/zero | wc -c; cat /sys/fs/cgroup/cgroup.max.depth'
  const r = await call('exec', 'one', '/bin/sh', '-c', inside)
  t.is(r.stdout, '0::/\nallowed\n1\n3\n', r.stderr)
  const { pid } = JSON.parse((await call('state', 'one')).stdout) as { pid: number }
  t.is(await look('cgroup.procs'), String(pid))
  t.regex(readFileSync(`/proc/${pid}/cgroup`, 'utf8'), new RegExp(`^0::/${name}/one$`, 'm'))
  // The first process goes into a group below and hands controllers down: nobody can join the container's own group any more.
  const below = `mkdir ${group}/sub; echo ${pid} > ${group}/sub/cgroup.procs; for c in $(cat ${group}/cgroup.controllers); do echo +$c > ${group}/cgroup.subtree_control; done`
  t.is((await alone('sh', '-c', below)).stderr, '')
  t.regex((await call('exec', 'one', '/bin/cat', '/proc/self/cgroup')).stdout, /^0::\/sub$/m)
  t.regex((await call('exec', '--cgroup', '/', 'one', '/bin/true')).stderr, /Resource busy/)
  t.is((await call('pause', 'one')).code, 0)
  t.is(await look('cgroup.freeze'), '1')
  t.regex((await call('exec', 'one', '/bin/true')).stderr, /is paused/)
  t.is((await call('resume', 'one')).code, 0)
  // Other rules take the place of the earlier ones.
  const rules = join(dir, 'rules')
  writeFileSync(
    rules,
    JSON.stringify({
      devices: [
        { allow: false, access: 'rwm' },
        { allow: true, type: 'c', major: 10, minor: 229, access: 'r' },
      ],
    }),
  )
  t.is((await call('update', '--resources', rules, 'one')).code, 0)
  t.is(
    (
      await call(
        'exec',
        'one',
        '/bin/sh',
        '-c',
        'for d in denied allowed; do ( : < /dev/$d ) 2>/dev/null && echo $d; done',
      )
    ).stdout,
    'denied\n',
  )
  t.is((await call('pause', 'one')).code, 0)
  const deleted = await call('delete', '--force', 'one')
  t.is(deleted.code, 0, deleted.stderr)
  t.is((await alone('test', '-e', group)).code, 1)
  await eventually(() => traces(name).length === 0, 'the end of all processes')
  t.false(existsSync(join(kit.base, 'state', 'one')))
  const v2Mount = readFileSync('/proc/self/mountinfo', 'utf8').match(/^.* (\S+) \S+ .*- cgroup2 .*$/m)?.[1]
  if (v2Mount) rmdirSync(join(v2Mount, name))
})
