// Every command for one host that cli.md ranks must, by the stock docker commands 28 and 20.10, with a look at what it did.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { cgroupRoots, netnsPath } from '../../src/lab/kernel.js'
import { type Lab, type LabHost, lab, until, webImage } from './support.js'
import { Walk } from './walk-kit.js'

const scratch = '/tmp/shoal-docker-walk'

const walk = new Walk()
let l: Lab
let m1: LabHost
let w1: LabHost
let image: string

test.before(async () => {
  mkdirSync(scratch, { recursive: true })
  l = await lab('idw', '10.92.4', 1, 1)
  ;[m1, w1] = l.plan.hosts as [LabHost, LabHost]
  image = await webImage(l, m1)
  await walk.start(l)
})
test.after.always(async () => {
  await walk.stop()
  await l?.down()
  rmSync(scratch, { recursive: true, force: true })
})

const fetch = (h: LabHost, url: string): Promise<string> => l.inNetns(h.netns, ['curl', '-fsS', '-m', '5', url])

/** A container's file of a v1 controller, or of v2. */
function limit(h: LabHost, id: string, v1: string, v2: string): string {
  for (const root of cgroupRoots())
    for (const file of [v1, v2]) {
      const path = join(root, h.cgroup, 'containers', id, file)
      if (existsSync(path)) return readFileSync(path, 'utf8').trim()
    }
  throw new Error(`no ${v1} nor ${v2} of container ${id}`)
}

walk.step('images', async (t, c, w) => {
  const repo = `${l.plan.registry}/walk`
  await c.ok('tag', image, `${repo}:a`)
  t.regex(await c.ok('push', `${repo}:a`), /a: digest: sha256:[0-9a-f]{64} size: \d+/)
  t.regex(await w.ok('pull', `${repo}:a`), new RegExp(`Status: Downloaded newer image for ${repo}:a`))
  t.regex(await w.ok('pull', `${repo}:a`), new RegExp(`Status: Image is up to date for ${repo}:a`))
  const id = await c.ok('image', 'inspect', '-f', '{{.Id}}', image)
  t.is(await w.ok('image', 'inspect', '-f', '{{.Id}}', `${repo}:a`), id)
  await c.ok('save', '-o', `${scratch}/saved.tar`, image)
  t.true(statSync(`${scratch}/saved.tar`).size > 100_000)
  t.regex(await w.ok('load', '-i', `${scratch}/saved.tar`), new RegExp(`Loaded image: ${image}`))
  t.regex(await w.ok('image', 'ls', '--format', '{{.Repository}}:{{.Tag}}'), new RegExp(`^${image}$`, 'm'))
  t.is(await w.ok('run', '--rm', image, 'echo', 'loaded'), 'loaded')
  t.regex(await w.ok('image', 'rm', image, `${repo}:a`), /Untagged: .*[\s\S]*Deleted: sha256:/)
  t.is(await w.ok('image', 'ls', '-q'), '')

  await c.ok('create', '--name', 'walk-e', image)
  await c.ok('export', '-o', `${scratch}/export.tar`, 'walk-e')
  await c.ok('rm', 'walk-e')
  t.regex(await w.ok('import', '-c', 'ENV PATH=/bin', `${scratch}/export.tar`, 'walk-i:1'), /^sha256:/)
  t.is(
    await w.ok('run', '--rm', 'walk-i:1', 'cat', '/var/www/index.html'),
    await c.ok('run', '--rm', image, 'cat', '/var/www/index.html'),
  )
  const piped = await w.run(['import', '-', 'walk-i:2'], { input: readFileSync(`${scratch}/export.tar`) })
  t.is(piped.status, 0, piped.stderr)
  await w.ok('image', 'rm', 'walk-i:1', 'walk-i:2')
  await c.ok('image', 'rm', `${repo}:a`)
  t.regex(await c.ok('history', '--format', '{{.Size}}', image), /MB/)
})

