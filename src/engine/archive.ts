import { existsSync } from 'node:fs'
import { lstat, readlink, stat } from 'node:fs/promises'
import { basename, join, posix, relative } from 'node:path'
import { pipeline, type Readable, Transform } from 'node:stream'
import { conflict, forbidden, invalid, newHexId, notFound } from '../common/index.js'
import { LayerTool, type LiveContainer } from '../runtime/index.js'
import type { Container } from './container.js'
import { containerEvent } from './container-events.js'
import type { EngineContext } from './context.js'
import type { PathStat } from './contract.js'
import { resolveInRoot, resolveLinks } from './in-root.js'
import type { MountRecord } from './record.js'

/** Go's os.FileMode bits, which docker's clients expect. */
const GO_MODE = {
  directory: 2 ** 31,
  symlink: 2 ** 27,
  device: 2 ** 26,
  namedPipe: 2 ** 25,
  socket: 2 ** 24,
  setuid: 2 ** 23,
  setgid: 2 ** 22,
  charDevice: 2 ** 21,
  sticky: 2 ** 20,
} as const

/** S_IFMT and S_IS* bits → os.FileMode. */
export function goFileMode(mode: number): number {
  let go = mode & 0o777
  const type = mode & 0o170000
  if (type === 0o040000) go += GO_MODE.directory
  else if (type === 0o120000) go += GO_MODE.symlink
  else if (type === 0o060000) go += GO_MODE.device
  else if (type === 0o020000) go += GO_MODE.device + GO_MODE.charDevice
  else if (type === 0o010000) go += GO_MODE.namedPipe
  else if (type === 0o140000) go += GO_MODE.socket
  if (mode & 0o4000) go += GO_MODE.setuid
  if (mode & 0o2000) go += GO_MODE.setgid
  if (mode & 0o1000) go += GO_MODE.sticky
  return go
}

/** Bound over the tree from the container's directory, once it has been started. */
const NETWORK_FILES = new Set(['/etc/hosts', '/etc/hostname', '/etc/resolv.conf'])

/** A place inside a container's tree as this host reaches it. */
interface Place {
  /** The tree that `path` must stay in. */
  readonly root: string
  readonly path: string
  /** False: a read-only root or mount covers it. */
  readonly isWritable: boolean
  /** In a volume or a bind. */
  readonly isMounted: boolean
}

/** The mount of the container that a path inside lies in, the innermost. */
const mountAt = ({ record }: Container, inside: string): MountRecord | undefined =>
  record.mounts
    .filter((m) => inside === m.destination || inside.startsWith(`${m.destination}/`))
    .sort((a, b) => b.destination.length - a.destination.length)[0]

const isWritable = (container: Container, inside: string): boolean =>
  mountAt(container, inside)?.rw ?? container.record.hostConfig.ReadonlyRootfs !== true

interface Way {
  readonly path: string
  readonly followLast: boolean
}

/**
 * Runs `fn` on the container's tree, to read: of a running one as its processes see it, of another its layers with its volumes
 * and binds in their places.
 */
const withPlace = <T>(
  ctx: EngineContext,
  container: Container,
  way: Way,
  fn: (place: Place) => Promise<T>,
): Promise<T> =>
  container.live
    ? inProcesses(ctx, container, container.live, way, fn)
    : ctx.snapshots.withView(container.id, (root) => inLayers(ctx, container, root, way, fn))

/** The same to write. A start waits for it, unless the container runs. */
async function withWritablePlace(
  ctx: EngineContext,
  container: Container,
  way: Way,
  fn: (place: Place) => Promise<void>,
): Promise<void> {
  const live =
    container.live ??
    (await container.tree.run(async () => {
      if (container.live) return container.live // started while we waited
      await ctx.snapshots.withMounted(container.id, (root) => inLayers(ctx, container, root, way, fn))
      return null
    }))
  if (live) await inProcesses(ctx, container, live, way, fn)
}

