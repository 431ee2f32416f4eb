/** What the image tests share: tars made by hand, a real registry, a proxy that misbehaves, a service on a temporary directory. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import {
  createServer as createHttpServer,
  type IncomingMessage,
  request,
  type Server,
  type ServerResponse,
} from 'node:http'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import type { ExecutionContext } from 'ava'
import { nullLogger, seededRng, systemClock } from '../../src/common/index.js'
import {
  createImageService,
  createSnapshotService,
  type ImageOptions,
  LayerTool,
  type LocalImageService,
  type ProgressMessage,
  type SnapshotService,
} from '../../src/runtime/index.js'

export const LAYER_TOOL = fileURLToPath(new URL('../../native/shoal-layer', import.meta.url))
export const tool = new LayerTool(LAYER_TOOL)

export function temporaryDirectory(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'images-'))
  t.teardown(() => tool.run('remove', ['--root', path]))
  return path
}

// ---------------------------------------------------------------------------------------------- tars

export interface TarEntry {
  readonly name: string | Buffer
  readonly type?: 'file' | 'hardlink' | 'symlink' | 'char' | 'block' | 'directory' | 'fifo'
  readonly data?: Buffer | string
  readonly link?: string | Buffer
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  /** Seconds, with fractions as text: "1700000000.123456789". */
  readonly mtime?: string
  readonly device?: readonly [number, number]
  readonly xattrs?: Readonly<Record<string, Buffer>>
  readonly pax?: Readonly<Record<string, Buffer | string>>
}

const TYPES = { file: '0', hardlink: '1', symlink: '2', char: '3', block: '4', directory: '5', fifo: '6' } as const