walk.step('run in the foreground', async (t, c) => {
  t.is(await c.ok('run', '--rm', image, 'echo', 'hi'), 'hi')
  t.like(await c.run(['run', '--rm', '-i', image, 'sh', '-c', 'cat; echo e >&2; exit 7'], { input: 'piped' }), {
    status: 7,
    stdout: 'piped',
    stderr: 'e\n',
  })
  const big = Buffer.alloc(3_000_000, 'x')
  t.is((await c.run(['run', '--rm', '-i', image, 'wc', '-c'], { input: big })).stdout.trim(), '3000000')
  const tty = await c.terminal(`run -it --rm -h walker ${image} sh`, 'tty; hostname; exit 9\n')
  t.is(tty.status, 9, tty.stdout)
  t.regex(tty.stdout, /\/dev\/pts\/\d+\s+walker/)
  t.like(await c.run(['run', '--rm', image, 'nosuch']), { status: 127 })
  t.like(await c.run(['run', '--rm', image, '/etc/passwd']), { status: 126 })
  t.is((await c.run(['run', '--rm', '--nosuch', image])).status, 125)
  t.is(await c.ok('run', '--rm', '-e', 'A=b', '-w', '/tmp', image, 'sh', '-c', 'echo $A $PWD'), 'b /tmp')
  t.is(await c.ok('ps', '-aq'), '')
})

walk.step('containers: limits, ports, volumes, exec, cp, logs and their ends', async (t, c) => {
  mkdirSync(`${scratch}/bind`, { recursive: true })
  writeFileSync(`${scratch}/bind/here`, 'from the host\n')
  const id = await c.ok(
    ...['run', '-d', '--name', 'c1', '-p', '8081:80', '-v', 'walk-vol:/data', '-v', `${scratch}/bind:/bind:ro`],
    ...['-e', 'A=b', '-m', '64m', '--cpus', '0.5', '--pids-limit', '33', image],
  )
  t.regex(await fetch(m1, 'http://127.0.0.1:8081/'), /It swims/)
  t.regex(await fetch(w1, `http://${m1.address}:8081/`), /It swims/)
  t.regex(await fetch(m1, 'http://[::1]:8081/'), /It swims/)
  t.is(await c.ok('port', 'c1', '80/tcp'), `0.0.0.0:8081\n${c.isNew ? '[::]' : '::'}:8081`)
  t.is(limit(m1, id, 'memory.limit_in_bytes', 'memory.max'), String(64 * 1024 * 1024))
  t.regex(limit(m1, id, 'cpu.cfs_quota_us', 'cpu.max'), /^50000\b/)
  t.is(limit(m1, id, 'pids.max', 'pids.max'), '33')
  await c.ok('update', '--pids-limit', '44', '-m', '80m', '--memory-swap', '-1', 'c1')
  t.is(limit(m1, id, 'pids.max', 'pids.max'), '44')
  t.is(limit(m1, id, 'memory.limit_in_bytes', 'memory.max'), String(80 * 1024 * 1024))

  t.is(await c.ok('exec', 'c1', 'cat', '/bind/here'), 'from the host')
  t.not((await c.run(['exec', 'c1', 'touch', '/bind/x'])).status, 0)
  t.like(await c.run(['exec', 'c1', 'sh', '-c', 'echo $A; exit 5']), { status: 5, stdout: 'b\n' })
  // As dockerd: up to API 1.41 whatever could not be started is 126.
  t.like(await c.run(['exec', 'c1', 'nosuch']), { status: c.isNew ? 127 : 126 })
  t.like(await c.run(['exec', 'c1', '/etc/passwd']), { status: 126 })
  t.like(await c.run(['exec', '-i', 'c1', 'sh', '-c', 'cat > /data/kept'], { input: 'kept' }), { status: 0 })
  const tty = await c.terminal('exec -it c1 sh', 'tty; exit 4\n')
  t.is(tty.status, 4, tty.stdout)
  t.regex(tty.stdout, /\/dev\/pts\/\d/)
  await c.ok('exec', '-d', 'c1', 'touch', '/tmp/detached')
  await until(
    'the detached exec ran',
    10,
    async () => (await c.run(['exec', 'c1', 'test', '-e', '/tmp/detached'])).status === 0,
  )

  await c.ok('cp', 'c1:/var/www/index.html', `${scratch}/page`)
  t.regex(readFileSync(`${scratch}/page`, 'utf8'), /It swims/)
  writeFileSync(`${scratch}/in`, 'cp in')
  await c.ok('cp', `${scratch}/in`, 'c1:/root/in')
  t.is(await c.ok('exec', 'c1', 'cat', '/root/in'), 'cp in')
  t.regex(await c.ok('diff', 'c1'), /^A \/root\/in$/m)
  t.regex(await c.ok('top', 'c1'), /httpd -f -p 80/)
  t.regex(
    await c.ok('stats', '--no-stream', '--format', '{{.Name}} {{.MemUsage}} {{.PIDs}}', 'c1'),
    /^c1 .*\/ 80MiB \d+$/,
  )
  t.is(
    await c.ok('inspect', '-f', '{{.State.Status}} {{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}', 'c1'),
    `running ${80 * 1024 * 1024} 500000000`,
  )
  t.regex(await c.ok('ps', '--format', '{{.Names}} {{.Ports}} {{.Status}}'), /^c1 0\.0\.0\.0:8081->80\/tcp.* Up /)

  await c.ok('pause', 'c1')
  t.is(await c.ok('inspect', '-f', '{{.State.Status}}', 'c1'), 'paused')
  t.is((await c.run(['exec', 'c1', 'true'])).status, 1)
  await c.ok('unpause', 'c1')
  const pid = await c.ok('inspect', '-f', '{{.State.Pid}}', 'c1')
  await c.ok('restart', '-t', '0', 'c1')
  t.not(await c.ok('inspect', '-f', '{{.State.Pid}}', 'c1'), pid)
  t.regex(await fetch(m1, 'http://127.0.0.1:8081/'), /It swims/)
  t.is(await c.ok('exec', 'c1', 'cat', '/data/kept', '/root/in'), 'keptcp in')
  const merged = await c.ok('inspect', '-f', '{{.GraphDriver.Data.MergedDir}}', 'c1')
  t.is(readFileSync(join(merged, 'root/in'), 'utf8'), 'cp in', "the container's tree as the host sees it")
  const waited = c.ok('wait', 'c1')
  await c.ok('kill', 'c1')
  t.is(await waited, '137')
  await c.ok('start', 'c1')
  await c.ok('stop', '-t', '0', 'c1')
  t.regex(await c.ok('ps', '-a', '--format', '{{.Status}}'), /^Exited \(137\)/)
  await c.ok('rename', 'c1', 'c2')
  t.not((await c.run(['volume', 'rm', 'walk-vol'])).status, 0, 'a volume in use stays')
  await c.ok('rm', 'c2')
  t.is(await c.ok('run', '--rm', '-v', 'walk-vol:/data', image, 'cat', '/data/kept'), 'kept')
  await c.ok('volume', 'rm', 'walk-vol')

  // Lines of a log, and their times.
  await c.ok(
    'run',
    '-d',
    '--name',
    'logs',
    image,
    'sh',
    '-c',
    'for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done; echo oops >&2; sleep 600',
  )
  const all = await c.follow(['logs', '-f', 'logs'], 'line 1', 'line 5', 'oops')
  t.deepEqual(all.trim().split('\n').sort(), ['line 1', 'line 2', 'line 3', 'line 4', 'line 5', 'oops'])
  t.like(await c.run(['logs', 'logs']), { stderr: 'oops\n', stdout: 'line 1\nline 2\nline 3\nline 4\nline 5\n' })
  t.is((await c.run(['logs', '--tail', '2', 'logs'])).stdout, 'line 5\n')
  const stamped = (await c.run(['logs', '-t', 'logs'])).stdout.trim().split('\n')
  t.true(
    stamped.every((x) => /^\d{4}-\d\d-\d\dT[\d:.]+Z line \d$/.test(x)),
    stamped.join('\n'),
  )
  const fourth = stamped[3]!.split(' ')[0]!
  t.is((await c.run(['logs', '--since', fourth, 'logs'])).stdout, 'line 4\nline 5\n')
  t.is((await c.run(['logs', '--until', fourth, 'logs'])).stdout.split('\n')[0], 'line 1')
  await c.ok('rm', '-f', 'logs')
})

