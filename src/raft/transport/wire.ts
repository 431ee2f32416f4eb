import type { RaftEntry, RaftMessage, RaftSnapshotMeta } from '#proto'
import type { Entry, EntryType, Message, MessageType, Snapshot } from '../core/index.js'

/** In the order of core/types.ts: the position is the number on the wire, so only append. */
const MESSAGE_TYPES: readonly MessageType[] = [
  'MsgHup',
  'MsgBeat',
  'MsgProp',
  'MsgApp',
  'MsgAppResp',
  'MsgVote',
  'MsgVoteResp',
  'MsgSnap',
  'MsgHeartbeat',
  'MsgHeartbeatResp',
  'MsgUnreachable',
  'MsgSnapStatus',
  'MsgCheckQuorum',
  'MsgTransferLeader',
  'MsgTimeoutNow',
  'MsgReadIndex',
  'MsgReadIndexResp',
  'MsgPreVote',
  'MsgPreVoteResp',
  'MsgStorageAppend',
  'MsgStorageAppendResp',
  'MsgStorageApply',
  'MsgStorageApplyResp',
  'MsgForgetLeader',
]
const TYPE_NUMBER = new Map(MESSAGE_TYPES.map((type, n) => [type, n]))
const ENTRY_TYPES: readonly EntryType[] = ['normal', 'confChange', 'confChangeV2']

/** What members may say to each other; everything else is an order of a member to itself. */
const REMOTE = new Set<MessageType>([
  'MsgApp',
  'MsgAppResp',
  'MsgVote',
  'MsgVoteResp',
  'MsgHeartbeat',
  'MsgHeartbeatResp',
  'MsgTransferLeader',
  'MsgTimeoutNow',
  'MsgReadIndex',
  'MsgReadIndexResp',
  'MsgPreVote',
  'MsgPreVoteResp',
])

const NO_MESSAGES: readonly Message[] = []

export const toWireMeta = (s: Pick<Snapshot, 'index' | 'term' | 'confState'>): RaftSnapshotMeta => ({
  index: s.index,
  term: s.term,
  confState: {
    voters: [...s.confState.voters],
    votersOutgoing: [...s.confState.votersOutgoing],
    learners: [...s.confState.learners],
    learnersNext: [...s.confState.learnersNext],
    autoLeave: s.confState.autoLeave,
  },
})

export function toWire(m: Message): RaftMessage {
  return {
    type: TYPE_NUMBER.get(m.type)!,
    to: m.to,
    from: m.from,
    term: m.term,
    logTerm: m.logTerm,
    index: m.index,
    entries: m.entries.map(toWireEntry),
    commit: m.commit,
    vote: m.vote,
    // Snapshots travel by a call of their own.
    snapshot: null,
    reject: m.reject,
    rejectHint: m.rejectHint,
    context: m.context,
  }
}

const toWireEntry = (e: Entry): RaftEntry => ({
  term: e.term,
  index: e.index,
  type: ENTRY_TYPES.indexOf(e.type),
  data: e.data,
})

/** Null for what no member may send to another: an attack or a newer version; dropped. */
export function fromWire(m: RaftMessage): Message | null {
  const type = MESSAGE_TYPES[m.type]
  if (type === undefined || !REMOTE.has(type) || m.entries.some((e) => ENTRY_TYPES[e.type] === undefined)) return null
  return {
    type,
    to: m.to,
    from: m.from,
    term: m.term,
    logTerm: m.logTerm,
    index: m.index,
    entries: m.entries.map((e) => ({ term: e.term, index: e.index, type: ENTRY_TYPES[e.type]!, data: e.data })),
    commit: m.commit,
    vote: m.vote,
    snapshot: null,
    reject: m.reject,
    rejectHint: m.rejectHint,
    context: m.context,
    responses: NO_MESSAGES,
  }
}

export const fromWireMeta = (m: RaftSnapshotMeta): Snapshot => ({
  index: m.index,
  term: m.term,
  confState: m.confState ?? { voters: [], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
  data: new Uint8Array(0),
})

/** These overtake appends: a member that waits for them would start an election behind a full pipe. */
export const isUrgent = (type: MessageType): boolean =>
  type !== 'MsgApp' && type !== 'MsgAppResp' && type !== 'MsgReadIndexResp'

/** Rough size in memory and on the wire, for the bounds of queues. */
export function messageBytes(m: Message): number {
  let bytes = 64 + m.context.length
  for (const e of m.entries) bytes += 16 + e.data.length
  return bytes
}
