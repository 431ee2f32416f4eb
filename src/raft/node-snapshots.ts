import { conflict, invalid, invariant, ShoalError, unavailable } from '../common/index.js'
import type { Logger } from '../common/log.js'
import type {
  IncomingSnapshot,
  OutgoingSnapshot,
  RaftTransport,
  SnapshotDescription,
  StateMachine,
} from './contract.js'
import type { ConfState, Message, RaftId } from './core/index.js'
import type { DurableLog, Membership, SnapshotDigest } from './log/index.js'
import type { Members } from './node-membership.js'
import { hardStateOf } from './node-storage.js'
import { SNAPSHOT_TRANSFERS_MAX } from './options.js'

export interface SnapshotHooks {
  readonly log: DurableLog
  readonly members: Members
  readonly stateMachine: StateMachine
  readonly logger: Logger
  readonly transport: () => RaftTransport
  readonly interval: number
  /** A snapshot is due with so many bytes of log, if it is not by the interval. */
  readonly logBytes: number
  readonly keep: Parameters<DurableLog['saveSnapshot']>[3]
  readonly applied: () => number
  /** Can nothing be committed without that member? */
  readonly isNeeded: (id: RaftId) => boolean
  /** Steps a MsgSnap whose file is durable. */
  received(message: Message): void
  /** To the core: how a transfer ended. */
  sent(to: RaftId, ok: boolean): void
  /** State machine, members and log are those of the snapshot now. */
  installed(index: number): void
}

interface Received {
  readonly index: number
  readonly membership: Membership
  readonly digest: SnapshotDigest
}

const nameOf = (s: { readonly term: number; readonly index: number }): string => `${s.term}-${s.index}`

/** Taking, sending, receiving and installing snapshots (raft.md §3, §5). */
export class Snapshots {
  #taking: Promise<void> | null = null
  readonly #sending = new Map<RaftId, { readonly term: number; readonly abort: AbortController }>()
  /** Complete files, not installed yet: several when a slow disk keeps their orders waiting. */
  readonly #received = new Map<string, Received>()
  #receiving: { cancelled: ShoalError | null } | null = null
  #stopped = false

  constructor(private readonly hooks: SnapshotHooks) {}

  /** Called after applying. The state machine's view is taken at once, written in the background. */
  maybeTake(): void {
    const { log, interval, logBytes } = this.hooks
    const index = this.hooks.applied()
    if (index - log.snapshotIndex >= interval || (index > log.snapshotIndex && log.bytesSinceSnapshot > logBytes))
      this.#take()
  }