walk.step('networks of one host: names, aliases, isolation', async (t, c) => {
  await c.ok('network', 'create', '--subnet', '10.201.7.0/24', 'walk-net')
  await c.ok('network', 'create', 'walk-other')
  t.regex(await c.ok('network', 'ls', '--format', '{{.Name}} {{.Driver}} {{.Scope}}'), /^walk-net bridge local$/m)
  await c.ok('run', '-d', '--name', 'srv', '--network', 'walk-net', '--network-alias', 'www', image)
  for (const name of ['srv', 'www'])
    t.regex(await c.ok('run', '--rm', '--network', 'walk-net', image, 'wget', '-qO-', `http://${name}/`), /It swims/)
  t.not(
    (await c.run(['run', '--rm', '--network', 'walk-other', image, 'sh', '-c', 'timeout 1 nslookup srv; exit $?']))
      .status,
    0,
  )
  t.regex(
    await c.ok('network', 'inspect', '-f', '{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}', 'walk-net'),
    /^srv 10\.201\.7\.\d+\/24$/,
  )
  t.not((await c.run(['network', 'rm', 'walk-net'])).status, 0, 'a network in use stays')
  await c.ok('network', 'connect', 'walk-other', 'srv')
  t.regex(await c.ok('run', '--rm', '--network', 'walk-other', image, 'wget', '-qO-', 'http://srv/'), /It swims/)
  await c.ok('network', 'disconnect', 'walk-other', 'srv')
  await c.ok('rm', '-f', 'srv')
  await c.ok('network', 'rm', 'walk-net', 'walk-other')
  t.notRegex(await c.ok('network', 'ls'), /walk-/)
})

