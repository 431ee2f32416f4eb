import { lstat } from 'node:fs/promises'
import { join } from 'node:path'
import type { RootfsPlan, SnapshotService } from '../runtime/index.js'
import type { Container } from './container.js'
import type { EngineContext } from './context.js'
import { type ResolvedUser, resolveUser } from './spec/user.js'

/** /etc/passwd and /etc/group are read up to here. */
const MAX_BYTES = 4 * 1024 * 1024
/** Images whose files are kept, a few KiB each. */
const KEPT_IMAGES = 64

interface Accounts {
  readonly passwd: string | null
  readonly group: string | null
}

/**
 * /etc/passwd and /etc/group of containers. Looking into layers costs a helper process, and the layers of an image never
 * change: as long as the container's own layer has no /etc, its image's files are its files.
 */
export class AccountFiles {
  readonly #byLayers = new Map<string, Promise<Accounts>>()

  constructor(private readonly snapshots: SnapshotService) {}

  async of(plan: RootfsPlan): Promise<Accounts> {
    if (await isThere(join(plan.upper, 'etc'))) return this.#read(plan)
    const key = plan.lower.join(':')
    const kept = this.#byLayers.get(key)
    if (kept) return kept
    const reading = this.#read(plan)
    this.#byLayers.set(key, reading)
    reading.catch(() => this.#byLayers.delete(key))
    if (this.#byLayers.size > KEPT_IMAGES) this.#byLayers.delete(this.#byLayers.keys().next().value!)
    return reading
  }

  async #read(plan: RootfsPlan): Promise<Accounts> {
    const read = async (path: string): Promise<string | null> => {
      const bytes = await this.snapshots.readFile(plan, path, MAX_BYTES)
      return bytes && Buffer.from(bytes).toString('utf8')
    }
    const [passwd, group] = await Promise.all([read('/etc/passwd'), read('/etc/group')])
    return { passwd, group }
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path)
    return true
  } catch (caught) {
    if ((caught as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw caught
  }
}

/** The user in the container's own account files, groups and home included. */
export async function containerUser(ctx: EngineContext, container: Container, user: string): Promise<ResolvedUser> {
  const accounts = await ctx.accounts.of(container.rootfs)
  return resolveUser({ user, groupAdd: container.record.hostConfig.GroupAdd ?? [], ...accounts })
}
