import test from 'ava'
import { has, Lab, until, write } from './lab.js'

test('three managers elect a leader, replicate, and hold the same log', async (t) => {
  const lab = await Lab.create()
  try {
    const all = await lab.cluster(3)
    const leader = await lab.leader()
    const names = Array.from({ length: 200 }, (_, i) => `n${i}`)
    const outcomes = await Promise.all(names.map((n) => write(leader, n)))
    t.true(outcomes.every((o) => o.result === 'applied'))
    await until('all have applied them', () => all.every((m) => has(m, names)))
    for (const m of all) t.deepEqual(m.machine.names, leader.machine.names)
  } finally {
    await lab.close()
  }
})