walk.step('info, version, events, system df', async (t, c) => {
  t.is(await c.ok('info', '-f', '{{.Name}} {{.Driver}} {{.Swarm.LocalNodeState}}'), 'm1 overlay2 inactive')
  t.regex(await c.ok('version', '-f', '{{.Server.APIVersion}}'), /^1\.\d+$/)
  const since = String(Math.floor(Date.now() / 1000))
  await c.ok('run', '--rm', '--name', 'ev', image, 'true')
  await c.follow(
    ['events', '--since', since, '--filter', 'container=ev', '--format', '{{.Action}}'],
    'create',
    'start',
    'die',
    'destroy',
  )
  const past = await c.ok(
    'events',
    '--since',
    since,
    '--until',
    String(Math.floor(Date.now() / 1000) + 1),
    '--filter',
    'container=ev',
    '--format',
    '{{.Action}}',
  )
  t.deepEqual(
    past.split('\n').filter((x) => /^(create|start|die|destroy)$/.test(x)),
    ['create', 'start', 'die', 'destroy'],
  )
  t.regex(await c.ok('system', 'df'), /Images\s+1\s/)
  t.regex(await c.ok('system', 'df', '-v'), /web/)
})

walk.step('containers that wait for input, and their lists', async (t, c) => {
  // Input and output by attach, with the process's status.
  await c.ok('create', '-i', '--name', 'asks', '--entrypoint', 'sh', image, '-c', 'read x; echo got $x; exit 3')
  await c.ok('start', 'asks')
  t.like(await c.run(['attach', 'asks'], { input: 'word\n' }), { status: 3, stdout: 'got word\n' })
  await c.ok(
    'run',
    '-d',
    '--name',
    'later',
    image,
    'sh',
    '-c',
    'while [ ! -e /go ]; do sleep 0.05; done; echo done; exit 4',
  )
  const since = String(Math.floor(Date.now() / 1000) - 1)
  const attached = c.run(['container', 'attach', '--no-stdin', 'later'])
  await c.follow(
    ['events', '--since', since, '-f', 'container=later', '-f', 'event=attach', '--format', '{{.Action}}'],
    'attach',
  )
  await c.ok('exec', '-u', '0', '-w', '/', '--privileged', '-e', 'F=go', 'later', 'sh', '-c', 'touch $F')
  t.is((await attached).status, 4)
  t.like(await c.run(['start', '-ai', 'asks'], { input: 'again\n' }), { status: 3, stdout: 'got again\n' })
  t.is((await c.run(['start', '-a', 'later'])).status, 4)

  await c.ok(
    'run',
    '-d',
    '--name',
    'up',
    '-l',
    'walk=1',
    '--restart',
    'on-failure:2',
    '-P',
    '--health-cmd',
    'true',
    '--health-interval',
    '100ms',
    '--health-timeout',
    '5s',
    '--health-retries',
    '2',
    image,
  )
  await until(
    'it is healthy',
    10,
    async () => (await c.ok('inspect', '-f', '{{.State.Health.Status}}', 'up')) === 'healthy',
  )
  const names = async (...flags: string[]): Promise<string> =>
    (await c.ok('ps', '--format', '{{.Names}}', ...flags)).split('\n').sort().join(' ')
  t.is(await names('-a'), 'asks later up')
  t.is(await names(), 'up')
  t.is(await names('-a', '-f', 'exited=4'), 'later')
  t.is(await names('-f', 'label=walk=1', '-f', 'health=healthy'), 'up')
  t.is(await names('-a', '-f', 'status=exited', '-f', `ancestor=${image}`), 'asks later')
  t.is(await names('-n', '2'), 'later up')
  t.is(await names('-l'), 'up')
  t.is(await c.ok('ps', '-q', '--no-trunc', '-f', 'name=up'), await c.ok('inspect', '-f', '{{.Id}}', 'up'))
  t.regex(await c.ok('port', 'up'), /^80\/tcp -> 0\.0\.0\.0:\d+/)
  const measured = await c.ok('stats', '-a', '--no-stream', '--no-trunc', '--format', '{{.Name}}')
  t.deepEqual(measured.split('\n').sort(), ['asks', 'later', 'up'])
  await c.ok('kill', '-s', 'USR1', 'up')
  await c.ok('restart', '-t', '0', 'up')
  await c.ok('rm', '-f', '-v', 'up')
  t.regex(
    await c.ok('container', 'prune', '-f', '--filter', 'label!=keep'),
    /Deleted Containers:\n[0-9a-f]{64}\n[0-9a-f]{64}/,
  )
  t.is(await c.ok('ps', '-aq'), '')
})

