import { type ChildProcess, execFileSync, fork } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { ShoalError } from '../../src/common/index.js'
import { PluginDistribution } from '../../src/runtime/index.js'
import {
  type Exchange,
  type Host,
  importTar,
  LAYER_TOOL,
  newHost,
  noise,
  openHost,
  type Registry,
  recorder,
  startProxy,
  startRegistry,
  statuses,
  tarOf,
  temporaryDirectory,
} from './image-kit.js'

const MIB = 1 << 20

/** An image of one incompressible layer in the registry; answers its layer's digest and size. */
async function pushNoise(
  t: ExecutionContext,
  registry: Registry,
  size: number,
  name = 'noise',
): Promise<{ host: Host; id: string; layer: string; layerSize: number }> {
  const host = await newHost(t)
  const image = await importTar(host, tarOf([{ name: 'data', data: noise(size) }]), `${registry.host}/${name}`)
  await host.images.push(`${registry.host}/${name}`, {})
  const blob = host.images.store.db.images.get(image.id)!.blobs[0]!
  return { host, id: image.id, layer: blob.digest, layerSize: blob.size }
}

const isBlob = (x: Exchange, digest: string): boolean =>
  x.request.method === 'GET' && x.request.url!.endsWith(`/blobs/${digest}`)

test('a download that breaks goes on where it was, and no byte is asked for twice', async (t) => {
  const registry = await startRegistry(t)
  const { id, layer, layerSize } = await pushNoise(t, registry, 4 * MIB)
  let cuts = 0
  const proxy = await startProxy(t, registry, {
    onData: (x) => {
      if (!isBlob(x, layer) || cuts >= 3 || x.passed < MIB) return true
      cuts++
      return false
    },
  })
  const host = await newHost(t)
  const image = await host.images.pull(`${proxy.host}/noise`, {})
  t.is(image.id, id)
  t.is(cuts, 3)
  const ranges = proxy.log.filter((l) => l.includes(layer)).map((l) => / bytes=(\d+)-$/.exec(l)?.[1])
  t.is(ranges.length, 4)
  t.is(ranges[0], undefined)
  const offsets = ranges.slice(1).map(Number)
  t.true(offsets.every((o, i) => o > (offsets[i - 1] ?? 0) && o < layerSize))
})

test('a registry that ignores ranges is read through again and the bytes still agree', async (t) => {
  const registry = await startRegistry(t)
  const { id, layer } = await pushNoise(t, registry, 2 * MIB)
  let cut = false
  const proxy = await startProxy(t, registry, {
    before: (x) => {
      delete x.request.headers.range
      return false
    },
    onData: (x) => {
      if (!isBlob(x, layer) || cut || x.passed < MIB) return true
      cut = true
      return false
    },
  })
  const host = await newHost(t)
  t.is((await host.images.pull(`${proxy.host}/noise`, {})).id, id)
  t.true(cut)
})

test('a pull given up leaves its part behind, and the next one needs only the rest', async (t) => {
  const registry = await startRegistry(t)
  const { id, layer } = await pushNoise(t, registry, 4 * MIB)
  let down = true
  const proxy = await startProxy(t, registry, { onData: (x) => !(down && isBlob(x, layer) && x.passed >= MIB) })
  const host = await newHost(t, { attemptsMax: 1 })
  const e = await t.throwsAsync(host.images.pull(`${proxy.host}/noise`, {}), { instanceOf: ShoalError })
  t.is(e!.kind, 'unavailable')
  t.is((await host.images.list()).length, 0)
  t.deepEqual(readdirSync(join(host.root, 'layers')), ['empty'])
  down = false
  t.is((await host.images.pull(`${proxy.host}/noise`, {})).id, id)
  const last = proxy.log.filter((l) => l.includes(layer)).at(-1)!
  t.true(Number(/bytes=(\d+)-/.exec(last)?.[1]) >= MIB)
})

test('an aborted pull ends with the reason and leaves no layer', async (t) => {
  const registry = await startRegistry(t)
  const { layer } = await pushNoise(t, registry, 4 * MIB)
  const stop = new AbortController()
  const proxy = await startProxy(t, registry, {
    onData: (x) => {
      if (isBlob(x, layer) && x.passed > 0) stop.abort(new Error('the user left'))
      return true
    },
  })
  const host = await newHost(t)
  await t.throwsAsync(host.images.pull(`${proxy.host}/noise`, { signal: stop.signal }), { message: 'the user left' })
  t.deepEqual(readdirSync(join(host.root, 'layers')), ['empty'])
})

