import { existsSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { nullLogger } from '../../../src/common/index.js'
import type { Entry } from '../../../src/raft/core/index.js'
import { type Disk, DurableLog, type LogInit, nodeDisk } from '../../../src/raft/log/index.js'

export const OWNER = 'node-of-the-log'
export const RAFT_ID = 4711

/** In memory where the machine has it: hundreds of opens would otherwise wait for fsync. */
export const scratch = (): Promise<string> =>
  mkdtemp(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'raft-node-log-'))

export const FRESH: LogInit = {
  raftId: RAFT_ID,
  joined: { members: [], removed: [] },
  hardState: { term: 0, vote: 0, commit: 0 },
  entries: [],
}

export const open = (
  dir: string,
  init: LogInit | null = null,
  more: { kek?: Uint8Array | null; disk?: Disk; nodeId?: string } = {},
): Promise<DurableLog> =>
  DurableLog.open({ dir, nodeId: OWNER, kek: null, disk: nodeDisk(), logger: nullLogger, init, ...more })

export const entry = (index: number, term = 1, text = `entry ${index} of term ${term}`): Entry => ({
  term,
  index,
  type: 'normal',
  data: Buffer.from(text),
})

export const range = (from: number, to: number, term = 1): Entry[] =>
  Array.from({ length: to - from + 1 }, (_, i) => entry(from + i, term))

export const hard = (term: number, commit: number, vote = 0) => ({ term, vote, commit })

/** All that the log says, for comparison. */
export function content(log: DurableLog): unknown {
  const first = log.firstIndex()
  const last = log.lastIndex()
  const entries = last < first ? [] : log.entries(first, last + 1, Number.MAX_SAFE_INTEGER)
  return {
    hardState: log.hardState,
    snapshot: log.snapshotIndex,
    first,
    entries: (entries as Entry[]).map((e) => [e.term, e.index, e.type, Buffer.from(e.data).toString()]),
  }
}
