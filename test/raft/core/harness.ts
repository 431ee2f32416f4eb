import {
  type ConfChange,
  type ConfState,
  type CoreConfig,
  createCore,
  decodeConfChange,
  type Entry,
  type HardState,
  MemoryStorage,
  type Message,
  type MessageType,
  makeMessage,
  NO_BYTES,
  type RaftCore,
  type RaftId,
  type ReadState,
  type Ready,
  type Snapshot,
  UNLIMITED,
} from '../../../src/raft/core/index.js'
import { freezeReady } from '../testdata/freeze.js'

/** Builders of small valid values, and members whose disk and network are in the test's hands. */
export const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
export const text = (data: Uint8Array): string => new TextDecoder().decode(data)

export const entry = (term: number, index: number, data = ''): Entry => ({
  term,
  index,
  type: 'normal',
  data: data === '' ? NO_BYTES : bytes(data),
})

/** Entries 1… with these terms. */
export const entries = (...terms: number[]): Entry[] => terms.map((term, i) => entry(term, i + 1))

export const confState = (voters: RaftId[], rest: Partial<ConfState> = {}): ConfState => ({
  voters,
  votersOutgoing: [],
  learners: [],
  learnersNext: [],
  autoLeave: false,
  ...rest,
})

export const snapshot = (index: number, term: number, state: ConfState, data: Uint8Array = NO_BYTES): Snapshot => ({
  index,
  term,
  confState: state,
  data,
})

export const msg = (type: MessageType, from: RaftId, to: RaftId, fields: Partial<Message> = {}): Message =>
  makeMessage({ type, from, to, ...fields })

export const change = (...changes: string[]): ConfChange => {
  const types = { v: 'addNode', l: 'addLearnerNode', r: 'removeNode', u: 'updateNode' } as const
  return {
    transition: 'auto',
    context: NO_BYTES,
    changes: changes.map((c) => ({ type: types[c[0] as keyof typeof types], nodeId: Number(c.slice(1)) })),
  }
}

export interface MemberOptions extends Partial<Omit<CoreConfig, 'id' | 'storage'>> {
  readonly voters?: RaftId[]
  readonly conf?: ConfState
  readonly log?: readonly Entry[]
  readonly hardState?: Partial<HardState>
  readonly snapshot?: Snapshot
  readonly storage?: MemoryStorage
}

/** One core with its storage and state machine. Writes are done when `work` (or the async steps) say so. */
export class Member {
  readonly storage: MemoryStorage
  readonly core: RaftCore
  readonly applied: Entry[] = []
  /** Where the state machine stood when this run of the member began. */
  appliedBefore = 0
  readonly reads: ReadState[] = []
  readonly readys: Ready[] = []
  readonly lines: string[] = []
  readonly appendQueue: Message[] = []
  readonly applyQueue: Message[] = []
  readonly isAsync: boolean

  constructor(
    readonly id: RaftId,
    options: MemberOptions = {},
  ) {
    const { voters, conf, log, hardState, snapshot: snap, storage, ...rest } = options
    this.storage = storage ?? new MemoryStorage(conf ?? confState(voters ?? [1, 2, 3]))
    if (snap) this.storage.applySnapshot(snap)
    if (log) this.storage.append(log)
    if (hardState) this.storage.setHardState({ term: 0, vote: 0, commit: snap?.index ?? 0, ...hardState })
    this.isAsync = rest.asyncStorageWrites ?? false
    const line = (level: string) => (t: string) => void this.lines.push(`${level} ${t}`)
    this.core = createCore({
      id,
      electionTick: 10,
      heartbeatTick: 1,
      storage: this.storage,
      applied: snap?.index ?? this.storage.firstIndex() - 1,
      asyncStorageWrites: false,
      maxSizePerMsg: UNLIMITED,
      maxCommittedSizePerReady: 0,
      maxUncommittedEntriesSize: 0,
      maxInflightMsgs: 256,
      maxInflightBytes: 0,
      checkQuorum: false,
      preVote: false,
      readOnlyOption: 'safe',
      disableProposalForwarding: false,
      disableConfChangeValidation: false,
      stepDownOnRemoval: false,
      random: () => 0,
      logger: { debug: line('DEBUG'), info: line('INFO'), warn: line('WARN'), error: line('ERROR') },
      ...rest,
    })
  }

  get status() {
    return this.core.status()
  }
  get role() {
    return this.status.softState.role
  }
  get lead() {
    return this.status.softState.lead
  }
  get term() {
    return this.status.hardState.term
  }
  get vote() {
    return this.status.hardState.vote
  }
  get commit() {
    return this.status.hardState.commit
  }

  ticks(n: number): void {
    for (let i = 0; i < n; i++) this.core.tick()
  }

  /** One Ready, written, applied and (sync) advanced. Messages to others come back. Async: orders are queued. */
  workOnce(): Message[] {
    const rd = this.take()
    if (!this.isAsync) {
      this.write(rd.entries, rd.hardState, rd.snapshot)
      this.apply(rd.committedEntries)
      this.core.advance()
    }
    return this.sort(rd.messages)
  }

  /** A Ready without doing anything about it; frozen. */
  take(): Ready {
    const rd = freezeReady(this.core.ready())
    this.readys.push(rd)
    this.reads.push(...rd.readStates)
    return rd
  }

  private sort(messages: readonly Message[]): Message[] {
    const out: Message[] = []
    for (const m of messages) {
      if (m.type === 'MsgStorageAppend') this.appendQueue.push(m)
      else if (m.type === 'MsgStorageApply') this.applyQueue.push(m)
      else out.push(m)
    }
    return out
  }