  /** Resolves when the snapshot of now, or the one that is being taken, is done with. */
  #take(): Promise<void> {
    if (this.#taking !== null) return this.#taking
    if (this.#stopped) return Promise.resolve()
    const { log, members, stateMachine, logger, keep } = this.hooks
    const index = this.hooks.applied()
    const term = log.term(index)
    invariant(typeof term === 'number', `raft: applied entry ${index} is not in the log: ${term}`)
    const meta = { index, term, confState: members.confState }
    const pieces = stateMachine.snapshot()
    this.#taking = log.saveSnapshot(meta, members.membership, pieces, keep).then(
      () => {
        this.#taking = null
        logger.info('raft snapshot taken', { index, term })
      },
      (e) => {
        this.#taking = null
        // The log keeps all it had; the next applied entry tries again.
        if (!this.#stopped) logger.error('raft snapshot not taken', { index, error: ShoalError.from(e).message })
      },
    )
    return this.#taking
  }

  send(m: Message): void {
    const running = this.#sending.get(m.to)
    const current = this.hooks.log.currentSnapshot()
    if (current !== null && !namesMember(current.confState, m.to)) {
      // A member refuses a snapshot that does not know it; its addition is applied here, so a new one does.
      this.#take().then(() => {
        if (!this.#stopped) this.hooks.sent(m.to, false)
      })
      return
    }
    if (
      current === null ||
      current.index < (m.snapshot?.index ?? 0) ||
      (running ? running.term >= m.term : this.#sending.size >= SNAPSHOT_TRANSFERS_MAX)
    ) {
      this.hooks.sent(m.to, false)
      return
    }
    running?.abort.abort(unavailable('snapshotReplaced', 'a transfer of a newer term replaced this one'))
    const abort = new AbortController()
    const transfer = { term: m.term, abort }
    this.#sending.set(m.to, transfer)
    const unpin = this.hooks.log.pinSnapshot()
    const meta = { index: current.index, term: current.term, confState: current.confState }
    const outgoing: OutgoingSnapshot = {
      meta,
      membership: { members: [...current.membership.members], removed: [...current.membership.removed] },
      size: current.size,
      sha256: current.sha256,
      pieces: current.pieces,
      isUrgent: () => this.hooks.isNeeded(m.to),
    }
    const message: Message = { ...m, snapshot: { ...meta, data: new Uint8Array(0) } }
    const ended = (error: unknown): void => {
      unpin()
      if (this.#sending.get(m.to) === transfer) this.#sending.delete(m.to)
      const fields = { to: m.to, index: meta.index }
      if (error === null) this.hooks.logger.info('raft snapshot sent', fields)
      else if (!this.#stopped)
        this.hooks.logger.warn('raft snapshot not sent', { ...fields, error: ShoalError.from(error).message })
      if (!this.#stopped) this.hooks.sent(m.to, error === null)
    }
    this.hooks
      .transport()
      .sendSnapshot(message, outgoing, abort.signal)
      .then(() => ended(null), ended)
  }

  async receive(m: Message, described: SnapshotDescription): Promise<IncomingSnapshot> {
    const { log } = this.hooks
    const { index, term } = described.meta
    if (this.#receiving)
      this.#receiving.cancelled = unavailable('snapshotReplaced', 'a newer snapshot transfer replaced this one')
    const turn: { cancelled: ShoalError | null } = { cancelled: null }
    this.#receiving = turn
    if (index <= this.hooks.applied()) {
      // Nothing to learn from it, but the core has to answer its sender.
      return { write: async () => {}, finish: async () => this.hooks.received(m), abort: async () => {} }
    }
    const writer = await log.createSnapshot(term, index)
    let open = true
    const check = (): void => {
      if (this.#stopped) throw unavailable('stopping', 'this raft member stops')
      if (turn.cancelled) throw turn.cancelled
    }
    return {
      write: async (piece) => {
        check()
        await writer.write(piece)
      },
      finish: async () => {
        check()
        const digest = writer.digest()
        if (digest.size !== described.size || digest.sha256 !== described.sha256)
          throw invalid(
            'snapshotMismatch',
            `snapshot ${index} arrived with ${digest.size} bytes, hash ${digest.sha256}; announced were ${described.size}, ${described.sha256}`,
          )
        open = false
        await log.receiveSnapshot(writer)
        check()
        this.#received.set(nameOf(described.meta), { index, membership: described.membership, digest })
        this.hooks.received(m)
      },
      abort: async () => {
        if (!open) return
        open = false
        await writer.abort()
      },
    }
  }

  /** An order of the core: log first, then the state machine, then (by the caller) the answers. */
  async install(m: Message): Promise<void> {
    const { log, stateMachine, members } = this.hooks
    const { index, term, confState } = m.snapshot!
    const received = this.#received.get(nameOf(m.snapshot!))
    if (received === undefined)
      throw conflict('snapshotMissing', `the core installs snapshot ${index}, which never arrived`)
    await log.installSnapshot({ index, term, confState }, received.membership, received.digest, hardStateOf(m))
    for (const [name, r] of this.#received) if (r.index <= index) this.#received.delete(name)
    const pieces = readPieces(log, () => this.#stopped)
    await stateMachine.restore(index, pieces)
    if (this.#stopped) return
    members.reset(received.membership, confState)
    this.hooks.installed(index)
  }

  /** A leader that lost its office sends no more. */
  abortSending(): void {
    for (const t of this.#sending.values()) t.abort.abort(unavailable('leadershipLost', 'this member leads no more'))
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.abortSending()
    await this.#taking
  }
}

const namesMember = (c: ConfState, id: RaftId): boolean =>
  [c.voters, c.votersOutgoing, c.learners, c.learnersNext].some((ids) => ids.includes(id))

/** The current snapshot, checked chunk by chunk on the way; ends with an error when `stopped` says true. */
export async function* readPieces(log: DurableLog, stopped: () => boolean = () => false): AsyncGenerator<Uint8Array> {
  const snapshot = log.currentSnapshot()
  if (snapshot === null) return
  let size = 0
  for await (const piece of snapshot.pieces()) {
    if (stopped()) throw unavailable('stopping', 'this raft member stops')
    size += piece.length
    yield piece
  }
  invariant(size === snapshot.size, `raft snapshot ${snapshot.index} has ${size} of its ${snapshot.size} bytes`)
}
