// The protocol itself, over a real socket, in front of an engine of which each test brings the part it needs.
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Duplex, PassThrough } from 'node:stream'
import test, { type ExecutionContext } from 'ava'
import { type ApiModules, type Authorizer, type ClusterState, createApi } from '../../src/api/index.js'
import { pump } from '../../src/api/streams.js'
import { conflict, notFound, nullLogger, ShoalError, systemClock, unavailable } from '../../src/common/index.js'
import type { Attachment } from '../../src/engine/index.js'

const dir = mkdtempSync(join(tmpdir(), 'shoal-api-'))
test.after.always(() => rmSync(dir, { recursive: true, force: true }))
// The clock's timers keep no process alive.
const alive = setInterval(() => {}, 1000)
test.after.always(() => clearInterval(alive))

interface Parts {
  readonly authorizers?: readonly Authorizer[]
  readonly containers?: object
  readonly images?: object
  readonly control?: object
  readonly state?: Partial<ClusterState>
  readonly facts?: object
}

async function serve(t: ExecutionContext, parts: Parts = {}): Promise<string> {
  const engine = {
    containers: { list: () => [], ...parts.containers },
    networks: { networks: () => [], endpoints: () => [] },
    images: { list: async () => [], lineageOf: () => [], ...parts.images },
    volumes: { list: async () => [], drivers: async () => ['local'] },
  }
  const cluster = {
    state: () => ({ localNodeState: 'inactive', controlAvailable: false, ...parts.state }),
    attachments: () => null,
    control() {
      if (!parts.control) throw unavailable('notManager', 'This node is not a swarm manager.')
      return parts.control
    },
  }
  const api = await createApi({
    authorizers: () => parts.authorizers ?? [],
    engine,
    cluster,
    facts: { version: '1.2.3', experimental: false, ...parts.facts },
    clock: systemClock,
    logger: nullLogger,
    unreadBytes: () => 0,
  } as unknown as ApiModules)
  const path = join(dir, `${randomBytes(4).toString('hex')}.sock`)
  const server = api.listener()
  await new Promise<void>((resolve) => server.listen(path, resolve))
  t.teardown(() => api.close())
  return path
}

interface Answer {
  readonly status: number
  readonly headers: Record<string, string | string[] | undefined>
  readonly text: string
}
const ask = (
  socketPath: string,
  method: string,
  path: string,
  body?: object,
  type = 'application/json',
): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const json = body === undefined ? undefined : JSON.stringify(body)
    const r = request(
      { socketPath, method, path, headers: json === undefined ? {} : { 'Content-Type': type } },
      (res) => {
        let text = ''
        res.on('data', (b) => {
          text += b
        })
        res.on('end', () => resolve({ status: res.statusCode!, headers: res.headers, text }))
      },
    )
    r.on('error', reject)
    r.end(json)
  })
const message = (a: Answer): string => (JSON.parse(a.text) as { message: string }).message

/** Bytes as they come, with a wait for what is to come. */
class Raw {
  received = Buffer.alloc(0)
  #changed: () => void = () => {}
  readonly closed: Promise<void>
  readonly socket: Socket
  constructor(path: string) {
    this.socket = connect({ path, allowHalfOpen: true })
    this.socket.on('data', (b) => {
      this.received = Buffer.concat([this.received, b])
      this.#changed()
    })
    this.closed = new Promise((resolve) => this.socket.on('close', () => resolve()))
    this.socket.on('end', () => this.socket.end())
  }
  /** Resolves with the first match; a text stands for itself. */
  async until(wanted: RegExp | string): Promise<string> {
    for (;;) {
      const all = this.received.toString('latin1')
      const m = typeof wanted === 'string' ? (all.includes(wanted) ? wanted : null) : (all.match(wanted)?.[0] ?? null)
      if (m !== null) return m
      await new Promise<void>((resolve) => {
        this.#changed = resolve
      })
    }
  }
}

