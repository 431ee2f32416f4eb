// npm run bench -- raft [--rounds 3] [--seconds 4] [--clients 1,32,128,512] [--dir DIR] [--no-etcd] [--profile DIR]
// Proposals a second at the leader of three raft members (a process each, mTLS between them, fsync on, records sealed),
// in the same run and alternating with three etcd members where Debian's etcd-server is installed. Not like for like:
// etcd's figure includes its client API, ours is taken inside the leader's process. p10 is the latency in the moments that
// other work on the machine leaves alone.
import { fork } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { systemClock } from '../build/src/common/index.js'
import { TestCa } from '../build/test/raft/node/certificates.js'
import { loadApi } from './raft/api.mjs'
import { etcdVersion, startEtcd } from './raft/etcd.mjs'

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '4' },
    clients: { type: 'string', default: '1,32,128,512' },
    dir: { type: 'string', default: tmpdir() },
    'no-etcd': { type: 'boolean', default: false },
    // Each member's CPU profile of the last round of each number of clients.
    profile: { type: 'string' },
  },
})
const BYTES = 256
const WARMUP_MS = 1000
const rounds = Number(values.rounds)
const ms = Number(values.seconds) * 1000
const clientCounts = values.clients.split(',').map(Number)
const ca = await TestCa.create('bench')
const dir = mkdtempSync(join(values.dir, 'shoal-bench-raft-'))

class Remote {
  #waiting = new Map()
  #next = 1
  constructor(nodeId) {
    this.nodeId = nodeId
    this.process = fork(fileURLToPath(new URL('./raft/member.mjs', import.meta.url)))
    this.process.on('message', ({ id, value, error }) => {
      const { resolve, reject } = this.#waiting.get(id)
      this.#waiting.delete(id)
      if (error) reject(new Error(`${this.nodeId}: ${error}`))
      else resolve(value)
    })
    this.process.on('exit', (code) => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`${this.nodeId} ended with ${code}`))
    })
  }
  do(command, args = {}) {
    const id = this.#next++
    this.process.send({ id, command, args })
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }))
  }
}

const cpuSeconds = (pid) => {
  const f = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ')
  return (Number(f[11]) + Number(f[12])) / 100
}
const median = (list) => list.sort((a, b) => a - b)[Math.floor(list.length / 2)]

async function startOurs() {
  const members = ['a', 'b', 'c'].map((n) => new Remote(n))
  for (const m of members) m.address = (await m.do('listen', { identity: await ca.issue(m.nodeId) })).address
  const [leader, ...others] = members
  await leader.do('start', { dir: join(dir, 'a'), nodeId: 'a', address: leader.address, bootstrap: { kind: 'create' } })
  await leader.do('leading')
  for (const [i, m] of others.entries()) {
    const { member, membership } = await leader.do('add', { nodeId: m.nodeId, address: m.address })
    await m.do('start', {
      dir: join(dir, m.nodeId),
      nodeId: m.nodeId,
      address: m.address,
      bootstrap: { kind: 'join', raftId: member.raftId, ...membership },
    })
    await leader.do('voters', { count: i + 2 })
  }
  return { members, leader }
}

const cell = (text, width) => String(text).padStart(width)
const row = (who, clients, r, more) =>
  console.log(
    `${who.padEnd(6)} ${cell(clients, 4)} clients ${cell(Math.round(r.perSecond), 7)}/s  p10 ${cell(r.p10.toFixed(2), 6)}  p50 ${cell(r.p50.toFixed(2), 7)} ms  p99 ${cell(r.p99.toFixed(2), 7)} ms  ` +
      `cpu ${r.cpuPerThousand.toFixed(2)} s/1000  load ${loadavg()[0].toFixed(1)}  ${more}`,
  )

const load = (more) => ours.leader.do('load', { warmupMs: WARMUP_MS, ms, bytes: BYTES, reads: false, ...more })
const line = (r) => `${Math.round(r.perSecond)}/s, p50 ${r.p50.toFixed(2)} ms, p99 ${r.p99.toFixed(2)} ms`
const SNAPSHOT_BYTES = 100e6
const RESTART_ENTRIES = 10_000