test('stopping the service ends a pull that waits, with the reason', async (t) => {
  const registry = await startRegistry(t)
  const { layer } = await pushNoise(t, registry, 2 * MIB)
  const reached = deferred()
  const proxy = await startProxy(t, registry, {
    onData: (x) => {
      if (!isBlob(x, layer)) return true
      reached.resolve()
      return 'hold'
    },
  })
  const root = join(temporaryDirectory(t), 'data')
  const host = await openHost(root)
  const pull = t.throwsAsync(host.images.pull(`${proxy.host}/noise`, {}), { message: 'the image service is stopping' })
  await reached.promise
  await host.stop()
  await pull
  await host.stop()
  t.deepEqual(readdirSync(join(root, 'layers')), ['empty'])
})

test('lying digests are refused: manifest, config, layer, and a layer that unpacks to something else', async (t) => {
  const registry = await startRegistry(t)
  const { host: a, id, layer } = await pushNoise(t, registry, 100_000)
  const manifest = a.images.store.db.images.get(id)!.manifest.digest
  const flip = (body: Buffer): Buffer => {
    const copy = Buffer.from(body)
    copy[copy.length >> 1]! ^= 1
    return copy
  }
  for (const [what, reference] of [
    [`/manifests/${manifest}`, `@${manifest}`],
    [`/blobs/${id}`, ''],
    [`/blobs/${layer}`, ''],
  ] as const) {
    const proxy = await startProxy(t, registry, {
      map: (x, body) => (x.request.url!.endsWith(what) && body.length > 0 ? flip(body) : body),
    })
    const host = await newHost(t)
    const e = await t.throwsAsync(
      host.images.pull(`${proxy.host}/noise${reference}`, {}),
      { instanceOf: ShoalError },
      what,
    )
    t.regex(`${e!.code} ${e!.message}`, /verification failed for digest|layerTool/, what)
    t.deepEqual(await host.images.list(), [])
    t.deepEqual(readdirSync(join(host.root, 'layers')), ['empty'])
    t.false(existsSync(join(host.root, 'blobs/sha256', layer.slice(7))))
  }
  // Right blobs, but a config that promises another content.
  const b = await newHost(t)
  const config = JSON.parse(Buffer.from((await a.images.get(id)).rawConfig).toString()) as {
    rootfs: { diff_ids: string[] }
  }
  config.rootfs.diff_ids = [`sha256:${'0'.repeat(64)}`]
  const { digestOf } = await import('../../src/runtime/content/blob-store.js')
  const raw = Buffer.from(JSON.stringify(config))
  const lying = Buffer.from(
    JSON.stringify({
      ...(JSON.parse(readFileSync(a.images.store.blobs.path(manifest), 'utf8')) as object),
      config: { mediaType: 'application/vnd.docker.container.image.v1+json', digest: digestOf(raw), size: raw.length },
    }),
  )
  const proxy = await startProxy(t, registry, {
    before: ({ request, response }) => {
      const body = request.url!.includes('/manifests/') ? lying : request.url!.includes(digestOf(raw)) ? raw : null
      if (body)
        response.writeHead(200, { 'content-type': 'application/vnd.docker.distribution.manifest.v2+json' }).end(body)
      return body !== null
    },
  })
  await t.throwsAsync(b.images.pull(`${proxy.host}/noise`, {}), { message: /layer verification failed/ })
  t.deepEqual(await b.images.list(), [])
})

test("a registry's passing trouble is waited out, a lasting one is told", async (t) => {
  const registry = await startRegistry(t)
  const { id } = await pushNoise(t, registry, 1000)
  let failures = 3
  const proxy = await startProxy(t, registry, {
    before: ({ request, response }) => {
      if (request.url === '/v2/' || failures-- <= 0) return false
      response.writeHead(503).end('busy')
      return true
    },
  })
  const host = await newHost(t)
  t.is((await host.images.pull(`${proxy.host}/noise`, {})).id, id)
  failures = 1000
  await t.throwsAsync(host.images.pull(`${proxy.host}/noise`, {}), {
    message: 'received unexpected HTTP status: 503 Service Unavailable',
  })
})

