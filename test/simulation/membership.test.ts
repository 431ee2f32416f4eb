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

test('a member that takes a follower for the leader gets its read all the same', async (t) => {
  const c = await Cluster.of(3, 1)
  const [leader, second, third] = c.places as [Place, Place, Place]
  let asked = 0
  // The third one hears of the next leader late.
  c.network.onSend = (m) => {
    if (m.type === 'MsgReadIndex' && m.from === third.id && m.to === leader.id) asked++
  }
  c.network.cut(second.id, third.id)
  let moved = false
  void leader.member.transferLeadership(second.id).then(() => {
    moved = true
  })
  await c.until('the second one leads', () => moved)
  let read = false
  void third.member.readBarrier().then(() => {
    read = true
  })
  await c.until('it asked the old leader', () => asked > 0)
  c.network.heal()
  await c.until('it read', () => read)
  t.true(second.member.leading)
})
