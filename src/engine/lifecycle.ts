import { rm } from 'node:fs/promises'
import { conflict, internal, isKind, isOutOfSpace, ShoalError } from '../common/index.js'
import type { ExitRecord, LiveContainer } from '../runtime/index.js'
import type { Container, Ending } from './container.js'
import { containerEvent } from './container-events.js'
import type { EngineContext } from './context.js'
import { whileRunning } from './exec.js'
import { startHealth } from './health.js'
import { connectPending, launch } from './launch.js'
import { dropLinksTo } from './links.js'
import { disconnectNetworks } from './network.js'
import { decideRestart, RESTART_DELAY_MIN_MS, WAIT_DELAY_MAX_MS } from './restart-policy.js'
import { releaseShm } from './shared-memory.js'
import { parseSignal, SIGKILL, SIGTERM } from './signals.js'
import { EXIT_START_FAILED, startError } from './start-error.js'
import { removeAnonymousVolumes, unmountAll } from './volumes.js'

/** `docker stop` without -t, and no StopTimeout of the container's own. */
export const DEFAULT_STOP_TIMEOUT_SECONDS = 10
/** How long a process may take to die of SIGKILL: only one stuck in the kernel takes longer. */
const KILL_TIMEOUT_MS = 10_000

const notModified = (message: string): ShoalError => new ShoalError('notModified', 'notModified', message)

const policyOf = (container: Container) => ({
  name: container.record.hostConfig.RestartPolicy?.Name ?? 'no',
  maximumRetryCount: container.record.hostConfig.RestartPolicy?.MaximumRetryCount ?? 0,
})

export async function startContainer(ctx: EngineContext, container: Container): Promise<void> {
  await container.locked(async () => {
    const { record } = container
    if (record.status === 'paused')
      throw conflict('paused', 'cannot start a paused container, try unpause instead', { id: container.id })
    if (record.status === 'running') throw notModified(`container ${container.id} is running already`)
    if (record.status === 'removing' || record.status === 'dead')
      throw conflict('removing', 'container is marked for removal and cannot be started', { id: container.id })
    cancelRestart(container)
    record.restartCount = 0
    record.hasBeenManuallyStopped = false
    await run(ctx, container)
  })
}

/** Starts the process; the lock is held and the state allows it. */
const run = (ctx: EngineContext, container: Container): Promise<void> =>
  container.tree.run(() => runTree(ctx, container))

async function runTree(ctx: EngineContext, container: Container): Promise<void> {
  const { record } = container
  container.isStopWanted = false
  let live: LiveContainer
  try {
    live = await launch(ctx, container)
  } catch (caught) {
    const error = startError(caught, record.path)
    record.exitCode = Number(error.fields.exitCode ?? EXIT_START_FAILED)
    record.error = error.message
    if (record.status === 'restarting') {
      record.status = 'exited'
      record.finishedAtMs = ctx.clock.now()
    }
    record.pid = 0
    await ctx.store.putState(record)
    for (const pending of container.pendingAttachments) pending.cancel()
    container.pendingAttachments.clear()
    // Whoever asked for the start is told why; those who wait would only say it a second time.
    container.ended.emit({ exitCode: record.exitCode, error: '' })
    if (record.hostConfig.AutoRemove && !container.isHeld) void removeLater(ctx, container)
    throw error
  }
  record.status = 'running'
  record.pid = live.pid
  record.startedAtMs = live.startedAtMs
  record.exitCode = 0
  record.error = ''
  record.oomKilled = false
  record.hasBeenStartedBefore = true
  // That it runs is known to its shim; only what must come back after a power failure needs the disk now.
  await (policyOf(container).name === 'no' ? ctx.store.putSoon(record) : ctx.store.putState(record))
  watch(ctx, container, live)
  await connectPending(container, live)
  containerEvent(ctx, container, 'start')
}

/** From here on the end of the process is noticed. */
export function watch(ctx: EngineContext, container: Container, live: LiveContainer): void {
  container.live = live
  live.onOom(() => {
    container.record.oomKilled = true
    containerEvent(ctx, container, 'oom')
  })
  container.health = startHealth(ctx, container, live)
  void live.exited.then((exit) =>
    container.lock
      .run(async () => {
        if (container.live === live && !container.isGone) await handleExit(ctx, container, exit)
      })
      .catch((caught) => {
        ctx.logger.error('handling the end of a container failed', { containerId: container.id, error: String(caught) })
      }),
  )
}

/**
 * The lock is held until everything of the process is taken away, so that a start may follow. Whoever waits for the end is
 * told as soon as it is on disk and its ports and names are free.
 */