test("refusals have docker's sentences", async (t) => {
  const registry = await startRegistry(t)
  const host = await newHost(t, { attemptsMax: 1 })
  await t.throwsAsync(host.images.pull(`${registry.host}/nothing:1`, {}), {
    message: `manifest for ${registry.host}/nothing:1 not found: manifest unknown: manifest unknown`,
  })
  const denied = await startProxy(t, registry, {
    before: ({ request, response }) => {
      if (request.url === '/v2/') return false
      response.writeHead(403, { 'content-type': 'application/json' })
      response.end('{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}')
      return true
    },
  })
  await t.throwsAsync(host.images.pull(`${denied.host}/secret`, {}), {
    message: `pull access denied for ${denied.host}/secret, repository does not exist or may require 'docker login': denied: requested access to the resource is denied`,
  })
  const unreachable = await t.throwsAsync(host.images.pull('127.0.0.1:1/x', {}), { instanceOf: ShoalError })
  t.is(unreachable!.code, 'registryUnreachable')
  t.regex(
    unreachable!.message,
    /^Get "http:\/\/127\.0\.0\.1:1\/v2\/": dial tcp 127\.0\.0\.1:1: connect: connection refused$/,
  )
  await t.throwsAsync(host.images.push('nothing', {}), {
    message: 'An image does not exist locally with the tag: nothing',
  })
  await t.throwsAsync(host.images.get('nothing'), { message: 'No such image: nothing:latest' })
  await t.throwsAsync(host.images.get('a'.repeat(64)), { message: `No such image: sha256:${'a'.repeat(64)}` })
})

test('basic credentials are used where asked for, and missing or wrong ones are told', async (t) => {
  const registry = await startRegistry(t)
  const { id } = await pushNoise(t, registry, 1000)
  const expected = `Basic ${Buffer.from('me:secret:with:colons').toString('base64')}`
  const proxy = await startProxy(t, registry, {
    before: ({ request, response }) => {
      if (request.headers.authorization === expected) return false
      response.writeHead(401, { 'www-authenticate': 'Basic realm="r"', 'content-type': 'application/json' })
      response.end('{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}')
      return true
    },
  })
  const host = await newHost(t)
  const auth = { username: 'me', password: 'secret:with:colons' }
  t.is((await host.images.pull(`${proxy.host}/noise`, { auth })).id, id)
  t.is(
    (
      await host.images.pull(`${proxy.host}/noise`, {
        auth: { auth: Buffer.from('me:secret:with:colons').toString('base64') },
      })
    ).id,
    id,
  )
  await t.throwsAsync(host.images.pull(`${proxy.host}/noise`, {}), { message: /no basic auth credentials/ })
  await t.throwsAsync(host.images.pull(`${proxy.host}/noise`, { auth: { username: 'me', password: 'x' } }), {
    message: /pull access denied.*unauthorized: authentication required/,
  })
})

test('a login is good only when the registry says so, and takes the identity token that it offers', async (t) => {
  const registry = await startRegistry(t)
  const expected = `Basic ${Buffer.from('me:secret').toString('base64')}`
  const agents = new Set<string | undefined>()
  const basic = await startProxy(t, registry, {
    before: ({ request, response }) => {
      agents.add(request.headers['user-agent'])
      if (request.headers.authorization === expected) return false
      response.writeHead(401, { 'www-authenticate': 'Basic realm="r"' }).end()
      return true
    },
  })
  const tokens = await startProxy(t, registry, {
    before: ({ request, response }) => {
      const realm = `http://${request.headers.host}/token`
      const isRight = request.headers.authorization === expected
      if (request.url!.startsWith('/token?') && isRight && request.url!.includes('offline_token=true'))
        response.writeHead(200).end('{"token":"T","refresh_token":"R"}')
      else if (request.url!.startsWith('/token?'))
        response.writeHead(401).end('{"errors":[{"Code":"UNAUTHORIZED","message":"incorrect username or password"}]}')
      else if (request.headers.authorization === 'Bearer T') return false
      else response.writeHead(401, { 'www-authenticate': `Bearer realm="${realm}",service="s"` }).end()
      return true
    },
  })
  const host = await newHost(t)
  const auth = { username: 'me', password: 'secret', userAgent: 'Docker-Client/20.10 (linux)' }
  t.is(await host.images.login(basic.host, { auth }), '')
  t.true(agents.has('docker/20.10 shoal os/linux UpstreamClient(Docker-Client/20.10 \\(linux\\))'))
  t.is(await host.images.login(tokens.host, { auth }), 'R')
  const wrong = { auth: { username: 'me', password: 'x' } }
  await t.throwsAsync(host.images.login(basic.host, wrong), {
    message: `login attempt to http://${basic.host}/v2/ failed with status: 401 Unauthorized`,
  })
  await t.throwsAsync(host.images.login(tokens.host, wrong), {
    message: `Get "http://${tokens.host}/v2/": unauthorized: incorrect username or password`,
  })
})

