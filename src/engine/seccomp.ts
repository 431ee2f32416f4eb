import { createHash } from 'node:crypto'
import { mkdir, open, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'

/** Makes a filter program; a pure function of its arguments for one version of the compiler. */
export type CompileSeccomp = (profile: 'default' | object, capabilities: readonly string[]) => Promise<Uint8Array>

/** Programs kept in memory, about 4 KiB each. */
const KEPT_FILTERS = 32

/**
 * Compiled filters by profile and capabilities: in memory, then on disk, else compiled (10 ms). Nearly all containers of a
 * host share one.
 */
export class SeccompFilters {
  readonly #kept = new Map<string, Promise<Uint8Array>>()

  constructor(
    private readonly dir: string,
    /** Changes whenever the same input may compile to something else. */
    private readonly version: string,
    private readonly compile: CompileSeccomp,
  ) {}

  filter(profile: 'default' | 'unconfined' | object, capabilities: readonly string[]): Promise<Uint8Array | null> {
    if (profile === 'unconfined') return Promise.resolve(null)
    const key = createHash('sha256')
      .update(JSON.stringify([this.version, profile, [...capabilities].sort()]))
      .digest('hex')
    const kept = this.#kept.get(key)
    if (kept) {
      // Moved to the end: the first is the one used longest ago.
      this.#kept.delete(key)
      this.#kept.set(key, kept)
      return kept
    }
    const made = this.#load(key, profile, capabilities)
    this.#kept.set(key, made)
    made.catch(() => this.#kept.delete(key))
    if (this.#kept.size > KEPT_FILTERS) this.#kept.delete(this.#kept.keys().next().value!)
    return made
  }

  async #load(key: string, profile: 'default' | object, capabilities: readonly string[]): Promise<Uint8Array> {
    const path = join(this.dir, `${key}.bpf`)
    try {
      return await readFile(path)
    } catch (caught) {
      if ((caught as NodeJS.ErrnoException).code !== 'ENOENT') throw caught
    }
    const program = await this.compile(profile, capabilities)
    await mkdir(this.dir, { recursive: true, mode: 0o700 })
    const file = await open(`${path}.${process.pid}`, 'w', 0o600)
    try {
      await file.writeFile(program)
      // A torn file would be read as a shorter program after a power failure: the rename comes after the bytes.
      await file.datasync()
    } finally {
      await file.close()
    }
    await rename(`${path}.${process.pid}`, path)
    return program
  }
}
