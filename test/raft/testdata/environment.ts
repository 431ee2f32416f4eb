import {
  type CoreConfig,
  decodeConfChange,
  describeEntries,
  describeMessage,
  describeProgressMap,
  describeReady,
  describeRole,
  type Entry,
  type HardState,
  isStorageThread,
  MemoryStorage,
  type Message,
  type MessageType,
  NO_BYTES,
  type Snapshot,
  type StepError,
  type StorageReader,
} from '../../../src/raft/core/index.js'
import { RawNode } from '../../../src/raft/core/raw-node.js'
import { freezeReady } from './freeze.js'
import { Output } from './output.js'

/** A command that can't be done; its text goes to the output. */
export class CommandError extends Error {}

export const STEP_ERRORS: Record<StepError, string> = {
  proposalDropped: 'raft proposal dropped',
  peerNotFound: 'raft: cannot step as peer not found',
  localMessage: 'raft: cannot step raft local message',
}

export interface Node {
  readonly core: RawNode
  readonly config: CoreConfig
  readonly storage: MemoryStorage
  /** Snapshots of the state machine, one an applied entry; storage hands out the newest. */
  readonly history: Snapshot[]
  readonly appendWork: Message[]
  readonly applyWork: Message[]
}

export interface NodeOptions extends Omit<CoreConfig, 'id' | 'storage' | 'random' | 'logger'> {}

/** A cluster of cores without I/O: everything moves by command. */
export class Environment {
  readonly output = new Output()
  readonly nodes: Node[] = []
  messages: Message[] = []

  constructor(private readonly random: () => number) {}

  node(id: number): Node {
    const node = this.nodes[id - 1]
    if (!node) throw new CommandError(`node ${id} does not exist, there are ${this.nodes.length}`)
    return node
  }

  addNode(options: NodeOptions, snapshot: Snapshot | null): void {
    const memory = new MemoryStorage()
    if (snapshot) memory.applySnapshot(snapshot)
    const empty: Snapshot = { index: 0, term: 0, confState: memory.initialState().confState, data: NO_BYTES }
    const history: Snapshot[] = [snapshot ?? empty]
    const storage: StorageReader = {
      initialState: () => memory.initialState(),
      firstIndex: () => memory.firstIndex(),
      lastIndex: () => memory.lastIndex(),
      term: (index) => memory.term(index),
      entries: (lo, hi, maxBytes) => memory.entries(lo, hi, maxBytes),
      snapshot: () => history.at(-1)!,
    }
    const config: CoreConfig = {
      ...options,
      id: this.nodes.length + 1,
      storage,
      random: this.random,
      logger: this.output,
    }
    const core = new RawNode(config)
    this.nodes.push({ core, config, storage: memory, history, appendWork: [], applyWork: [] })
  }

  processReady(id: number): void {
    const node = this.node(id)
    const rd = freezeReady(node.core.ready())
    this.output.write(describeReady(rd))
    if (!node.config.asyncStorageWrites) {
      this.persist(node, rd.hardState, rd.entries, rd.snapshot)
      this.apply(node, rd.committedEntries)
    }
    for (const m of rd.messages) {
      if (m.type === 'MsgStorageAppend') node.appendWork.push(m)
      else if (m.type === 'MsgStorageApply') node.applyWork.push(m)
      else this.messages.push(m)
    }
    if (!node.config.asyncStorageWrites) node.core.advance()
  }

  private persist(node: Node, hardState: HardState | null, entries: readonly Entry[], snapshot: Snapshot | null): void {
    if (hardState) node.storage.setHardState(hardState)
    if (snapshot) {
      if (entries.length > 0) throw new CommandError("can't apply snapshot and entries at the same time")
      if (!node.storage.applySnapshot(snapshot))
        throw new CommandError('requested index is older than the existing snapshot')
      return
    }
    node.storage.append(entries)
  }

  /** An appending state machine. A received snapshot adds nothing to the history: what follows inherits the older conf state. */
  private apply(node: Node, entries: readonly Entry[]): void {
    for (const entry of entries) {
      let update = entry.data
      let confState = node.history.at(-1)!.confState
      if (entry.type !== 'normal') {
        const change = decodeConfChange(entry.data, entry.type)
        update = change.context
        confState = node.core.applyConfChange(change)
      }
      const before = node.history.at(-1)!.data
      const data = new Uint8Array(before.length + update.length)
      data.set(before)
      data.set(update, before.length)
      node.history.push({ index: entry.index, term: entry.term, confState, data })
    }
  }

