import type { Entry, Message, Ready, Snapshot } from '../../../src/raft/core/index.js'

/** Freezes all a Ready holds: a core that changes what it handed out then throws. */
export function freezeReady(rd: Ready): Ready {
  freezeEntries(rd.entries)
  freezeEntries(rd.committedEntries)
  if (rd.snapshot) freezeSnapshot(rd.snapshot)
  for (const m of rd.messages) freezeMessage(m)
  Object.freeze(rd.messages)
  Object.freeze(rd.readStates)
  if (rd.hardState) Object.freeze(rd.hardState)
  if (rd.softState) Object.freeze(rd.softState)
  return Object.freeze(rd)
}

function freezeEntries(entries: readonly Entry[]): void {
  for (const entry of entries) Object.freeze(entry)
  Object.freeze(entries)
}

function freezeSnapshot(snapshot: Snapshot): void {
  const { voters, votersOutgoing, learners, learnersNext } = snapshot.confState
  for (const part of [voters, votersOutgoing, learners, learnersNext, snapshot.confState, snapshot]) Object.freeze(part)
}

export function freezeMessage(m: Message): Message {
  freezeEntries(m.entries)
  if (m.snapshot) freezeSnapshot(m.snapshot)
  for (const response of m.responses) freezeMessage(response)
  Object.freeze(m.responses)
  return Object.freeze(m)
}
