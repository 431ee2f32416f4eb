import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Logger } from '../common/index.js'

/**
 * A folder of records, one JSON file each, replaced by rename. `durable` records survive a power cut (fsync of file and
 * folder); the others only need to survive this process, because what they describe lives in the kernel's memory.
 */
export class RecordStore<T> {
  constructor(
    private readonly dir: string,
    private readonly durable: boolean,
    private readonly log: Logger,
  ) {}

  /** A file that cannot be read (torn by a power cut) is reported and left out. */
  async load(): Promise<Map<string, T>> {
    await mkdir(this.dir, { recursive: true, mode: 0o700 })
    const out = new Map<string, T>()
    for (const file of (await readdir(this.dir)).sort()) {
      const path = join(this.dir, file)
      if (!file.endsWith('.json')) {
        await rm(path, { force: true })
        continue
      }
      try {
        out.set(file.slice(0, -5), JSON.parse(await readFile(path, 'utf8')) as T)
      } catch (e) {
        this.log.warn('record cannot be read and is left out', { path, error: String(e) })
      }
    }
    return out
  }

  async put(id: string, record: T): Promise<void> {
    const path = join(this.dir, `${id}.json`)
    try {
      const file = await open(`${path}.new`, 'w', 0o600)
      try {
        await file.writeFile(JSON.stringify(record))
        if (this.durable) await file.sync()
      } finally {
        await file.close()
      }
      await rename(`${path}.new`, path)
    } catch (caught) {
      await rm(`${path}.new`, { force: true }) // on a full disk, say
      throw caught
    }
    await this.#syncDir()
  }

  async delete(id: string): Promise<void> {
    await rm(join(this.dir, `${id}.json`), { force: true })
    await this.#syncDir()
  }

  async #syncDir(): Promise<void> {
    if (!this.durable) return
    const dir = await open(this.dir, 'r')
    try {
      await dir.sync()
    } finally {
      await dir.close()
    }
  }
}
