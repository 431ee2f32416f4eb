// The daemon's configuration while it runs: --validate, SIGHUP, the socket's group, and sockets that systemd hands over.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { dirname, join } from 'node:path'
import test from 'ava'
import { SHOALD } from '../../src/lab/index.js'
import { call, clock, docker, Lab, type LabHost, ok, until } from './support.js'

let l: Lab
let h: LabHost
let config: string

test.before(async () => {
  l = await Lab.up(
    { name: 'dconf', subnet: '10.92.25', managers: 1, workers: 0, engine: SHOALD, engineFlags: ['--group', 'daemon'] },
    clock,
    () => {},
  )
  h = l.plan.hosts[0]!
  config = join(dirname(h.socket), 'daemon.json')
})
test.after.always(async () => {
  await l?.down()
})

const validate = (...flags: string[]): { status: number | null; stderr: string } =>
  spawnSync(SHOALD, ['--validate', ...flags], { encoding: 'utf8' })
const events = async (since: number): Promise<string[]> =>
  (
    await ok(
      h,
      'events',
      '--since',
      String(since),
      '--until',
      String(Math.floor(clock.now() / 1000) + 1),
      '-f',
      'type=daemon',
      '--format',
      '{{json .}}',
    )
  )
    .split('\n')
    .filter(Boolean)

test.serial('--validate says whether a configuration is good, and starts nothing', (t) => {
  writeFileSync(config, '{"debug": true}')
  t.like(validate('--config-file', config), { status: 0, stderr: 'configuration OK\n' })
  writeFileSync(config, '{"debug": 1, "dns": ["x"]}')
  const bad = validate('--config-file', config)
  t.is(bad.status, 1)
  t.regex(bad.stderr, /2 mistakes:\n {2}- .*debug must be boolean, not 1\n {2}- dns "x" is no IP address/)
  writeFileSync(config, '{}')
})

test.serial("the socket belongs to --group's group", (t) => {
  const gid = Number(/^daemon:[^:]*:(\d+):/m.exec(readFileSync('/etc/group', 'utf8'))![1])
  t.like(statSync(h.socket), { gid, uid: 0 })
  t.is(statSync(h.socket).mode & 0o777, 0o660)
})

test.serial(
  'SIGHUP takes over what may change, tells it as an event, and keeps the running settings on a mistake',
  async (t) => {
    const since = Math.floor(clock.now() / 1000)
    writeFileSync(
      config,
      JSON.stringify({
        labels: ['zone=a'],
        debug: true,
        'live-restore': true,
        'shutdown-timeout': 3,
        'registry-mirrors': ['http://10.92.25.254:5000'],
        mtu: 1400,
      }),
    )
    process.kill(l.daemonPid(h), 'SIGHUP')
    const info = await until('the labels change', 10, async () => {
      const i = await call<{
        Labels: string[]
        Debug: boolean
        LiveRestoreEnabled: boolean
        RegistryConfig: { Mirrors: string[] }
      }>(h.socket, 'GET', '/info')
      return i.Labels.length > 0 ? i : null
    })
    t.like(info, {
      Labels: ['zone=a'],
      Debug: true,
      LiveRestoreEnabled: true,
      RegistryConfig: { Mirrors: ['http://10.92.25.254:5000/'] },
    })
    const [told] = await until('the event', 10, async () => {
      const e = await events(since)
      return e.length > 0 ? e : null
    })
    t.like(JSON.parse(told!), {
      Type: 'daemon',
      Action: 'reload',
      Actor: { Attributes: { name: 'm1', labels: '["zone=a"]', 'live-restore': 'true', 'shutdown-timeout': '3' } },
    })
    t.regex(readFileSync(h.log, 'utf8'), /only a restart takes over.* settings="\[\\"mtu\\"\]"/)
    await docker(h, ['inspect', 'nothing'])
    t.regex(readFileSync(h.log, 'utf8'), /level=debug msg="request refused"/, 'debug lines are written from now on')
    writeFileSync(config, '{"labels": "zone=b"}')
    process.kill(l.daemonPid(h), 'SIGHUP')
    await until('the mistake is logged', 10, async () =>
      /not reloaded.*|labels must be array, not zone=b/.test(readFileSync(h.log, 'utf8')),
    )
    t.is(await ok(h, 'info', '-f', '{{.Labels}}'), '[zone=a]')
    writeFileSync(config, '{}')
    process.kill(l.daemonPid(h), 'SIGHUP')
    await until(
      'the labels are gone',
      10,
      async () => (await ok(h, 'info', '-f', '{{.Labels}} {{.LiveRestoreEnabled}}')) === '[] false',
    )
  },
)

test.serial('-H fd:// takes the socket that was handed over', async (t) => {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const root = join(l.plan.dir, 'second')
  const fd = (server as unknown as { _handle: { fd: number } })._handle.fd
  const flags = (host: string): string[] => [
    '--data-root',
    join(root, 'd'),
    '--exec-root',
    join(root, 'r'),
    '--pidfile',
    join(root, 'pid'),
    '--config-file',
    config,
    '--cgroup-parent',
    `${h.cgroup}/second`,
    '--api-cors-header',
    'http://page.test',
    '-H',
    host,
  ]
  const p = spawn(
    'nsenter',
    [
      `--net=/run/netns/${h.netns}`,
      'sh',
      '-c',
      'LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=api exec "$@"',
      'sh',
      SHOALD,
      ...flags('fd://api'),
      '-H',
      'tcp://127.0.0.1:1',
    ],
    { stdio: ['ignore', 'ignore', 'pipe', fd] },
  )
  let said = ''
  p.stderr!.on('data', (b) => {
    said += b
  })
  t.teardown(() => p.kill('SIGKILL'))
  // This process listens no more: whoever answers is the daemon.
  await new Promise((resolve) => server.close(resolve))
  await until('it is ready', 20, async () => said.includes('Shoal is ready'))
  const answer = await fetch(`http://127.0.0.1:${port}/_ping`)
  t.is(await answer.text(), 'OK')
  const info = (await (await fetch(`http://127.0.0.1:${port}/info`)).json()) as { Warnings: string[] }
  t.regex(info.Warnings.join(), /API is accessible on http:\/\/127\.0\.0\.1:1 without encryption/)
  t.is(answer.headers.get('access-control-allow-origin'), 'http://page.test')
  t.regex(said, /without TLS.* address="fd 3"/)
  p.kill('SIGTERM')
  await until('it ends', 20, async () => p.exitCode !== null)
  t.is(p.exitCode, 0, said)
  const early = spawn('nsenter', [`--net=/run/netns/${h.netns}`, SHOALD, ...flags(`unix://${root}/early.sock`)], {
    stdio: 'ignore',
  })
  t.teardown(() => early.kill('SIGKILL'))
  await until('it comes up', 20, async () => existsSync(join(root, 'pid')))
  early.kill('SIGTERM')
  await until('it ends', 20, async () => early.exitCode !== null || early.signalCode !== null)
  t.is(early.exitCode, 0, 'a daemon that comes up stops in order too')
  t.false(existsSync(join(root, 'pid')))
  const none = spawnSync(SHOALD, flags('fd://'), { encoding: 'utf8' })
  t.is(none.status, 1)
  t.regex(none.stderr, /--host fd:\/\/: no sockets were handed over/)
})