test("the certificate in a registry's directory is shown to it", async (t) => {
  const dir = temporaryDirectory(t)
  execFileSync(process.execPath, ['certs/make.mjs', '--out', dir, '--host', '127.0.0.1'])
  const read = (name: string): Buffer => readFileSync(join(dir, name))
  const server = createTlsServer(
    { ca: read('ca/ca.pem'), cert: read('server/cert.pem'), key: read('server/key.pem'), requestCert: true },
    (_, res) => res.end('{}'),
  )
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`
  const certs = join(dir, 'certs.d', address)
  mkdirSync(certs, { recursive: true })
  writeFileSync(join(certs, 'ours.crt'), read('ca/ca.pem'))
  const host = await newHost(t, { certsDirs: [join(dir, 'none'), join(dir, 'certs.d')] })
  const login = (): Promise<string> => host.images.login(address, { auth: {} })
  await t.throwsAsync(login(), { code: 'registryUnreachable' } as never)
  writeFileSync(join(certs, 'me.cert'), read('client/cert.pem'))
  await t.throwsAsync(login(), { message: /^missing key me\.key for client certificate me\.cert/ })
  writeFileSync(join(certs, 'me.key'), read('client/key.pem'))
  t.is(await login(), '')
})

test("a token service's refusals are told as dockerd tells them", async (t) => {
  const registry = await startRegistry(t)
  const answers: readonly (readonly [number, string, RegExp])[] = [
    [401, '{"error":"unauthorized"}', /^unauthorized: authentication required$/],
    [403, 'no way', /^error parsing HTTP 403 response body: .*"no way"$/],
    [403, '{}', /^error parsing HTTP 403 response body: no error details found in HTTP response body: "{}"$/],
    [200, '{"something":"wrong"}', /^authorization server did not include a token in the response$/],
  ]
  const host = await newHost(t)
  for (const [status, body, message] of answers) {
    const proxy = await startProxy(t, registry, {
      before: ({ request, response }) => {
        const realm = `http://${request.headers.host}/token`
        if (request.url!.startsWith('/token')) response.writeHead(status).end(body)
        else response.writeHead(401, { 'www-authenticate': `Bearer realm="${realm}",service="s"` }).end()
        return true
      },
    })
    await importTar(host, tarOf([{ name: 'f', data: body }]), `${proxy.host}/x`)
    await t.throwsAsync(host.images.push(`${proxy.host}/x`, {}), { message })
  }
})

