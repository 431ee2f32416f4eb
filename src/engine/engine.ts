import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { isOutOfSpace, ShoalError } from '../common/index.js'
import {
  type ContainerRuntime,
  type ExitRecord,
  isExitRecord,
  type LiveContainer,
  type RootfsPlan,
  removeEmptyCgroup,
} from '../runtime/index.js'
import { AccountFiles } from './account-files.js'
import { Container } from './container.js'
import type { EngineContext, HostMounts } from './context.js'
import type { Engine, EngineModules, EngineOptions } from './contract.js'
import { containerDir } from './create.js'
import { EventHub } from './events.js'
import { readHostFacts } from './host.js'
import { prepareRootDir } from './launch.js'
import {
  DEFAULT_STOP_TIMEOUT_SECONDS,
  finishRemoval,
  handleExit,
  removeDirectory,
  resumeRestart,
  startWithDaemon,
  stopContainer,
  watch,
} from './lifecycle.js'
import { neededBy } from './links.js'
import { type ContainerRecord, RecordStore } from './record.js'
import { Registry } from './registry.js'
import { RESTART_DELAY_MIN_MS, startsWithDaemon } from './restart-policy.js'
import { type CompileSeccomp, SeccompFilters } from './seccomp.js'
import { Containers } from './service.js'
import { sweepShm } from './shared-memory.js'
import { Sweeper } from './sweeper.js'
import { guardVolumes } from './volume-guard.js'

/** Containers that are started or ended at the same time when the daemon comes and goes. */
const PARALLEL = 16

/** The daemon's start waits so long for those of containers: its first clients see them run, as dockerd's do. */
const CONTAINER_STARTS_MS = 10_000

/** What the engine needs that the contract leaves to the assembly: the native side. */
export interface EngineParts {
  readonly runtime: ContainerRuntime
  readonly compileSeccomp: CompileSeccomp
  readonly mounts: HostMounts
  /** Changes when the compiler or the default profile does. */
  readonly seccompVersion: string
}

/** The engine over parts that are made already. `start` first; only then do containers work. */
export function assembleEngine(options: EngineOptions, modules: EngineModules, parts: EngineParts): Engine {
  const logger = modules.logger.child({ room: 'engine' })
  const hub = new EventHub(modules.clock)
  let isStopping = false
  const ctx: EngineContext = {
    ...modules,
    logger,
    options,
    runtime: parts.runtime,
    store: new RecordStore({ path: join(options.dataRoot, 'engine'), scratchDir: options.execRoot }),
    registry: new Registry(),
    hub,
    facts: readHostFacts(),
    accounts: new AccountFiles(modules.snapshots),
    mounts: parts.mounts,
    sweeper: new Sweeper(modules.clock, logger),
    seccomp: new SeccompFilters(join(options.dataRoot, 'cache', 'seccomp'), parts.seccompVersion, parts.compileSeccomp),
    isStopping: () => isStopping,
  }
  let state: 'new' | 'started' | 'stopped' = 'new'
  let offImages: (() => void) | null = null
  return {
    containers: new Containers(ctx),
    events: hub,
    images: modules.images,
    volumes: guardVolumes(modules.volumes, ctx.registry),
    networks: modules.networks,

    async start() {
      if (state !== 'new') return
      state = 'started'
      await Promise.all([
        mkdir(join(options.dataRoot, 'containers'), { recursive: true, mode: 0o710 }),
        prepareRootDir(options.execRoot),
      ])
      const records = await ctx.store.open()
      offImages = modules.images.onEvent(({ action, id, name, labels }) =>
        hub.publish({
          type: 'image',
          action,
          actorId: action === 'pull' || action === 'push' ? name : id,
          attributes: { ...labels, name },
          scope: 'local',
        }),
      )
      await recover(ctx, records)
    },

    async stop() {
      if (state !== 'started') return
      state = 'stopped'
      isStopping = true
      for (const container of ctx.registry.all()) {
        container.restartTimer?.cancel()
        container.health?.stop()
      }
      if (!options.liveRestore) await stopAll(ctx)
      // What their ends set going: cleaning up, and removals of their own accord.
      await Promise.all(ctx.registry.all().map((c) => c.lock.run(async () => {})))
      offImages?.()
      await ctx.sweeper.idle()
      await removeEmptyCgroup(options.cgroupParent)
      await modules.networks.stop()
      await ctx.store.close()
    },
  }
}