test('_ping says what this engine is, and its place in a swarm', async (t) => {
  const path = await serve(t)
  const get = await ask(path, 'GET', '/_ping')
  t.is(get.text, 'OK')
  for (const [name, value] of Object.entries({
    'api-version': '1.50',
    ostype: 'linux',
    'docker-experimental': 'false',
    'builder-version': '1',
    swarm: 'inactive',
    'cache-control': 'no-cache, no-store, must-revalidate',
    pragma: 'no-cache',
    server: 'Shoal/1.2.3 (linux)',
  }))
    t.is(get.headers[name], value, name)
  const head = await ask(path, 'HEAD', '/_ping')
  t.is(head.headers['content-length'], '0')
  t.is(head.text, '')
  const worker = await serve(t, { state: { localNodeState: 'active' } })
  t.is((await ask(worker, 'HEAD', '/_ping')).headers.swarm, 'active/worker')
  const manager = await serve(t, { state: { localNodeState: 'active', controlAvailable: true } })
  t.is((await ask(manager, 'HEAD', '/v1.24/_ping')).headers.swarm, 'active/manager')
  for (const state of ['pending', 'locked', 'error'] as const)
    t.is((await ask(await serve(t, { state: { localNodeState: state } }), 'GET', '/_ping')).headers.swarm, state)
})

test('info tells of registries, security and open files as each version has it', async (t) => {
  const path = await serve(t, {
    state: { remoteManagers: [] },
    facts: {
      insecureRegistries: ['10.0.0.0/8', 'plain:5000'],
      registryMirrors: ['https://mirror'],
      defaultAddressPools: [],
      warnings: [],
      cgroupVersion: '2',
      seccompProfile: 'builtin',
      noNewPrivileges: true,
    },
  })
  const info = async (version: string) => JSON.parse((await ask(path, 'GET', `/v${version}/info`)).text)
  const now = await info('1.41')
  t.deepEqual(now.RegistryConfig.InsecureRegistryCIDRs, ['127.0.0.0/8', '10.0.0.0/8'])
  t.deepEqual(now.RegistryConfig.Mirrors, ['https://mirror/'])
  t.deepEqual(now.RegistryConfig.IndexConfigs, {
    'docker.io': { Name: 'docker.io', Mirrors: ['https://mirror/'], Secure: true, Official: true },
    'plain:5000': { Name: 'plain:5000', Mirrors: [], Secure: false, Official: false },
  })
  t.deepEqual(now.SecurityOptions, ['name=seccomp,profile=builtin', 'name=cgroupns', 'name=no-new-privileges'])
  t.true(now.NFd > 0 && now.NGoroutines > 0)
  t.is(now.ExecutionDriver, undefined)
  t.deepEqual((await info('1.42')).RegistryConfig.InsecureRegistryCIDRs[0], '::1/128')
  t.like(await info('1.24'), {
    ExecutionDriver: '<not supported>',
    SecurityOptions: ['seccomp', 'cgroupns', 'no-new-privileges'],
  })
})

test('every answer names the API version, also a refusal; a version out of range is refused with the side that is at fault', async (t) => {
  const path = await serve(t)
  const old = await ask(path, 'GET', '/v1.11/info')
  t.is(old.status, 400)
  t.is(old.headers['api-version'], '1.50')
  t.is(old.headers['content-type'], 'text/plain; charset=utf-8')
  t.is(
    old.text,
    'client version 1.11 is too old. Minimum supported API version is 1.12, please upgrade your client to a newer version\n',
  )
  const young = await ask(path, 'GET', '/v1.99/containers/json')
  t.is(young.status, 400)
  t.is(message(young), 'client version 1.99 is too new. Maximum supported API version is 1.50')
  for (const prefix of ['', '/v1.12', '/v1.24', '/v1.43', '/v1.50']) {
    const list = await ask(path, 'GET', `${prefix}/containers/json`)
    t.is(list.status, 200)
    t.is(list.text, '[]\n')
  }
  const lost = await ask(path, 'GET', '/v1.50/no/such/page')
  t.is(lost.status, 404)
  t.is(message(lost), 'page not found')
  for (const method of ['GET', 'POST']) {
    const checkpoints = await ask(path, method, '/v1.50/containers/c/checkpoints')
    t.is(checkpoints.status, 501)
    t.regex(message(checkpoints), /does not keep checkpoints of containers/)
  }
  t.is((await ask(path, 'OPTIONS', '/anything')).status, 200)
})