/** Like for like with etcd's Put: a client process, gRPC, one call each; and beside it all on one stream. */
async function throughGrpc() {
  const identity = await ca.issue('client')
  for (const [clients, stream] of [
    [1, false],
    [128, false],
    [128, true],
  ]) {
    const [theirs, own] = [[], []]
    for (let round = 0; round < rounds; round++) {
      const common = { clients, warmupMs: WARMUP_MS, ms }
      if (etcd) theirs.push(await etcd.load({ ...common, bytes: BYTES }))
      own.push(await loadApi({ ...common, size: BYTES, address: ours.leader.address, identity, stream }))
    }
    const medians = (f) => [median(own.map(f)), median(theirs.map(f))]
    const [rate, theirRate] = medians((r) => r.perSecond)
    const [p50, theirP50] = medians((r) => r.p50)
    console.log(
      `through gRPC, ${clients} clients, ${stream ? 'one stream' : 'unary'}, medians: ${Math.round(rate)}/s, p50 ${p50.toFixed(2)} ms` +
        (etcd ? `; ours / etcd: rate ${(rate / theirRate).toFixed(2)}, p50 ${(p50 / theirP50).toFixed(2)}` : ''),
    )
  }
}

/** A member that was away so long that it needs the leader's snapshot gets it while the leader works. */
async function snapshotUnderLoad() {
  const away = ours.members[2]
  const { applied } = await away.do('state')
  away.process.kill('SIGKILL')
  await ours.leader.do('grow', { bytes: SNAPSHOT_BYTES })
  while ((await ours.leader.do('state')).snapshotIndex <= applied + 500)
    await load({ clients: 512, warmupMs: 0, ms: 500 })
  const before = await load({ clients: 128 })
  const back = new Remote(away.nodeId)
  ours.members[2] = back
  back.address = (await back.do('listen', { identity: await ca.issue(back.nodeId) })).address
  const begun = performance.now()
  await back.do('start', { dir: join(dir, back.nodeId), nodeId: back.nodeId, address: back.address, bootstrap: null })
  const during = load({ clients: 128, warmupMs: 0, ms: 6000 })
  // What it has by the log alone is small.
  while ((await back.do('state')).stateBytes < SNAPSHOT_BYTES) await systemClock.sleep(20)
  const took = performance.now() - begun
  const r = await during
  await ours.leader.do('grow', { bytes: 1 })
  console.log(
    `${SNAPSHOT_BYTES / 1e6} MB snapshot to a follower under load: ${took.toFixed(0)} ms; leader meanwhile ${line(r)}; before ${line(before)}; p99 ratio ${(r.p99 / before.p99).toFixed(2)}`,
  )
}

async function restart() {
  const args = { dir: join(dir, 'restart'), nodeId: 'restart', entries: RESTART_ENTRIES, bytes: SNAPSHOT_BYTES }
  const builder = new Remote('builder')
  await builder.do('prepare', args)
  builder.process.kill('SIGKILL')
  const again = new Remote('restart')
  const { ms: took, stateBytes } = await again.do('restart', args)
  again.process.kill('SIGKILL')
  console.log(
    `restart with ${RESTART_ENTRIES} entries behind a snapshot of ${stateBytes / 1e6} MB: ${took.toFixed(0)} ms until all is applied`,
  )
}