/**
 * Makes records, shims, networks, layers and directories agree again, whatever instant the last daemon died at. Order:
 * what lives is known before networks are cleaned, and all ends are recorded before anything is started.
 */
async function recover(ctx: EngineContext, records: readonly ContainerRecord[]): Promise<void> {
  const { logger } = ctx
  const ids = new Set(records.map((r) => r.id))
  const live = new Map<string, LiveContainer>()
  const exits = new Map<string, ExitRecord>()

  const present = await ctx.runtime.list()
  await forEach(present, async (id) => {
    const found = ids.has(id) ? await ctx.runtime.adopt(id) : null
    if (found && isExitRecord(found)) exits.set(id, found)
    else if (found && found.startedAtMs > 0) live.set(id, found)
    else {
      // Without a record, or a shim whose process was never run: the start had not been answered.
      logger.info('removing an unfinished start', { containerId: id })
      await ctx.runtime.delete(id)
    }
  })
  await ctx.networks.start(new Set(live.keys()))

  await forEach(records, async (record) => {
    let rootfs: RootfsPlan = { lower: [], upper: '', work: '' }
    try {
      rootfs = await ctx.snapshots.prepare(record.id, record.image || null)
    } catch (caught) {
      // Its layers are lost (a disk fault, or a hand in our directory). It can still be seen and removed.
      logger.error('the layers of a container are gone', { containerId: record.id, error: String(caught) })
      if (!live.has(record.id) && record.status !== 'removing') record.status = 'dead'
    }
    const container = new Container(record, rootfs, containerDir(ctx.options.dataRoot, record.id))
    ctx.registry.reserve(record.name, record.id)
    ctx.registry.add(container)
  })
  await removeStrays(ctx, ids)
  await sweepShm(ctx, live)

  await forEach(ctx.registry.all(), async (container) => {
    try {
      await recoverOne(ctx, container, live.get(container.id) ?? null, exits.get(container.id) ?? null)
    } catch (caught) {
      logger.error('recovering a container failed', {
        containerId: container.id,
        error: ShoalError.from(caught).message,
      })
    }
  })

  // Mounts of starts that were never finished. What starts now waits for it, volume by volume.
  ctx.volumes.settle((id) => live.has(id))

  const toStart = ctx.registry
    .all()
    .filter((c) => !c.isRunning && c.restartTimer === null && c.record.status === 'exited')
    .filter((c) =>
      startsWithDaemon({
        policy: {
          name: c.record.hostConfig.RestartPolicy?.Name ?? 'no',
          maximumRetryCount: c.record.hostConfig.RestartPolicy?.MaximumRetryCount ?? 0,
        },
        hasBeenStartedBefore: c.record.hasBeenStartedBefore,
        hasBeenManuallyStopped: c.record.hasBeenManuallyStopped,
      }),
    )
  const needs = (c: Container): Container[] => neededBy(ctx, c)
  const begun = new Map<Container, Promise<void>>()
  const starts = forEach(neededFirst(toStart, needs), (container) => {
    const start = async (): Promise<void> => {
      await Promise.all(needs(container).map((c) => begun.get(c)))
      await startWithDaemon(ctx, container)
    }
    const done = start().catch((caught) => {
      logger.error('starting a container with the daemon failed', {
        containerId: container.id,
        error: ShoalError.from(caught).message,
      })
    })
    begun.set(container, done)
    return done
  })
  // One that hangs must not hold up the daemon for ever.
  const enough = new AbortController()
  const late = ctx.clock.sleep(CONTAINER_STARTS_MS, enough.signal).catch(() => {})
  await Promise.race([starts, late])
  enough.abort()
}

/** The same containers, each after those that it needs; where they need each other in a ring, in any order. Pure. */
export function neededFirst<T>(all: readonly T[], needs: (one: T) => readonly T[]): T[] {
  const order: T[] = []
  const seen = new Set<T>()
  const visit = (one: T): void => {
    if (seen.has(one)) return
    seen.add(one)
    for (const other of needs(one)) visit(other)
    order.push(one)
  }
  for (const one of all) visit(one)
  return order.filter((one) => all.includes(one))
}

