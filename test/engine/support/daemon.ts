// An engine with everything real in this process's network namespace, driven over IPC.
import { createReadStream } from 'node:fs'
import { join } from 'node:path'
import { createLogger, ShoalError, systemClock, systemRng } from '../../../src/common/index.js'
import { type Attachment, createEngine, type Engine, type EngineEvent } from '../../../src/engine/index.js'
import { createNetworkService } from '../../../src/overlay/index.js'
import {
  createImageService,
  createSnapshotService,
  createVolumeService,
  nativeDirectory,
} from '../../../src/runtime/index.js'

export interface DaemonOptions {
  readonly root: string
  readonly cgroupParent: string
  readonly liveRestore?: boolean
  readonly logLevel?: 'debug' | 'warn'
}

interface Call {
  readonly id: number
  readonly method: string
  readonly args: unknown[]
}

let engine!: Engine
const attachments = new Map<number, { attachment: Attachment; output: Promise<Record<string, string>> }>()
const events: EngineEvent[] = []
const waits = new Map<number, Promise<unknown>>()
let next = 1

async function start(options: DaemonOptions): Promise<void> {
  const modules = { clock: systemClock, rng: systemRng, logger: createLogger(options.logLevel ?? 'warn') }
  const images = createImageService({ root: join(options.root, 'data/images') }, modules)
  const volumes = createVolumeService({ root: join(options.root, 'data/volumes') }, modules)
  await images.start()
  await volumes.start()
  engine = createEngine(
    {
      dataRoot: join(options.root, 'data'),
      execRoot: join(options.root, 'run'),
      nativeDir: nativeDirectory,
      cgroupParent: options.cgroupParent,
      defaultRuntime: 'shoal',
      runtimes: {},
      logDriver: 'json-file',
      logOptions: {},
      defaultUlimits: [],
      init: false,
      shutdownTimeoutSeconds: 5,
      liveRestore: options.liveRestore ?? false,
      dns: { servers: ['127.0.0.1'], search: [], options: [] },
    },
    {
      ...modules,
      images,
      volumes,
      snapshots: createSnapshotService({ images }),
      networks: createNetworkService(
        { root: join(options.root, 'data/networks'), runDir: join(options.root, 'run/networks'), instance: 'engt' },
        modules,
      ),
    },
  )
  await engine.start()
  void (async () => {
    for await (const event of engine.events.subscribe({
      sinceMs: 0,
      untilMs: null,
      signal: new AbortController().signal,
    }))
      events.push(event)
  })()
}

function keep(attachment: Attachment): number {
  const id = next++
  const output = (async () => {
    const all = { stdout: '', stderr: '' }
    for await (const { stream, data } of attachment.output) all[stream] += Buffer.from(data).toString('latin1')
    return all
  })()
  attachments.set(id, { attachment, output })
  return id
}

