import test from 'ava'
import { needShared } from '../support/shared.js'
import { fuzzApi } from './api-fuzz.js'
import { type LabHost, lab } from './support.js'

test.serial(
  'requests that are wrong anywhere are answered, leave nothing behind, and show nothing of the inside',
  async (t) => {
    t.timeout(240_000)
    const description = needShared(t, 'spec/engine-api/swagger.yaml')
    if (description === null) return
    const seed = Number(process.env.SHOAL_SEED ?? Date.now() % 100_000)
    t.log(`seed ${seed}`)
    const l = await lab('iaf', '10.92.10', 1, 0)
    try {
      const tally = await fuzzApi(l, l.plan.hosts[0] as LabHost, {
        requests: 600,
        seed,
        every: 600,
        description,
        log: (x) => t.log(x),
      })
      t.deepEqual(tally.faults, [])
      t.true(tally.operations > 80)
      t.true((tally.answers['400'] ?? 0) > 20)
    } finally {
      await l.down()
    }
  },
)