function header(e: { name: Buffer; type: string; size: number; entry: TarEntry; link: Buffer }): Buffer {
  const h = Buffer.alloc(512)
  e.name.copy(h, 0, 0, 100)
  const octal = (n: number, at: number, width: number): void => {
    h.write(n.toString(8).padStart(width - 1, '0'), at, 'ascii')
  }
  octal(e.entry.mode ?? (e.type === '5' ? 0o755 : 0o644), 100, 8)
  octal(e.entry.uid ?? 0, 108, 8)
  octal(e.entry.gid ?? 0, 116, 8)
  octal(e.size, 124, 12)
  octal(Math.trunc(Number(e.entry.mtime ?? '1700000000')), 136, 12)
  h.write(e.type, 156, 'ascii')
  e.link.copy(h, 157, 0, 100)
  h.write('ustar\x0000', 257, 'latin1')
  octal(e.entry.device?.[0] ?? 0, 329, 8)
  octal(e.entry.device?.[1] ?? 0, 337, 8)
  h.fill(' ', 148, 156)
  h.write(
    `${h
      .reduce((a, b) => a + b, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
    148,
    'latin1',
  )
  return h
}

const padded = (data: Buffer): Buffer => Buffer.concat([data, Buffer.alloc((512 - (data.length % 512)) % 512)])

function paxRecord(key: string, value: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from('\n')])
  let length = body.length + 1
  while (String(length).length + body.length !== length) length = String(length).length + body.length
  return Buffer.concat([Buffer.from(String(length)), body])
}

export function tarOf(entries: readonly TarEntry[], options: { readonly end?: boolean } = {}): Buffer {
  const out: Buffer[] = []
  for (const entry of entries) {
    const name = Buffer.from(entry.name as string)
    const link = Buffer.from((entry.link ?? '') as string)
    const data = Buffer.from((entry.data ?? '') as string)
    const pax: [string, Buffer][] = Object.entries(entry.pax ?? {}).map(([k, v]) => [k, Buffer.from(v as string)])
    if (name.length > 100) pax.push(['path', name])
    if (link.length > 100) pax.push(['linkpath', link])
    if (entry.mtime?.includes('.')) pax.push(['mtime', Buffer.from(entry.mtime)])
    for (const [k, v] of Object.entries(entry.xattrs ?? {})) pax.push([`SCHILY.xattr.${k}`, v])
    if (pax.length > 0) {
      const body = Buffer.concat(pax.map(([k, v]) => paxRecord(k, v)))
      const own: TarEntry = { name: 'pax', mode: 0o644 }
      out.push(
        header({ name: Buffer.from('pax'), type: 'x', size: body.length, entry: own, link: Buffer.alloc(0) }),
        padded(body),
      )
    }
    out.push(header({ name, type: TYPES[entry.type ?? 'file'], size: data.length, entry, link }), padded(data))
  }
  if (options.end !== false) out.push(Buffer.alloc(1024))
  return Buffer.concat(out)
}

export const streamOf = (data: Buffer): Readable => Readable.from([data], { objectMode: false })

/** A layer with the static busybox in it: something that runs. */
export function busyboxTar(): Buffer {
  return tarOf([
    { name: 'bin/', type: 'directory' },
    { name: 'bin/busybox', data: readFileSync('/bin/busybox'), mode: 0o755 },
    { name: 'bin/sh', type: 'hardlink', link: 'bin/busybox' },
    { name: 'etc/', type: 'directory' },
    { name: 'etc/passwd', data: 'root:x:0:0:root:/root:/bin/sh\n' },
    { name: 'tmp/', type: 'directory', mode: 0o1777 },
  ])
}

/** Bytes that do not compress, the same for the same seed. */
export function noise(size: number, seed = 1): Buffer {
  const b = Buffer.alloc(size)
  let x = seed >>> 0 || 1
  for (let i = 0; i + 4 <= size; i += 4) {
    x ^= x << 13
    x >>>= 0
    x ^= x >>> 17
    x ^= x << 5
    x >>>= 0
    b.writeUInt32LE(x, i)
  }
  return b
}

/** Names and values in hexadecimal, since Node has no call for it. */
export function xattrsOf(path: string): Record<string, string> {
  const script =
    'import os,sys,json;p=os.fsencode(sys.argv[1]);print(json.dumps({k:os.getxattr(p,k,follow_symlinks=False).hex() for k in os.listxattr(p,follow_symlinks=False)}))'
  return JSON.parse(execFileSync('python3', ['-c', script, path], { encoding: 'utf8' })) as Record<string, string>
}

// ---------------------------------------------------------------------------------------------- registry

async function freePort(): Promise<number> {
  const s = createServer().listen(0, '127.0.0.1')
  await once(s, 'listening')
  const { port } = s.address() as AddressInfo
  s.close()
  await once(s, 'close')
  return port
}

export interface Registry {
  readonly host: string
  readonly port: number
  readonly root: string
}

/** docker-registry on a loopback port, with its storage in a directory of the test. */
export async function startRegistry(t: ExecutionContext): Promise<Registry> {
  const dir = temporaryDirectory(t)
  const port = await freePort()
  const root = join(dir, 'registry')
  writeFileSync(
    join(dir, 'config.yml'),
    `version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: ${root}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:${port}\n`,
  )
  const child = spawn('docker-registry', ['serve', join(dir, 'config.yml')], { stdio: 'ignore' })
  t.teardown(async () => {
    const gone = once(child, 'exit')
    child.kill('SIGKILL')
    await gone
  })
  for (const end = Date.now() + 20_000; ; ) {
    const up = await new Promise<boolean>((resolve) => {
      request({ host: '127.0.0.1', port, path: '/v2/' }, (r) => {
        r.resume()
        resolve(r.statusCode === 200)
      })
        .on('error', () => resolve(false))
        .end()
    })
    if (up) break
    if (Date.now() > end) throw new Error('docker-registry does not answer')
    await new Promise((r) => setTimeout(r, 50))
  }
  return { host: `127.0.0.1:${port}`, port, root }
}

export interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  /** Body bytes passed to the client so far. */
  passed: number
}

export interface Proxy {
  readonly host: string
  readonly log: string[]
  readonly server: Server
}

/** In front of a registry. `before` may answer itself (return true); `onData` may cut the connection (false) or hold it for ever ('hold'). */
export async function startProxy(
  t: ExecutionContext,
  registry: Registry,
  hooks: {
    readonly before?: (x: Exchange) => boolean | Promise<boolean>
    readonly onData?: (x: Exchange, chunk: Buffer) => boolean | 'hold'
    readonly map?: (x: Exchange, body: Buffer) => Buffer
  },
): Promise<Proxy> {
  const log: string[] = []
  const server = createHttpServer(async (req, res) => {
    log.push(`${req.method} ${req.url}${req.headers.range ? ` ${req.headers.range}` : ''}`)
    const x: Exchange = { request: req, response: res, passed: 0 }
    if (await hooks.before?.(x)) {
      req.resume()
      return
    }
    const upstream = request(
      {
        host: '127.0.0.1',
        port: registry.port,
        method: req.method,
        path: req.url,
        headers: { ...req.headers, host: req.headers.host },
      },
      (up) => {
        if (hooks.map) {
          const chunks: Buffer[] = []
          up.on('data', (c: Buffer) => chunks.push(c)).on('end', () => {
            const body = hooks.map!(x, Buffer.concat(chunks))
            const headers = { ...up.headers }
            if (req.method !== 'HEAD') headers['content-length'] = String(body.length)
            res.writeHead(up.statusCode!, headers).end(body)
          })
          return
        }
        res.writeHead(up.statusCode!, up.headers)
        up.on('data', (c: Buffer) => {
          const verdict = hooks.onData?.(x, c) ?? true
          if (verdict === false) {
            req.socket.destroy()
            upstream.destroy()
            return
          }
          if (verdict === 'hold') {
            up.pause()
            return
          }
          x.passed += c.length
          res.write(c)
        }).on('end', () => res.end())
      },
    )
    upstream.on('error', () => req.socket.destroy())
    req.on('error', () => upstream.destroy())
    req.pipe(upstream)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return { host: `127.0.0.1:${(server.address() as AddressInfo).port}`, log, server }
}

// ---------------------------------------------------------------------------------------------- services

export interface Host {
  readonly root: string
  readonly images: LocalImageService
  readonly snapshots: SnapshotService
  stop(): Promise<void>
}

export async function openHost(root: string, options: Partial<ImageOptions> = {}): Promise<Host> {
  const images = createImageService(
    { root, layerTool: LAYER_TOOL, ...options },
    { clock: systemClock, rng: seededRng(1), logger: nullLogger },
  )
  await images.start()
  return { root, images, snapshots: createSnapshotService({ images }), stop: () => images.stop() }
}

/** Stopped and removed with the test. */
export async function newHost(t: ExecutionContext, options: Partial<ImageOptions> = {}): Promise<Host> {
  const host = await openHost(join(temporaryDirectory(t), 'data'), options)
  t.teardown(() => host.stop())
  return host
}

export const importTar = (
  host: Host,
  tar: Buffer,
  reference?: string,
  changes: readonly string[] = [],
): ReturnType<LocalImageService['import']> =>
  host.images.import(streamOf(tar), { ...(reference === undefined ? {} : { reference }), changes })

export function recorder(): {
  readonly messages: ProgressMessage[]
  readonly onProgress: (m: ProgressMessage) => void
} {
  const messages: ProgressMessage[] = []
  return { messages, onProgress: (m) => messages.push(m) }
}

export const statuses = (messages: readonly ProgressMessage[]): string[] => messages.map((m) => m.status ?? '')