test('token credentials: fetched by scope, used again, and never sent where a redirect leads', async (t) => {
  const registry = await startRegistry(t)
  const { id, layer } = await pushNoise(t, registry, 1000)
  const foreign: string[] = []
  const store = await startProxy(t, registry, {
    before: ({ request }) => {
      foreign.push(String(request.headers.authorization))
      return false
    },
  })
  let tokens = 0
  const scopes: string[] = []
  const proxy = await startProxy(t, registry, {
    before: ({ request, response }) => {
      const url = new URL(request.url!, `http://${request.headers.host}`)
      if (url.pathname === '/token') {
        tokens++
        scopes.push(...url.searchParams.getAll('scope'))
        t.is(request.headers.authorization, `Basic ${Buffer.from('u:p').toString('base64')}`)
        t.is(url.searchParams.get('service'), 'the service')
        response.writeHead(200).end(JSON.stringify({ token: 'T1', expires_in: 300 }))
        return true
      }
      if (request.headers.authorization !== 'Bearer T1') {
        response
          .writeHead(401, {
            'www-authenticate': `Bearer realm="http://${request.headers.host}/token",service="the service",scope="x"`,
          })
          .end()
        return true
      }
      if (request.url!.endsWith(layer)) {
        response.writeHead(307, { location: `http://${store.host}${request.url}` }).end()
        return true
      }
      return false
    },
  })
  const host = await newHost(t)
  t.is((await host.images.pull(`${proxy.host}/noise`, { auth: { username: 'u', password: 'p' } })).id, id)
  t.is(tokens, 1)
  t.deepEqual(scopes, ['repository:noise:pull'])
  t.deepEqual(foreign, ['undefined'])
  t.is((await host.images.pull(`${proxy.host}/noise`, { auth: { registrytoken: 'T1' } })).id, id)
})

test("an index gives the image of the platform, and the name keeps the index's digest", async (t) => {
  const registry = await startRegistry(t)
  const a = await newHost(t)
  const manifests: object[] = []
  for (const architecture of ['amd64', 'arm64']) {
    const image = await a.images.import(
      (await import('./image-kit.js')).streamOf(tarOf([{ name: architecture, data: architecture }])),
      { reference: `${registry.host}/multi:${architecture}`, platform: { os: 'linux', architecture } },
    )
    await a.images.push(`${registry.host}/multi:${architecture}`, {})
    manifests.push({ ...image.manifest, platform: { os: 'linux', architecture } })
  }
  const index = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: 'application/vnd.docker.distribution.manifest.list.v2+json',
      manifests,
    }),
  )
  const put = await fetch(`http://${registry.host}/v2/multi/manifests/latest`, {
    method: 'PUT',
    headers: { 'content-type': 'application/vnd.docker.distribution.manifest.list.v2+json' },
    body: index,
  })
  t.is(put.status, 201)
  const { digestOf } = await import('../../src/runtime/content/blob-store.js')
  const host = await newHost(t)
  const remote = await host.images.resolveRemote(`${registry.host}/multi`, {})
  t.is(remote.descriptor.digest, digestOf(index))
  t.deepEqual(
    remote.platforms.map((p) => p.architecture),
    ['amd64', 'arm64'],
  )
  const arm = await host.images.pull(`${registry.host}/multi`, { platform: { os: 'linux', architecture: 'arm64' } })
  t.is(arm.config.architecture, 'arm64')
  t.deepEqual(arm.repoDigests, [`${registry.host}/multi@${digestOf(index)}`])
  const native = await host.images.pull(`${registry.host}/multi@${digestOf(index)}`, {
    platform: { os: 'linux', architecture: 'amd64' },
  })
  t.is(native.config.architecture, 'amd64')
  await t.throwsAsync(
    host.images.pull(`${registry.host}/multi`, { platform: { os: 'linux', architecture: 's390x' } }),
    {
      message: 'no matching manifest for linux/s390x in the manifest list entries',
    },
  )
  const all = await newHost(t)
  await all.images.pull(`${registry.host}/multi`, { allTags: true })
  t.deepEqual(
    (await all.images.list()).flatMap((i) => i.repoTags).sort(),
    ['amd64', 'arm64', 'latest'].map((tag) => `${registry.host}/multi:${tag}`),
  )
})