async function inProcesses<T>(
  ctx: EngineContext,
  container: Container,
  live: LiveContainer,
  way: Way,
  fn: (place: Place) => Promise<T>,
): Promise<T> {
  const root = `/proc/${live.pid}/root`
  const path = await resolveInRoot(root, way.path, way.followLast)
  const inside = posix.join('/', relative(root, path))
  const isMounted = mountAt(container, inside) !== undefined
  const place = { root, path, isWritable: isWritable(container, inside), isMounted }
  return withSources(ctx, container, () => fn(place)) // they stay although it may end meanwhile
}

const inLayers = <T>(
  ctx: EngineContext,
  container: Container,
  root: string,
  way: Way,
  fn: (place: Place) => Promise<T>,
): Promise<T> =>
  withSources(ctx, container, async (sources) => {
    const placeOf = (inside: string): { readonly root: string; readonly path: string } => {
      const mount = mountAt(container, inside)
      const source = sources.get(mount?.destination ?? '')
      if (mount && source !== undefined)
        return { root: source, path: join(source, inside.slice(mount.destination.length)) }
      const own = join(container.dir, basename(inside))
      if (!mount && NETWORK_FILES.has(inside) && existsSync(own)) return { root: container.dir, path: own }
      return { root, path: join(root, inside) }
    }
    const inside = await resolveLinks(way.path, (p) => placeOf(p).path, way.followLast)
    const isMounted = mountAt(container, inside) !== undefined
    return fn({ ...placeOf(inside), isWritable: isWritable(container, inside), isMounted })
  })

/** Where a container's volumes and binds lie on this host, by their places in it; they are held for the time. */
async function withSources<T>(
  ctx: EngineContext,
  container: Container,
  fn: (sources: ReadonlyMap<string, string>) => Promise<T>,
): Promise<T> {
  const user = `${container.id}:copy ${newHexId()}` // the container may start meanwhile and hold them too
  const sources = new Map<string, string>()
  const held: string[] = []
  try {
    for (const m of container.record.mounts) {
      if (m.type === 'bind') sources.set(m.destination, m.source)
      if (m.type !== 'volume') continue
      sources.set(m.destination, join(await ctx.volumes.mount(m.name, user), m.subpath))
      held.push(m.name)
    }
    return await fn(sources)
  } finally {
    for (const name of held) await ctx.volumes.unmount(name, user)
  }
}

const missing = (container: Container, path: string, cause: unknown): Error =>
  notFound('noSuchPath', `Could not find the file ${path} in container ${container.id}`, { path }, { cause })

async function statPlace(container: Container, place: Place, path: string): Promise<PathStat> {
  let stats: Awaited<ReturnType<typeof lstat>>
  let target = ''
  try {
    // The root of a live container is a link in /proc.
    stats = await (place.path === place.root ? stat(place.path) : lstat(place.path))
    if (stats.isSymbolicLink()) target = await readlink(place.path)
  } catch (cause) {
    throw missing(container, path, cause) // or the container ended meanwhile
  }
  if (followsLast(path) && !stats.isDirectory())
    throw invalid('notADirectory', `lstat ${path}: not a directory`, { path })
  const isLink = stats.isSymbolicLink()
  return {
    name: nameOf(path),
    size: stats.size,
    mode: goFileMode(stats.mode),
    mtime: stats.mtime.toISOString(),
    linkTarget: isLink ? posix.resolve(posix.dirname(posix.join('/', path)), target) : '',
  }
}

/** The last part of a path as Go's filepath.Base gives it: "/dir/." is ".". */
function nameOf(path: string): string {
  const trimmed = path.replace(/\/+$/, '')
  return trimmed === '' ? '/' : basename(trimmed)
}

/** "/link/" and "/link/." mean what the link points to. */
const followsLast = (path: string): boolean => /\/\.?$/.test(path)
const wayOf = (path: string): Way => ({ path, followLast: followsLast(path) })

export async function statPath(ctx: EngineContext, container: Container, path: string): Promise<PathStat> {
  const result = await withPlace(ctx, container, wayOf(path), (place) => statPlace(container, place, path))
  containerEvent(ctx, container, 'archive-path', { path })
  return result
}