export async function handleExit(ctx: EngineContext, container: Container, exit: ExitRecord): Promise<void> {
  const { record } = container
  container.live = null
  container.health?.stop()
  for (const exec of container.execs.values()) exec.containerEnded()
  const ranMs = Math.max(0, exit.finishedAtMs - record.startedAtMs)
  record.pid = 0
  record.exitCode = exit.exitCode
  record.oomKilled = record.oomKilled || exit.oomKilled
  record.error = exit.error
  record.finishedAtMs = exit.finishedAtMs
  const decision = container.isHeld
    ? ({ restart: false } as const)
    : decideRestart({
        policy: policyOf(container),
        exitCode: exit.exitCode,
        restartCount: record.restartCount,
        isStopWanted: container.isStopWanted || ctx.isStopping(),
        ranMs,
        lastDelayMs: container.restartDelayMs,
      })
  record.status = decision.restart ? 'restarting' : 'exited'
  const isLeaving = !decision.restart && record.hostConfig.AutoRemove === true && !container.isHeld
  // Before what comes of it: networks are disconnected, volumes unmounted.
  containerEvent(ctx, container, 'die', {
    exitCode: String(exit.exitCode),
    execDuration: String(Math.floor(ranMs / 1000)),
  })
  const shim = attempt(ctx, container, 'shim', () => ctx.runtime.delete(container.id))
  await Promise.all([
    attempt(ctx, container, 'networks', () => disconnectNetworks(ctx, container)),
    attempt(ctx, container, 'volumes', () => unmountAll(ctx, container)),
    attempt(ctx, container, 'shared memory', () => releaseShm(ctx, container)),
    attempt(ctx, container, 'record', () => (isLeaving ? ctx.store.putSoon(record) : ctx.store.putState(record))),
  ])
  if (decision.restart) restartLater(ctx, container, decision.delayMs)
  container.ended.emit({ exitCode: exit.exitCode, error: exit.error })
  if (isLeaving) void removeLater(ctx, container)
  await shim
}

/** One step of cleaning up: that it failed must not keep the others, nor the end, from being known. */
async function attempt(
  ctx: EngineContext,
  container: Container,
  step: string,
  run: () => Promise<unknown>,
): Promise<void> {
  try {
    await run()
  } catch (caught) {
    ctx.logger.error('cleaning up after a container failed', {
      containerId: container.id,
      step,
      error: ShoalError.from(caught).message,
    })
  }
}

function restartLater(ctx: EngineContext, container: Container, delayMs: number): void {
  container.restartDelayMs = delayMs
  container.restartTimer = ctx.clock.after(delayMs, () => {
    container.restartTimer = null
    void container.lock
      .run(async () => {
        if (container.record.status !== 'restarting' || ctx.isStopping() || container.isGone) return
        container.record.restartCount++
        await runByPolicy(ctx, container)
      })
      .catch((caught) => {
        ctx.logger.warn('restarting a container failed', { containerId: container.id, error: String(caught) })
      })
  })
}

export function cancelRestart(container: Container): void {
  container.restartTimer?.cancel()
  container.restartTimer = null
  container.restartDelayMs = 0
}

/** When the daemon comes up: a container that should run and does not. */
export async function startWithDaemon(ctx: EngineContext, container: Container): Promise<void> {
  await container.lock.run(async () => {
    if (container.isRunning || container.restartTimer || container.isGone) return
    await runByPolicy(ctx, container)
  })
}

/**
 * A start that nobody asked for. What it needs may be missing for a while only, a cluster's network before a manager
 * answers above all: then it goes on trying. Any other failure is its end, as it is for dockerd.
 */
async function runByPolicy(ctx: EngineContext, container: Container): Promise<void> {
  const { record } = container
  const lastMs = container.restartDelayMs
  try {
    await run(ctx, container)
  } catch (caught) {
    if (!isKind(caught, 'unavailable') || ctx.isStopping()) throw caught
    ctx.logger.info('a container waits for what it needs', { containerId: container.id, error: record.error })
    record.status = 'restarting'
    await ctx.store.putState(record)
    restartLater(ctx, container, Math.min(Math.max(lastMs * 2, RESTART_DELAY_MIN_MS), WAIT_DELAY_MAX_MS))
  }
}

/** Goes on with the back-off that a daemon's end interrupted. */
export const resumeRestart = (ctx: EngineContext, container: Container, delayMs: number): void =>
  restartLater(ctx, container, delayMs)

function removeLater(ctx: EngineContext, container: Container): Promise<void> {
  return removeContainer(ctx, container, { force: true, volumes: true }).catch((caught) => {
    if (caught instanceof ShoalError && caught.code === 'removing') return // someone else does it
    ctx.logger.error('removing a container after its end failed', { containerId: container.id, error: String(caught) })
  })
}