walk.step('volumes', async (t, c) => {
  const all = c.path === '/usr/bin/docker' ? [] : ['-a']
  t.is(
    await c.ok(
      'volume',
      'create',
      '-d',
      'local',
      '--label',
      'walk=1',
      '-o',
      'type=tmpfs',
      '-o',
      'device=tmpfs',
      '-o',
      'o=size=1m',
      'wv1',
    ),
    'wv1',
  )
  t.is(await c.ok('volume', 'create', 'wv2'), 'wv2')
  t.is(await c.ok('volume', 'inspect', '-f', '{{.Driver}} {{.Labels.walk}} {{.Options.o}}', 'wv1'), 'local 1 size=1m')
  t.is(await c.ok('volume', 'ls', '-q', '-f', 'label=walk=1'), 'wv1')
  t.is(await c.ok('volume', 'ls', '--format', '{{.Name}}', '-f', 'dangling=true'), 'wv1\nwv2')
  t.is(
    await c.ok(
      'run',
      '--rm',
      '--mount',
      'type=volume,source=wv1,target=/v',
      image,
      'sh',
      '-c',
      'grep " /v " /proc/mounts | cut -d" " -f3',
    ),
    'tmpfs',
  )
  t.regex(await c.ok('volume', 'prune', '-f', ...all, '--filter', 'label=walk=1'), /Deleted Volumes:\nwv1\n/)
  t.is(await c.ok('volume', 'rm', 'wv2'), 'wv2')
  t.not((await c.run(['volume', 'rm', 'wv2'])).status, 0)
  t.is((await c.run(['volume', 'rm', '-f', 'wv2'])).status, 0)
})

walk.step('images: all tags, lists, what a removal leaves', async (t, c, w) => {
  const repo = `${l.plan.registry}/tags`
  for (const tag of ['1', '2']) await c.ok('tag', image, `${repo}:${tag}`)
  await c.ok('push', '-a', '-q', repo)
  t.is((await w.ok('pull', '-a', '-q', repo)).split('\n').at(-1), repo)
  const list = async (...flags: string[]): Promise<string> =>
    (await w.ok('images', '--format', '{{.Tag}}', ...flags)).split('\n').sort().join(' ')
  t.is(await list(), '1 2')
  t.is(await list('-f', `reference=${repo}:2`), '2')
  t.regex(await w.ok('images', '-a', '-q', '--no-trunc'), /^sha256:[0-9a-f]{64}/)
  t.regex(await w.ok('history', '-q', '--no-trunc', '-H=false', `${repo}:1`), /^sha256:/)
  await w.ok('rmi', '--no-prune', `${repo}:1`)
  t.is(await list(), '2')
  await w.ok('rmi', '-f', `${repo}:2`)
  await c.ok('save', '-o', `${scratch}/two.tar`, `${repo}:1`, `${repo}:2`)
  await c.ok('rmi', `${repo}:1`, `${repo}:2`)
  t.regex(await c.ok('load', '-q', '-i', `${scratch}/two.tar`), /:1[\s\S]*:2/)
  await c.ok('rmi', `${repo}:1`, `${repo}:2`)
  // One without a name goes with a prune, the named stay.
  await c.ok('create', '--name', 'xx', image)
  await c.ok('export', '-o', `${scratch}/x.tar`, 'xx')
  await c.ok('rm', 'xx')
  const id = await c.ok('import', `${scratch}/x.tar`)
  t.regex(await c.ok('image', 'prune', '-f', '--filter', 'until=0s'), new RegExp(`deleted: ${id}`))
  t.is((await c.run(['image', 'inspect', '-f', '{{.Id}}', image])).status, 0)
})

