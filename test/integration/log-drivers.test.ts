// Log drivers by the stock docker command: what goes out, what can still be read, what is refused.
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import test from 'ava'
import { docker, type Lab, type LabHost, lab, ok, until, webImage } from './support.js'

let l: Lab
let h: LabHost
let image: string
let server: Server
let socket: string
let text = ''

test.before(async () => {
  l = await lab('logd', '10.92.23', 1, 0)
  h = l.plan.hosts[0]!
  image = await webImage(l, h)
  mkdirSync(join(l.plan.dir, 'sink'))
  socket = join(l.plan.dir, 'sink/s')
  server = createServer((s) =>
    s.on('data', (b) => {
      text += b
    }),
  ).listen(socket)
  await once(server, 'listening')
})
test.after.always(async () => {
  server?.close()
  await l?.down()
})

const syslog = (...more: string[]): string[] => [
  '--log-driver',
  'syslog',
  '--log-opt',
  `syslog-address=unix://${socket}`,
  ...more,
]

test.serial('output goes to syslog with its tag, and docker logs reads it all the same', async (t) => {
  const id = await ok(
    h,
    'run',
    '-d',
    '--name',
    'talker',
    ...syslog(
      '--log-opt',
      'tag={{.Name}}/{{.ID}}',
      '--log-opt',
      'syslog-facility=local3',
      '--log-opt',
      'syslog-format=rfc5424',
    ),
    image,
    'sh',
    '-c',
    'echo said; sleep 600',
  )
  await until('the line arrives', 10, async () => text.includes('said'))
  t.regex(text, new RegExp(`^<158>1 \\S+ m1 talker/${id.slice(0, 12)} \\d+ talker/${id.slice(0, 12)} - said\\n$`))
  t.is(await ok(h, 'logs', 'talker'), 'said')
  t.is(await ok(h, 'inspect', '-f', '{{.HostConfig.LogConfig.Type}}.{{.LogPath}}', 'talker'), 'syslog.')
  await ok(h, 'rm', '-f', 'talker')
})

test.serial('lines go on while the daemon is dead', async (t) => {
  text = ''
  await ok(
    h,
    'run',
    '-d',
    '--name',
    'counter',
    ...syslog(),
    image,
    'sh',
    '-c',
    'i=0; while :; do echo n$i; i=$((i+1)); sleep 0.05; done',
  )
  await until('it counts', 10, async () => /n3\n/.test(text))
  await l.killDaemon(h)
  const seen = text.match(/n\d+\n/g)!.length
  await until('it goes on', 10, async () => text.match(/n\d+\n/g)!.length > seen + 5)
  await l.startDaemon(h)
  await ok(h, 'rm', '-f', 'counter')
  const numbers = (text.match(/: n(\d+)\n/g) ?? []).map((m) => Number(/\d+/.exec(m)![0]))
  t.deepEqual(
    numbers,
    numbers.map((_, i) => i),
    'none is missing, none comes twice',
  )
})

test.serial('without a cache, and with the driver none, there is nothing to read', async (t) => {
  for (const flags of [syslog('--log-opt', 'cache-disabled=true'), ['--log-driver', 'none']]) {
    const id = await ok(h, 'run', '-d', ...flags, image, 'echo', 'x')
    await ok(h, 'wait', id)
    t.regex((await docker(h, ['logs', id])).stderr, /configured logging driver does not support reading/)
    await ok(h, 'rm', id)
  }
  const id = await ok(h, 'run', '-d', '--log-driver', 'local', '--log-opt', 'max-size=1m', image, 'echo', 'kept')
  await ok(h, 'wait', id)
  t.is(await ok(h, 'logs', id), 'kept')
  await ok(h, 'rm', id)
})

test.serial('rotated files are compressed where that is asked for, and logs reads them', async (t) => {
  const sized = ['--log-opt', 'max-size=20k', '--log-opt', 'max-file=9']
  for (const flags of [
    [...sized, '--log-opt', 'compress=true'],
    ['--log-driver', 'local', ...sized],
  ]) {
    const id = await ok(h, 'run', '-d', ...flags, image, 'seq', '1000')
    await ok(h, 'wait', id)
    const files = (): string[] => readdirSync(join(h.dataRoot, 'containers', id)).filter((f) => /\.log\.\d/.test(f))
    await until('the files are compressed', 10, async () => files().every((f) => f.endsWith('.gz')))
    t.true(files().length >= 2)
    const lines = Array.from({ length: 1000 }, (_, n) => String(n + 1))
    t.deepEqual((await ok(h, 'logs', id)).split('\n'), lines)
    t.deepEqual((await ok(h, 'logs', '--tail', '700', id)).split('\n'), lines.slice(-700))
    await ok(h, 'rm', id)
  }
  const plain = await ok(h, 'run', '-d', ...sized, image, 'seq', '1000')
  await ok(h, 'wait', plain)
  t.true(existsSync(join(h.dataRoot, 'containers', plain, `${plain}-json.log.2`)))
  await ok(h, 'rm', plain)
})

test.serial('wrong drivers, options and addresses are refused with the value named', async (t) => {
  const rows: [string[], RegExp][] = [
    [['--log-driver', 'gelf'], /no log driver named 'gelf' is registered/],
    [['--log-driver', 'syslog', '--log-opt', 'max-size=1m'], /unknown log opt 'max-size' for syslog log driver/],
    [
      ['--log-driver', 'syslog', '--log-opt', 'syslog-address=host:1'],
      /should be in form proto:\/\/address, got host:1/,
    ],
    [['--log-driver', 'syslog', '--log-opt', 'syslog-facility=loud'], /invalid syslog facility: "loud"/],
    [['--log-driver', 'syslog', '--log-opt', 'syslog-format=xml'], /Invalid syslog format: "xml"/],
    [
      ['--log-driver', 'syslog', '--log-opt', 'syslog-address=unix:///nowhere'],
      /cannot reach syslog at \/nowhere: No such file or directory/,
    ],
    [['--log-opt', 'tag={{.Nope}}'], /log opt tag: "{{.Nope}}" is not known; use {{.ID}}/],
    [['--log-opt', 'compress=perhaps'], /log opt compress: "perhaps" is neither true nor false/],
    [
      ['--log-opt', 'compress=true', '--log-opt', 'max-file=3'],
      /compress cannot be true when max-file is less than 2 or max-size is not set/,
    ],
    [['--log-opt', 'mode=sometimes'], /logging mode not supported: sometimes/],
  ]
  if (!existsSync('/run/systemd/journal/socket'))
    rows.push([['--log-driver', 'journald'], /journald is not enabled on this host/])
  for (const [flags, expected] of rows) {
    const r = await docker(h, ['run', '--rm', '--name', 'refused', ...flags, image, 'true'])
    t.is(r.status, 125, flags.join(' '))
    t.regex(r.stderr, expected)
    await docker(h, ['rm', '-f', 'refused'])
  }
  t.is(await ok(h, 'ps', '-aq'), '')
  t.is(await ok(h, 'info', '-f', '{{.Plugins.Log}}'), '[journald json-file local none syslog]')
})
