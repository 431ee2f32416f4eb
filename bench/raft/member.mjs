// One raft member in a process of its own; told what to do by its parent (bench/raft.mjs).

import { writeFileSync } from 'node:fs'
import { Session } from 'node:inspector/promises'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { Config, Raft, RaftEntryData, StoreAction, StoreActionKind } from '#proto'
import { listenGrpc, serviceDefinition } from '../../build/src/common/grpc/index.js'
import { nullLogger, systemClock, systemRng } from '../../build/src/common/index.js'
import { createRaftHub, createRaftNode, raftHandlers } from '../../build/src/raft/index.js'
import { DurableLog, nodeDisk } from '../../build/src/raft/log/index.js'
import { addApi } from './api.mjs'

let hub
let node
let profiler
let server

const MIB = 1024 * 1024

/** Counts; its snapshot is as large as it is told to be. */
const machine = {
  index: 0,
  bytes: 1,
  apply(index) {
    machine.index = index
  },
  snapshot() {
    return fillOf(machine.bytes)
  },
  async restore(index, pieces) {
    let bytes = 0
    for await (const piece of pieces) bytes += piece.length
    machine.index = index
    machine.bytes = bytes
  },
}

function* fillOf(bytes) {
  for (let left = bytes; left > 0; left -= MIB) yield Buffer.alloc(Math.min(left, MIB), 'x')
}

const putOf = (bytes) =>
  StoreAction.create({
    kind: StoreActionKind.STORE_UPDATE,
    config: Config.create({ id: 'v'.repeat(bytes), spec: null }),
  })

const alone = () => ({
  send: () => {},
  setMembers: () => {},
  sendSnapshot: () => Promise.reject(new Error('alone')),
  reachable: () => true,
  close: async () => {},
})

const percentile = (sorted, p) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? Number.NaN

