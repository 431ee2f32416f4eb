import { createHash } from 'node:crypto'
import { rm } from 'node:fs/promises'
import test from 'ava'
import { nullLogger } from '../../../src/common/index.js'
import { type Message, makeMessage } from '../../../src/raft/core/index.js'
import { Members } from '../../../src/raft/node-membership.js'
import { Snapshots } from '../../../src/raft/node-snapshots.js'
import { FRESH, OWNER, open, RAFT_ID, scratch } from '../log/fixture.js'

const CONF = { voters: [RAFT_ID], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false }
const MEMBERSHIP = { members: [{ raftId: RAFT_ID, nodeId: OWNER, address: '127.0.0.1:1' }], removed: [] }

test('two snapshots that arrive before a slow disk installs the first are installed one after the other', async (t) => {
  const dir = await scratch()
  const log = await open(dir, FRESH)
  const received: Message[] = []
  const restored: string[] = []
  const snapshots = new Snapshots({
    log,
    members: new Members(MEMBERSHIP, CONF),
    stateMachine: {
      apply: () => {},
      snapshot: () => [],
      restore: async (index, pieces) => {
        for await (const piece of pieces) restored.push(`${index} ${Buffer.from(piece).toString()}`)
      },
    },
    logger: nullLogger,
    transport: () => {
      throw new Error('nothing is sent here')
    },
    interval: 1000,
    logBytes: 1_000_000,
    keep: { entries: 0, bytes: 0, bytesWhileSent: 0 },
    isNeeded: () => false,
    applied: () => 0,
    received: (m) => void received.push(m),
    sent: () => {},
    installed: () => {},
  })
  for (const index of [50, 60]) {
    const content = Buffer.from(`state at ${index}`)
    const meta = { index, term: 2, confState: CONF }
    const message = makeMessage({ type: 'MsgSnap', from: 1, to: RAFT_ID, snapshot: { ...meta, data: Buffer.alloc(0) } })
    const sink = await snapshots.receive(message, {
      meta,
      membership: MEMBERSHIP,
      size: content.length,
      sha256: createHash('sha256').update(content).digest('hex'),
    })
    await sink.write(content)
    await sink.finish()
  }
  t.is(received.length, 2)
  for (const m of received) await snapshots.install(m)
  t.deepEqual(restored, ['50 state at 50', '60 state at 60'])
  t.is(log.snapshotIndex, 60)
  await snapshots.stop()
  await log.close()
  await rm(dir, { recursive: true })
})