const layerTool = (ctx: EngineContext): LayerTool => new LayerTool(join(ctx.options.nativeDir, 'shoal-layer'))

export async function getArchive(
  ctx: EngineContext,
  container: Container,
  path: string,
): Promise<{ readonly stat: PathStat; readonly tar: Readable }> {
  const result = await streamed<{ readonly stat: PathStat }>((use) =>
    withPlace(ctx, container, wayOf(path), async (place) => {
      const stats = await statPlace(container, place, path)
      await use(
        { stat: stats },
        layerTool(ctx).packTree(place.root, relative(place.root, place.path), stats.name === '/' ? '.' : stats.name),
      )
    }),
  )
  containerEvent(ctx, container, 'archive-path', { path })
  return result
}

export async function exportTree(ctx: EngineContext, container: Container): Promise<Readable> {
  const { tar } = await streamed<object>((use) =>
    ctx.snapshots.withView(container.id, (root) => use({}, layerTool(ctx).packTree(root))),
  )
  containerEvent(ctx, container, 'export')
  return tar
}

/**
 * Resolves with the packer's output as soon as it runs, while `hold` keeps the tree in place until the packer is done. A
 * failure on the way ends the stream with that error.
 */
function streamed<T extends object>(
  hold: (use: (extra: T, packer: ReturnType<LayerTool['packTree']>) => Promise<void>) => Promise<void>,
): Promise<T & { readonly tar: Readable }> {
  return new Promise((resolve, reject) => {
    const held = hold(async (extra, packer) => {
      // Whoever has read the archive's end finds nothing held any more: the last part waits for that.
      let last: Buffer | undefined
      const tar = new Transform({
        transform(part: Buffer, _encoding, done) {
          done(null, last)
          last = part
        },
        flush: (done) => void held.catch(() => {}).then(() => done(null, last)),
      })
      // A client that goes away must not keep the tree held.
      pipeline(packer.stdout, tar, () => void packer.kill())
      resolve({ ...extra, tar })
      try {
        await packer.done
      } catch (caught) {
        if (!tar.destroyed) tar.destroy(caught as Error)
      }
    })
    held.catch(reject)
  })
}

export async function putArchive(
  ctx: EngineContext,
  container: Container,
  path: string,
  tar: Readable,
  options: { readonly noOverwriteDirNonDir: boolean; readonly copyUidGid: boolean },
): Promise<void> {
  if (container.record.status === 'removing') throw conflict('removing', `container ${container.id} is being removed`)
  await withWritablePlace(ctx, container, { path, followLast: true }, async (place) => {
    let isDirectory: boolean
    try {
      isDirectory = (await stat(place.path)).isDirectory()
    } catch (cause) {
      throw missing(container, path, cause)
    }
    if (!isDirectory) throw invalid('notADirectory', 'extraction point is not a directory', { path })
    if (!place.isWritable)
      throw forbidden(
        'readOnly',
        `${place.isMounted ? 'mounted volume' : 'container rootfs'} is marked read-only: cannot write to ${path}`,
        { path },
      )
    await layerTool(ctx)
      .apply({
        root: place.root,
        path: relative(place.root, place.path),
        plain: true,
        noOverwriteDir: options.noOverwriteDirNonDir,
      })
      .consume(tar)
  })
  containerEvent(ctx, container, 'extract-to-dir', { path })
}

export const changesOf = (ctx: EngineContext, container: Container) => ctx.snapshots.changes(container.id)

export async function sizeOf(
  ctx: EngineContext,
  container: Container,
): Promise<{ readonly rw: number; readonly rootFs: number }> {
  const rw = await ctx.snapshots.usage(container.id)
  // The image cannot go while the container is there, except by force: then only the layer counts.
  const image = await ctx.images.get(container.record.image).catch(() => null)
  return { rw, rootFs: rw + (image?.sizeBytes ?? 0) }
}
