import test from 'ava'
import { FAULT_KINDS, type FaultKind, PLANTS, simulate } from './world.js'

/** A few seeds here; `npm run sim -- --seed N --runs K` runs as many as there is time for. */
const SEEDS = process.env.SHOAL_SOAK ? 200 : 6
const STEPS = process.env.SHOAL_SOAK ? 10_000 : 4000

test.serial('clusters under half of all faults keep every invariant', async (t) => {
  t.timeout(20 * 60_000)
  for (let seed = 1; seed <= SEEDS; seed++) {
    try {
      const r = await simulate({ seed, steps: STEPS })
      t.true(r.acknowledged > 10, `seed ${seed} acknowledged ${r.acknowledged}`)
    } catch (e) {
      t.fail(`${(e as Error).stack}\nreplay: npm run sim -- --seed ${seed} --steps ${STEPS} --trace`)
    }
  }
})

test.serial('the same seed gives the same run', async (t) => {
  t.timeout(120_000)
  const all: readonly FaultKind[] = FAULT_KINDS
  const first = await simulate({ seed: 77, steps: 3000, faults: all })
  t.deepEqual(await simulate({ seed: 77, steps: 3000, faults: all }), first)
  t.not((await simulate({ seed: 78, steps: 3000, faults: all })).hash, first.hash)
})

/** Those that make each planted bug matter. */
const FAULTS_FOR_PLANTS: readonly FaultKind[] = ['drop', 'crash', 'partition', 'pause', 'late', 'transfer']

for (const plant of PLANTS)
  test.serial(`a planted bug is found: ${plant}`, async (t) => {
    t.timeout(10 * 60_000)
    for (let seed = 1; seed <= 40; seed++)
      try {
        await simulate({ seed, steps: 4000, plant, faults: FAULTS_FOR_PLANTS })
      } catch (e) {
        t.log(`seed ${seed}: ${(e as Error).name} ${(e as Error).message.slice(0, 150)}`)
        t.pass()
        return
      }
    t.fail('no seed found it')
  })
