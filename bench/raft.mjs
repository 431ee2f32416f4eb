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
import { TestCa } from '../build/test/raft/node/certificates.js'
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
  const ca = await TestCa.create('bench')
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

let etcd = null
let ours = null
let failed = false
try {
  const version = values['no-etcd'] ? null : etcdVersion()
  console.log(
    `${cpus().length} cpus (${cpus()[0].model}), node ${process.version}, ${version ?? 'no etcd to compare with'}, ${BYTES}-byte values, data in ${values.dir}`,
  )
  ours = await startOurs()
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
  const reads = await ours.leader.do('load', { clients: 128, warmupMs: WARMUP_MS, ms, bytes: BYTES, reads: true })
  console.log(
    `linearizable reads, 128 in flight: ${Math.round(reads.perSecond)}/s, p50 ${reads.p50.toFixed(2)} ms, p99 ${reads.p99.toFixed(2)} ms`,
  )
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
  console.log(`memory of the leader: ${Math.round((await final.do('memory')).rssBytes / 1e6)} MB`)
} catch (e) {
  failed = true
  console.error(e)
} finally {
  await etcd?.stop()
  for (const m of ours?.members ?? []) m.process.kill('SIGKILL')
  rmSync(dir, { recursive: true, force: true })
}
process.exit(failed ? 1 : 0)
