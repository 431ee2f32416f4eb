import { mkdir, open, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { RaftConfig } from '#proto'
import { ShoalError } from '../common/index.js'
import type { Logger } from '../common/log.js'
import { CLUSTER_DEFAULTS } from './control/index.js'
import type { Store } from './store/index.js'

const FILE = 'raft-settings.json'

/**
 * Ticks and snapshot intervals as the operator set them in the cluster's spec. Raft needs them before it can read that
 * spec from its own log, so each manager keeps a copy beside it; a change counts from the next start, as in Swarm.
 */
export class RaftSettings {
  #saved: string | null = null
  #saving: Promise<void> = Promise.resolve()
  #stop: () => void = () => {}

  constructor(
    private readonly dir: string,
    private readonly logger: Logger,
  ) {}

  async load(): Promise<RaftConfig> {
    const defaults = RaftConfig.create(CLUSTER_DEFAULTS.raft)
    let text: string
    try {
      text = await readFile(join(this.dir, FILE), 'utf8')
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code === 'ENOENT') return defaults
      throw e
    }
    try {
      this.#saved = text
      const read = JSON.parse(text) as Partial<RaftConfig>
      const number = (name: keyof RaftConfig): number => {
        const value = read[name]
        return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : defaults[name]
      }
      return RaftConfig.create({
        snapshotInterval: number('snapshotInterval') || defaults.snapshotInterval,
        keepOldSnapshots: number('keepOldSnapshots'),
        logEntriesForSlowFollowers: number('logEntriesForSlowFollowers'),
        heartbeatTick: number('heartbeatTick') || defaults.heartbeatTick,
        electionTick: number('electionTick') || defaults.electionTick,
      })
    } catch (e) {
      // The copy is a convenience: the cluster's spec is the truth, and writes it again.
      this.logger.warn('raft settings cannot be read, defaults used', { error: ShoalError.from(e).message })
      return defaults
    }
  }

  follow(store: Store): void {
    this.#stop = store.onCommit((c) => {
      if (!c.reset && !c.events.some((e) => e.kind === 'cluster')) return
      const raft = store.view().cluster()?.spec?.raft
      const text = raft ? JSON.stringify(raft) : null
      if (text === null || text === this.#saved) return
      this.#saved = text
      this.#saving = this.#saving
        .then(() => this.#save(text))
        .catch((e: unknown) => {
          this.logger.warn('raft settings not saved', { error: ShoalError.from(e).message })
        })
    })
  }

  async stop(): Promise<void> {
    this.#stop()
    await this.#saving
  }

  async #save(text: string): Promise<void> {
    await mkdir(this.dir, { recursive: true, mode: 0o700 })
    const path = join(this.dir, FILE)
    const file = await open(`${path}.new`, 'w', 0o600)
    try {
      await file.writeFile(text)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(`${path}.new`, path)
  }
}
