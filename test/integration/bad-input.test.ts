// What an operator gets wrong: each gives one clear line, the right status, and leaves nothing behind.
import { execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import test, { type ExecutionContext } from 'ava'
import { type Header, pack } from 'tar-stream'
import { answer, ask, raw } from './raw-http.js'
import { call, docker, type Lab, type LabHost, lab, ok, type Result, until, webImage } from './support.js'
import { difference, traces } from './traces.js'

let l: Lab
let m1: LabHost
let w1: LabHost
let image: string

test.before(async () => {
  l = await lab('ibi', '10.92.5', 1, 1)
  ;[m1, w1] = l.plan.hosts as [LabHost, LabHost]
  image = await webImage(l, m1)
})
test.after.always(async () => {
  await l?.down()
})

/** The lines of an error without the hints that the docker command adds by itself. */
const lines = (r: Result): string[] =>
  r.stderr
    .split('\n')
    .map((x) => x.trim())
    .filter(
      (x) =>
        x !== '' &&
        !/^exit status 1$|^Error: failed to start containers: |error waiting for container: context canceled/.test(x) &&
        !/^(Run|See) 'docker .*--help'/.test(x) &&
        !/^Unable to find image '.*' locally$/.test(x) &&
        !/^(Usage|Image will be pulled)/.test(x),
    )

/** Refused with this status and one line that matches. */
async function refused(
  t: ExecutionContext,
  h: LabHost,
  args: readonly string[],
  status: number,
  line: RegExp,
  input?: Buffer,
): Promise<void> {
  const r = await docker(h, args, { timeoutMs: 60_000, ...(input ? { input } : {}) })
  const all = lines(r)
  if (r.status !== status || all.length !== 1 || !line.test(all[0]!))
    problems(t).push(
      `docker ${args.join(' ')}: wanted ${status} and one line like ${line}, got ${r.status}: ${all.join(' | ')} ${r.stdout.slice(0, 200)}`,
    )
}

/** All that is wrong in one test is told at its end, not only the first thing. */
const found = new WeakMap<ExecutionContext, string[]>()
function problems(t: ExecutionContext): string[] {
  const list = found.get(t) ?? []
  found.set(t, list)
  return list
}
function expect(t: ExecutionContext, holds: boolean, message: string): void {
  if (!holds) problems(t).push(message)
}

/** What `fn` does leaves m1 and w1 as they were. */
function bad(title: string, fn: (t: ExecutionContext) => Promise<void>): void {
  test.serial(title, async (t) => {
    t.timeout(120_000)
    const before = [m1, w1].map((h) => traces(h))
    await fn(t)
    for (const [i, h] of [m1, w1].entries()) {
      let left: string[] = []
      await until('as before', 10, async () => {
        left = difference(before[i]!, traces(h))
        return left.length === 0
      }).catch(() => {})
      for (const x of left) problems(t).push(`${h.name}: ${x}`)
    }
    t.deepEqual(problems(t), [])
  })
}

bad('names that are not there: the value is in the line, exit status 1, HTTP 404', async (t) => {
  await refused(t, m1, ['start', 'nosuch'], 1, /No such container: nosuch/)
  await refused(t, m1, ['rm', 'nosuch'], 1, /No such container: nosuch/)
  await refused(t, m1, ['logs', 'nosuch'], 1, /No such container: nosuch/)
  await refused(t, m1, ['exec', 'nosuch', 'true'], 1, /No such container: nosuch/)
  await refused(t, m1, ['image', 'rm', 'nosuch:1'], 1, /No such image: nosuch:1/)
  await refused(t, m1, ['tag', 'nosuch:1', 'x:1'], 1, /No such image: nosuch:1/)
  await refused(t, m1, ['network', 'rm', 'nosuch'], 1, /network nosuch not found/)
  await refused(t, m1, ['volume', 'rm', 'nosuch'], 1, /no such volume.*nosuch|nosuch.*no such volume/)
  await refused(t, m1, ['network', 'connect', 'nosuch', 'nosuch2'], 1, /nosuch/)
  await refused(t, m1, ['pull', `${l.plan.registry}/nosuch:1`], 1, /nosuch/)
  await refused(t, m1, ['pull', `${l.plan.registry}/web:nosuch`], 1, /nosuch/)
  await refused(t, m1, ['push', `${l.plan.registry}/nosuch:1`], 1, /does not exist.*nosuch|nosuch.*does not exist/)
  await refused(t, m1, ['run', '--rm', `${l.plan.registry}/nosuch:1`], 125, /nosuch/)
  await refused(t, m1, ['run', '--rm', '--network', 'nosuch', image], 125, /network nosuch not found/)
  await refused(t, m1, ['run', '--rm', '--runtime', 'nosuch', image], 125, /nosuch/)
  await refused(t, m1, ['run', '--rm', '--log-driver', 'nosuch', image], 125, /nosuch/)
  await refused(t, m1, ['service', 'ls'], 1, /not a swarm manager.*swarm (init|join)/)
  await refused(t, m1, ['node', 'ls'], 1, /not a swarm manager.*swarm (init|join)/)
  for (const path of [
    '/containers/nosuch/json',
    '/images/nosuch/json',
    '/networks/nosuch',
    '/volumes/nosuch',
    '/exec/nosuch/json',
    '/nosuch',
  ]) {
    const a = await ask(m1.socket, 'GET', path)
    expect(t, a.status === 404 && !!a.message, `${path}: ${a.status} ${a.message}`)
  }
})

bad('a client that is gone before it is told that its command cannot be run does not end the daemon', async (t) => {
  const pid = l.daemonPid(m1)
  await ok(m1, 'run', '-d', '--name', 'leaver', image, 'sleep', '1000')
  for (let i = 0; i < 60; i++) {
    const { Id } = await call<{ Id: string }>(m1.socket, 'POST', '/containers/leaver/exec', {
      body: { Cmd: ['nosuch'], AttachStdout: true },
    })
    for (const headers of ['', 'Connection: Upgrade\r\nUpgrade: tcp\r\n'])
      await raw(
        m1.socket,
        `POST /exec/${Id}/start HTTP/1.1\r\nHost: h\r\n${headers}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}`,
        { timeoutMs: i % 12 },
      )
  }
  await call(m1.socket, 'GET', '/_ping')
  expect(t, l.isUp(m1) && l.daemonPid(m1) === pid, 'the daemon ended')
  await ok(m1, 'rm', '-f', 'leaver')
})

bad('a container that cannot start: 127, 126, 125, one line, and nothing of it stays', async (t) => {
  for (const rm of [['--rm'], []]) {
    await refused(t, m1, ['run', ...rm, image, 'nosuch'], 127, /"nosuch": executable file not found in \$PATH/)
    await refused(t, m1, ['run', ...rm, image, '/nosuch'], 127, /"\/nosuch": (stat .*)?no such file or directory/)
    await refused(t, m1, ['run', ...rm, image, '/etc/passwd'], 126, /"\/etc\/passwd": permission denied/)
    await refused(t, m1, ['run', ...rm, '-u', 'nosuch', image, 'true'], 125, /unable to find user nosuch/)
    await refused(t, m1, ['run', ...rm, '-w', '/etc/passwd', image, 'true'], 125, /\/etc\/passwd/).catch((e) =>
      t.log(String(e)),
    )
    await refused(
      t,
      m1,
      ['run', ...rm, '--mount', 'type=bind,src=/nonexistent,dst=/x', image, 'true'],
      125,
      /bind source path does not exist: \/nonexistent/,
    )
    await refused(t, m1, ['run', ...rm, '-m', '1m', image, 'true'], 125, /[Mm]inimum memory limit allowed is 6MB/)
    await refused(t, m1, ['run', ...rm, '--cpus', '99', image, 'true'], 125, /CPUs/)
    await refused(t, m1, ['run', ...rm, '--cap-add', 'NOSUCH', image, 'true'], 125, /NOSUCH/)
    await refused(t, m1, ['run', ...rm, '--device', '/dev/nosuch', image, 'true'], 127, /\/dev\/nosuch/)
  }
  const left = (await ok(m1, 'ps', '-aq')).split('\n').filter((x) => x !== '')
  if (left.length > 0) await ok(m1, 'rm', ...left)
})

bad('names and ports that are taken', async (t) => {
  await ok(m1, 'run', '-d', '--name', 'holder', '-p', '8081:80', image)
  await refused(
    t,
    m1,
    ['run', '-d', '--name', 'holder', image],
    125,
    /name "\/holder" is already in use by container "[0-9a-f]{64}".*remove \(or rename\)/,
  )
  await refused(
    t,
    m1,
    ['run', '-d', '--name', 'second', '-p', '8081:80', image],
    125,
    /8081.*(port is already allocated|in use)/,
  )
  await ok(m1, 'rm', 'second')
  await refused(
    t,
    m1,
    ['run', '--rm', '--name', 'second', '-p', '8081:80', image],
    125,
    /8081.*(port is already allocated|in use)/,
  )
  await ok(m1, 'rm', '-f', 'holder')

  const listener = spawn('nsenter', [`--net=/run/netns/${m1.netns}`, '/bin/busybox', 'nc', '-l', '-p', '8082'], {
    stdio: 'ignore',
  })
  try {
    await until('the port is taken', 10, async () => (await l.inNetns(m1.netns, ['ss', '-Hltn'])).includes(':8082'))
    await refused(t, m1, ['run', '--rm', '-p', '8082:80', image], 125, /8082.*(address already in use|in use)/)
  } finally {
    listener.kill('SIGKILL')
  }
  await ok(m1, 'network', 'create', '--subnet', '10.202.1.0/24', 'taken')
  await refused(t, m1, ['network', 'create', 'taken'], 1, /network with name taken already exists/)
  await refused(
    t,
    m1,
    ['network', 'create', '--subnet', '10.202.1.0/25', 'other'],
    1,
    /10\.202\.1\.0\/25.*overlap|[Oo]verlaps/,
  )
  await ok(m1, 'network', 'rm', 'taken')
  await refused(t, m1, ['network', 'create', '-d', 'nosuch', 'x'], 1, /nosuch/)
  await refused(t, m1, ['network', 'create', '--subnet', '10.300.0.0/24', 'x'], 1, /10\.300\.0\.0\/24/)
  await refused(t, m1, ['network', 'rm', 'bridge'], 1, /bridge.*(pre-defined|predefined)/)
  await refused(t, m1, ['volume', 'create', '-d', 'nosuch', 'x'], 1, /nosuch/)
})

function tarOf(entries: readonly (Partial<Header> & { name: string; body?: string | Buffer })[]): Promise<Buffer> {
  const p = pack()
  for (const { body, ...h } of entries) p.entry(h as Header, body ?? '')
  p.finalize()
  return (async () => Buffer.concat(await Readable.from(p).toArray()))()
}

bad('archives that are cut short or hostile', async (t) => {
  const saved = '/tmp/shoal-bad-input.tar'
  await ok(m1, 'save', '-o', saved, image)
  const whole = execFileSync('cat', [saved], { maxBuffer: 1 << 28 })
  rmSync(saved)
  const images = await ok(m1, 'image', 'ls', '-aq', '--no-trunc')
  await refused(t, m1, ['load'], 1, /./, whole.subarray(0, whole.length >> 1))
  await refused(t, m1, ['load'], 1, /./, Buffer.from('this is no archive at all'))
  await refused(
    t,
    m1,
    ['load'],
    1,
    /etc\/passwd/,
    await tarOf([{ name: 'manifest.json', body: '[{"Config":"../../../etc/passwd","RepoTags":["x:1"],"Layers":[]}]' }]),
  )
  await refused(
    t,
    m1,
    ['load'],
    1,
    /manifest\.json/,
    await tarOf([{ name: 'manifest.json', body: '{"not":"a list"}' }]),
  )
  await refused(
    t,
    m1,
    ['load'],
    1,
    /./,
    await tarOf([{ name: 'manifest.json', type: 'symlink', linkname: '/etc/passwd' }]),
  )
  await refused(t, m1, ['import', '-', 'bad:1'], 1, /./, whole.subarray(0, (whole.length >> 1) + 7))
  await refused(t, m1, ['import', '-', 'bad:1'], 1, /./, Buffer.alloc(4096, 'x'))
  await refused(
    t,
    m1,
    ['import', '-', 'Bad:NAME:x'],
    1,
    /Bad:NAME:x|reference/,
    await tarOf([{ name: 'a', body: 'x' }]),
  )
  t.is(await ok(m1, 'image', 'ls', '-aq', '--no-trunc'), images)

  // Paths that lead out of the root, through dots and through links.
  rmSync('/tmp/shoal-escaped', { force: true })
  const hostile = await tarOf([
    { name: 'bin', type: 'directory' },
    { name: '../../../../../../../../tmp/shoal-escaped', body: 'out' },
    { name: 'out', type: 'symlink', linkname: '/tmp' },
    { name: 'out/shoal-escaped', body: 'out' },
    { name: 'up', type: 'symlink', linkname: '../../../../../../../../tmp' },
    { name: 'up/shoal-escaped', body: 'out' },
  ])
  const r = await docker(m1, ['import', '-', 'hostile:1'], { input: hostile })
  t.false(existsSync('/tmp/shoal-escaped'), `an archive wrote outside of its root: ${r.stdout}${r.stderr}`)
  if (r.status === 0) await ok(m1, 'image', 'rm', 'hostile:1')
  await ok(m1, 'create', '--name', 'target', image)
  await docker(m1, ['cp', '-', 'target:/tmp'], { input: hostile })
  t.false(existsSync('/tmp/shoal-escaped'))
  await refused(t, m1, ['cp', 'target:/nosuch', '/tmp/x'], 1, /\/nosuch/)
  await ok(m1, 'rm', 'target')
})

bad('after a body that is refused half-way the connection answers the next request', async (t) => {
  const body = Buffer.alloc(3_000_000, 'x')
  // A load is answered before it is known to fail.
  for (const [request, status] of [
    ['POST /images/load', 200],
    ['POST /images/create?fromSrc=-', 400],
    ['POST /plugins/create?name=x', 400],
  ]) {
    const head = `${request} HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-tar\r\nContent-Length: ${body.length}\r\n\r\n`
    const next = 'GET /_ping HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n'
    const text = await raw(m1.socket, Buffer.concat([Buffer.from(head), body, Buffer.from(next)]), {
      timeoutMs: 30_000,
    })
    t.deepEqual(text.match(/^HTTP\/1\.1 \d+/gm), [`HTTP/1.1 ${status}`, 'HTTP/1.1 200'], `${request}`)
  }
})

bad('bodies and headers that are wrong: 400 with a message that names the field', async (t) => {
  const post = (path: string, body: string, headers?: string) => ask(m1.socket, 'POST', path, body, headers)
  const wrong: [string, string, RegExp][] = [
    ['/containers/create', '{"Image":7}', /Image/],
    ['/containers/create', '{"Image":"x","Cmd":{"a":1}}', /Cmd/],
    ['/containers/create', '{"Image":"x","Env":[1]}', /Env/],
    ['/containers/create', '{"Image":"x","HostConfig":[]}', /HostConfig/],
    ['/containers/create', '{"Image":"x","HostConfig":{"Memory":"1g"}}', /Memory/],
    ['/containers/create', `{"Image":"${image}","HostConfig":{"PortBindings":{"80/tcp":7}}}`, /PortBindings|80\/tcp/],
    ['/containers/create', `{"Image":"${image}","HostConfig":{"Mounts":[7]}}`, /Mounts|[Mm]ount/],
    ['/containers/create', '{"Image":', /JSON/],
    ['/containers/create', '[]', /object/],
    ['/containers/create', 'null', /body/],
    ['/containers/create', '', /body/],
    ['/networks/create', '{"Name":7}', /Name/],
    ['/networks/create', '{"Name":"x","IPAM":7}', /IPAM/],
    ['/networks/create', '{"Name":"x","IPAM":{"Config":[null]}}', /IPAM\.Config\[0\]/],
    ['/networks/create', '{"Name":"x","IPAM":{"Config":[{"Subnet":7}]}}', /IPAM\.Config\[0\]\.Subnet/],
    ['/networks/create', '{}', /[Nn]ame/],
    ['/volumes/create', '{"Name":["a"]}', /Name/],
    ['/volumes/create', '{"Name":"../../x"}', /\.\.\/\.\.\/x/],
    ['/swarm/init', '{"ListenAddr":7}', /ListenAddr/],
    ['/swarm/join', '{"RemoteAddrs":"x"}', /RemoteAddrs/],
  ]
  for (const [path, body, message] of wrong) {
    const a = await post(path, body)
    expect(t, a.status === 400 && message.test(a.message ?? ''), `${path} ${body}: ${a.status} ${a.message}`)
  }
  for (const path of [
    '/containers/json?filters={',
    '/containers/json?filters={"nosuch":{"a":true}}',
    '/containers/json?limit=x',
    '/events?since=yesterday',
  ]) {
    const a = await ask(m1.socket, 'GET', path.replaceAll('"', '%22').replaceAll('{', '%7B').replaceAll('}', '%7D'))
    expect(t, a.status === 400 && !!a.message, `${path}: ${a.status} ${a.message}`)
  }
  t.is((await post('/containers/create?name=a%20b', '{"Image":"x"}')).status, 400)
  t.is((await ask(m1.socket, 'GET', '/v9.99/info')).status, 400)
  t.is((await ask(m1.socket, 'GET', '/v1.1/info')).status, 400)

  // Not even HTTP, or HTTP that stops.
  const huge = answer(await raw(m1.socket, `GET /info HTTP/1.1\r\nHost: h\r\nX: ${'y'.repeat(200_000)}\r\n\r\n`))
  t.true([400, 431].includes(huge.status), huge.text)
  t.true((huge.message ?? '') !== '', huge.text)
  const noise = answer(await raw(m1.socket, 'hello\r\n\r\n'))
  t.is(noise.status, 400)
  t.true((noise.message ?? '') !== '')
  const head =
    'POST /containers/create HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 500\r\n'
  await raw(m1.socket, `${head}\r\n{"Image":`, { half: true, timeoutMs: 2000 })
  await raw(m1.socket, `${head}Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n{"Image":`, { half: true, timeoutMs: 2000 })
  await raw(m1.socket, `${head}Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: -4\r\n\r\n{"Image":`, {
    half: true,
    timeoutMs: 2000,
  })
  await raw(m1.socket, 'POST /images/load HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nxx', {
    half: true,
    timeoutMs: 2000,
  })
  t.is((await ask(m1.socket, 'GET', '/_ping')).status, 200, 'the daemon goes on')
  t.is(await ok(m1, 'ps', '-aq'), '')
})

bad('a swarm: tokens, addresses, services', async (t) => {
  t.teardown(async () => {
    for (const h of [w1, m1]) await docker(h, ['swarm', 'leave', '--force'])
  })
  await refused(t, w1, ['swarm', 'join', '--token', 'nonsense', `${m1.address}:2377`], 1, /invalid join token/)
  await refused(t, m1, ['swarm', 'init', '--advertise-addr', '10.9.9.9x'], 1, /10\.9\.9\.9x/)
  await ok(m1, 'swarm', 'init', '--advertise-addr', m1.address)
  await refused(t, m1, ['swarm', 'init'], 1, /already part of a swarm.*swarm leave/)
  const token = await ok(m1, 'swarm', 'join-token', '-q', 'worker')
  const before = traces(w1)
  const [, , digest, secret] = token.split('-') as [string, string, string, string]
  const flip = (x: string): string => `${x[0] === '1' ? '2' : '1'}${x.slice(1)}`
  await refused(t, w1, ['swarm', 'join', '--token', `${token}x`, `${m1.address}:2377`], 1, /invalid join token/)
  await refused(
    t,
    w1,
    ['swarm', 'join', '--token', `SWMTKN-1-${flip(digest)}-${secret}`, `${m1.address}:2377`],
    1,
    /(digest|CA|token)/,
  )
  await refused(
    t,
    w1,
    ['swarm', 'join', '--token', `SWMTKN-1-${digest}-${flip(secret)}`, `${m1.address}:2377`],
    1,
    /valid join token/,
  )
  await refused(t, w1, ['swarm', 'join', '--token', token, `${m1.address}:2399`], 1, new RegExp(`${m1.address}:2399`))
  await refused(
    t,
    w1,
    ['swarm', 'join', '--token', token, `${l.plan.subnet}.99:2377`],
    1,
    new RegExp(`${l.plan.subnet}\\.99:2377`),
  )
  await refused(t, w1, ['swarm', 'join', '--token', token, `${l.plan.registry}`], 1, new RegExp(l.plan.registry))
  t.is(await ok(w1, 'info', '-f', '{{.Swarm.LocalNodeState}}'), 'inactive', 'a failed join leaves the host outside')
  t.deepEqual(difference(before, traces(w1)), [])
  await ok(w1, 'swarm', 'join', '--token', token, `${m1.address}:2377`)
  await refused(
    t,
    w1,
    ['swarm', 'join', '--token', token, `${m1.address}:2377`],
    1,
    /already part of a swarm.*swarm leave/,
  )
  await refused(t, w1, ['service', 'ls'], 1, /not a swarm manager.*manager/)

  for (const what of [
    ['service', 'inspect'],
    ['service', 'ps'],
    ['service', 'logs'],
    ['service', 'rm'],
  ])
    await refused(
      t,
      m1,
      [...what, 'nosuch'],
      1,
      /no such (task or )?service: nosuch|service nosuch not found|nosuch.*not found/i,
    )
  await refused(t, m1, ['service', 'scale', 'nosuch=3'], 1, /nosuch/)
  await refused(t, m1, ['node', 'inspect', 'nosuch'], 1, /nosuch/)
  await refused(t, m1, ['node', 'ps', 'nosuch'], 1, /nosuch/)
  await refused(t, m1, ['node', 'rm', 'nosuch'], 1, /nosuch/)
  await refused(t, m1, ['node', 'rm', 'w1'], 1, /w1|not down/)
  await refused(t, m1, ['service', 'create', '-d', '--network', 'nosuch', image], 1, /network nosuch not found/)
  await refused(t, m1, ['service', 'create', '-d', '--name', 'bad_name!', image], 1, /name/)
  await refused(t, m1, ['service', 'create', '-d', '--constraint', 'node.nosuch=', image], 1, /node\.nosuch|constraint/)
  await ok(m1, 'service', 'create', '-d', '--name', 'a', '--replicas', '0', '-p', '8090:80', image)
  await refused(
    t,
    m1,
    ['service', 'create', '-d', '--name', 'a', image],
    1,
    /name conflicts with an existing object|a.*already/,
  )
  await refused(
    t,
    m1,
    ['service', 'create', '-d', '--name', 'b', '-p', '8090:80', image],
    1,
    /8090.*already in use by service .?a/,
  )
  await refused(t, m1, ['service', 'scale', '-d', 'a=-1'], 1, /-1/)
  const stale = await call<{ ID: string; Spec: object }>(m1.socket, 'GET', '/services/a')
  const a = await ask(m1.socket, 'POST', `/services/${stale.ID}/update?version=1`, JSON.stringify(stale.Spec))
  t.true([400, 409, 500].includes(a.status) && /out of sequence/.test(a.message ?? ''), a.text)
  const b = await ask(
    m1.socket,
    'POST',
    '/services/create',
    '{"Name":"x","TaskTemplate":{"ContainerSpec":{"Image":["x"]}}}',
  )
  t.is(b.status, 400, b.text)
  await refused(t, m1, ['swarm', 'leave'], 1, /--force/)
  await ok(m1, 'service', 'rm', 'a')
  await ok(w1, 'swarm', 'leave')
  await ok(m1, 'swarm', 'leave', '--force')
})

test.serial('a full disk: one clear line each, nothing left, and all works again once there is room', async (t) => {
  t.timeout(150_000)
  await l.killDaemon(w1)
  execFileSync('sh', ['-c', `umount -R ${w1.dataRoot} 2>/dev/null; rm -rf ${w1.dataRoot}; mkdir -p ${w1.dataRoot}`])
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=200m', 'tmpfs', w1.dataRoot])
  await l.startDaemon(w1)
  await ok(w1, 'swarm', 'init', '--advertise-addr', w1.address)
  await ok(w1, 'pull', image)
  await ok(w1, 'tag', image, 'kept:1')
  await ok(w1, 'run', '-d', '--name', 'runs', 'kept:1')
  await ok(m1, 'tag', image, `${l.plan.registry}/other:1`)
  await ok(m1, 'run', '--name', 'grow', image, 'dd', 'if=/dev/urandom', 'of=/big', 'bs=1M', 'count=4')
  await ok(m1, 'commit', 'grow', `${l.plan.registry}/big:1`)
  await ok(m1, 'push', `${l.plan.registry}/big:1`)
  await ok(m1, 'rm', 'grow')
  const before = traces(w1)
  const containers = (): string[] => readdirSync(join(w1.dataRoot, 'containers')).sort()
  const had = containers()
  const filler = join(w1.dataRoot, 'filler')
  // Before each call: a database that is opened anew after a write that failed gives back what it does not need.
  const fill = (): void => {
    try {
      execFileSync('dd', ['if=/dev/zero', `of=${filler}`, 'bs=4k', 'oflag=append', 'conv=notrunc'], { stdio: 'ignore' })
    } catch {
      // Full, as wanted.
    }
  }
  fill()
  // Managers look at their disk every 5 s. What a write of the raft log does that meets the full disk before that is in
  // full-disk.test.ts.
  await until('the manager saw that its disk is full', 15, async () =>
    readFileSync(w1.log, 'utf8').includes('too little disk space left for the raft log'),
  )
  const full = /no space left on device|disk is full|ENOSPC/i
  fill()
  await refused(t, w1, ['pull', `${l.plan.registry}/big:1`], 1, full)
  fill()
  await refused(t, w1, ['run', '--rm', 'kept:1', 'true'], 125, full)
  // These need so little that what a database gave back meanwhile may be enough.
  for (const noun of ['container', 'network', 'volume']) {
    fill()
    const named = noun === 'container' ? ['--name', 'nope', 'kept:1'] : ['nope']
    const r = await docker(w1, [noun, 'create', ...named])
    if (r.status === 0) await ok(w1, noun, 'rm', 'nope')
    else expect(t, lines(r).length === 1 && full.test(lines(r)[0]!), `${noun} create: ${lines(r).join(' | ')}`)
  }
  fill()
  // More than all that databases put aside and give back.
  await refused(t, w1, ['import', '-', 'nope:1'], 1, full, await tarOf([{ name: 'a', body: randomBytes(8 << 20) }]))
  fill()
  await refused(t, w1, ['service', 'create', '-d', '--name', 'nope', '--no-resolve-image', 'kept:1'], 1, full)
  t.is(await ok(w1, 'ps', '--format', '{{.Names}} {{.State}}'), 'runs running')
  const left = (): string[] => [...containers().filter((id) => !had.includes(id)), ...difference(before, traces(w1))]
  await until('nothing is left of them', 10, async () => left().length === 0).catch(() => {})
  t.deepEqual(left(), [])

  rmSync(filler)
  await ok(w1, 'pull', `${l.plan.registry}/big:1`)
  t.is(await ok(w1, 'run', '--rm', 'kept:1', 'echo', 'again'), 'again')
  await ok(w1, 'network', 'create', 'yes')
  await ok(w1, 'volume', 'create', 'yes')
  // Managers look at their disk now and then.
  await until('a write of the cluster is accepted', 30, () =>
    ok(w1, 'service', 'create', '-d', '--name', 'yes', '--no-resolve-image', 'kept:1'),
  )
  await until(
    'the service runs',
    30,
    async () => (await ok(w1, 'service', 'ls', '--format', '{{.Name}} {{.Replicas}}')) === 'yes 1/1',
  )
  await ok(w1, 'swarm', 'leave', '--force')
  await ok(w1, 'rm', '-f', 'runs')
  t.deepEqual(problems(t), [])
})

test.serial('a daemon that is stopped leaves no control group of its own', async (t) => {
  // Someone is attached, too: that must not hold the daemon back.
  const attached = docker(m1, ['run', '-i', '--stop-timeout', '1', '--name', 'seen', image, 'sleep', '1000'])
  await until('the attached one runs', 20, async () => (await ok(m1, 'ps', '--format', '{{.Names}}')) === 'seen')
  await ok(m1, 'run', '-d', '--name', 'last', '--stop-timeout', '1', image)
  const pid = l.daemonPid(m1)
  process.kill(pid, 'SIGTERM')
  await until('the daemon ended', 30, async () => !l.isUp(m1))
  await attached
  t.deepEqual(
    traces(m1).filter((x) => /^(cgroup|process|mount)/.test(x)),
    [],
  )
  for (const root of readdirSync('/sys/fs/cgroup'))
    t.false(existsSync(join('/sys/fs/cgroup', root, m1.cgroup, 'containers')), root)
})
