import { execFile } from 'node:child_process'
import { chmod, chown, lstat, mkdir, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { internal, invalid } from '../common/index.js'
import type { VolumeRecord } from '../runtime/index.js'
import type { Container } from './container.js'
import type { EngineContext } from './context.js'
import { resolveInRoot } from './in-root.js'
import type { WantedMount } from './mount-spec.js'
import { bindPropagation, usablePropagation } from './propagation.js'
import type { MountRecord } from './record.js'
import type { SpecMount } from './spec/mounts.js'
import type { UndoList } from './undo.js'

const run = promisify(execFile)

/** Turns wanted mounts into records: volumes are made, sources of binds checked. Made things go on the undo list. */
export async function resolveMounts(
  ctx: EngineContext,
  containerId: string,
  wanted: readonly WantedMount[],
  undo: UndoList,
): Promise<{ readonly mounts: readonly MountRecord[]; readonly toPopulate: readonly MountRecord[] }> {
  const mounts: MountRecord[] = []
  const toPopulate: MountRecord[] = []
  for (const want of wanted) {
    const base = {
      destination: want.destination,
      rw: want.rw,
      mode: want.mode,
      propagation: want.propagation,
      recursive: want.recursive,
      subpath: want.subpath,
      options: want.options,
      isAnonymous: want.isAnonymous,
    }
    if (want.type === 'tmpfs') mounts.push({ ...base, type: 'tmpfs', name: '', source: '', driver: '' })
    else if (want.type === 'bind') {
      await checkBindSource(want)
      const propagation = bindPropagation(ctx.options.dataRoot, want)
      mounts.push({ ...base, propagation, type: 'bind', name: '', source: want.source, driver: '' })
    } else {
      const volume = await makeVolume(ctx, containerId, want, undo)
      const mount: MountRecord = {
        ...base,
        type: 'volume',
        name: volume.name,
        source: volume.mountpoint,
        driver: volume.driver,
      }
      mounts.push(mount)
      if (want.copy) toPopulate.push(mount)
    }
  }
  return { mounts, toPopulate }
}

async function checkBindSource(want: WantedMount): Promise<void> {
  if (want.createSource) return // made at start, as dockerd does
  try {
    await stat(want.source)
  } catch (cause) {
    throw invalid(
      'bindSourceMissing',
      `invalid mount config for type "bind": bind source path does not exist: ${want.source}`,
      { source: want.source },
      { cause },
    )
  }
}

async function makeVolume(
  ctx: EngineContext,
  containerId: string,
  want: WantedMount,
  undo: UndoList,
): Promise<VolumeRecord> {
  // Before it is looked for: who asks for its removal now is refused, or has it removed before it is made.
  if (want.source) ctx.registry.claim(want.source, containerId)
  const volume = await ctx.volumes.create({
    ...(want.source ? { name: want.source } : {}),
    // An existing volume is used whatever its driver, unless one was asked for.
    ...(want.driver ? { driver: want.driver } : {}),
    ...(Object.keys(want.labels).length > 0 ? { labels: want.labels } : {}),
    ...(Object.keys(want.driverOptions).length > 0 ? { options: want.driverOptions } : {}),
  })
  ctx.registry.claim(volume.name, containerId)
  // One with a name stays, as with dockerd: somebody else may count on it by now.
  if (!want.source) undo.add(`volume ${volume.name}`, () => ctx.volumes.remove(volume.name, { force: false }))
  // As docker: also of one that there was.
  ctx.hub.publish({
    type: 'volume',
    action: 'create',
    actorId: volume.name,
    attributes: { driver: volume.driver },
    scope: 'local',
  })
  return volume
}

/** Copies what the image has at a volume's place into the volume, when that is still empty. */
export async function populateVolumes(
  ctx: EngineContext,
  containerId: string,
  mounts: readonly MountRecord[],
): Promise<void> {
  if (mounts.length === 0) return
  await ctx.snapshots.withView(containerId, async (root) => {
    for (const mount of mounts) {
      const from = await resolveInRoot(root, mount.destination)
      let source: Awaited<ReturnType<typeof lstat>>
      try {
        source = await lstat(from)
      } catch {
        continue // the image has nothing there
      }
      if (!source.isDirectory()) {
        if (!mount.isAnonymous) continue // the start will tell
        const { destination } = mount
        throw internal('notADirectory', `cannot mount volume over existing file, file exists ${destination}`, {
          destination,
        })
      }
      const to = await ctx.volumes.mount(mount.name, `${containerId}:populate`)
      try {
        if ((await readdir(to)).length > 0) continue
        // Not on the way of a start, and `cp` keeps owners, xattrs, hard links, holes and device nodes.
        if ((await readdir(from)).length > 0) await run('cp', ['-a', '--', `${from}/.`, `${to}/`])
        await chown(to, source.uid, source.gid)
        await chmod(to, source.mode & 0o7777)
      } finally {
        await ctx.volumes.unmount(mount.name, `${containerId}:populate`)
      }
    }
  })
}

/** Makes every mount usable and gives what the runtime is to bind. Undone by unmountAll. */
export async function mountAll(ctx: EngineContext, container: Container): Promise<readonly SpecMount[]> {
  const specs: SpecMount[] = []
  for (const mount of container.record.mounts) {
    let source = mount.source
    if (mount.type === 'volume') {
      source = await ctx.volumes.mount(mount.name, container.id)
      if (mount.subpath) source = await volumeSubpath(source, mount)
      ctx.hub.publish({
        type: 'volume',
        action: 'mount',
        actorId: mount.name,
        attributes: {
          container: container.id,
          destination: mount.destination,
          driver: mount.driver,
          propagation: mount.propagation,
          'read/write': String(mount.rw),
        },
        scope: 'local',
      })
    } else if (mount.type === 'bind') {
      await makeBindSource(mount)
      specs.push({ ...mount, propagation: await usablePropagation(ctx.options.dataRoot, mount) })
      continue
    }
    specs.push({ ...mount, source })
  }
  return specs
}

async function volumeSubpath(volume: string, mount: MountRecord): Promise<string> {
  const path = await resolveInRoot(volume, mount.subpath)
  try {
    await stat(path)
  } catch (cause) {
    throw invalid(
      'subpathMissing',
      `cannot access path ${join(mount.name, mount.subpath)}: no such file or directory in the volume`,
      { volume: mount.name, subpath: mount.subpath },
      { cause },
    )
  }
  return path
}

async function makeBindSource(mount: MountRecord): Promise<void> {
  try {
    await stat(mount.source)
  } catch (caught) {
    if ((caught as NodeJS.ErrnoException).code !== 'ENOENT') throw caught
    await mkdir(mount.source, { recursive: true })
  }
}

export async function unmountAll(ctx: EngineContext, container: Container): Promise<void> {
  for (const mount of container.record.mounts) {
    if (mount.type !== 'volume') continue
    await ctx.volumes.unmount(mount.name, container.id)
    ctx.hub.publish({
      type: 'volume',
      action: 'unmount',
      actorId: mount.name,
      attributes: { container: container.id, driver: mount.driver },
      scope: 'local',
    })
  }
}

/** Anonymous volumes of a container that goes, unless another container uses them (volumes-from). */
export async function removeAnonymousVolumes(
  ctx: EngineContext,
  container: Container,
  mounts: readonly MountRecord[] = container.record.mounts,
): Promise<void> {
  for (const mount of mounts) {
    if (!mount.isAnonymous) continue
    const isShared = ctx.registry
      .all()
      .some((c) => c !== container && c.record.mounts.some((m) => m.type === 'volume' && m.name === mount.name))
    if (isShared) continue
    try {
      await ctx.volumes.remove(mount.name, { force: true })
      ctx.hub.publish({
        type: 'volume',
        action: 'destroy',
        actorId: mount.name,
        attributes: { driver: mount.driver },
        scope: 'local',
      })
    } catch (caught) {
      // The container goes all the same; the volume stays and `volume prune` takes it.
      ctx.logger.warn('an anonymous volume could not be removed', { volume: mount.name, error: String(caught) })
    }
  }
}