test("a plugin's configuration may name its layer by the packed digest, as dockerd's do, and by no other", async (t) => {
  const registry = await startRegistry(t)
  const { images } = await newHost(t)
  const plugins = new PluginDistribution(images.store)
  const { digestOf } = await import('../../src/runtime/content/blob-store.js')
  const push = async (name: string, diffId: (layer: string) => string): Promise<string> => {
    const dir = temporaryDirectory(t)
    mkdirSync(join(dir, 'rootfs/bin'), { recursive: true })
    await plugins.pack(dir, { description: name })
    const manifest = JSON.parse(readFileSync(join(dir, 'manifest.json'), 'utf8'))
    const diffIds = [diffId(manifest.layers[0].digest)]
    const config = Buffer.from(JSON.stringify({ rootfs: { type: 'layers', diff_ids: diffIds } }))
    Object.assign(manifest.config, { digest: digestOf(config), size: config.length })
    writeFileSync(join(dir, 'config.json'), config)
    writeFileSync(join(dir, 'manifest.json'), JSON.stringify(manifest))
    await plugins.push(`${registry.host}/${name}`, dir, {})
    return `${registry.host}/${name}`
  }
  const taken = temporaryDirectory(t)
  await plugins.pull(await push('packed', (layer) => layer), taken, {})
  t.true(existsSync(join(taken, 'rootfs/bin')))
  const wrong = await push('wrong', () => `sha256:${'0'.repeat(64)}`)
  await t.throwsAsync(plugins.pull(wrong, temporaryDirectory(t), {}), { code: 'digestMismatch' } as never)
})

test('an upload in pieces survives breaks, and the registry has the whole', async (t) => {
  const registry = await startRegistry(t)
  let patches = 0
  const proxy = await startProxy(t, registry, {
    before: ({ request }) => {
      if (request.method === 'PATCH' && ++patches === 2) {
        request.socket.destroy()
        return true
      }
      return false
    },
  })
  const a = await newHost(t, { uploadChunkBytes: MIB })
  const image = await importTar(a, tarOf([{ name: 'data', data: noise(3 * MIB + 17) }]), `${proxy.host}/big`)
  const { messages, onProgress } = recorder()
  await a.images.push(`${proxy.host}/big`, { onProgress })
  t.true(patches >= 5)
  t.true(messages.some((m) => m.status === 'Pushing' && m.progressDetail?.total !== undefined))
  const b = await newHost(t)
  t.is((await b.images.pull(`${registry.host}/big`, {})).id, image.id)
})

test("mirrors are asked first for Docker Hub's names, and passed over when they do not serve", async (t) => {
  const registry = await startRegistry(t)
  const { id } = await pushNoise(t, registry, 1000, 'library/noise')
  const broken = await startProxy(t, registry, {
    before: ({ response }) => {
      response.writeHead(500).end()
      return true
    },
  })
  const good = await startProxy(t, registry, {})
  const host = await newHost(t, { attemptsMax: 1, mirrors: [`http://${broken.host}`, `http://${good.host}`] })
  const image = await host.images.pull('noise', {})
  t.is(image.id, id)
  t.deepEqual(image.repoTags, ['noise:latest'])
  t.true(broken.log.length > 0)
})

test('two pulls of one image at one time fetch each layer once', async (t) => {
  const registry = await startRegistry(t)
  const { id, layer } = await pushNoise(t, registry, MIB)
  const proxy = await startProxy(t, registry, {})
  const host = await newHost(t)
  const images = await Promise.all([1, 2, 3].map(() => host.images.pull(`${proxy.host}/noise`, {})))
  t.deepEqual(
    images.map((i) => i.id),
    [id, id, id],
  )
  t.is(proxy.log.filter((l) => l.startsWith('GET') && l.includes(layer)).length, 1)
})

test('an image with the same layer twice, and one with more layers than downloads at a time', async (t) => {
  const registry = await startRegistry(t)
  const a = await newHost(t)
  let image = await importTar(a, tarOf([{ name: 'f0', data: noise(1000, 99) }]), `${registry.host}/many`)
  for (let i = 1; i < 8; i++) {
    await a.snapshots.prepare(`c${i}`, image.id)
    await a.snapshots.withMounted(`c${i}`, async (root) => writeFileSync(join(root, `f${i}`), noise(1000, i)))
    image = await a.images.commit({
      container: `c${i}`,
      command: 'sh',
      image: image.id,
      config: {},
      reference: `${registry.host}/many`,
    })
  }
  await a.images.push(`${registry.host}/many`, {})
  const b = await newHost(t)
  const { messages, onProgress } = recorder()
  const got = await b.images.pull(`${registry.host}/many`, { onProgress })
  t.is(got.config.rootfs.diff_ids.length, 8)
  t.is(statuses(messages).filter((s) => s === 'Pull complete').length, 8)
  await b.snapshots.prepare('c', got.id)
  await b.snapshots.withMounted('c', async (root) => {
    for (let i = 0; i < 8; i++) t.deepEqual(readFileSync(join(root, `f${i}`)), noise(1000, i || 99))
  })
})

