import { randomBytes } from 'node:crypto'
import { mkdir, readdir, rename, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { digestOf, hexOf } from '../content/blob-store.js'
import type { Digest } from '../contract.js'
import { type ApplyOptions, type LayerProcess, type LayerResult, type LayerTool, overlayArgs } from './layer-tool.js'

/** image-spec config.md: ChainID(L0) = DiffID(L0), ChainID(L0|...|Ln) = Digest(ChainID(L0|...|Ln-1) + " " + DiffID(Ln)). */
export function chainIds(diffIds: readonly Digest[]): Digest[] {
  const chain: Digest[] = []
  for (const d of diffIds) chain.push(chain.length === 0 ? d : digestOf(`${chain.at(-1)} ${d}`))
  return chain
}

/** A layer being unpacked, not yet in its place. */
export interface UnpackedLayer {
  readonly directory: string
  readonly result: LayerResult
}

/** Docker makes these in every container's "init" layer: what is mounted over must exist and must not show as a change. */
const MOUNT_POINTS = [
  'd:/dev',
  'd:/dev/pts',
  'd:/dev/shm',
  'd:/proc',
  'd:/sys',
  'f:/.dockerenv',
  'f:/dev/console',
  'f:/etc/hosts',
  'f:/etc/hostname',
  'f:/etc/resolv.conf',
  'l:/etc/mtab=/proc/mounts',
]

/**
 * Unpacked layers: layers/<chain id>/diff, shared between images. A layer is unpacked under a temporary name and renamed into
 * place when whole: a directory with a chain id's name is complete or about to be collected.
 */
export class LayerStore {
  readonly #layers: string
  readonly #empty: string

  constructor(
    root: string,
    readonly tool: LayerTool,
    private readonly limits: { readonly layerBytesMax: number; readonly layerEntriesMax: number },
  ) {
    this.#layers = join(root, 'layers')
    this.#empty = join(root, 'layers', 'empty', 'diff')
  }

  async open(): Promise<void> {
    await mkdir(this.#empty, { recursive: true })
    for (const name of await readdir(this.#layers)) if (name.startsWith('tmp-')) await this.#remove(name)
  }

  diffPath(chainId: Digest): string {
    return join(this.#layers, hexOf(chainId), 'diff')
  }

  async has(chainId: Digest): Promise<boolean> {
    return stat(this.diffPath(chainId)).then(
      () => true,
      (e: NodeJS.ErrnoException) => {
        if (e.code === 'ENOENT') return false
        throw e
      },
    )
  }

  /** Starts unpacking; feed the process, then await it and call `place` or `discard`. */
  async unpack(options: Omit<ApplyOptions, 'root' | 'implied'>): Promise<{ directory: string; process: LayerProcess }> {
    const directory = join(this.#layers, `tmp-${randomBytes(12).toString('hex')}`)
    await mkdir(join(directory, 'diff'), { recursive: true })
    const process = this.tool.apply({
      bytesMax: this.limits.layerBytesMax,
      entriesMax: this.limits.layerEntriesMax,
      ...options,
      root: join(directory, 'diff'),
      implied: join(directory, 'implied'),
    })
    return { directory, process }
  }

  async discard(directory: string): Promise<void> {
    await this.tool.run('remove', ['--root', directory])
  }

  /**
   * Puts an unpacked layer under its chain id. Directories that no entry described first get the owner and mode that
   * the layers below give them. Not durable before `sync`.
   */
  async place(directory: string, chainId: Digest, below: readonly Digest[]): Promise<void> {
    if (await this.has(chainId)) return this.discard(directory)
    if (below.length > 0)
      await this.tool.run('inherit', [
        '--root',
        join(directory, 'diff'),
        '--list',
        join(directory, 'implied'),
        ...overlayArgs(this.lower(below)),
      ])
    await this.#settle(directory, join(this.#layers, hexOf(chainId)))
  }

  /** Another one was faster: what it made is the same, and stays. */
  async #settle(temporary: string, path: string): Promise<void> {
    try {
      await rename(temporary, path)
    } catch (e) {
      if (!['ENOTEMPTY', 'EEXIST'].includes((e as NodeJS.ErrnoException).code ?? '')) throw e
      await this.discard(temporary)
    }
  }

  /** Everything unpacked so far is on disk when it resolves: one flush for many thousand files. */
  async sync(): Promise<void> {
    await this.tool.run('sync', ['--root', this.#layers])
  }

  /** Overlay lower directories, top first. */
  lower(chain: readonly Digest[]): string[] {
    return chain.length === 0 ? [this.#empty] : chain.map((c) => this.diffPath(c)).reverse()
  }

  /** The layer of mount points over these layers, made at first need; rebuilt after a crash by its absence. */
  async initLayer(chain: readonly Digest[]): Promise<string> {
    const top = chain.at(-1)
    const path = join(this.#layers, top ? hexOf(top) : 'empty', 'init')
    const there = await stat(path).catch((e: NodeJS.ErrnoException) => {
      if (e.code !== 'ENOENT') throw e
      return null
    })
    if (there) return path
    const temporary = join(this.#layers, `tmp-${randomBytes(12).toString('hex')}`)
    await mkdir(temporary, { recursive: true })
    try {
      await this.tool.run('mountpoints', [
        '--root',
        temporary,
        ...overlayArgs(this.lower(chain)),
        '--',
        ...MOUNT_POINTS,
      ])
      await this.#settle(temporary, path)
    } catch (e) {
      await this.discard(temporary)
      throw e
    }
    return path
  }

  async list(): Promise<Digest[]> {
    return (await readdir(this.#layers)).filter((n) => /^[0-9a-f]{64}$/.test(n)).map((n) => `sha256:${n}`)
  }

  async remove(chainId: Digest): Promise<void> {
    await this.#remove(hexOf(chainId))
  }

  /** Renamed first, so that a crash in the middle leaves no half layer under a chain id. */
  async #remove(name: string): Promise<void> {
    const path = join(this.#layers, name)
    const doomed = name.startsWith('tmp-') ? path : join(this.#layers, `tmp-${randomBytes(12).toString('hex')}`)
    if (doomed !== path) {
      try {
        await rename(path, doomed)
      } catch (e) {
        if ((e as NodeJS.ErrnoException).code === 'ENOENT') return
        throw e
      }
    }
    await this.discard(doomed)
  }
}
