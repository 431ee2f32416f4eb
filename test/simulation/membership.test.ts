import test from 'ava'
import { Cluster, type Place } from './cluster.js'

for (const [how, told] of [
  ['the caller hears of it', (_second: Place, answered: () => boolean) => answered()],
  ['the removed member hears of it', (second: Place) => second.removed],
] as const)
  test(`the only one left of two goes on alone after a crash at the moment when ${how}`, async (t) => {
    for (let seed = 1; seed <= 50; seed++) {
      const c = await Cluster.of(2, seed)
      const [leader, second] = c.places as [Place, Place]
      // Both hold the entry soon; that it is committed could take longer to reach the disk.
      leader.disk.faults.slowMs = seed * 5
      let answered = false
      void leader.member.removeMember(second.id).then(() => {
        answered = true
      })
      await c.until('the removal is told', () => told(second, () => answered))
      leader.disk.faults.slowMs = 0
      for (const p of c.places) p.kill()
      leader.start(null)
      t.true((await c.untilWritten([leader])) < 1000, `seed ${seed}`)
    }
  })
