// Every command of the first cluster, by the stock docker commands 28 and 20.10, with a look at what it did.
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { cgroupRoots } from '../../src/lab/kernel.js'
import { skip } from '../support/skip.js'
import { docker, type Lab, type LabHost, lab, type Result, until, webImage } from './support.js'
import { difference, traces } from './traces.js'

const COMMANDS = [
  { version: '28', path: '/usr/local/bin/docker' },
  { version: '20.10', path: '/usr/bin/docker' },
]
const scratch = '/tmp/shoal-docker-walk'

let l: Lab
let m1: LabHost
let w1: LabHost
let image: string

test.before(async () => {
  mkdirSync(scratch, { recursive: true })
  l = await lab('idw', '10.92.4', 1, 1)
  ;[m1, w1] = l.plan.hosts as [LabHost, LabHost]
  image = await webImage(l, m1)
})
test.after.always(async () => {
  await l?.down()
  rmSync(scratch, { recursive: true, force: true })
})

/** One stock command against one host. */
class Client {
  constructor(
    readonly path: string,
    readonly host: LabHost,
  ) {}

  run(args: readonly string[], options: { input?: string | Buffer; timeoutMs?: number } = {}): Promise<Result> {
    return docker(this.host, args, { docker: this.path, ...options })
  }

  async ok(...args: string[]): Promise<string> {
    const r = await this.run(args)
    if (r.status !== 0) throw new Error(`docker ${args.join(' ')}: ${r.status}: ${r.stderr.trim() || r.stdout.trim()}`)
    return r.stdout.trim()
  }

  /** With a terminal of its own, by script(1). */
  terminal(command: string, input = ''): Promise<Result> {
    return new Promise((resolve, reject) => {
      const p = spawn('script', ['-qec', `${this.path} -H unix://${this.host.socket} ${command}`, '/dev/null'], {
        env: { ...process.env, DOCKER_CONFIG: '/nonexistent', TERM: 'dumb' },
        timeout: 60_000,
      })
      let stdout = ''
      p.stdout.on('data', (b) => {
        stdout += b
        if (input !== '' && stdout.includes('# ')) {
          p.stdin.write(input)
          input = ''
        }
      })
      p.on('error', reject)
      p.on('close', (code) => resolve({ status: code ?? 1, stdout, stderr: '' }))
    })
  }

  /** Runs on until the output has all of the words, and is ended then. */
  follow(args: readonly string[], ...words: string[]): Promise<string> {
    return new Promise((resolve, reject) => {
      const p = spawn(this.path, args, {
        env: { ...process.env, DOCKER_HOST: `unix://${this.host.socket}`, DOCKER_CONFIG: '/nonexistent' },
      })
      let out = ''
      const timer = setTimeout(() => {
        p.kill('SIGKILL')
        reject(new Error(`docker ${args.join(' ')}: ${words.join(', ')} not within 20 s; so far: ${out}`))
      }, 20_000)
      const take = (b: Buffer): void => {
        out += b
        if (words.every((w) => out.includes(w))) {
          clearTimeout(timer)
          p.kill('SIGKILL')
          resolve(out)
        }
      }
      p.stdout.on('data', take)
      p.stderr.on('data', take)
      p.on('error', reject)
    })
  }
}

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

function walk(title: string, fn: (t: ExecutionContext, c: Client, w: Client) => Promise<void>): void {
  for (const { version, path } of COMMANDS)
    test.serial(`docker ${version}: ${title}`, async (t) => {
      t.timeout(180_000)
      if (!existsSync(path)) return skip(t, `no docker command ${version} at ${path}`)
      const before = [m1, w1].map((h) => traces(h))
      await fn(t, new Client(path, m1), new Client(path, w1))
      for (const [i, h] of [m1, w1].entries()) {
        let left: string[] = []
        await until(`${h.name} is as it was`, 15, async () => {
          left = difference(before[i]!, traces(h))
          return left.length === 0
        }).catch(() => {})
        t.deepEqual(left, [], `${title}: left behind on ${h.name}`)
      }
    })
}

