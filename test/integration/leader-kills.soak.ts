// npm run soak -- leader-kills [ROUNDS]: three real managers. Each round the leader's daemon gets SIGKILL while clients write
// through both others; measured is the time from the signal until the next write is acknowledged. Default settings.
import { readFileSync, statSync } from 'node:fs'
import { call, clock, type Lab, type LabHost, lab, type NodeJson, nodes, swarm, until } from './support.js'

const rounds = Number(process.argv[2] ?? 100)
if (!(rounds > 0)) throw new Error(`npm run soak -- leader-kills [ROUNDS]: ${process.argv[2]} is no number of rounds`)
const WANTED_MS = 3000
/** The goal of issue 4: this share of rounds within WANTED_MS. */
const SHARE = 0.99

let count = 0
const write = async (h: LabHost): Promise<void> => {
  const name = `k${++count}`
  const made = await call<{ ID: string }>(h.socket, 'POST', '/services/create', {
    body: { Name: name, TaskTemplate: { ContainerSpec: { Image: 'none:1' } }, Mode: { Replicated: { Replicas: 0 } } },
    timeoutMs: 20_000,
  })
  // The state stays small; a removal is a write as well, but not the one that is measured.
  void call(h.socket, 'DELETE', `/services/${made.ID}`, { timeoutMs: 20_000 }).catch(() => {})
}

const isLeader = (n: NodeJson): boolean => n.ManagerStatus?.Leader === true
const isReachable = (n: NodeJson): boolean => isLeader(n) || n.ManagerStatus?.Reachability === 'reachable'

/** When, after the kill, the others' logs tell of what. */
function stages(others: readonly LabHost[], from: ReadonlyMap<string, number>, killedAt: number): string {
  const told: string[] = []
  for (const h of others)
    for (const line of readFileSync(h.log, 'utf8').slice(from.get(h.name)).split('\n')) {
      const m = /time="([^"]+)".* msg="(raft leadership won|raft leadership lost|this manager leads)"/.exec(line)
      if (m) told.push(`${h.name} ${m[2]} at ${Date.parse(m[1]!) - killedAt} ms`)
    }
  return told.join(', ')
}

async function round(l: Lab): Promise<{ readonly ms: number; readonly stages: string }> {
  const managers = l.plan.hosts
  const list = await until('all managers are reachable', 60, async () => {
    const all = await nodes(managers[0]!)
    return all.filter(isReachable).length === managers.length && all.some(isLeader) ? all : null
  })
  await write(managers[0]!)
  // Kills come at any point of a heartbeat.
  await clock.sleep(500 + (count % 7) * 37)
  const leader = managers.find((h) => h.name === list.find(isLeader)!.Description.Hostname)!
  const others = managers.filter((h) => h !== leader)
  const from = new Map(others.map((h) => [h.name, statSync(h.log).size]))
  const killedAt = clock.now()
  const begun = clock.monotonic()
  await l.killDaemon(leader)
  let done = false
  const client = async (h: LabHost): Promise<number> => {
    for (;;) {
      try {
        await write(h)
        return clock.monotonic() - begun
      } catch (e) {
        if (done || clock.monotonic() - begun > 60_000) throw e
        await clock.sleep(20)
      }
    }
  }
  const clients = others.map(client)
  const ms = await Promise.any(clients)
  done = true
  await Promise.allSettled(clients)
  const told = stages(others, from, killedAt)
  await l.startDaemon(leader)
  return { ms, stages: told }
}

const l = await lab('slk', '10.92.11', 3, 0)
const all: number[] = []
try {
  await swarm(l)
  for (let n = 1; n <= rounds; n++) {
    const r = await round(l)
    all.push(r.ms)
    console.log(`${n}: ${r.ms.toFixed(0)} ms (${r.stages})`)
  }
} catch (e) {
  for (const h of l.plan.hosts)
    console.log(`${h.name}: ${readFileSync(h.log, 'utf8').trimEnd().split('\n').slice(-30).join('\n')}\n`)
  throw e
} finally {
  await l.down()
}
const sorted = [...all].sort((a, b) => a - b)
const at = (share: number): string =>
  sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)]!.toFixed(0)
const within = all.filter((ms) => ms < WANTED_MS).length
console.log(
  `${all.length} leaders killed; ms until the next write was acknowledged: p50 ${at(0.5)}, p90 ${at(0.9)}, p99 ${at(0.99)}, max ${at(1)}; ` +
    `${within} of ${all.length} within ${WANTED_MS} ms`,
)
process.exit(within >= Math.floor(SHARE * all.length) ? 0 : 1)