walk.step('IPv6: networks, addresses, ports', async (t, c) => {
  await c.ok('network', 'create', '--ipv6', '--subnet', '10.201.8.0/24', '--subnet', 'fd20:8::/64', 'walk-six')
  t.is(
    await c.ok(
      'network',
      'inspect',
      '-f',
      '{{.EnableIPv6}} {{range .IPAM.Config}}{{.Subnet}} {{.Gateway}} {{end}}',
      'walk-six',
    ),
    'true 10.201.8.0/24 10.201.8.1 fd20:8::/64 fd20:8::1',
  )
  const run = ['run', '-d', '--name', 'six', '--network', 'walk-six']
  await c.ok(...run, '--ip6', 'fd20:8::66', '-p', '[::1]:8066:80', '-p', '8067:80', image)
  const endpoint =
    '{{with index .NetworkSettings.Networks "walk-six"}}{{.GlobalIPv6Address}}/{{.GlobalIPv6PrefixLen}} {{.IPv6Gateway}}{{end}}'
  t.is(await c.ok('inspect', '-f', endpoint, 'six'), 'fd20:8::66/64 fd20:8::1')
  t.regex(await c.ok('ps', '--format', '{{.Ports}}'), c.isNew ? /\[::1\]:8066->80\/tcp/ : /::1:8066->80\/tcp/)
  for (const port of [8066, 8067]) t.regex(await fetch(m1, `http://[::1]:${port}/`), /It swims/)
  const inside = (script: string): string[] => ['run', '--rm', '--network', 'walk-six', image, 'sh', '-c', script]
  t.regex(await c.ok(...inside('nslookup six 127.0.0.11; wget -qO- http://[fd20:8::66]/')), /fd20:8::66[\s\S]*It swims/)
  for (const [flag, value, said] of [
    ['--ip6', 'nonsense', /invalid IPv6 address: nonsense/],
    ['--ip6', '::ffff:10.201.8.9', /invalid IPv6 address/],
    ['--ip6', 'fd20:9::1', /fd20:9::1/],
    ['--ip6', 'fd20:8::66', /Address already in use/],
  ] as const)
    t.regex((await c.run(['run', '--rm', '--network', 'walk-six', flag, value, image, 'true'])).stderr, said)
  await c.ok('rm', '-f', 'six')
  await c.ok('network', 'rm', 'walk-six')
})

walk.step('networks of a plugin: what it says and does, and the way out', async (t, c) => {
  const dir = join(m1.execRoot, 'plugins')
  const script = fileURLToPath(new URL('../support/network-plugin.js', import.meta.url))
  const plugin = spawn(
    'nsenter',
    [`--net=${netnsPath(m1.netns)}`, process.execPath, script, join(dir, 'far.sock'), join(dir, 'far')],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  )
  try {
    await once(plugin.stdout!, 'readable') // also at its end
    await c.ok('network', 'create', '-d', 'far', '--ipam-driver', 'far', 'walk-far')
    t.is(
      await c.ok(
        'network',
        'inspect',
        '-f',
        '{{.Driver}} {{.IPAM.Driver}} {{range .IPAM.Config}}{{.Subnet}}{{end}}',
        'walk-far',
      ),
      'far far 10.99.0.0/24',
    )
    t.regex(await c.ok('info', '-f', '{{.Plugins.Network}}'), /\bfar\b/)
    await c.ok('run', '-d', '--name', 'there', '--network', 'walk-far', '-p', '8068:80', image)
    t.regex(await c.ok('run', '--rm', '--network', 'walk-far', image, 'wget', '-qO-', 'http://there/'), /It swims/)
    t.regex(await fetch(w1, `http://${m1.address}:8068/`), /It swims/)
    await c.ok('rm', '-f', 'there')
    await c.ok('network', 'rm', 'walk-far', 'docker_gwbridge')
    t.deepEqual(JSON.parse(readFileSync(join(dir, 'far/state.json'), 'utf8')), {
      networks: {},
      endpoints: {},
      pools: {},
    })
    const none = await c.run(['network', 'create', '-d', 'nosuch', 'walk-none'])
    t.regex(none.stderr, /plugin "nosuch" not found/)
  } finally {
    plugin.kill('SIGKILL')
  }
})

