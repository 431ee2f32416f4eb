import type { Rng } from '../../src/common/index.js'
import type { Disk, FileSink, FileSource, KeyValueStore, StoreOp } from '../../src/raft/log/index.js'
import type { Owner, VirtualTime } from './virtual-time.js'

export interface DiskFaults {
  /** Of a batch or file commit, in virtual ms. */
  slowMs: number
  /** A write fails; what of it is on disk is left open. */
  errorRate: number
  full: boolean
  /** A planted fault of the disk itself: the last acknowledged batch is gone after a crash. */
  lies: boolean
}

/** What survives the process. Keys of stores and paths of files are as the log names them. */
interface Image {
  readonly stores: Map<string, Map<string, Buffer>>
  readonly files: Map<string, Buffer>
  readonly directories: Set<string>
}

/**
 * One member's disk. A batch is durable when its promise resolves; one that runs at a crash is on disk as a whole or
 * not at all, as a LevelDB batch is. Files appear by their commit. The witness, which is never synced, may fall back.
 */
export class SimulatedDisk {
  #image: Image = { stores: new Map(), files: new Map(), directories: new Set() }
  #running: { readonly path: string; readonly ops: readonly StoreOp[] }[] = []
  #staleWitness: { readonly path: string; readonly before: Buffer | undefined } | null = null
  #lastBatch: (() => void) | null = null
  readonly faults: DiskFaults = { slowMs: 0, errorRate: 0, full: false, lies: false }

  constructor(
    private readonly time: VirtualTime,
    private readonly owner: Owner,
    private readonly rng: Rng,
  ) {}

  get empty(): boolean {
    return this.#image.files.size === 0
  }

  wipe(): void {
    this.#image = { stores: new Map(), files: new Map(), directories: new Set() }
    this.#running = []
    this.#staleWitness = null
  }

