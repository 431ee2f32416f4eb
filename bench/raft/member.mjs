// One raft member in a process of its own; told what to do by its parent (bench/raft.mjs).

import { writeFileSync } from 'node:fs'
import { Session } from 'node:inspector/promises'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { Config, Raft, StoreAction, StoreActionKind } from '#proto'
import { listenGrpc, serviceDefinition } from '../../build/src/common/grpc/index.js'
import { nullLogger, systemClock, systemRng } from '../../build/src/common/index.js'
import { createRaftHub, createRaftNode, raftHandlers } from '../../build/src/raft/index.js'

let hub
let node
let profiler
let server

const machine = {
  count: 0,
  apply(_index, proposals) {
    machine.count += proposals.length
  },
  snapshot: () => [Buffer.from(String(machine.count))],
  restore(_index, data) {
    machine.count = Number(Buffer.from(data).toString())
  },
}

const percentile = (sorted, p) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? Number.NaN

const commands = {
  async listen({ identity }) {
    hub = createRaftHub({ identity: () => identity, clock: systemClock, rng: systemRng, logger: nullLogger })
    server = await listenGrpc({
      host: '127.0.0.1',
      port: 0,
      identity,
      register: (s) => s.addService(serviceDefinition(Raft), raftHandlers(hub)),
    })
    return { address: `127.0.0.1:${server.port}` }
  },
  async start({ dir, nodeId, address, bootstrap }) {
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
      { clock: systemClock, rng: systemRng, logger: nullLogger, stateMachine: machine, transport: hub.transport },
    )
    await node.start()
    hub.attach(node)
    return { raftId: node.raftId }
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
    const action = StoreAction.create({
      kind: StoreActionKind.STORE_UPDATE,
      config: Config.create({ id: 'k'.repeat(25), spec: null }),
    })
    action.config.id = 'v'.repeat(bytes)
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
    return { rssBytes: process.memoryUsage().rss, term: node.status().term }
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
