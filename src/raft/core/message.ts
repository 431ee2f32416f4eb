import type { Entry, Message, MessageType, RaftId } from './types.js'
import { APPEND_THREAD, APPLY_THREAD, NONE } from './types.js'

export const NO_BYTES = new Uint8Array(0)
export const NO_ENTRIES: readonly Entry[] = Object.freeze([])
export const NO_MESSAGES: readonly Message[] = Object.freeze([])

/** A message while it is being filled in; never changed once it was handed to `send`. */
export type Draft = { -readonly [K in keyof Message]: Message[K] }

/** Every message is made here, so that all have one hidden class and the hot paths stay monomorphic. */
export function draft(type: MessageType, to: RaftId): Draft {
  return {
    type,
    to,
    from: NONE,
    term: 0,
    logTerm: 0,
    index: 0,
    entries: NO_ENTRIES,
    commit: 0,
    vote: NONE,
    snapshot: null,
    reject: false,
    rejectHint: 0,
    context: NO_BYTES,
    responses: NO_MESSAGES,
  }
}

/** A complete message: the given fields over the zero values. For callers outside the hot path. */
export const makeMessage = (fields: Partial<Message> & Pick<Message, 'type'>): Message => ({
  ...draft(fields.type, fields.to ?? NONE),
  ...fields,
})

/** The storage workers; messages to them are orders to this member's own disk or state machine. */
export const isStorageThread = (id: RaftId): boolean => id === APPEND_THREAD || id === APPLY_THREAD

/** Types that only this member may give itself: arriving from a peer they would be an attack or a bug. */
export function isLocalType(type: MessageType): boolean {
  switch (type) {
    case 'MsgHup':
    case 'MsgBeat':
    case 'MsgUnreachable':
    case 'MsgSnapStatus':
    case 'MsgCheckQuorum':
    case 'MsgStorageAppend':
    case 'MsgStorageAppendResp':
    case 'MsgStorageApply':
    case 'MsgStorageApplyResp':
      return true
    default:
      return false
  }
}

export function isResponseType(type: MessageType): boolean {
  switch (type) {
    case 'MsgAppResp':
    case 'MsgVoteResp':
    case 'MsgHeartbeatResp':
    case 'MsgUnreachable':
    case 'MsgReadIndexResp':
    case 'MsgPreVoteResp':
    case 'MsgStorageAppendResp':
    case 'MsgStorageApplyResp':
      return true
    default:
      return false
  }
}

/** Marks a vote request that a leader ordered (leadership transfer): voters answer it in spite of their lease. */
export const TRANSFER_CONTEXT = Uint8Array.of(0x74)

export const isTransferContext = (context: Uint8Array): boolean =>
  context.length === 1 && context[0] === TRANSFER_CONTEXT[0]