// ---------------------------------------------------------------------------------------------- crashes and bad disks

const PULLER = new URL('./image-puller.js', import.meta.url)

test('SIGKILL in the middle of a pull leaves a consistent store, and the next pull goes on', async (t) => {
  const registry = await startRegistry(t)
  const { id, layer } = await pushNoise(t, registry, 6 * MIB)
  const dir = temporaryDirectory(t)
  const root = join(dir, 'data')
  for (const killAt of [1, MIB, 3 * MIB]) {
    const at = deferred()
    const proxy = await startProxy(t, registry, {
      onData: (x) => {
        // Held there: the victim is killed with the layer half done.
        if (!isBlob(x, layer) || x.passed < killAt) return true
        at.resolve()
        return 'hold'
      },
    })
    const child: ChildProcess = fork(PULLER, [root, LAYER_TOOL, `${proxy.host}/noise`], { stdio: 'ignore' })
    await at.promise
    child.kill('SIGKILL')
    await once(child, 'exit')
    const host = await openHost(root)
    t.deepEqual(await host.images.list(), [])
    t.deepEqual(readdirSync(join(root, 'layers')), ['empty'])
    t.deepEqual(readdirSync(join(root, 'blobs/sha256')), [])
    t.deepEqual(
      readdirSync(join(root, 'ingest')).filter((n) => n !== `${layer.slice(7)}.partial`),
      [],
    )
    await host.stop()
  }
  const proxy = await startProxy(t, registry, {})
  const host = await openHost(root)
  t.is((await host.images.pull(`${proxy.host}/noise`, {})).id, id)
  t.regex(proxy.log.find((l) => l.includes(layer))!, /bytes=\d+-/)
  await host.stop()
  const later = await openHost(root)
  t.is((await later.images.list())[0]!.id, id)
  await later.stop()
})

test('a flipped byte in a blob is found by push, save and verify, and the next pull repairs it', async (t) => {
  const registry = await startRegistry(t)
  const { layer } = await pushNoise(t, registry, 100_000)
  const host = await newHost(t)
  const reference = `${registry.host}/noise`
  const image = await host.images.pull(reference, {})
  const path = host.images.store.blobs.path(layer)
  const damage = (): void => {
    const data = readFileSync(path)
    data[data.length >> 1]! ^= 1
    writeFileSync(path, data)
  }
  damage()
  await t.throwsAsync(host.images.store.blobs.verify(layer), { message: /does not have the content of its digest/ })
  t.false(existsSync(path))
  t.is((await host.images.pull(reference, {})).id, image.id)
  t.true(existsSync(path))
  damage()
  await t.throwsAsync(
    (async () => {
      for await (const _ of await host.images.save([reference]));
    })(),
    { message: /does not have the content of its digest/ },
  )
  await host.images.pull(reference, {})
  damage()
  await host.images.tag(reference, `${registry.host}/elsewhere`)
  // The registry would take the layer over from the other repository: a fresh one has to be sent the bytes.
  const fresh = await startRegistry(t)
  await host.images.tag(reference, `${fresh.host}/x`)
  await t.throwsAsync(host.images.push(`${fresh.host}/x`, {}), { message: /does not have the content of its digest/ })
  t.is(statSync(join(host.root, 'blobs/sha256')).isDirectory(), true)
})

test('a damaged config makes the image go at the next start, with its names', async (t) => {
  const dir = temporaryDirectory(t)
  const root = join(dir, 'data')
  const host = await openHost(root)
  const image = await importTar(host, tarOf([{ name: 'a', data: 'a' }]), 'x')
  await host.stop()
  writeFileSync(join(root, 'blobs/sha256', image.id.slice(7)), '{}')
  const later = await openHost(root)
  t.deepEqual(await later.images.list(), [])
  t.deepEqual(readdirSync(join(root, 'blobs/sha256')), [])
  t.deepEqual(readdirSync(join(root, 'layers')), ['empty'])
  await later.stop()
})

function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve!: () => void
  const promise = new Promise<void>((r) => {
    resolve = r
  })
  return { promise, resolve }
}