const own: Record<string, (...args: never[]) => unknown> = {
  open: (options: DaemonOptions) => start(options),
  stopEngine: () => engine.stop(),
  importImage: async (tar: string, reference: string, changes: string[]) =>
    (await engine.images.import(createReadStream(tar), { reference, changes })).id,
  events: () => events,
  logs: async (reference: string, query: object, timeoutMs: number) => {
    const out: unknown[] = []
    const signal = AbortSignal.timeout(timeoutMs)
    const all = { stdout: true, stderr: true, follow: false, sinceMs: null, untilMs: null, tail: null, ...query }
    for await (const entry of engine.containers.logs(reference, all, signal))
      out.push({ stream: entry.stream, text: Buffer.from(entry.data).toString('utf8'), attributes: entry.attributes })
    return out
  },
  attach: async (reference: string, options: object) =>
    keep(
      await engine.containers.attach(reference, {
        stdin: true,
        stdout: true,
        stderr: true,
        logs: false,
        stream: true,
        detachKeys: '',
        ...options,
      }),
    ),
  output: (id: number) => attachments.get(id)!.output,
  detached: (id: number) => attachments.get(id)!.attachment.detached,
  write: (id: number, data: string) =>
    new Promise<void>((resolve) => attachments.get(id)!.attachment.stdin!.write(data, () => resolve())),
  end: (id: number) => void attachments.get(id)!.attachment.stdin!.end(),
  exec: async (reference: string, config: object, attach: object | null) => {
    const id = await engine.containers.execCreate(reference, {
      cmd: [],
      env: [],
      user: '',
      workingDir: '',
      tty: false,
      attachStdin: false,
      attachStdout: true,
      attachStderr: true,
      privileged: false,
      detachKeys: '',
      ...config,
    })
    const attachment = await engine.containers.execStart(id, attach as never)
    return { id, attachment: attachment && keep(attachment) }
  },
  /** Registers now; `waited` gives the outcome. */
  waitBegin: (reference: string, condition: 'not-running' | 'next-exit' | 'removed') => {
    const id = next++
    const promise = engine.containers.wait(reference, condition, AbortSignal.timeout(30_000))
    promise.catch(() => {})
    waits.set(id, promise)
    return id
  },
  waited: (id: number) => waits.get(id),
  getArchive: async (reference: string, path: string, into: string) => {
    const { stat, tar } = await engine.containers.getArchive(reference, path)
    const { createWriteStream } = await import('node:fs')
    const { pipeline } = await import('node:stream/promises')
    await pipeline(tar, createWriteStream(into))
    return stat
  },
  exportTo: async (reference: string, into: string) => {
    const { createWriteStream } = await import('node:fs')
    const { pipeline } = await import('node:stream/promises')
    await pipeline(await engine.containers.export(reference), createWriteStream(into))
  },
  putArchive: (reference: string, path: string, file: string) =>
    engine.containers.putArchive(reference, path, createReadStream(file), {
      noOverwriteDirNonDir: false,
      copyUidGid: false,
    }),
  get: (reference: string) => {
    const view = engine.containers.get(reference)
    return { ...view, endpoints: Object.fromEntries(view.endpoints) }
  },
  volumes: () => engine.volumes.list(),
  removeImage: (reference: string) =>
    engine.images.remove(reference, {
      force: false,
      prune: true,
      inUse: (id) => engine.containers.userOfImage(id),
    }),
  removeVolume: (name: string) => engine.volumes.remove(name, { force: false }),
  createNetwork: (name: string) =>
    engine.networks.createNetwork({
      name,
      driver: 'bridge',
      internal: false,
      attachable: false,
      ipv6: false,
      ipam: { driver: 'default', options: {}, pools: [] },
      options: {},
      labels: {},
      configOnly: false,
      configFrom: null,
    }),
  /** create, start, exit, remove: the time of each, ms. */
  timeRun: async (body: object) => {
    const t0 = performance.now()
    const { id } = await engine.containers.create(body as never, { name: '' })
    const t1 = performance.now()
    const ended = engine.containers.wait(id, 'next-exit', AbortSignal.timeout(30_000))
    await engine.containers.start(id)
    const t2 = performance.now()
    await ended
    const t3 = performance.now()
    await engine.containers.remove(id, { force: false, volumes: true, link: false })
    const t4 = performance.now()
    return { create: t1 - t0, start: t2 - t1, exit: t3 - t2, remove: t4 - t3, total: t4 - t0 }
  },
}

async function handle({ method, args }: Call): Promise<unknown> {
  const mine = own[method] as ((...a: unknown[]) => unknown) | undefined
  if (mine) return mine(...args)
  const call = engine.containers[method as keyof Engine['containers']] as ((...a: unknown[]) => unknown) | undefined
  if (!call) throw new Error(`no method ${method}`)
  return call.apply(engine.containers, args)
}

process.on('message', (call: Call) => {
  void handle(call).then(
    (value) => process.send?.({ id: call.id, value: value ?? null }),
    (caught) => {
      const e = ShoalError.from(caught)
      process.send?.({
        id: call.id,
        error: { kind: e.kind, code: e.code, message: e.message, fields: e.fields, stack: e.stack },
      })
    },
  )
})
process.on('disconnect', () => process.exit(0))
