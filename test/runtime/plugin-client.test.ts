// Calls to plugins: answers, refusals, silence, and plugins that are not there yet.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type RequestListener, type Server } from 'node:http'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { type Clock, nullLogger, ShoalError, systemClock } from '../../src/common/index.js'
import { PluginClient, Plugins } from '../../src/runtime/index.js'
import { findPlugin, parseAddress, pluginNames } from '../../src/runtime/plugin/discovery.js'
import { temporaryDirectory } from './image-kit.js'

// The clock's timers keep no process alive.
const alive = setInterval(() => {}, 1000)
test.after.always(() => clearInterval(alive))

async function serve(t: ExecutionContext, socket: string, listener: RequestListener): Promise<Server> {
  const server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(socket, resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return server
}
const failure = async (t: ExecutionContext, p: Promise<unknown>): Promise<ShoalError> =>
  (await t.throwsAsync(p, { instanceOf: ShoalError }))!

test('a call is a POST of JSON; what the plugin says is passed on, and what it garbles is told as such', async (t) => {
  const socket = join(temporaryDirectory(t), 's')
  await serve(t, socket, (req, res) => {
    let body = ''
    req.on('data', (b) => {
      body += b
    })
    req.on('end', () => {
      const method = req.url!.slice(1)
      if (method === 'A.Echo')
        res.end(JSON.stringify({ got: JSON.parse(body), method: req.method, type: req.headers['content-type'] }))
      else if (method === 'A.Refuse') res.writeHead(500).end('{"Err":"no room on the shelf"}')
      else if (method === 'A.RefuseMildly') res.end('{"Err":"not today"}')
      else if (method === 'A.Twice') res.end('{"Err":"no such thing"}\n{"Thing":{}}\n')
      else if (method === 'A.Text') res.writeHead(404).end('nothing here')
      else if (method === 'A.Garble') res.end('<html>')
      else if (method === 'A.Flood') {
        const more = (): void => {
          while (!res.destroyed && res.write('x'.repeat(1 << 20)));
          res.once('drain', more)
        }
        more()
      }
    })
  })
  const client = new PluginClient('shelf', { socket }, systemClock)
  const call = (method: string) => client.call(method, { a: 1 }, { timeoutMs: 5000 })
  t.deepEqual(await call('A.Echo'), {
    got: { a: 1 },
    method: 'POST',
    type: 'application/vnd.docker.plugins.v1.2+json',
  })
  t.like(await failure(t, call('A.Refuse')), { code: 'pluginFailed', message: 'A.Refuse: no room on the shelf' })
  t.like(await failure(t, call('A.RefuseMildly')), { code: 'pluginFailed', message: 'A.RefuseMildly: not today' })
  t.like(await failure(t, call('A.Twice')), { code: 'pluginFailed', message: 'A.Twice: no such thing' })
  t.like(await failure(t, call('A.Text')), { message: 'A.Text: nothing here' })
  t.like(await failure(t, call('A.Garble')), { code: 'pluginBroken' })
  t.regex((await failure(t, call('A.Flood'))).message, /more than 16777216 bytes/)
})

test('a plugin that does not answer is given up after its time', async (t) => {
  const socket = join(temporaryDirectory(t), 's')
  await serve(t, socket, () => {})
  const client = new PluginClient('slow', { socket }, systemClock)
  const e = await failure(t, client.call('A.Hang', {}, { timeoutMs: 100, retry: true }))
  t.like(e, { kind: 'unavailable', code: 'pluginTimeout' })
  t.regex(e.message, /plugin "slow" has not answered A\.Hang in time/)
})

test('where nobody listens it is tried again with growing waits, if that was asked for', async (t) => {
  const socket = join(temporaryDirectory(t), 's')
  const waits: number[] = []
  let onWait: () => Promise<void> = async () => {}
  const clock: Clock = {
    ...systemClock,
    async sleep(ms) {
      waits.push(ms)
      await onWait()
    },
  }
  const client = new PluginClient('late', { socket }, clock)
  t.regex(
    (await failure(t, client.call('A.B', {}, { timeoutMs: 60_000 }))).message,
    /plugin "late" does not answer at unix:\/\//,
  )
  t.deepEqual(waits, [])
  await failure(t, client.call('A.B', {}, { timeoutMs: 60_000, retry: true }))
  t.deepEqual(waits.splice(0), [1000, 2000, 4000, 8000])
  onWait = async () => {
    if (waits.length === 2) await serve(t, socket, (_req, res) => res.end('{}'))
  }
  t.deepEqual(await client.call('A.B', {}, { timeoutMs: 60_000, retry: true }), {})
  t.deepEqual(waits, [1000, 2000])
})

test('plugins are found by socket and spec file, activated once, and only for what they implement', async (t) => {
  const root = temporaryDirectory(t)
  const dirs = { sockets: [join(root, 'run')], specs: [join(root, 'etc')] }
  for (const d of ['run/nested', 'etc']) mkdirSync(join(root, d), { recursive: true })
  let activations = 0
  const answer =
    (what: string[]): RequestListener =>
    (_req, res) => {
      activations++
      res.end(JSON.stringify({ Implements: what }))
    }
  const direct = await serve(t, join(root, 'run/direct.sock'), answer(['VolumeDriver']))
  await serve(t, join(root, 'run/nested/nested.sock'), answer(['NetworkDriver']))
  writeFileSync(join(root, 'etc/far.spec'), ` unix://${join(root, 'run/direct.sock')}\n`)
  writeFileSync(
    join(root, 'etc/secure.json'),
    JSON.stringify({ Name: 'secure', Addr: 'https://h:1', TLSConfig: { InsecureSkipVerify: true } }),
  )
  t.deepEqual(await pluginNames(dirs), ['direct', 'far', 'nested', 'secure'])
  t.deepEqual(await findPlugin(dirs, 'secure'), {
    host: 'h',
    port: 1,
    tls: { ca: null, cert: null, key: null, insecure: true },
  })
  t.is(await findPlugin(dirs, '../etc/far'), null)
  t.is(await findPlugin(dirs, 'a'.repeat(251)), null)
  rmSync(join(root, 'etc/secure.json'))
  const plugins = new Plugins(dirs, { clock: systemClock, logger: nullLogger })
  t.deepEqual(await plugins.list('VolumeDriver'), { names: ['direct', 'far'], warnings: [] })
  await plugins.get('direct', 'VolumeDriver')
  t.is(activations, 3)
  t.like(await failure(t, plugins.get('nested', 'VolumeDriver')), { code: 'noSuchPlugin' })
  t.like(await failure(t, plugins.get('none', 'VolumeDriver')), { message: 'plugin "none" not found' })
  direct.closeAllConnections()
  await new Promise((resolve) => direct.close(resolve))
  t.deepEqual((await plugins.list('NetworkDriver')).names, ['nested'])
  writeFileSync(join(root, 'etc/bad.spec'), 'ftp://x')
  t.regex((await plugins.list('VolumeDriver')).warnings.join(), /"ftp:\/\/x" is no address of a plugin/)
  t.deepEqual(parseAddress('tcp://[::1]:5', 'x'), { host: '::1', port: 5, tls: null })
})

test('one that is still being started is waited for, one that was taken away is not', async (t) => {
  const run = join(temporaryDirectory(t), 'run')
  mkdirSync(run)
  const dirs = { sockets: [run], specs: [] }
  const waits: number[] = []
  const clock: Clock = {
    ...systemClock,
    async sleep(ms) {
      waits.push(ms)
      if (String(waits) === '1000,2000' && !(await findPlugin(dirs, 'late')))
        await serve(t, join(run, 'late.sock'), (_req, res) => res.end('{}'))
    },
  }
  const plugins = new Plugins(dirs, { clock, logger: nullLogger })
  plugins.drop('gone:latest')
  await plugins.awaited('gone')
  t.deepEqual(waits, [])
  await plugins.awaited('late')
  t.deepEqual(waits.splice(0), [1000, 2000])
  await plugins.awaited('never')
  t.deepEqual(waits, [1000, 2000, 4000, 8000])
})