async function failover() {
  // One that is far behind would be waited for: with one of three gone, nothing is committed without it.
  const { applied } = await ours.leader.do('state')
  for (const m of ours.members) while ((await m.do('state')).applied < applied) await systemClock.sleep(20)
  const moved = performance.now()
  const next = ours.members.filter((m) => m !== ours.leader).map((m) => m.do('leading').then(() => m))
  await ours.leader.do('transfer')
  const successor = await Promise.race(next)
  console.log(`graceful transfer until the next leader may write: ${(performance.now() - moved).toFixed(0)} ms`)
  const killed = performance.now()
  const last = ours.members.filter((m) => m !== successor).map((m) => m.do('leading').then(() => m))
  successor.process.kill('SIGKILL')
  const final = await Promise.race(last)
  const one = await final.do('load', { clients: 1, warmupMs: 0, ms: 1, bytes: BYTES, reads: false })
  console.log(
    `leader killed until the next write is done: ${(performance.now() - killed).toFixed(0)} ms (${one.failed} failed)`,
  )
}

let etcd = null
let ours = null
let failed = false
try {
  const version = values['no-etcd'] ? null : etcdVersion()
  console.log(
    `${cpus().length} cpus (${cpus()[0].model}), node ${process.version}, ${version ?? 'no etcd to compare with'}, ${BYTES}-byte values, data in ${values.dir}`,
  )
  ours = await startOurs()
  const firstTerm = (await ours.leader.do('state')).term
  const idle = await Promise.all(ours.members.map((m) => m.do('memory')))
  console.log(`memory of a member before any load: ${Math.round(median(idle.map((m) => m.rssBytes)) / 1e6)} MB`)
  if (version) etcd = await startEtcd(dir)
  // Members run for months: the compiler's work on fresh code is not what is measured.
  const warm = { clients: 128, warmupMs: 0, ms: 4000, bytes: BYTES }
  await etcd?.load(warm)
  await ours.leader.do('load', { ...warm, reads: false })
  for (const clients of clientCounts) {
    const results = { ours: [], etcd: [] }
    for (let round = 0; round < rounds; round++) {
      if (etcd) {
        const r = await etcd.load({ clients, warmupMs: WARMUP_MS, ms, bytes: BYTES })
        results.etcd.push(r)
        row('etcd', clients, r, '')
      }
      const before = ours.members.reduce((sum, m) => sum + cpuSeconds(m.process.pid), 0)
      const profiled = values.profile !== undefined && round === rounds - 1
      if (profiled) for (const m of ours.members) await m.do('profile')
      const r = await ours.leader.do('load', { clients, warmupMs: WARMUP_MS, ms, bytes: BYTES, reads: false })
      const used = ours.members.reduce((sum, m) => sum + cpuSeconds(m.process.pid), 0) - before
      if (profiled)
        for (const m of ours.members)
          await m.do('profiled', { file: join(values.profile, `raft-${m.nodeId}-${clients}.cpuprofile`) })
      r.cpuPerThousand = (used / ((r.perSecond * (ms + WARMUP_MS)) / 1000)) * 1000
      results.ours.push(r)
      row(
        'shoal',
        clients,
        r,
        `${r.proposalsPerFsync.toFixed(1)} proposals/fsync, loop delay p99.9 ${r.loopDelayP999.toFixed(0)} ms, ${r.failed} failed`,
      )
    }
    if (etcd) {
      const ratio = (f) => (median(results.ours.map(f)) / median(results.etcd.map(f))).toFixed(2)
      console.log(
        `       ${cell(clients, 4)} clients, medians, ours / etcd: rate ${ratio((r) => r.perSecond)}, p10 ${ratio((r) => r.p10)}, p50 ${ratio((r) => r.p50)}, p99 ${ratio((r) => r.p99)}`,
      )
    }
  }
  console.log(`linearizable reads, 128 in flight: ${line(await load({ clients: 128, reads: true }))}`)
  await throughGrpc()
  await snapshotUnderLoad()
  const { term } = await ours.leader.do('state')
  console.log(`elections since the first: ${term - firstTerm}`)
  await restart()
  await failover()
} catch (e) {
  failed = true
  console.error(e)
} finally {
  await etcd?.stop()
  for (const m of ours?.members ?? []) m.process.kill('SIGKILL')
  rmSync(dir, { recursive: true, force: true })
}
process.exit(failed ? 1 : 0)