test('errors are plain text up to 1.23', async (t) => {
  const path = await serve(t)
  for (const [version, type, text] of [
    ['1.23', 'text/plain; charset=utf-8', 'page not found\n'],
    ['1.24', 'application/json', '{"message":"page not found"}\n'],
  ] as const) {
    const lost = await ask(path, 'GET', `/v${version}/no/such/page`)
    t.is(lost.status, 404)
    t.is(lost.headers['content-type'], type)
    t.is(lost.text, text)
  }
})

test('a body of another type than JSON is refused by that type, where JSON is needed', async (t) => {
  const started: string[] = []
  const path = await serve(t, {
    containers: {
      execInspect: (id: string) => ({ id, detachKeys: '' }),
      execStart: async (id: string) => void started.push(id),
    },
  })
  const post = (url: string, type: string) => ask(path, 'POST', url, { Detach: true }, type)
  for (const url of ['/containers/create', '/containers/x/exec', '/exec/x/start']) {
    const plain = await post(url, 'text/plain')
    t.is(plain.status, 400)
    t.is(message(plain), "Content-Type specified (text/plain) must be 'application/json'")
  }
  // An exec was started by any type up to 1.21.
  t.is((await post('/v1.20/exec/x/start', 'text/plain')).status, 200)
  t.is((await post('/v1.22/exec/x/start', 'text/plain')).status, 400)
  t.deepEqual(started, ['x'])
})

test('a body that is no JSON is told in the words of Go, before anything is looked for', async (t) => {
  const path = await serve(t)
  const said = async (
    text: string,
    type = 'Content-Type: application/json\r\n',
    to = '/exec/x/start',
  ): Promise<string> => {
    const raw = new Raw(path)
    raw.socket.write(
      `POST ${to} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n${type}Content-Length: ${text.length}\r\n\r\n${text}`,
    )
    await raw.closed
    t.regex(raw.received.toString(), /^HTTP\/1\.1 400/)
    return raw.received.toString()
  }
  for (const [text, words] of [
    ['{invalid', "'i' looking for beginning of object key string"],
    ['{"a" 1}', "'1' after object key"],
    ['{"a":1 "b":2}', "'\\\"' after object key:value pair"],
    ['[1 2]', "'2' after array element"],
    ['x', "'x' looking for beginning of value"],
    ['{} x', "'x' after top-level value"],
  ] as const)
    t.true((await said(text)).includes(`invalid JSON: invalid character ${words}`), text)
  t.true((await said('{')).includes('invalid JSON: unexpected EOF'))
  for (const to of ['/exec/x/start', '/volumes/create', '/plugins/x/set'])
    t.true((await said('', undefined, to)).includes('got EOF while reading request body'), to)
  t.true((await said('{}', 'Content-Type: \r\n')).includes('400'))
})

test("a task's container is started by its swarm alone", async (t) => {
  const Labels = { 'com.docker.swarm.task.id': 't1', 'com.docker.swarm.service.name': 'web' }
  let status = 'exited'
  const path = await serve(t, {
    containers: {
      get: () => ({ name: 'web.1.t1', endpoints: new Map(), config: { Labels }, state: { status } }),
      start: async () => {},
      restart: async () => {},
    },
  })
  for (const verb of ['start', 'restart']) {
    const refused = await ask(path, 'POST', `/containers/x/${verb}`)
    t.is(refused.status, 409)
    t.regex(message(refused), /^container web\.1\.t1 is a task of service web, .*docker service update --force web$/)
  }
  status = 'running'
  t.is((await ask(path, 'POST', '/containers/x/start')).status, 204)
})