walk.step('networks: flags, and prunes of everything', async (t, c) => {
  await c.ok(
    'network',
    'create',
    '-d',
    'bridge',
    '--subnet',
    '10.201.8.0/24',
    '--gateway',
    '10.201.8.9',
    '--internal',
    '--label',
    'walk=1',
    '-o',
    'com.docker.network.driver.mtu=1400',
    'wn',
  )
  t.is(
    await c.ok(
      'network',
      'inspect',
      '-f',
      '{{.Internal}} {{(index .IPAM.Config 0).Gateway}} {{index .Options "com.docker.network.driver.mtu"}}',
      'wn',
    ),
    'true 10.201.8.9 1400',
  )
  t.regex(await c.ok('network', 'ls', '-q', '--no-trunc', '-f', 'label=walk=1'), /^[0-9a-f]{64}$/)
  await c.ok('run', '-d', '--name', 'nn', image)
  await c.ok('network', 'connect', '--alias', 'other', 'wn', 'nn')
  t.is(
    await c.ok(
      'run',
      '--rm',
      '--network',
      'wn',
      image,
      'sh',
      '-c',
      'wget -qO- http://other/ >/dev/null && cat /sys/class/net/eth0/mtu',
    ),
    '1400',
  )
  await c.ok('network', 'disconnect', '-f', 'wn', 'nn')
  t.regex(await c.ok('network', 'prune', '-f', '--filter', 'label=walk=1'), /Deleted Networks:\nwn/)
  await c.ok('network', 'create', 'gone')
  await c.ok('stop', '-t', '0', 'nn')
  const pruned = await c.ok('system', 'prune', '-f', '--volumes', '--filter', 'label!=keep')
  t.regex(pruned, /Deleted Containers:\n[0-9a-f]{64}/)
  t.regex(pruned, /Deleted Networks:\ngone/)
  t.is(await c.ok('ps', '-aq'), '')
  t.regex(
    await c.ok('builder', 'prune', '-f', '-a', '--filter', 'until=1h', '--keep-storage', '1GB'),
    /Total reclaimed space|Total:/i,
  )
})

walk.step('the other flags that are ranked must', async (t, c, w) => {
  mkdirSync(`${scratch}/bind`, { recursive: true })
  const only = (flag: string): string[] => (c.isNew ? [flag] : [])
  await c.ok(
    ...['create', ...only('-q'), '-a', 'stdout', '-i', '--name', 'full', '--rm', '--restart', 'no', '--privileged'],
    ...['--cpus', '0.5', '-m', '64m', '-e', 'A=b', '-l', 'k=v', '-u', '0:0', '-w', '/tmp', '--entrypoint', 'sh'],
    ...['--health-cmd', 'true', '--health-interval', '1s', '--health-retries', '2', '--health-timeout', '3s'],
    ...[
      '--mount',
      'type=tmpfs,target=/m',
      '-v',
      `${scratch}/bind:/bind:ro`,
      '--network',
      'bridge',
      '-p',
      '8085:80',
      '-P',
    ],
    ...[image, '-c', 'grep -c -e " /m " -e " /bind " /proc/mounts; pwd; exit 5'],
  )
  const full = JSON.parse(await c.ok('inspect', 'full'))[0]
  t.like(full.HostConfig, {
    AutoRemove: true,
    Privileged: true,
    NanoCpus: 5e8,
    Memory: 64 * 1024 * 1024,
    PublishAllPorts: true,
  })
  t.like(full.Config, { User: '0:0', WorkingDir: '/tmp', Entrypoint: ['sh'], Labels: { k: 'v' } })
  t.like(full.Config.Healthcheck, { Test: ['CMD-SHELL', 'true'], Interval: 1e9, Timeout: 3e9, Retries: 2 })
  t.like(await c.run(['start', '-a', 'full']), { status: 5, stdout: '2\n/tmp\n' })
  t.is(
    await c.ok(
      'run',
      ...only('-q'),
      '--rm',
      '-a',
      'stdout',
      '--entrypoint',
      'id',
      '-u',
      '1:2',
      '--privileged',
      image,
      '-g',
    ),
    '2',
  )
  for (const word of ['create', 'run'])
    t.regex(await c.ok(word, '--help'), /^Usage: +docker (container )?(create|run) /m)

  await c.ok(
    'run',
    '-d',
    '--name',
    'signals',
    image,
    'sh',
    '-c',
    'trap "echo one; exit 0" USR1; while :; do sleep 0.05; done',
  )
  const bySignal = async (...args: string[]): Promise<unknown> => (c.isNew ? c.ok(...args) : null)
  await bySignal('restart', '-s', 'USR1', '-t', '20', 'signals')
  await bySignal('stop', '-s', 'USR1', '-t', '20', 'signals')
  if (c.isNew) t.is((await c.ok('logs', 'signals')).split('\n').length, 2)
  await c.ok('rm', '-f', 'signals')

  await c.ok('network', 'create', '--attachable', 'wn2')
  t.is(await c.ok('network', 'inspect', '-v', '-f', '{{.Attachable}}', 'wn2'), 'true')
  await c.ok('network', 'rm', ...only('-f'), 'wn2')
  t.is((await c.run(['network', 'rm', ...only('-f'), 'wn2'])).status, c.isNew ? 0 : 1)
  t.regex(await c.ok('system', 'df', '--format', '{{.Type}} {{.TotalCount}}'), /^Images 1$/m)
  // Everything that no container uses, on the host that needs none.
  await w.ok('pull', image)
  t.regex(await w.ok('image', 'prune', '-a', '-f'), /untagged: /)
  await w.ok('pull', image)
  t.regex(await w.ok('system', 'prune', '-a', '-f'), /untagged: /)
  t.is(await w.ok('image', 'ls', '-q'), '')
})

