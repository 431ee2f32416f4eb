import test from 'ava'
import { seededRng } from '../../src/common/index.js'
import { ELECTION_MS, TICK_MS } from './plan.js'
import { Cluster, type Place } from './cluster.js'

const SEEDS = 100

/**
 * Two survivors of three with the same dice, started at the same instant: both time out at once, both win the pre-vote, both
 * vote for themselves. Ends when each was refused by the other.
 */
async function splitVote(seed: number, slowMs = 0): Promise<{ c: Cluster; survivors: readonly [Place, Place] }> {
  const c = await Cluster.of(3, seed)
  for (const p of c.places) p.kill()
  const survivors = c.places.slice(1) as [Place, Place]
  // Network and disk take the same time everywhere as well.
  c.rng.random = () => 0.5
  for (const p of survivors) {
    p.disk.faults.slowMs = slowMs
    p.dice = () => 0.5
    p.start(null)
  }
  let refusals = 0
  c.network.onSend = (m) => {
    if (m.type === 'MsgVoteResp' && m.reject) refusals++
  }
  // Whatever was drawn, their next timeouts are the same; from here on they differ.
  await c.until('both are candidates', () => survivors.every((p) => p.role === 'candidate'))
  for (const [i, p] of survivors.entries()) {
    const own = seededRng(seed * 2 + i)
    p.dice = () => own.random()
  }
  await c.until('each refused the other', () => refusals === 2)
  return { c, survivors }
}

test('two candidates that split the votes try again well before the next election timeout', async (t) => {
  const all: number[] = []
  for (let seed = 1; seed <= SEEDS; seed++) {
    const { c, survivors } = await splitVote(seed)
    all.push(await c.untilWritten(survivors))
  }
  all.sort((a, b) => a - b)
  t.log(`ms: p50 ${all[SEEDS / 2]}, max ${all.at(-1)}`)
  t.true(all[SEEDS / 2]! < 3 * TICK_MS, 'mostly at the first try')
  t.true(all.at(-1)! < ELECTION_MS, 'without a whole election timeout')
})