test('a start takes no settings from 1.24 on', async (t) => {
  const given: object[] = []
  const path = await serve(t, {
    containers: {
      get: () => ({ endpoints: new Map(), config: {}, state: { status: 'exited' } }),
      start: async () => {},
      configure: async (_id: string, host: object) => void given.push(host),
    },
  })
  const start = (body: object, version = '') => ask(path, 'POST', `${version}/containers/x/start`, body)
  for (const body of [{ Binds: ['/a:/b'] }, { HostConfig: { Binds: ['/a:/b'] } }])
    t.is((await start(body, '/v1.23')).status, 204)
  t.deepEqual(given, [{ Binds: ['/a:/b'] }, { Binds: ['/a:/b'] }])
  const refused = await start({ Binds: ['/a:/b'] })
  t.is(refused.status, 400)
  t.regex(message(refused), /was deprecated since API v1\.22/)
  t.is((await start({})).status, 204)
  t.is((await ask(path, 'POST', '/containers/x/start')).status, 204)
  // As docker 20.10 starts: a type, and no body of it.
  const typed = new Raw(path)
  typed.socket.write(
    'POST /containers/x/start HTTP/1.1\r\nHost: d\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n',
  )
  await typed.until(/^HTTP\/1\.1 204/)
  typed.socket.destroy()
})

test('an attach that is refused is told in the form of its stream', async (t) => {
  const path = await serve(t, {
    containers: {
      attach: async (id: string) => {
        throw notFound('noSuchContainer', `No such container: ${id}`)
      },
    },
  })
  const lost = await ask(path, 'POST', '/containers/nobody/attach')
  t.is(lost.status, 404)
  t.is(lost.headers['content-type'], 'application/vnd.docker.raw-stream')
  t.is(lost.text, 'No such container: nobody\r\n')
})

test('a container that ended before it could be killed is an error from 1.20 on', async (t) => {
  const path = await serve(t, {
    containers: {
      kill: async () => {
        throw conflict('notRunning', 'Container abc is not running')
      },
    },
  })
  const killed = await ask(path, 'POST', '/v1.20/containers/x/kill')
  t.is(killed.status, 409)
  t.is(killed.text, 'Cannot kill container: x: Container abc is not running\n')
  t.is((await ask(path, 'POST', '/v1.19/containers/x/kill')).status, 204)
})

test('filters come as a map of maps and as a map of lists; an unknown one is refused by name', async (t) => {
  const labelled = (name: string, labels: object): object => ({
    id: name.padEnd(64, '0'),
    name,
    createdMs: 1,
    config: { Labels: labels },
    hostConfig: {},
    state: { status: 'running', exitCode: 0, pid: 1, startedAtMs: 1 },
    args: [],
    path: 'x',
    mounts: [],
    ports: [],
    endpoints: new Map(),
  })
  const path = await serve(t, {
    containers: { list: () => [labelled('one', { a: 'b' }), labelled('two', { a: 'c' })] },
  })
  for (const filters of ['{"label":{"a=b":true}}', '{"label":["a=b"]}']) {
    const list = await ask(path, 'GET', `/containers/json?filters=${encodeURIComponent(filters)}`)
    t.deepEqual(
      (JSON.parse(list.text) as { Names: string[] }[]).map((c) => c.Names[0]),
      ['/one'],
    )
  }
  t.is((await ask(path, 'GET', '/containers/json?filters=')).status, 200)
  const unknown = await ask(path, 'GET', `/containers/json?filters=${encodeURIComponent('{"colour":["red"]}')}`)
  t.is(unknown.status, 400)
  t.is(message(unknown), "Invalid filter 'colour'")
})

