// Log lines that the shim sends on: their forms on the wire, and what happens while the other side is away.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { createServer as createTlsServer } from 'node:tls'
import test from 'ava'
import {
  bin,
  canRun,
  cgroupFolders,
  checkout,
  eventually,
  type Json,
  makeConfig,
  makeDir,
  makeImage,
  removeDir,
  TestContainer,
} from './kit.js'

const run = canRun ? test.serial : test.skip
let base = ''
let image = ''

test.before(() => {
  if (!canRun) return
  base = makeDir('forward')
  image = makeImage(join(base, 'image'))
})
test.after.always(async () => {
  if (!canRun) return
  for (const folder of cgroupFolders(`/native-test-${process.pid}`)) rmdirSync(folder)
  await removeDir(base)
})

const container = (script: string, forward: Json, log: Json = {}): TestContainer =>
  new TestContainer(base, image, makeConfig(['/bin/sh', '-c', script]), {
    log: {
      driver: 'json-file',
      path: null,
      maxSizeBytes: 0,
      maxFiles: 1,
      mode: 'blocking',
      bufferBytes: 1 << 20,
      extra: null,
      ...log,
      forward: {
        driver: 'syslog',
        network: 'udp',
        address: '127.0.0.1',
        port: 0,
        format: 'unix',
        facility: 3,
        tag: 'tag1',
        hostname: 'host1',
        bufferBytes: 65536,
        fields: {},
        ...forward,
      },
    },
  })

/** A datagram socket with a path: Node has none. Each datagram is a line of its output, in base64. */
async function datagrams(path: string): Promise<{ received: () => Buffer[]; process: ChildProcess }> {
  const script =
    'import socket,sys,base64\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\ns.bind(sys.argv[1])\nprint("ready",flush=True)\nwhile True: print(base64.b64encode(s.recv(1<<20)).decode(),flush=True)'
  const p = spawn('python3', ['-c', script, path], { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  p.stdout.setEncoding('utf8').on('data', (b) => {
    text += b
  })
  await once(p.stdout, 'data')
  return {
    process: p,
    received: () =>
      text
        .split('\n')
        .slice(1, -1)
        .map((l) => Buffer.from(l, 'base64')),
  }
}

const ROWS: readonly [string, RegExp][] = [
  ['unix', /^<30>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d tag1\[\d+\]: out\n$/],
  ['rfc3164', /^<30>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d host1 tag1\[\d+\]: out\n$/],
  ['rfc5424', /^<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d) host1 tag1 \d+ tag1 - out\n$/],
  ['rfc5424micro', /^<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(?:Z|[+-]\d\d:\d\d) host1 tag1 \d+ tag1 - out\n$/],
]
for (const [format, line] of ROWS)
  run(`a line goes to syslog by UDP in the form ${format}`, async (t) => {
    const server = createSocket('udp4')
    t.teardown(() => server.close())
    const got: string[] = []
    server.on('message', (m) => got.push(m.toString()))
    server.bind(0, '127.0.0.1')
    await once(server, 'listening')
    const c = container('echo out; echo err >&2', { format, port: server.address().port, facility: 3 })
    await c.run()
    await eventually(() => got.length === 2, 'two datagrams')
    t.regex(got.find((m) => m.startsWith('<30>')) ?? '', line)
    t.regex(got.find((m) => m.startsWith('<27>')) ?? '', /err\n$/)
  })

run(
  'lines go by TCP, whole and in order, over a server that leaves and comes back, and the process never waits',
  async (t) => {
    let text = ''
    const sockets: Socket[] = []
    const serve = () =>
      createServer((s) => {
        sockets.push(s)
        s.on('data', (b) => {
          text += b
        })
        s.on('error', () => {})
      })
    let server = serve()
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const c = container(
      'echo first; while [ ! -e /away ]; do sleep 0.02; done; for i in $(seq 200); do echo n$i; done; touch /written; while [ ! -e /back ]; do sleep 0.02; done; echo last',
      { network: 'tcp', port, bufferBytes: 1 << 20 },
    )
    await c.start()
    const touch = async (name: string): Promise<void> => {
      writeFileSync(`/proc/${c.json('state.json')['pid']}/root/${name}`, '')
    }
    await eventually(() => text.includes('first'), 'the first line')
    for (const s of sockets) s.destroy()
    await new Promise((resolve) => server.close(resolve))
    await touch('away')
    await eventually(() => {
      try {
        readFileSync(`/proc/${c.json('state.json')['pid']}/root/written`)
        return true
      } catch {
        return false
      }
    }, 'the process goes on writing while the server is away')
    server = serve()
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
    t.teardown(() => {
      for (const s of sockets) s.destroy()
      server.close()
    })
    await eventually(() => text.includes('n200'), 'what waited has come')
    await touch('back')
    await c.ended()
    await eventually(() => text.includes('last'), 'the last line')
    const lines = text.split('\n').map((l) => l.replace(/^.*\]: /, ''))
    t.deepEqual(lines, ['first', ...Array.from({ length: 200 }, (_, i) => `n${i + 1}`), 'last', ''])
  },
)