  /** Until nothing is left to do; what goes to others comes back. */
  work(): Message[] {
    const out: Message[] = []
    for (let i = 0; i < 1000; i++) {
      if (this.core.hasReady()) out.push(...this.workOnce())
      else if (this.appendQueue.length > 0) out.push(...this.appendOne())
      else if (this.applyQueue.length > 0) out.push(...this.applyOne())
      else return out
    }
    throw new Error(`member ${this.id} does not come to rest`)
  }

  /** Async mode: one order of the append worker. Own answers are stepped, others come back. */
  appendOne(): Message[] {
    const m = this.appendQueue.shift()!
    const hard = m.term || m.vote || m.commit ? { term: m.term, vote: m.vote, commit: m.commit } : null
    this.write(m.entries, hard, m.snapshot)
    return this.answer(m.responses)
  }

  applyOne(): Message[] {
    const m = this.applyQueue.shift()!
    this.apply(m.entries)
    return this.answer(m.responses)
  }

  private answer(responses: readonly Message[]): Message[] {
    const out: Message[] = []
    for (const m of responses) {
      if (m.to === this.id) this.core.step(m)
      else out.push(m)
    }
    return out
  }

  write(added: readonly Entry[], hard: HardState | null, snap: Snapshot | null): void {
    if (hard) this.storage.setHardState(hard)
    if (snap) this.storage.applySnapshot(snap)
    this.storage.append(added)
  }

  apply(committed: readonly Entry[]): void {
    for (const e of committed) {
      this.applied.push(e)
      if (e.type !== 'normal') this.core.applyConfChange(decodeConfChange(e.data, e.type))
    }
  }

  /** The whole log in storage, as terms. */
  logTerms(): number[] {
    return this.log().map((e) => e.term)
  }

  log(): readonly Entry[] {
    const found = this.storage.entries(this.storage.firstIndex(), this.storage.lastIndex() + 1, UNLIMITED)
    if (typeof found === 'string') throw new Error(found)
    return found
  }

  /** Snapshot of what was applied, log cut up to it. */
  compact(index = this.commit): void {
    this.storage.createSnapshot(index, this.status.config, bytes(`state@${index}`))
    this.storage.compact(index)
  }

  progress(id: RaftId) {
    return this.status.progress.get(id)!
  }
}

/** Makes it leader with the votes of all other voters; its messages so far are thrown away. */
export function elect(m: Member): Member {
  m.core.campaign()
  m.work()
  for (const kind of ['MsgPreVoteResp', 'MsgVoteResp'] as const) {
    if (m.role !== (kind === 'MsgPreVoteResp' ? 'preCandidate' : 'candidate')) continue
    const term = kind === 'MsgPreVoteResp' ? m.term + 1 : m.term
    const { voters, votersOutgoing } = m.status.config
    for (const id of new Set([...voters, ...votersOutgoing]))
      if (id !== m.id) m.core.step(msg(kind, id, m.id, { term }))
    m.work()
  }
  if (m.role !== 'leader') throw new Error(`member ${m.id} is ${m.role}`)
  return m
}

export const leader = (options: MemberOptions = {}, id: RaftId = 1): Member => elect(new Member(id, options))

/** An acknowledgement of everything that the leader has. */
export const ack = (m: Member, from: RaftId, index = m.storage.lastIndex()): void => {
  m.core.step(msg('MsgAppResp', from, m.id, { term: m.term, index }))
}

/** Members that exchange all messages until there are none left, except those that are cut off. */
export class Network {
  readonly members = new Map<RaftId, Member>()
  private readonly cutLinks = new Set<string>()
  readonly ignored = new Set<MessageType>()
  readonly delivered: Message[] = []

  constructor(members: readonly Member[]) {
    for (const m of members) this.members.set(m.id, m)
  }

  static of(count: number, options: MemberOptions | ((id: RaftId) => MemberOptions) = {}): Network {
    const ids = Array.from({ length: count }, (_, i) => i + 1)
    return new Network(
      ids.map((id) => new Member(id, { voters: ids, ...(typeof options === 'function' ? options(id) : options) })),
    )
  }

  at(id: RaftId): Member {
    return this.members.get(id)!
  }

  cut(a: RaftId, b: RaftId): void {
    this.cutLinks.add(`${a}>${b}`)
    this.cutLinks.add(`${b}>${a}`)
  }

  isolate(id: RaftId): void {
    for (const other of this.members.keys()) if (other !== id) this.cut(id, other)
  }

  heal(): void {
    this.cutLinks.clear()
    this.ignored.clear()
  }

  /** Steps these, then everything that follows. */
  run(...first: Message[]): void {
    let queue = first
    for (let round = 0; round < 500; round++) {
      for (const m of queue) {
        const to = this.members.get(m.to)
        if (!to || this.cutLinks.has(`${m.from}>${m.to}`) || this.ignored.has(m.type)) continue
        this.delivered.push(m)
        to.core.step(m)
      }
      queue = []
      for (const member of this.members.values()) queue.push(...member.work())
      if (queue.length === 0) return
    }
    throw new Error('the network does not come to rest')
  }

  campaign(id: RaftId): void {
    this.at(id).core.campaign()
    this.run()
  }

  propose(id: RaftId, data = 'x'): ReturnType<RaftCore['propose']> {
    const error = this.at(id).core.propose(bytes(data))
    this.run()
    return error
  }

  tick(id: RaftId, n = 1): void {
    for (let i = 0; i < n; i++) {
      this.at(id).core.tick()
      this.run()
    }
  }

  roles(): string {
    return [...this.members.values()].map((m) => `${m.id}:${m.role}@${m.term}`).join(' ')
  }
}