test('each kind of error has its status, and an update out of sequence the one that clients know', async (t) => {
  const statuses = {
    notFound: 404,
    invalid: 400,
    conflict: 409,
    unavailable: 503,
    forbidden: 403,
    unauthorized: 401,
    unimplemented: 501,
    internal: 500,
  } as const
  let thrown: Error = new Error()
  const path = await serve(t, {
    containers: {
      get() {
        throw thrown
      },
    },
    control: {
      get: async () => ({ object: { secret: { id: 's' } } }),
      update: async () => {
        throw conflict('outOfSequence', 'update out of sequence')
      },
    },
  })
  for (const [kind, status] of Object.entries(statuses)) {
    thrown = new ShoalError(kind as keyof typeof statuses, 'code', `words for ${kind}`)
    const a = await ask(path, 'GET', '/containers/x/json')
    t.is(a.status, status)
    t.is(message(a), `words for ${kind}`)
  }
  thrown = new ShoalError('notModified', 'code', 'as it is')
  const same = await ask(path, 'GET', '/containers/x/json')
  t.deepEqual([same.status, same.text], [304, ''])
  const late = await ask(path, 'POST', '/secrets/s/update?version=1', { Name: 's' })
  t.is(late.status, 500)
  t.is(message(late), 'rpc error: code = Unknown desc = update out of sequence')
  const alone = await ask(await serve(t), 'GET', '/services')
  t.is(alone.status, 503)
})

test('a wait sends its headers before it blocks, and ends when the client hangs up', async (t) => {
  let aborted: () => void = () => {}
  const hungUp = new Promise<void>((resolve) => {
    aborted = resolve
  })
  const path = await serve(t, {
    containers: {
      get: () => ({ id: 'x' }),
      wait: (_id: string, _condition: string, signal: AbortSignal) => {
        signal.addEventListener('abort', () => aborted())
        return new Promise(() => {})
      },
    },
  })
  const raw = new Raw(path)
  raw.socket.write('POST /v1.50/containers/x/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n')
  await raw.until(/^HTTP\/1\.1 200 OK\r\n[\s\S]*\r\n\r\n/)
  raw.socket.destroy()
  await hungUp
  t.pass()
})

/** Echoes what is typed as output, until the end of input. */
function echo(tty: boolean): Attachment {
  const stdin = new PassThrough()
  async function* output() {
    for await (const data of stdin) yield { stream: 'stdout' as const, data: data as Buffer }
    yield { stream: 'stderr' as const, data: Buffer.from('bye') }
  }
  return { tty, stdin, output: output(), detached: new Promise(() => {}), close() {} }
}
const attaching = { get: () => ({ id: 'x', state: { status: 'running' } }), attach: async () => echo(false) }

// Go's plain HTTP client names the protocol only.
const UPGRADES = {
  'an upgrade': 'Connection: Upgrade\r\nUpgrade: tcp\r\n',
  'half of one': 'Upgrade: tcp\r\n',
  none: '',
}
for (const [upgrade, headers] of Object.entries(UPGRADES))
  test(`an attach with ${upgrade} takes the connection over; output goes on after the client's end of input`, async (t) => {
    const raw = new Raw(await serve(t, { containers: attaching }))
    raw.socket.write(
      `POST /v1.50/containers/x/attach?stdin=1&stdout=1&stderr=1&stream=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n${headers}\r\n`,
    )
    const head = await raw.until(/^[\s\S]*?\r\n\r\n/)
    t.regex(head, headers ? /^HTTP\/1\.1 101 UPGRADED\r\n/ : /^HTTP\/1\.1 200 OK\r\n/)
    t.regex(head, /Content-Type: application\/vnd\.docker\.multiplexed-stream\r\n/)
    if (headers) t.regex(head, /\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n/)
    raw.socket.write('typed')
    await raw.until(/typed/)
    raw.socket.end()
    await raw.closed
    t.is(raw.received.subarray(head.length).toString('latin1'), '\x01\0\0\0\0\0\0\x05typed\x02\0\0\0\0\0\0\x03bye')
  })