walk.step('builds', async (t, c) => {
  const dir = `${scratch}/build`
  rmSync(dir, { recursive: true, force: true })
  mkdirSync(`${dir}/site`, { recursive: true })
  writeFileSync(`${dir}/site/page`, 'built\n')
  writeFileSync(`${dir}/secret`, '')
  writeFileSync(`${dir}/.dockerignore`, 'secret\n')
  writeFileSync(
    `${dir}/Containerfile`,
    [
      `FROM ${image} AS base`,
      'ARG WORD=none',
      'RUN echo $WORD > /word && cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true',
      'FROM base AS site',
      'COPY . /srv/',
      'COPY --from=base /word /srv/site/',
      'ENTRYPOINT ["cat"]',
      'CMD ["/srv/site/page", "/srv/site/word"]',
      'FROM base AS never',
      'RUN exit 3',
    ].join('\n'),
  )
  const flags = [
    '-f',
    `${dir}/Containerfile`,
    '--target',
    'site',
    '--label',
    'walk=1',
    '--network',
    'none',
    '-m',
    '64m',
  ]
  for (const words of [['build'], ['builder', 'build']]) {
    const tag = `walk-build:${words.length}`
    const args = [...words, ...flags, '--build-arg', `WORD=${words.join('-')}`, '--rm', '--force-rm', '-t', tag, dir]
    const first = await c.ok(...args)
    t.regex(first, /Step 1\/9 : FROM /)
    t.regex(first, /Removing intermediate container [0-9a-f]{12}/)
    t.regex(first, new RegExp(`Successfully tagged ${tag}$`, 'm'))
    t.regex(first, /^67108864$/m, 'the limit of memory holds')
    t.is(await c.ok('run', '--rm', tag), `built\n${words.join('-')}`)
    t.is(await c.ok('run', '--rm', '--entrypoint', 'ls', tag, '/srv'), 'Containerfile\nsite')
    t.is(await c.ok('image', 'inspect', '-f', '{{.Config.Labels.walk}}', tag), '1')
    const id = await c.ok('image', 'inspect', '-f', '{{.Id}}', tag)
    t.is((await c.ok(...args)).match(/Using cache/g)?.length, 7)
    t.is(await c.ok(...words, '-q', ...flags, '--build-arg', `WORD=${words.join('-')}`, dir), id)
    const fresh = await c.ok(...words, '-q', '--no-cache', ...flags, dir)
    t.not(fresh, id)
    await c.ok('image', 'rm', fresh)
    t.regex(
      await c.ok('history', '--no-trunc', '--format', '{{.CreatedBy}}', tag),
      /#\(nop\) COPY dir:[0-9a-f]{64} in \/srv\//,
    )
    const failed = await c.run([...words, '--target', 'never', '-f', `${dir}/Containerfile`, dir])
    t.is(failed.status, 3)
    t.regex(failed.stderr, /The command '\/bin\/sh -c exit 3' returned a non-zero code: 3/)
  }
  const piped = await c.run(['build', '-t', 'walk-build:p', '-'], { input: `FROM ${image}\nENV A=b` })
  t.is(piped.status, 0, piped.stderr)
  t.is(await c.ok('run', '--rm', 'walk-build:p', 'sh', '-c', 'echo $A'), 'b')
  t.regex(
    (await c.run(['build', '-'], { input: 'FOO bar' })).stderr,
    /dockerfile parse error line 1: unknown instruction: FOO/,
  )
  // The step that failed left its container, as it should.
  await c.ok('container', 'prune', '-f')
  await c.ok('image', 'rm', 'walk-build:1', 'walk-build:2', 'walk-build:p')
  await c.ok('image', 'prune', '-f')
  t.is(await c.ok('image', 'ls', '-q', '-a'), (await c.ok('image', 'inspect', '-f', '{{.Id}}', image)).slice(7, 19))
})

walk.checkRows((row) => !/^(swarm|node|service|stack|secret|config) /.test(row))
walk.checkAnswers(200)