  /** The process ends; with `power` also what the machine had in memory only. */
  crash(power: boolean): void {
    if (this.faults.lies) this.#lastBatch?.()
    this.#lastBatch = null
    for (const { path, ops } of this.#running) if (this.rng.random() < 0.5) this.#apply(path, ops)
    this.#running = []
    const stale = this.#staleWitness
    if (power && stale !== null && this.rng.random() < 0.5) {
      if (stale.before) this.#image.files.set(stale.path, stale.before)
      else this.#image.files.delete(stale.path)
    }
    this.#staleWitness = null
  }

  /** Flips one bit of a stored record or file while the member is down; tells where. */
  flip(): string | null {
    const places: [string, Buffer][] = []
    for (const [path, store] of this.#image.stores)
      for (const [key, value] of store) places.push([`${path} ${Buffer.from(key, 'latin1').toString('hex')}`, value])
    for (const [path, bytes] of this.#image.files) places.push([path, bytes])
    if (places.length === 0) return null
    const [place, bytes] = places[Math.floor(this.rng.random() * places.length)]!
    if (bytes.length === 0) return null
    bytes[Math.floor(this.rng.random() * bytes.length)]! ^= 1 << Math.floor(this.rng.random() * 8)
    return place
  }

  #apply(path: string, ops: readonly StoreOp[]): void {
    let store = this.#image.stores.get(path)
    if (store === undefined) {
      store = new Map()
      this.#image.stores.set(path, store)
    }
    for (const op of ops) {
      const key = Buffer.from(op.key).toString('latin1')
      if (op.type === 'put') store.set(key, Buffer.from(op.value))
      else store.delete(key)
    }
  }

  #undo(path: string): () => void {
    const store = new Map(this.#image.stores.get(path))
    const files = new Map(this.#image.files)
    return () => {
      this.#image.stores.set(path, store)
      for (const [p, bytes] of files) this.#image.files.set(p, bytes)
    }
  }

  /** After the disk's own time; never, if the process dies before. */
  #later<T>(work: () => T, fails = false): Promise<T> {
    return new Promise((resolve, reject) => {
      const delay = 0.3 + this.rng.random() * (1 + this.faults.slowMs)
      const error = fails && this.rng.random() < this.faults.errorRate
      this.time.schedule(this.owner, delay, () => {
        try {
          if (error) {
            if (this.rng.random() < 0.5) work()
            throw new Error('EIO: i/o error, fdatasync')
          }
          resolve(work())
        } catch (e) {
          reject(e)
        }
      })
    })
  }

  /** The disk as a process that starts now sees it. */
  mount(): Disk {
    const soon = <T>(work: () => T): Promise<T> => this.#later(work)
    const image = (): Image => this.#image
    return {
      makeDirectory: (path) =>
        soon(() => {
          image().directories.add(path)
        }),
      openStore: (path) => soon(() => this.#store(path)),
      readFile: (path) =>
        soon(() => {
          const bytes = image().files.get(path)
          return bytes ? Buffer.from(bytes) : null
        }),
      replaceFile: (path, bytes) =>
        this.#later(() => {
          image().files.set(path, Buffer.from(bytes))
        }, true),
      createFile: async (path) => this.#sink(path),
      openFile: (path) =>
        soon(() => {
          const bytes = image().files.get(path)
          if (bytes === undefined) throw new Error(`ENOENT: ${path}`)
          return source(bytes)
        }),
      openInPlace: async (path) => ({
        write: (bytes) => {
          this.#staleWitness ??= { path, before: image().files.get(path) }
          if (this.#staleWitness.path === path && this.rng.random() < 0.3)
            // The kernel wrote it back; from now on only newer content can be lost.
            this.#staleWitness = { path, before: Buffer.from(bytes) }
          image().files.set(path, Buffer.from(bytes))
        },
        close: () => {},
      }),
      list: (path) =>
        soon(() => {
          const names = new Set<string>()
          for (const p of [...image().files.keys(), ...image().stores.keys(), ...image().directories])
            if (p.startsWith(`${path}/`)) names.add(p.slice(path.length + 1).split('/')[0]!)
          return [...names].sort()
        }),
      remove: (path) =>
        soon(() => {
          const within = (p: string): boolean => p === path || p.startsWith(`${path}/`)
          for (const map of [image().files, image().stores])
            for (const p of [...map.keys()]) if (within(p)) map.delete(p)
          for (const p of [...image().directories]) if (within(p)) image().directories.delete(p)
        }),
      freeBytes: async () => (this.faults.full ? 0 : 1e12),
    }
  }

  #store(path: string): KeyValueStore {
    if (!this.#image.stores.has(path)) this.#image.stores.set(path, new Map())
    const records = (): Map<string, Buffer> => this.#image.stores.get(path) ?? new Map()
    let busy = false
    return {
      records: async function* () {
        for (const key of [...records().keys()].sort())
          yield [Buffer.from(key, 'latin1'), Buffer.from(records().get(key)!)] as const
      },
      batch: async (ops) => {
        if (busy) throw new Error('two batches at once')
        busy = true
        const running = { path, ops }
        this.#running.push(running)
        try {
          const undo = this.faults.lies ? this.#undo(path) : null
          await this.#later(() => this.#apply(path, ops), true)
          this.#lastBatch = undo
        } finally {
          busy = false
          this.#running = this.#running.filter((r) => r !== running)
        }
      },
      discard: (from, to) =>
        this.#later(() => {
          const lo = Buffer.from(from).toString('latin1')
          const hi = Buffer.from(to).toString('latin1')
          for (const key of [...records().keys()]) if (key >= lo && key < hi) records().delete(key)
        }),
      close: async () => {},
    }
  }

  #sink(path: string): FileSink {
    const parts: Uint8Array[] = []
    return {
      write: (bytes) => this.#later(() => void parts.push(Buffer.from(bytes))),
      commit: () => this.#later(() => void this.#image.files.set(path, Buffer.concat(parts)), true),
      abort: async () => {},
    }
  }
}

function source(bytes: Buffer): FileSource {
  let at = 0
  return {
    read: async (length) => {
      const part = bytes.subarray(at, at + length)
      at += part.length
      return part
    },
    close: async () => {},
  }
}
