// Speed of the bare Raft core: 3 members in one process, without disk or network.
//
//   node bench/raft-core.mjs [--seconds=5] [--inflight=128] [--bytes=256] [--async]
//
// Each proposal is one entry. `inflight` proposals are under way at any time; an entry counts when the leader applies it.
import { performance } from 'node:perf_hooks'
import { createCore, MemoryStorage, UNLIMITED } from '../build/src/raft/core/index.js'

const option = (name, fallback) =>
  Number(process.argv.find((a) => a.startsWith(`--${name}=`))?.split('=')[1] ?? fallback)
const seconds = option('seconds', 5)
const inflight = option('inflight', 128)
const size = option('bytes', 256)
const asyncStorageWrites = process.argv.includes('--async')
const KEEP = 10_000

const voters = [1, 2, 3]
const logger = { debug() {}, info() {}, warn() {}, error() {} }
const members = new Map(
  voters.map((id) => {
    const storage = new MemoryStorage({ voters, votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false })
    const core = createCore({
      id,
      electionTick: 10,
      heartbeatTick: 1,
      storage,
      applied: 0,
      asyncStorageWrites,
      maxSizePerMsg: 64 * 1024,
      maxCommittedSizePerReady: UNLIMITED,
      maxUncommittedEntriesSize: 64 * 1024 * 1024,
      maxInflightMsgs: 256,
      maxInflightBytes: 0,
      checkQuorum: true,
      preVote: true,
      readOnlyOption: 'safe',
      disableProposalForwarding: true,
      disableConfChangeValidation: false,
      stepDownOnRemoval: true,
      random: () => 0.5,
      logger,
    })
    return [id, { id, core, storage, applied: 0, messages: 0 }]
  }),
)
const leader = members.get(1)

function write(m, entries, hardState) {
  if (hardState) m.storage.setHardState(hardState)
  m.storage.append(entries)
}

function applied(m, entries) {
  m.applied += entries.length
  const last = entries[entries.length - 1].index
  if (last - m.storage.firstIndex() > 2 * KEEP) {
    m.storage.createSnapshot(last - KEEP, m.core.status().config, new Uint8Array(0))
    m.storage.compact(last - KEEP)
  }
}

function deliver(messages) {
  for (const x of messages) {
    const to = members.get(x.to)
    to.messages++
    to.core.step(x)
  }
}

/** One Ready of a member; true if it had one. */
function work(m) {
  if (!m.core.hasReady()) return false
  const rd = m.core.ready()
  if (!asyncStorageWrites) {
    write(m, rd.entries, rd.hardState)
    deliver(rd.messages)
    if (rd.committedEntries.length > 0) applied(m, rd.committedEntries)
    m.core.advance()
    return true
  }
  for (const x of rd.messages) {
    if (x.type === 'MsgStorageAppend') {
      write(m, x.entries, x.term ? { term: x.term, vote: x.vote, commit: x.commit } : null)
      deliver(x.responses)
    } else if (x.type === 'MsgStorageApply') {
      applied(m, x.entries)
      deliver(x.responses)
    } else {
      members.get(x.to).messages++
      members.get(x.to).core.step(x)
    }
  }
  return true
}

function settle() {
  for (let busy = true; busy; ) {
    busy = false
    for (const m of members.values()) busy = work(m) || busy
  }
}

leader.core.campaign()
settle()
if (leader.core.status().softState.role !== 'leader') throw new Error('member 1 is not the leader')

const data = new Uint8Array(size).fill(120)
let proposed = leader.applied
function round() {
  while (proposed - leader.applied < inflight) {
    const error = leader.core.propose(data)
    if (error) throw new Error(`proposal refused: ${error}`)
    proposed++
  }
  for (const m of members.values()) work(m)
}

function run(forSeconds) {
  const start = performance.now()
  const cpu = process.cpuUsage()
  const before = leader.applied
  let messages = -[...members.values()].reduce((sum, m) => sum + m.messages, 0)
  while (performance.now() - start < forSeconds * 1000) for (let i = 0; i < 32; i++) round()
  messages += [...members.values()].reduce((sum, m) => sum + m.messages, 0)
  const elapsed = (performance.now() - start) / 1000
  const used = process.cpuUsage(cpu)
  const commits = leader.applied - before
  return {
    commits,
    perSecond: commits / elapsed,
    perCpuSecond: commits / ((used.user + used.system) / 1e6),
    messages: messages / commits,
  }
}

run(1)
const result = run(seconds)
const show = (n) => Math.round(n).toLocaleString('en-US')
console.log(
  `raft core, 3 members in memory, ${inflight} in flight, ${size} B, ${asyncStorageWrites ? 'async' : 'sync'} storage writes`,
)
console.log(`  commits/s        ${show(result.perSecond)}`)
console.log(`  commits/CPU s    ${show(result.perCpuSecond)}`)
console.log(`  messages/commit  ${result.messages.toFixed(2)}`)
console.log(`  heap             ${show(process.memoryUsage().heapUsed / 1024 / 1024)} MiB`)
