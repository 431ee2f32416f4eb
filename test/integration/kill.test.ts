import test from 'ava'
import { killDaemonAtRandom } from './kill.js'
import { type LabHost, lab } from './support.js'

test.serial(
  'a daemon killed with SIGKILL at random instants loses nothing acknowledged and stops no container',
  async (t) => {
    t.timeout(240_000)
    const l = await lab('ikl', '10.92.6', 1, 0)
    try {
      const seed = Number(process.env.SHOAL_SEED ?? Date.now() % 100_000)
      t.log(`seed ${seed}`)
      const tally = await killDaemonAtRandom(l, l.plan.hosts[0] as LabHost, { rounds: 10, seed, log: (x) => t.log(x) })
      t.true(tally.acknowledged > tally.rounds)
    } finally {
      await l.down()
    }
  },
)