const commands = {
  async listen({ identity }) {
    hub = createRaftHub({ identity: () => identity, clock: systemClock, rng: systemRng, logger: nullLogger })
    server = await listenGrpc({
      host: '127.0.0.1',
      port: 0,
      identity,
      register: (s) => {
        s.addService(serviceDefinition(Raft), raftHandlers(hub))
        addApi(s, async (value) => {
          const { result } = await node.propose([putOf(value.length)])
          if (result !== 'applied') throw new Error(result)
        })
      },
    })
    return { address: `127.0.0.1:${server.port}` }
  },
  async start(args) {
    await commands.open({ ...args, transport: hub.transport })
    hub.attach(node)
    return { raftId: node.raftId }
  },
  async open({ dir, nodeId, address, bootstrap, transport }) {
    node = createRaftNode(
      {
        dir,
        nodeId,
        advertiseAddress: address,
        bootstrap,
        kek: null,
        tickMs: 100,
        heartbeatTick: 1,
        electionTick: 10,
        snapshotInterval: 10_000,
        entriesForSlowFollowers: 500,
      },
      { clock: systemClock, rng: systemRng, logger: nullLogger, stateMachine: machine, transport },
    )
    await node.start()
  },
  async leading() {
    return new Promise((resolve) => {
      const off = node.onLeadership((e) => {
        if (e.leading) resolve({ term: e.term })
      })
      void off
    })
  },
  async add({ nodeId, address }) {
    const member = await node.addMember(nodeId, address)
    return { member, membership: node.membership() }
  },
  async voters({ count }) {
    return new Promise((resolve) => {
      const off = node.onStatus((s) => {
        if (s.members.filter((m) => !m.learner).length < count) return
        off()
        resolve({})
      })
    })
  },
  /** Closed loop: `clients` proposals (or read barriers) in flight for so long. */
  async load({ clients, warmupMs, ms, bytes, reads }) {
    const action = putOf(bytes)
    const latencies = []
    let measuring = false
    let stop = false
    let failed = 0
    const lane = async () => {
      while (!stop) {
        const at = performance.now()
        const ok = reads
          ? await node.readBarrier().then(
              () => true,
              () => false,
            )
          : (await node.propose([action])).result === 'applied'
        if (!ok) failed++
        else if (measuring) latencies.push(performance.now() - at)
      }
    }
    const lanes = Array.from({ length: clients }, lane)
    await systemClock.sleep(warmupMs)
    const delay = monitorEventLoopDelay({ resolution: 5 })
    delay.enable()
    const before = node.counters()
    const begun = performance.now()
    const cpu = process.cpuUsage()
    measuring = true
    await new Promise((resolve) => setTimeout(resolve, ms))
    measuring = false
    const seconds = (performance.now() - begun) / 1000
    const used = process.cpuUsage(cpu)
    const after = node.counters()
    delay.disable()
    stop = true
    await Promise.all(lanes)
    latencies.sort((a, b) => a - b)
    return {
      perSecond: latencies.length / seconds,
      p10: percentile(latencies, 0.1),
      p50: percentile(latencies, 0.5),
      p99: percentile(latencies, 0.99),
      failed,
      proposalsPerFsync: latencies.length / Math.max(1, after.writes - before.writes),
      loopDelayP999: delay.percentile(99.9) / 1e6,
      cpuCores: (used.user + used.system) / 1e6 / seconds,
    }
  },
  async transfer() {
    await node.transferLeadership()
    return {}
  },
  async memory() {
    return { rssBytes: process.memoryUsage().rss }
  },
  /** From now on snapshots have this size. */
  async grow({ bytes }) {
    machine.bytes = bytes
    return {}
  },
  async state() {
    return { ...node.status(), snapshotIndex: node.inspect().log.snapshotIndex, stateBytes: machine.bytes }
  },
  /** Makes the directory of a member that is alone, with a snapshot of `bytes` and `entries` behind it. */
  async prepare({ dir, nodeId, entries, bytes }) {
    const conf = { voters: [1], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false }
    const membership = { members: [{ raftId: 1, nodeId, address: '127.0.0.1:1' }], removed: [] }
    const log = await DurableLog.open({
      ...{ dir, nodeId, kek: null, disk: nodeDisk(), logger: nullLogger },
      init: { raftId: 1, joined: membership, hardState: { term: 1, vote: 1, commit: 0 }, entries: [] },
    })
    const data = RaftEntryData.encode({ proposals: [{ proposer: 1, sequence: 1, actions: [putOf(256)] }] })
    const list = Array.from({ length: entries + 1 }, (_, i) => ({ term: 1, index: i + 1, type: 'normal', data }))
    for (let at = 0; at < list.length; at += 1000)
      await log.append(list.slice(at, at + 1000), { term: 1, vote: 1, commit: Math.min(at + 1000, list.length) })
    machine.bytes = bytes
    await log.saveSnapshot({ index: 1, term: 1, confState: conf }, membership, machine.snapshot(), {
      ...{ entries: 0, bytes: 0, bytesWhileSent: 0 },
    })
    await log.close()
    return {}
  },
  /** Starts on what `prepare` made; the time until everything that was committed is applied. */
  async restart({ dir, nodeId, entries }) {
    const begun = performance.now()
    await commands.open({ dir, nodeId, address: '127.0.0.1:1', bootstrap: null, transport: alone })
    while (machine.index < entries + 1) await new Promise((resolve) => setImmediate(resolve))
    return { ms: performance.now() - begun, stateBytes: machine.bytes }
  },
  /** A CPU profile from here to `profiled`, which writes it to a file. */
  async profile() {
    profiler = new Session()
    profiler.connect()
    await profiler.post('Profiler.enable')
    await profiler.post('Profiler.setSamplingInterval', { interval: 200 })
    await profiler.post('Profiler.start')
    return {}
  },
  async profiled({ file }) {
    const { profile } = await profiler.post('Profiler.stop')
    writeFileSync(file, JSON.stringify(profile))
    profiler.disconnect()
    return {}
  },
  async stop() {
    await node.stop()
    await server.close(0)
    return {}
  },
}

process.on('message', async ({ id, command, args }) => {
  try {
    process.send({ id, value: await commands[command](args) })
  } catch (e) {
    process.send({ id, error: e.stack })
  }
})
process.on('disconnect', () => process.exit(0))