test('an exec whose body comes after the head of its upgrade is started with it', async (t) => {
  let wanted: object | null = null
  const raw = new Raw(
    await serve(t, {
      containers: {
        execInspect: () => ({ id: 'e', tty: true, detachKeys: '' }),
        execCheckStart: () => {},
        execStart: async (_id: string, attach: object) => {
          wanted = attach
          return echo(true)
        },
      },
    }),
  )
  const body = JSON.stringify({ Detach: false, Tty: true, ConsoleSize: [24, 80] })
  raw.socket.write(
    `POST /v1.41/exec/e/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n${body.slice(0, 9)}`,
  )
  setImmediate(() => raw.socket.write(`${body.slice(9)}early`))
  const head = await raw.until(/^[\s\S]*?\r\n\r\n/)
  t.regex(head, /application\/vnd\.docker\.raw-stream/)
  await raw.until(/early/)
  raw.socket.end()
  await raw.closed
  t.deepEqual(wanted, { tty: true, detachKeys: '', consoleSize: [24, 80] })
  t.is(raw.received.subarray(head.length).toString(), 'earlybye')
})

test('an attach over a websocket carries bytes in binary frames, answers pings and closes in order', async (t) => {
  const path = await serve(t, { containers: attaching })
  const raw = new Raw(path)
  const key = randomBytes(16).toString('base64')
  const open = 'Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n'
  raw.socket.write(
    `GET /v1.50/containers/x/attach/ws?stdin=1&stdout=1&stream=1 HTTP/1.1\r\n${open}Sec-WebSocket-Key: ${key}\r\n\r\n`,
  )
  const head = await raw.until(/^[\s\S]*?\r\n\r\n/)
  t.regex(head, /^HTTP\/1\.1 101 Switching Protocols\r\n/)
  const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
  t.true(head.includes(`Sec-WebSocket-Accept: ${accept}\r\n`))
  const masked = (opcode: number, text: string): Buffer => {
    const mask = randomBytes(4)
    const data = Buffer.from(text).map((b, i) => b ^ mask[i & 3]!)
    return Buffer.concat([Buffer.from([0x80 | opcode, 0x80 | text.length]), mask, data])
  }
  const typed = masked(2, 'hello')
  raw.socket.write(typed.subarray(0, 3))
  raw.socket.write(Buffer.concat([typed.subarray(3), masked(9, 'are you there')]))
  await raw.until('\x82\x05hello')
  await raw.until('\x8a\x0dare you there')
  raw.socket.write(masked(8, ''))
  await raw.until('\x88\x02\x03\xe8')
  await raw.closed

  const plain = await ask(path, 'GET', '/containers/x/attach/ws')
  t.is(plain.status, 400)
  t.regex(message(plain), /Upgrade: websocket/)
})

test('a name with slashes and colons reaches images whole', async (t) => {
  const asked: string[] = []
  const socket = await serve(t, {
    images: {
      get: async (name: string) => {
        asked.push(name)
        throw notFound('noSuchImage', `No such image: ${name}`)
      },
    },
  })
  for (const name of ['registry.example:5000/a/b:1', 'docker.io/library/busybox', `busybox@sha256:${'0'.repeat(64)}`]) {
    const a = await ask(socket, 'GET', `/v1.50/images/${name}/json`)
    t.is(a.status, 404)
    t.is(message(a), `No such image: ${name}`)
  }
  t.is(asked.length, 3)
})

