import type { Entry, HardState, Message } from './core/index.js'
import type { DurableLog } from './log/index.js'
import { APPEND_BYTES_MAX, APPEND_ENTRIES_MAX } from './options.js'

export interface AppendWorkerHooks {
  readonly log: DurableLog
  /** Takes the snapshot of `message` into use: log first, then the state machine. */
  install(message: Message): Promise<void>
  /** What may be sent or stepped now that the write and all before it are durable, in order. */
  written(responses: readonly Message[]): void
  failed(error: unknown): void
  /** As the platform's: runs `fn` soon, after what was handed to the network before has left. */
  readonly defer: (fn: () => void) => void
}

export const hardStateOf = (m: Message): HardState | null =>
  m.term === 0 && m.vote === 0 && m.commit === 0 ? null : { term: m.term, vote: m.vote, commit: m.commit }

/**
 * Does the core's storage-append orders strictly in order, one write at a time; what arrives during a write shares the
 * next one and its fsync (raft.md §2 rule 4, §3 group commit).
 */
export class AppendWorker {
  #queue: Message[] = []
  #running: Promise<void> | null = null
  #stopped = false
  /** A commit index that is not on disk yet; it rides with the next write, or is flushed when none comes. */
  #commit: HardState | null = null
  #flush = false
  /** Whoever waits for a commit index to be on disk, the lowest first. */
  #waiting: { readonly index: number; readonly then: () => void }[] = []
  /** Entries and writes so far: how well the fsyncs are shared. */
  entriesWritten = 0
  writes = 0

  constructor(private readonly hooks: AppendWorkerHooks) {}

  /** A write is running or waits. */
  get busy(): boolean {
    return this.#running !== null
  }

  /**
   * With `later` an idle worker lets what was just handed to the network leave first: sealing and handing over a batch
   * takes as long as a small message's way to a follower, which has the longer way to its acknowledgement.
   */
  push(message: Message, later: boolean): void {
    if (this.#stopped) return
    this.#queue.push(message)
    this.#running ??= this.#run(later)
  }

  /** Called at each tick: an idle member's commit index reaches the disk soon (a forced new cluster starts from it). */
  flushCommit(): void {
    if (this.#commit === null || this.#stopped || this.#running !== null) return
    this.#flush = true
    this.#running = this.#run(false)
  }

  /** Calls back when it is on disk that everything up to `index`, which is applied here, is committed; at once when it is already. */
  whenCommitted(index: number, then: () => void): void {
    if (this.hooks.log.hardState.commit >= index) then()
    else {
      this.#waiting.push({ index, then })
      this.flushCommit()
    }
  }

  #tellCommitted(): void {
    const { commit } = this.hooks.log.hardState
    while (this.#waiting.length > 0 && this.#waiting[0]!.index <= commit) this.#waiting.shift()!.then()
  }

  /** Resolves when the running write ended; then only the commit index is still written. */
  async stop(): Promise<void> {
    const failed = this.#stopped
    this.#stopped = true
    this.#queue = []
    await this.#running
    if (!failed && this.#commit !== null && this.hooks.log.failure === null)
      await this.hooks.log.append([], this.#commit)
  }

  async #run(later: boolean): Promise<void> {
    try {
      if (later) await new Promise<void>((resolve) => this.hooks.defer(resolve))
      if (this.#stopped) return
      while (this.#queue.length > 0 || this.#flush || (this.#waiting.length > 0 && this.#commit !== null)) {
        const batch = this.#take()
        await this.#write(batch)
        if (this.#stopped) return
        this.#tellCommitted()
        // Cleared first: whoever hears of the end of the last write must find the worker free.
        const idle = this.#queue.length === 0
        if (idle) this.#running = null
        this.hooks.written(batch.flatMap((m) => m.responses))
        if (idle) return
      }
    } catch (e) {
      this.#stopped = true
      this.#running = null
      this.hooks.failed(e)
    }
  }

  /** A snapshot is a write of its own: entries of the same order come after it, everything else before or after. */
  #take(): Message[] {
    let entries = 0
    let bytes = 0
    let n = 0
    while (n < this.#queue.length) {
      const m = this.#queue[n]!
      if (m.snapshot !== null && n > 0) break
      for (const e of m.entries) bytes += e.data.length
      entries += m.entries.length
      if (n > 0 && (entries > APPEND_ENTRIES_MAX || bytes > APPEND_BYTES_MAX)) break
      n++
      if (m.snapshot !== null) break
    }
    return this.#queue.splice(0, n)
  }

  async #write(batch: readonly Message[]): Promise<void> {
    const first = batch[0]
    if (first !== undefined && first.snapshot !== null) {
      this.#commit = null
      await this.hooks.install(first)
      if (first.entries.length > 0) await this.hooks.log.append(first.entries, hardStateOf(first))
      return
    }
    const entries: Entry[] = []
    let hardState: HardState | null = null
    for (const m of batch) {
      hardState = hardStateOf(m) ?? hardState
      if (m.entries.length === 0) continue
      // A later order may replace what an earlier one of the same batch appended.
      while (entries.length > 0 && entries[entries.length - 1]!.index >= m.entries[0]!.index) entries.pop()
      for (const e of m.entries) entries.push(e)
    }
    hardState ??= this.#commit
    const flush = this.#flush || this.#waiting.length > 0
    this.#flush = false
    if (entries.length === 0 && hardState === null) return
    const known = this.hooks.log.hardState
    if (!flush && entries.length === 0 && hardState?.term === known.term && hardState.vote === known.vote) {
      // Raft needs no sync for a commit index (raft.md §2 rule 6), so the answers need not wait for one.
      this.#commit = hardState
      return
    }
    await this.hooks.log.append(entries, hardState)
    this.#commit = null
    this.writes++
    this.entriesWritten += entries.length
  }
}
