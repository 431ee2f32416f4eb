import { mkdir, readdir, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { conflict } from '../common/index.js'
import type { Container } from './container.js'
import type { EngineContext } from './context.js'
import { runningContainer } from './network.js'
import { shmBytes } from './spec/mounts.js'

/** mount(2): MS_NOSUID | MS_NODEV | MS_NOEXEC. */
const SHM_FLAGS = 2 | 4 | 8
const MNT_DETACH = 2

const root = (ctx: EngineContext): string => join(ctx.options.execRoot, 'shm')

/**
 * What is bound on /dev/shm, or null for a tmpfs of the container's own. Only a container that shares its IPC has one on
 * the host: a mount cannot be taken from another container's mount namespace.
 */
export async function shmSource(ctx: EngineContext, container: Container): Promise<string | null> {
  const mode = container.record.hostConfig.IpcMode ?? ''
  if (mode === 'host') return '/dev/shm'
  if (mode === 'shareable') {
    const dir = join(root(ctx), container.id)
    await mkdir(dir, { recursive: true, mode: 0o700 })
    await ctx.mounts.mount({
      source: 'shm',
      target: dir,
      type: 'tmpfs',
      flags: SHM_FLAGS,
      data: `mode=1777,size=${shmBytes(container.record.hostConfig)}`,
    })
    return dir
  }
  if (!mode.startsWith('container:')) return null
  const other = runningContainer(ctx, mode.slice('container:'.length), 'IPC')
  const theirs = other.record.hostConfig.IpcMode
  if (theirs === 'host') return '/dev/shm'
  if (theirs !== 'shareable')
    throw conflict(
      'ipcNotShareable',
      `cannot join IPC of container ${other.id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)`,
    )
  return join(root(ctx), other.id)
}

/** Idempotent. */
export async function releaseShm(ctx: EngineContext, container: Container): Promise<void> {
  if (container.record.hostConfig.IpcMode === 'shareable') await unmount(ctx, container.id)
}

async function unmount(ctx: EngineContext, id: string): Promise<void> {
  const dir = join(root(ctx), id)
  for (const step of [() => ctx.mounts.umount(dir, MNT_DETACH), () => rmdir(dir)])
    try {
      await step()
    } catch (caught) {
      // EINVAL: no mount there, a crash came between the two.
      if (!['ENOENT', 'EINVAL'].includes((caught as NodeJS.ErrnoException).code ?? '')) throw caught
    }
}

/** After a crash: those of containers that do not live. */
export async function sweepShm(ctx: EngineContext, live: ReadonlyMap<string, unknown>): Promise<void> {
  let ids: string[]
  try {
    ids = await readdir(root(ctx))
  } catch (caught) {
    if ((caught as NodeJS.ErrnoException).code === 'ENOENT') return
    throw caught
  }
  for (const id of ids) if (!live.has(id)) await unmount(ctx, id)
}