walk('images', async (t, c, w) => {
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

walk('run in the foreground', async (t, c) => {
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

walk('containers: limits, ports, volumes, exec, cp, logs and their ends', async (t, c) => {
  mkdirSync(`${scratch}/bind`, { recursive: true })
  writeFileSync(`${scratch}/bind/here`, 'from the host\n')
  const id = await c.ok(
    ...['run', '-d', '--name', 'c1', '-p', '8081:80', '-v', 'walk-vol:/data', '-v', `${scratch}/bind:/bind:ro`],
    ...['-e', 'A=b', '-m', '64m', '--cpus', '0.5', '--pids-limit', '33', image],
  )
  t.regex(await fetch(m1, 'http://127.0.0.1:8081/'), /It swims/)
  t.regex(await fetch(w1, `http://${m1.address}:8081/`), /It swims/)
  t.is(await c.ok('port', 'c1', '80/tcp'), '0.0.0.0:8081')
  t.is(limit(m1, id, 'memory.limit_in_bytes', 'memory.max'), String(64 * 1024 * 1024))
  t.regex(limit(m1, id, 'cpu.cfs_quota_us', 'cpu.max'), /^50000\b/)
  t.is(limit(m1, id, 'pids.max', 'pids.max'), '33')
  await c.ok('update', '--pids-limit', '44', '-m', '80m', '--memory-swap', '-1', 'c1')
  t.is(limit(m1, id, 'pids.max', 'pids.max'), '44')
  t.is(limit(m1, id, 'memory.limit_in_bytes', 'memory.max'), String(80 * 1024 * 1024))

  t.is(await c.ok('exec', 'c1', 'cat', '/bind/here'), 'from the host')
  t.not((await c.run(['exec', 'c1', 'touch', '/bind/x'])).status, 0)
  t.like(await c.run(['exec', 'c1', 'sh', '-c', 'echo $A; exit 5']), { status: 5, stdout: 'b\n' })
  t.like(await c.run(['exec', 'c1', 'nosuch']), { status: 127 })
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

walk('networks of one host: names, aliases, isolation', async (t, c) => {
  await c.ok('network', 'create', '--subnet', '10.201.7.0/24', 'walk-net')
  await c.ok('network', 'create', 'walk-other')
  t.regex(await c.ok('network', 'ls', '--format', '{{.Name}} {{.Driver}} {{.Scope}}'), /^walk-net bridge local$/m)
  await c.ok('run', '-d', '--name', 'srv', '--network', 'walk-net', '--network-alias', 'www', image)
  for (const name of ['srv', 'www'])
    t.regex(await c.ok('run', '--rm', '--network', 'walk-net', image, 'wget', '-qO-', `http://${name}/`), /It swims/)
  t.not((await c.run(['run', '--rm', '--network', 'walk-other', image, 'nslookup', 'srv'])).status, 0)
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

walk('info, version, events, system df', async (t, c) => {
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

walk('a swarm from init to leave', async (t, c, w) => {
  t.teardown(async () => {
    for (const x of [w, c]) await x.run(['swarm', 'leave', '--force'])
  })
  t.regex(
    await c.ok('swarm', 'init', '--advertise-addr', m1.address),
    /Swarm initialized: current node \([0-9a-z]{25}\) is now a manager/,
  )
  const token = await c.ok('swarm', 'join-token', '-q', 'worker')
  t.regex(await c.ok('swarm', 'join-token', 'manager'), /docker swarm join --token SWMTKN-1-/)
  t.is(
    await w.ok('swarm', 'join', '--advertise-addr', w1.address, '--token', token, `${m1.address}:2377`),
    'This node joined a swarm as a worker.',
  )
  await until(
    'both are ready',
    20,
    async () =>
      (await c.ok('node', 'ls', '--format', '{{.Hostname}} {{.ManagerStatus}} {{.Status}} {{.Availability}}'))
        .split('\n')
        .sort()
        .join() === 'm1 Leader Ready Active,w1  Ready Active',
  )
  t.is(
    await c.ok('node', 'inspect', '-f', '{{.Description.Hostname}} {{.Spec.Role}} {{.Status.Addr}}', 'w1'),
    `w1 worker ${w1.address}`,
  )
  t.regex(await c.ok('node', 'inspect', '--pretty', 'self'), /Hostname:\s+m1/)

  await c.ok('network', 'create', '-d', 'overlay', 'ov')
  t.regex(await c.ok('network', 'ls', '--format', '{{.Name}} {{.Driver}} {{.Scope}}'), /^ov overlay swarm$/m)
  // Attached: the command waits until the service stands.
  const created = await c.run([
    'service',
    'create',
    '--name',
    'web',
    '--replicas',
    '2',
    '--network',
    'ov',
    '-p',
    '8080:80',
    '--stop-grace-period',
    '1s',
    '--update-parallelism',
    '0',
    '--limit-memory',
    '50m',
    image,
  ])
  t.is(created.status, 0, created.stderr)
  t.regex(created.stdout, /onverged/)
  t.is(
    await c.ok('service', 'ls', '--format', '{{.Name}} {{.Mode}} {{.Replicas}} {{.Ports}}'),
    'web replicated 2/2 *:8080->80/tcp',
  )
  t.deepEqual(
    (await c.ok('service', 'ps', '--format', '{{.Name}} {{.Node}} {{.DesiredState}}', 'web')).split('\n').sort(),
    ['web.1 m1 Running', 'web.2 w1 Running'].map((x) => x),
    'one on each host',
  )
  t.is(
    await c.ok('service', 'inspect', '-f', '{{.Spec.Name}} {{.Spec.TaskTemplate.Resources.Limits.MemoryBytes}}', 'web'),
    `web ${50 * 1024 * 1024}`,
  )
  t.regex(await c.ok('service', 'inspect', '--pretty', 'web'), /PublishedPort = 8080/)
  const cid = await w.ok('ps', '-q', '--no-trunc', '--filter', 'label=com.docker.swarm.service.name=web')
  t.is(limit(w1, cid, 'memory.limit_in_bytes', 'memory.max'), String(50 * 1024 * 1024))
  for (const h of [m1, w1])
    await until(`${h.name} serves the page`, 10, async () =>
      /It swims/.test(await fetch(h, `http://${h.address}:8080/`)),
    )

  // Attached scale and update come to an end, too.
  const scaled = await c.run(['service', 'scale', 'web=3'], { timeoutMs: 60_000 })
  t.is(scaled.status, 0, `scale: ${scaled.stderr}`)
  t.is(await c.ok('service', 'ls', '--format', '{{.Replicas}}'), '3/3')
  const updated = await c.run(['service', 'update', '--env-add', 'X=1', 'web'], {
    timeoutMs: 90_000,
  })
  t.is(updated.status, 0, `update: ${updated.stderr}`)
  const one = await w.ok('ps', '-q', '--filter', 'label=com.docker.swarm.service.name=web')
  t.is(await w.ok('exec', one.split('\n')[0]!, 'sh', '-c', 'echo $X'), '1')

  // By name: from a task on each host to every task.
  t.regex(await w.ok('exec', one.split('\n')[0]!, 'wget', '-qO-', 'http://web/'), /It swims/)
  await c.ok(
    'service',
    'create',
    '-d',
    '--name',
    'asks',
    '--stop-grace-period',
    '1s',
    '--mode',
    'global',
    '--network',
    'ov',
    image,
    'sh',
    '-c',
    'while :; do wget -qO- http://web/cgi-bin/who; sleep 0.2; done',
  )
  const ips = await w.ok('exec', one.split('\n')[0]!, 'nslookup', 'tasks.web')
  t.is(new Set(ips.match(/Address[^\n]* 10\.0\.\d+\.\d+/g)).size, 3, ips)
  const names = await Promise.all(
    [c, w].map(async (x) =>
      (await x.ok('ps', '-q', '--filter', 'label=com.docker.swarm.service.name=web')).split('\n'),
    ),
  )
  t.is(names.flat().length, 3)
  await until('each host asks and all three answer', 30, async () => {
    const lines = (await c.ok('service', 'logs', 'asks')).split('\n')
    return ['m1', 'w1'].every((h) =>
      names.flat().every((n) => lines.some((x) => x.includes(`@${h} `) && x.includes(n))),
    )
  })
  await c.follow(['service', 'logs', '-f', 'asks'], '@m1', '@w1')
  t.is((await c.ok('service', 'logs', '--tail', '1', 'asks')).split('\n').length, 2, 'one line of each task')
  t.regex(await c.ok('service', 'logs', '-t', '--tail', '1', 'asks'), /^\d{4}-\d\d-\d\dT/)
  t.regex(await c.ok('node', 'ps', 'w1', '--format', '{{.Name}} {{.CurrentState}}'), /^asks\.\S+ Running/m)

  t.not((await c.run(['network', 'rm', 'ov'])).status, 0, 'a network in use stays')
  // Attached, too: it ends when the job is complete.
  const job = await c.run(
    [
      'service',
      'create',
      '--name',
      'job',
      '--mode',
      'replicated-job',
      '--replicas',
      '3',
      '--max-concurrent',
      '2',
    ].concat(image, 'true'),
    { timeoutMs: 60_000 },
  )
  t.is(job.status, 0, job.stderr)
  t.regex(job.stdout, /job complete/)
  t.is(await c.ok('service', 'ls', '--filter', 'name=job', '--format', '{{.Replicas}}'), '0/2 (3/3 completed)')
  t.is(await c.ok('service', 'rm', 'web', 'asks', 'job'), 'web\nasks\njob')
  await until(
    'the tasks are gone',
    30,
    async () => (await c.ok('ps', '-aq')) === '' && (await w.ok('ps', '-aq')) === '',
  )
  await c.ok('network', 'rm', 'ov')
  await w.ok('swarm', 'leave')
  await until('w1 is down', 20, async () =>
    /^w1 Down$/m.test(await c.ok('node', 'ls', '--format', '{{.Hostname}} {{.Status}}')),
  )
  await c.ok('node', 'rm', 'w1')
  t.not((await c.run(['swarm', 'leave'])).status, 0, 'a last manager needs --force')
  await c.ok('swarm', 'leave', '--force')
  t.is(await c.ok('info', '-f', '{{.Swarm.LocalNodeState}}'), 'inactive')
  await w.run(['image', 'rm', '-f', image])
})
