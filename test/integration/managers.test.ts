import test from 'ava'
import { killManagers } from './managers.js'
import { lab, swarm } from './support.js'

test.serial(
  'managers killed with SIGKILL while services are created come back, and no acknowledged service is missing',
  async (t) => {
    t.timeout(300_000)
    const l = await lab('imk', '10.92.2', 3, 0)
    try {
      await swarm(l)
      const tally = await killManagers(l, 2, (line) => t.log(line))
      t.log(`${tally.kills} kills, ${tally.acknowledged} services acknowledged, ${tally.refused} calls refused`)
      t.true(tally.acknowledged >= tally.kills)
    } finally {
      await l.down()
    }
  },
)