/** The next end of the process; registered when this returns. Null when `timeoutMs` passed. */
function nextEnd(ctx: EngineContext, container: Container, timeoutMs: number | null): Promise<Ending | null> {
  return new Promise((resolve) => {
    const off = container.ended.on((ending) => {
      timer?.cancel()
      off()
      resolve(ending)
    })
    const timer =
      timeoutMs === null
        ? null
        : ctx.clock.after(timeoutMs, () => {
            off()
            resolve(null)
          })
  })
}

export async function stopContainer(
  ctx: EngineContext,
  container: Container,
  options: { readonly signal?: string; readonly timeoutSeconds?: number; readonly byHand: boolean },
): Promise<void> {
  const { record } = container
  const signal = parseSignal(options.signal || record.config.StopSignal || 'SIGTERM')
  const waiting = await container.locked(async () => {
    if (options.byHand && (container.isRunning || record.status === 'restarting')) {
      record.hasBeenManuallyStopped = true
      await (container.isRunning ? ctx.store.putSoon(record) : Promise.resolve())
    }
    if (await endRestarts(ctx, container)) return true
    if (!container.isRunning || !container.live) return false
    container.isStopWanted = true
    return null
  })
  if (waiting === true) return
  if (waiting === false) throw notModified(`container ${container.id} is not running`)
  const seconds = options.timeoutSeconds ?? record.config.StopTimeout ?? DEFAULT_STOP_TIMEOUT_SECONDS
  const first = nextEnd(ctx, container, seconds < 0 ? null : seconds * 1000)
  await signalLive(ctx, container, signal, { thaw: true })
  if ((await first) === null) {
    const second = nextEnd(ctx, container, KILL_TIMEOUT_MS)
    await signalLive(ctx, container, SIGKILL, { thaw: true })
    if ((await second) === null && container.isRunning)
      throw internal(
        'killTimeout',
        `cannot stop container ${container.id}: it did not end ${KILL_TIMEOUT_MS} ms after SIGKILL`,
        {
          id: container.id,
        },
      )
  }
  containerEvent(ctx, container, 'stop')
}

/** Whether it was between two runs: there is no next one. Call with the lock held. */
async function endRestarts(ctx: EngineContext, container: Container): Promise<boolean> {
  const { record } = container
  if (record.status !== 'restarting') return false
  cancelRestart(container)
  record.status = 'exited'
  await ctx.store.putState(record)
  container.ended.emit({ exitCode: record.exitCode, error: record.error })
  return true
}

async function signalLive(
  ctx: EngineContext,
  container: Container,
  signal: number,
  options: { readonly thaw: boolean },
): Promise<void> {
  const { live } = container
  if (!live) return
  try {
    await live.signal(signal)
    containerEvent(ctx, container, 'kill', { signal: String(signal) })
    if (options.thaw && container.record.status === 'paused') {
      await live.resume()
      container.record.status = 'running'
    }
  } catch (caught) {
    // It was just ending: its end is on the way.
    const { kind, fields } = ShoalError.from(caught)
    if (kind !== 'unavailable' && fields.errno !== 'ESRCH') throw caught
  }
}

export async function killContainer(ctx: EngineContext, container: Container, signalText: string): Promise<void> {
  const signal = parseSignal(signalText || 'SIGKILL')
  const { record } = container
  if (record.status !== 'restarting' && (!container.isRunning || !container.live))
    throw conflict('notRunning', `Container ${container.id} is not running`, {
      id: container.id,
    })
  const isEnd = signal === SIGKILL || signal === parseSignal(record.config.StopSignal || String(SIGTERM))
  if (isEnd) {
    container.isStopWanted = true
    record.hasBeenManuallyStopped = true
    await ctx.store.putSoon(record)
    if (record.status === 'restarting' && (await container.locked(() => endRestarts(ctx, container)))) return
  }
  const ended = signal === SIGKILL && container.live ? nextEnd(ctx, container, KILL_TIMEOUT_MS) : null
  await signalLive(ctx, container, signal, { thaw: isEnd })
  // As dockerd: a SIGKILL is answered when the process is gone.
  if (ended && (await ended) === null && container.isRunning)
    throw internal(
      'killTimeout',
      `cannot kill container ${container.id}: it did not end ${KILL_TIMEOUT_MS} ms after SIGKILL`,
    )
}

export async function restartContainer(
  ctx: EngineContext,
  container: Container,
  options: { readonly signal?: string; readonly timeoutSeconds?: number },
): Promise<void> {
  await container.held(async () => {
    if (container.isRunning || container.record.status === 'restarting')
      await unlessDone(stopContainer(ctx, container, { ...options, byHand: false }))
    await unlessDone(startContainer(ctx, container))
    containerEvent(ctx, container, 'restart')
  })
}