run('what the buffer does not hold is lost and counted', async (t) => {
  const server = createServer((s) => s.pause())
  const sockets: Socket[] = []
  server.on('connection', (s) => sockets.push(s))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    for (const s of sockets) s.destroy()
    server.close()
  })
  const c = container(
    'yes 0123456789012345678901234567890123456789 | head -c 20000000; touch /written; while [ ! -e /read ]; do sleep 0.02; done; echo last',
    { network: 'tcp', port: (server.address() as AddressInfo).port, bufferBytes: 16384 },
  )
  await c.start()
  const root = `/proc/${c.json('state.json')['pid']}/root`
  await eventually(() => {
    try {
      readFileSync(`${root}/written`)
      return true
    } catch {
      return false
    }
  }, '20 MB are written while nobody reads')
  let tail = ''
  let lines = 0
  let lost = 0
  for (const s of sockets)
    s.on('data', (b) => {
      const whole = (tail + b).split('\n')
      tail = whole.pop()!
      for (const line of whole) {
        const note = /shoal-shim: (\d+) lines of log were lost: the log server took no more$/.exec(line)
        if (note) lost += Number(note[1])
        else lines++
      }
    })
  for (const s of sockets) s.resume()
  await eventually(() => lines > 0, 'the server reads')
  writeFileSync(`${root}/read`, '')
  await c.ended()
  // The last line begins with what head(1) left of one.
  const all = Math.ceil(20_000_000 / 41)
  await eventually(() => lines + lost >= all, 'what is missing was counted')
  t.true(lost > 0)
  t.is(lines + lost, all)
})

run('a path is spoken to as the server there wants it: stream or datagrams', async (t) => {
  const path = join(base, 's.sock')
  let text = ''
  const server = createServer((s) => {
    s.on('data', (b) => {
      text += b
    })
  })
  server.listen(path)
  await once(server, 'listening')
  t.teardown(() => server.close())
  await container('echo by stream', { network: 'unix', address: path }).run()
  await eventually(() => /by stream\n$/.test(text), 'the line')
  const d = await datagrams(join(base, 'd.sock'))
  t.teardown(() => d.process.kill())
  await container('echo by datagram', { network: 'unix', address: join(base, 'd.sock') }).run()
  await eventually(() => d.received().length === 1, 'the datagram')
  t.regex(d.received()[0]!.toString(), /by datagram\n$/)
})

