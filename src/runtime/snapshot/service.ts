import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { internal } from '../../common/index.js'
import { KeyedMutex, Mutex } from '../content/mutex.js'
import type { ChangeKind, Digest, RootfsPlan, SnapshotService } from '../contract.js'
import { type ImageStore, noSuchImage } from '../image/store.js'
import { type LayerProcess, overlayArgs } from './layer-tool.js'

/** A merged tree that a helper process holds; several callers share one, since an upper directory is mounted once at most. */
interface Held {
  readonly process: LayerProcess
  readonly root: string
  users: number
}

class Snapshots implements SnapshotService {
  readonly #perContainer = new KeyedMutex()
  readonly #held = new Map<string, Held>()
  readonly #mounting = new Mutex()

  constructor(private readonly store: ImageStore) {}

  /** Removes directories of containers that no record names: a crash came between. Called by the first use. */
  readonly #swept = (() => {
    let done: Promise<void> | null = null
    return (): Promise<void> => {
      done ??= this.#sweep()
      return done
    }
  })()

  async #sweep(): Promise<void> {
    const root = join(this.store.options.root, 'containers')
    await mkdir(root, { recursive: true })
    for (const name of await readdir(root))
      if (!this.store.db.snapshots.has(name)) await this.store.tool.run('remove', ['--root', join(root, name)])
  }

  async prepare(containerId: string, image: Digest | null, options = { isBare: false }): Promise<RootfsPlan> {
    await this.#swept()
    return this.#perContainer.run(containerId, async () => {
      if (this.store.db.snapshots.has(containerId)) return this.get(containerId)
      try {
        return await this.#make(containerId, image, options.isBare)
      } catch (caught) {
        // On a full disk, say: what was made goes at once, not only with the next start's sweep.
        await this.store.tool.run('remove', ['--root', this.store.containerPath(containerId)])
        throw caught
      }
    })
  }

  async #make(containerId: string, image: Digest | null, isBare: boolean): Promise<RootfsPlan> {
    const path = this.store.containerPath(containerId)
    await mkdir(join(path, 'upper'), { recursive: true, mode: 0o755 })
    await mkdir(join(path, 'work'), { recursive: true, mode: 0o700 })
    return this.store.leased(async (lease) => {
      const layers = (image === null ? null : this.store.db.images.get(image)?.layers) ?? []
      const checkImage = (): void => {
        if (image !== null && !this.store.db.images.has(image)) throw noSuchImage(image)
      }
      await lease.pin(...(image === null ? [] : [image]), ...layers)
      checkImage()
      // The merged root is the upper directory itself: 0755 and root's, whatever the image says, as dockerd makes it. Images
      // packed from a private directory (0700) work with any user so.
      if (!isBare) await this.store.layers.initLayer(layers)
      // From here on the collector spares the layers, whatever happens to the image.
      await this.store.exclusive(async () => {
        checkImage() // removed by now
        const record = { container: containerId, image, layers, ...(isBare ? { isBare } : {}) }
        await this.store.db.commit([{ put: 'snapshot', record }])
      })
      return this.get(containerId)
    })
  }

  async get(containerId: string): Promise<RootfsPlan> {
    const upper = this.store.upperOf(containerId)
    const { layers, isBare } = this.store.db.snapshots.get(containerId)!
    const below = this.store.layers.lower(layers)
    return {
      lower: isBare ? below : [await this.store.layers.initLayer(layers), ...below],
      upper,
      work: join(this.store.containerPath(containerId), 'work'),
    }
  }

  async remove(containerId: string): Promise<void> {
    await this.#swept()
    await this.#perContainer.run(containerId, async () => {
      // Files first: on a full disk this makes the room that the record's removal needs.
      await this.store.tool.run('remove', ['--root', this.store.containerPath(containerId)])
      if (this.store.db.snapshots.has(containerId))
        await this.store.exclusive(async () => {
          await this.store.db.commit([{ delete: 'snapshot', key: containerId }])
          // Layers of an image that was removed under the container had waited for it.
          await this.store.collect()
        })
    })
  }

  async usage(containerId: string): Promise<number> {
    return this.store.tool.usage(this.store.upperOf(containerId))
  }

  async changes(containerId: string): Promise<readonly { readonly path: string; readonly kind: ChangeKind }[]> {
    const plan = await this.get(containerId)
    const { output } = await this.store.tool.collect('changes', [...overlayArgs(plan.lower), '--upper', plan.upper])
    const found = new Map<string, ChangeKind>()
    for (const entry of output.toString('utf8').split('\0'))
      if (entry !== '') found.set(entry.slice(1), Number(entry[0]) as ChangeKind)
    // A directory is changed by what comes and goes in it, though its own times may have been set back.
    for (const [path, kind] of [...found]) {
      const parent = path.slice(0, path.lastIndexOf('/'))
      if (kind !== 0 && parent !== '' && !found.has(parent)) found.set(parent, 0)
    }
    return [...found]
      .map(([path, kind]) => ({ path, kind }))
      .sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0))
  }

  async withMounted<T>(containerId: string, fn: (root: string) => Promise<T>): Promise<T> {
    const held = await this.#mounting.run(() => this.#hold(containerId))
    try {
      return await fn(held.root)
    } finally {
      await this.#mounting.run(async () => {
        if (--held.users > 0) return
        this.#held.delete(containerId)
        await held.process.finish()
      })
    }
  }

  async #hold(containerId: string): Promise<Held> {
    const there = this.#held.get(containerId)
    if (there) {
      there.users++
      return there
    }
    const { lower, upper, work } = await this.get(containerId)
    const held = { ...(await this.#mount([...overlayArgs(lower), '--upper', upper, '--work', work])), users: 1 }
    this.#held.set(containerId, held)
    return held
  }

  async withView<T>(containerId: string, fn: (root: string) => Promise<T>): Promise<T> {
    const { lower, upper } = await this.get(containerId)
    const { root, process } = await this.#mount([...overlayArgs(lower), '--upper', upper])
    try {
      return await fn(root)
    } finally {
      await process.finish()
    }
  }

  async #mount(args: readonly string[]): Promise<{ readonly process: LayerProcess; readonly root: string }> {
    const process = this.store.tool.start('hold', args)
    const first = await firstLine(process)
    const fd = (JSON.parse(first) as { root?: unknown }).root
    if (typeof fd !== 'number') throw internal('layerTool', `shoal-layer hold answered "${first}"`)
    return { process, root: `/proc/${process.pid}/fd/${fd}` }
  }

  async readFile(plan: RootfsPlan, path: string, maxBytes: number): Promise<Uint8Array | null> {
    const { result, output } = await this.store.tool.collect('cat', [
      ...overlayArgs(plan.lower),
      '--upper',
      plan.upper,
      '--path',
      path,
      '--bytes-max',
      String(maxBytes),
    ])
    return result.found === true ? output : null
  }

  async list(): Promise<readonly string[]> {
    return [...this.store.db.snapshots.keys()]
  }
}

/** Rejects with the process's own error when it ends without a line. */
async function firstLine(process: LayerProcess): Promise<string> {
  const lines = createInterface({ input: process.stdout })
  try {
    return await Promise.race([
      new Promise<string>((resolve) => lines.once('line', resolve)),
      process.done.then(() => {
        throw internal('layerTool', 'shoal-layer ended without an answer')
      }),
    ])
  } finally {
    lines.close()
  }
}

/** Stands on the image service's store: `images` must be started first and stopped last. */
export const createSnapshotService = (modules: { readonly images: { readonly store: ImageStore } }): SnapshotService =>
  new Snapshots(modules.images.store)