async function recoverOne(
  ctx: EngineContext,
  container: Container,
  live: LiveContainer | null,
  exit: ExitRecord | null,
): Promise<void> {
  const { record } = container
  if (record.status === 'removing') {
    await finishRemoval(ctx, container, record.hostConfig.AutoRemove === true)
    return
  }
  if (live) {
    record.status = live.isPaused ? 'paused' : 'running'
    record.pid = live.pid
    record.startedAtMs = live.startedAtMs
    record.hasBeenStartedBefore = true
    container.sandbox = ctx.networks.sandbox(container.id)
    for (const mount of record.mounts) if (mount.type === 'volume') await ctx.volumes.mount(mount.name, container.id)
    watch(ctx, container, live)
    container.health?.setPaused(live.isPaused)
    await ctx.store.putSoon(record)
    return
  }
  const wasRunning = container.isRunning
  if (exit && !wasRunning && record.finishedAtMs === exit.finishedAtMs) {
    // Recorded already; only its run directory was not removed any more.
    await ctx.runtime.delete(container.id)
    exit = null
  }
  if (exit || wasRunning) {
    // It ended while no daemon watched; or, with no trace of a shim, the machine went down under it.
    record.startedAtMs ||= ctx.clock.now()
    record.hasBeenStartedBefore = true
    await container.lock.run(() =>
      handleExit(
        ctx,
        container,
        exit ?? {
          exitCode: 255,
          signal: 0,
          oomKilled: false,
          error: '',
          finishedAtMs: ctx.clock.now(),
        },
      ),
    )
    return
  }
  if (record.status === 'restarting') resumeRestart(ctx, container, RESTART_DELAY_MIN_MS)
  else if (record.hostConfig.AutoRemove && record.status === 'exited') await finishRemoval(ctx, container, true)
}

/** Layers and directories of containers that never got a record, or whose record went before them. */
async function removeStrays(ctx: EngineContext, ids: ReadonlySet<string>): Promise<void> {
  const dir = join(ctx.options.dataRoot, 'containers')
  const isOurs = (name: string): boolean => /^[0-9a-f]{64}$/.test(name) && !ids.has(name)
  const [layers, dirs] = await Promise.all([ctx.snapshots.list(), readdir(dir)])
  await forEach(layers.filter(isOurs), (id) =>
    ctx.snapshots.remove(id).catch((caught) => {
      if (!isOutOfSpace(caught)) throw caught // its files are gone, and the next start tries its record again
    }),
  )
  await forEach(dirs.filter(isOurs), (id) => removeDirectory(join(dir, id)))
}

/** All at once, each by its own stop signal and time-out, and within the daemon's. */
async function stopAll(ctx: EngineContext): Promise<void> {
  const all = ctx.registry.all()
  const most = ctx.options.shutdownTimeoutSeconds
  await forEach(
    all,
    async (container) => {
      // A start under way comes to its end first: what it started would outlive us.
      await container.lock.run(async () => {})
      if (!container.isRunning) return
      try {
        await stopContainer(ctx, container, {
          byHand: false,
          timeoutSeconds: shutdownSeconds(container.record.config.StopTimeout ?? DEFAULT_STOP_TIMEOUT_SECONDS, most),
        })
      } catch (caught) {
        const error = ShoalError.from(caught)
        if (error.kind !== 'notModified')
          ctx.logger.error('a container could not be stopped', { containerId: container.id, error: error.message })
      }
    },
    all.length,
  )
}

/** Negative: without end. */
export const shutdownSeconds = (own: number, most: number): number =>
  most < 0 ? own : Math.min(own < 0 ? most : own, most)

async function forEach<T>(items: readonly T[], fn: (item: T) => Promise<unknown>, parallel = PARALLEL): Promise<void> {
  const queue = [...items]
  const worker = async (): Promise<void> => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await fn(item)
  }
  await Promise.all(Array.from({ length: Math.min(parallel, items.length) }, worker))
}