for (const reads of [true, false])
  test(`output waits for a client that ${reads ? 'has yet to read' : 'never reads'} the head of its attach`, async (t) => {
    let asked = 0
    let askedAtWrite = 0
    const sent: Buffer[] = []
    const socket = new Duplex({
      read() {},
      write(data, _encoding, done) {
        askedAtWrite = asked
        sent.push(data)
        done()
      },
    }) as Duplex & { _handle?: object }
    socket._handle = { fd: 7 }
    async function* output() {
      yield { stream: 'stdout' as const, data: Buffer.from('out') }
      yield { stream: 'stdout' as const, data: Buffer.from('put') }
    }
    const attachment = { tty: true, stdin: null, output: output(), detached: new Promise<never>(() => {}), close() {} }
    let now = 0
    const clock = {
      ...systemClock,
      monotonic: () => now,
      sleep: async (ms: number) => {
        now += ms
      },
    }
    await pump({ clock, unreadBytes: () => (++asked < 3 || !reads ? 300 : 0) }, socket, attachment)
    t.is(Buffer.concat(sent).toString(), 'output')
    t.is(askedAtWrite, asked)
    t.is(asked, reads ? 3 : 200)
  })

test('an authorization plugin sees what is asked and answered, and refuses either; without its answer nothing is done', async (t) => {
  const asked: [string, Record<string, unknown>][] = []
  const answers: Record<string, unknown> = {}
  const created: unknown[] = []
  const guard: Authorizer = {
    name: 'guard',
    call: async (method, question) => {
      asked.push([method, question as Record<string, unknown>])
      const answer = answers[method] ?? { Allow: true }
      if (answer instanceof Error) throw answer
      return answer as Record<string, unknown>
    },
  }
  const create = async (body: unknown): Promise<object> => {
    created.push(body)
    return { id: 'c1', warnings: [] }
  }
  const socket = await serve(t, { authorizers: [guard], containers: { create } })
  const post = (): Promise<Answer> => ask(socket, 'POST', '/v1.40/containers/create', { Image: 'x' })
  t.is((await post()).status, 201)
  const [[first, request], [second, response]] = asked as [(typeof asked)[0], (typeof asked)[0]]
  t.deepEqual([first, second, asked.length], ['AuthZPlugin.AuthZReq', 'AuthZPlugin.AuthZRes', 2])
  t.like(request, {
    RequestMethod: 'POST',
    RequestUri: '/v1.40/containers/create',
    RequestBody: Buffer.from('{"Image":"x"}').toString('base64'),
    RequestHeaders: { 'Content-Type': 'application/json' },
  })
  t.like(response, { ...request, ResponseStatusCode: 201 })
  t.like(JSON.parse(Buffer.from(String(response.ResponseBody), 'base64').toString()), { Id: 'c1' })

  answers['AuthZPlugin.AuthZRes'] = { Allow: false, Msg: 'not that' }
  const denied = await post()
  t.deepEqual([denied.status, message(denied)], [403, 'authorization denied by plugin guard: not that'])
  answers['AuthZPlugin.AuthZReq'] = { Allow: false, Msg: 'go away' }
  const before = created.length
  t.deepEqual([(await post()).status, message(await post())], [403, 'authorization denied by plugin guard: go away'])
  answers['AuthZPlugin.AuthZReq'] = new Error('AuthZPlugin.AuthZReq: broken')
  t.deepEqual(
    [(await post()).status, message(await post())],
    [500, 'plugin guard failed with error: AuthZPlugin.AuthZReq: broken'],
  )
  t.is(created.length, before)
  answers['AuthZPlugin.AuthZReq'] = { Allow: false }
  await ask(socket, 'POST', '/auth', { username: 'me', password: 'secret' })
  t.false('RequestBody' in asked.at(-1)![1])
  t.is((await ask(socket, 'GET', '/_ping')).status, 403)
})

test('networks are listed with and without a slash behind the path', async (t) => {
  const socket = await serve(t)
  for (const path of ['/networks', '/v1.41/networks/']) t.is((await ask(socket, 'GET', path)).text, '[]\n', path)
})