  processAppendThread(id: number): void {
    const node = this.node(id)
    this.work(node.appendWork, 'no append work to perform', (m) => {
      const empty = m.term === 0 && m.vote === 0 && m.commit === 0
      this.persist(node, empty ? null : { term: m.term, vote: m.vote, commit: m.commit }, m.entries, m.snapshot)
    })
  }

  processApplyThread(id: number): void {
    const node = this.node(id)
    this.work(node.applyWork, 'no apply work to perform', (m) => this.apply(node, m.entries))
  }

  private work(queue: Message[], nothing: string, act: (m: Message) => void): void {
    const m = queue.shift()
    if (!m) {
      this.output.write(nothing)
      return
    }
    this.output.write(`Processing:\n${describeMessage({ ...m, responses: [] })}\n`)
    act(m)
    this.output.write('Responses:\n')
    for (const response of m.responses) {
      this.output.write(`${describeMessage(response)}\n`)
      this.messages.push(response)
    }
  }

  /** Messages for `to`, taken out of the network in order. Local ones can't be dropped. */
  private takeMessages(to: number, type: MessageType | null, drop: boolean): Message[] {
    const taken: Message[] = []
    const rest: Message[] = []
    for (const m of this.messages) {
      const wanted = m.to === to && !(drop && isLocal(m)) && (type === null || m.type === type)
      if (wanted) taken.push(m)
      else rest.push(m)
    }
    this.messages = rest
    return taken
  }

  hasMessages(to: number): boolean {
    return this.messages.some((m) => m.to === to)
  }

  /** How many were taken. */
  deliver(recipients: readonly { id: number; drop: boolean }[], type: MessageType | null): number {
    let count = 0
    for (const { id, drop } of recipients) {
      const taken = this.takeMessages(id, type, drop)
      count += taken.length
      for (const m of taken) {
        this.output.write(`${drop ? 'dropped: ' : ''}${describeMessage(m)}\n`)
        if (drop) continue
        const error = this.node(id).core.step(m)
        if (error) this.output.write(`${STEP_ERRORS[error]}\n`)
      }
    }
    return count
  }

  stabilize(ids: readonly number[]): void {
    for (;;) {
      let done = true
      const section = (id: number, what: string, body: () => void): void => {
        this.output.write(`> ${id} ${what}\n`)
        body()
        done = false
      }
      const indented = (body: () => void): void => this.output.indented(body)
      for (const id of ids)
        if (this.node(id).core.hasReady()) section(id, 'handling Ready', () => indented(() => this.processReady(id)))
      for (const id of ids)
        if (this.hasMessages(id))
          section(id, 'receiving messages', () => indented(() => void this.deliver([{ id, drop: false }], null)))
      for (const id of ids) {
        const { appendWork } = this.node(id)
        if (appendWork.length === 0) continue
        section(id, 'processing append thread', () => {
          while (appendWork.length > 0) indented(() => this.processAppendThread(id))
        })
      }
      for (const id of ids) {
        const { applyWork } = this.node(id)
        if (applyWork.length === 0) continue
        section(id, 'processing apply thread', () => {
          while (applyWork.length > 0) indented(() => this.processApplyThread(id))
        })
      }
      if (done) return
    }
  }

  writeLog(id: number): void {
    const { storage } = this.node(id)
    const first = storage.firstIndex()
    const last = storage.lastIndex()
    if (last < first) {
      this.output.write(`log is empty: first index=${first}, last index=${last}`)
      return
    }
    const entries = storage.entries(first, last + 1, Number.MAX_SAFE_INTEGER)
    if (typeof entries === 'string') throw new CommandError(`entries [${first}, ${last}]: ${entries}`)
    this.output.write(describeEntries(entries))
  }

  writeState(): void {
    for (const { core } of this.nodes) {
      const { id, config, softState, hardState } = core.status()
      const isVoter = config.voters.includes(id) || config.votersOutgoing.includes(id)
      this.output.write(
        `${id}: ${describeRole(softState.role)} ${isVoter ? '(Voter)' : '(Non-Voter)'} Term:${hardState.term} Lead:${softState.lead}\n`,
      )
    }
  }

  writeStatus(id: number): void {
    this.output.write(describeProgressMap(this.node(id).core.status().progress))
  }
}

const isLocal = (m: Message): boolean => m.from === m.to || isStorageThread(m.from) || isStorageThread(m.to)