/** Somebody else did it, or it ended by itself: it is as it was wanted. */
const unlessDone = (step: Promise<void>): Promise<void> =>
  step.catch((caught: unknown) => {
    if (!isKind(caught, 'notModified')) throw caught
  })

export async function pauseContainer(ctx: EngineContext, container: Container, pause: boolean): Promise<void> {
  await container.locked(async () => {
    const { record, live } = container
    if (!pause && record.status !== 'paused') throw conflict('notPaused', `Container ${container.id} is not paused`)
    if (!live || !container.isRunning) throw conflict('notRunning', `Container ${container.id} is not running`)
    if (pause && record.status === 'paused') throw conflict('paused', `Container ${container.id} is already paused`)
    await whileRunning(container, pause ? live.pause() : live.resume())
    record.status = pause ? 'paused' : 'running'
    await ctx.store.putSoon(record)
    container.health?.setPaused(pause)
    containerEvent(ctx, container, pause ? 'pause' : 'unpause')
  })
}

/** Marked first, on disk: a removal that a crash interrupts is finished by the next start of the daemon. */
export async function removeContainer(
  ctx: EngineContext,
  container: Container,
  options: { readonly force: boolean; readonly volumes: boolean },
): Promise<void> {
  const { record } = container
  if (record.status === 'removing')
    throw conflict('removing', `removal of container ${container.id} is already in progress`, { id: container.id })
  if (container.isRunning || record.status === 'restarting') {
    if (!options.force)
      throw conflict(
        'running',
        `You cannot remove a ${record.status} container ${container.id}. ${record.status === 'paused' ? 'Unpause and then stop' : 'Stop'} the container before attempting removal or force remove`,
        { id: container.id },
      )
    if (container.isRunning)
      await container
        .held(() => killContainer(ctx, container, 'SIGKILL'))
        .catch((caught) => {
          if (!(caught instanceof ShoalError) || caught.code !== 'notRunning') throw caught // it ended by itself
        })
  }
  await container.lock.run(async () => {
    if (container.isGone) return // removed while we waited
    if ((container.isRunning || container.isHeld) && !options.force)
      throw conflict(
        'running',
        `You cannot remove a running container ${container.id}: it was ${container.isRunning ? '' : 'to be '}started just now`,
        { id: container.id },
      )
    cancelRestart(container)
    record.status = 'removing'
    try {
      await ctx.store.putSoon(record)
      await finishRemoval(ctx, container, options.volumes)
    } catch (caught) {
      // Half of it may be gone: it can be removed again, and nothing else.
      if (record.status === 'removing') record.status = 'dead'
      throw caught
    }
  })
}

/** Of a container. The compressor of its log may just be giving a file its name: what comes in meanwhile is taken as well. */
export const removeDirectory = (dir: string): Promise<void> => rm(dir, { recursive: true, force: true, maxRetries: 3 })

/** Also for what a crash left half removed. Idempotent. */
export async function finishRemoval(ctx: EngineContext, container: Container, volumes: boolean): Promise<void> {
  const { record } = container
  // A restart may have come between its end and here: that end is not handled any more.
  const wasLive = container.live !== null
  container.live = null
  container.health?.stop()
  await ctx.runtime.delete(container.id)
  if (ctx.networks.sandbox(container.id)) await ctx.networks.deleteSandbox(container.id)
  if (wasLive) await Promise.all([unmountAll(ctx, container), releaseShm(ctx, container)])
  if (volumes) await removeAnonymousVolumes(ctx, container)
  await dropLinksTo(ctx, container).catch((caught) => {
    if (!isOutOfSpace(caught)) throw caught // a removal must succeed on a full disk
  })
  await ctx.store.remove(container.id).catch(async (caught) => {
    if (!isOutOfSpace(caught)) throw caught
    // Its files make the room that the removal of its record needs.
    await removeDirectory(container.dir)
    await ctx.snapshots.remove(container.id)
    await ctx.store.remove(container.id)
  })
  container.isGone = true
  // Without its record the layer and the directory are strays: if they are not gone by then, the next start sees to it.
  ctx.sweeper.add(`layer ${container.id}`, () => ctx.snapshots.remove(container.id))
  ctx.sweeper.add(`directory ${container.dir}`, () => removeDirectory(container.dir))
  ctx.registry.delete(container)
  // Now that nobody finds it, none is added.
  for (const pending of container.pendingAttachments) pending.cancel()
  containerEvent(ctx, container, 'destroy')
  container.removed.emit({ exitCode: record.exitCode, error: record.startedAtMs > 0 ? record.error : '' })
}