run("the journal gets its own protocol's fields, and the file is written as well", async (t) => {
  const path = join(base, 'journal')
  const d = await datagrams(path)
  t.teardown(() => d.process.kill())
  const file = join(base, 'j.log')
  const c = container(
    'echo out; echo err >&2; head -c 20000 /dev/zero | tr "\\0" x',
    {
      driver: 'journald',
      network: 'unixgram',
      address: path,
      fields: { CONTAINER_NAME: 'web', CONTAINER_TAG: 'two\nlines' },
    },
    { path: file },
  )
  await c.run()
  await eventually(() => d.received().length === 4, 'four entries')
  const entries = d.received()
  const multi = Buffer.concat([
    Buffer.from('CONTAINER_TAG\n'),
    Buffer.from([9, 0, 0, 0, 0, 0, 0, 0]),
    Buffer.from('two\nlines\n'),
  ])
  for (const e of entries) {
    t.true(e.includes('CONTAINER_NAME=web\n'))
    t.true(e.includes(multi))
  }
  const find = (start: string): string => entries.map(String).find((e) => e.startsWith(start)) ?? ''
  t.regex(find('MESSAGE=out\n'), /PRIORITY=6\n/)
  t.regex(find('MESSAGE=err\n'), /PRIORITY=3\n/)
  t.is(entries.map(String).filter((e) => e.includes('CONTAINER_PARTIAL_MESSAGE=true\n')).length, 2)
  t.is(readFileSync(file, 'utf8').trim().split('\n').length, 4)
})

run('a start fails where nobody listens', async (t) => {
  const failed = await container('true', { network: 'tcp', port: 1 }).run()
  t.regex(JSON.stringify(failed), /cannot reach syslog at 127\.0\.0\.1: Connection refused/)
})

run(
  'lines go by TLS to the server that proves itself, with their lengths, also after it was away; others are refused',
  async (t) => {
    const certs = join(base, 'certs')
    execFileSync(process.execPath, [join(checkout, 'certs/make.mjs'), '--out', certs, '--host', '127.0.0.1'])
    const read = (name: string): Buffer => readFileSync(join(certs, name))
    let text = ''
    const sockets: Socket[] = []
    const serve = async (port: number): Promise<Server> => {
      const identity = { key: read('server/key.pem'), cert: read('server/cert.pem'), ca: read('server/ca.pem') }
      const server = createTlsServer({ ...identity, requestCert: true, rejectUnauthorized: true }, (s) => {
        sockets.push(s)
        s.on('data', (b) => {
          text += b
        })
        s.on('error', () => {})
      })
      server.on('tlsClientError', () => {})
      server.listen(port, '127.0.0.1')
      await once(server, 'listening')
      return server
    }
    let server = await serve(0)
    t.teardown(() => {
      for (const s of sockets) s.destroy()
      server.close()
    })
    const { port } = server.address() as AddressInfo
    const ca = ['--ca', join(certs, 'server/ca.pem')]
    const own = ['--cert', join(certs, 'client/cert.pem'), '--key', join(certs, 'client/key.pem')]
    const to = (script: string, args: string[], name = '127.0.0.1'): TestContainer =>
      container(script, {
        network: 'tcp',
        port,
        format: 'rfc5424',
        tls: { program: bin('shoal-tls'), name, arguments: args },
      })
    const c = to('echo first; read x </go; echo last', [...ca, ...own])
    execFileSync('mkfifo', [join(image, 'go')])
    await c.start()
    await eventually(() => text.includes('first'), 'the first line')
    t.regex(text, /^\d+ <30>1 \S+ host1 tag1 \d+ tag1 - first\n$/)
    t.is(Number(/^\d+/.exec(text)![0]), text.length - /^\d+ /.exec(text)![0].length)
    for (const s of sockets) s.destroy()
    await new Promise((resolve) => server.close(resolve))
    server = await serve(port)
    writeFileSync(`/proc/${c.json('state.json')['pid']}/root/go`, 'on\n')
    await c.ended()
    await eventually(() => / - last\n$/.test(text), 'the last line')

    const said = async (args: string[], name?: string): Promise<string> =>
      JSON.stringify(await to('true', args, name).run())
    t.regex(await said(own), /cannot reach syslog at 127\.0\.0\.1: its certificate: self-signed certificate/)
    t.regex(await said([...ca, ...own], 'other.example'), /its certificate: hostname mismatch/)
    t.regex(await said(['--ca', '/nowhere/ca.pem']), /\/nowhere\/ca\.pem: No such file or directory/)
    t.regex(await said([...own, '--skip-verify']), /"exitCode":0/)
  },
)
