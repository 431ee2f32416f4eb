// npm run soak -- api-fuzz [REQUESTS] [SEED]: 100,000 requests, most of them wrong somewhere, over the whole Engine API.
import { sharedDir } from '../support/shared.js'
import { fuzzApi, isFlat } from './api-fuzz.js'
import { type LabHost, lab } from './support.js'

const requests = Number(process.argv[2] ?? 100_000)
const seed = Number(process.argv[3] ?? Date.now() % 100_000)
const description = sharedDir('spec/engine-api/swagger.yaml')
if (!description) throw new Error('the API description spec/engine-api/swagger.yaml is not here; set SHOAL_SHARED')
console.log(`seed ${seed}`)
const l = await lab('saf', '10.92.9', 1, 0)
try {
  const tally = await fuzzApi(l, l.plan.hosts[0] as LabHost, {
    requests,
    seed,
    every: 1000,
    description,
    log: (x) => console.log(x),
  })
  console.log(`${tally.requests} requests over ${tally.operations} operations: ${JSON.stringify(tally.answers)}`)
  console.log(`resident memory, MB: ${tally.memoryMb.join(' ')}`)
  if (!isFlat(tally.memoryMb)) throw new Error('memory grows')
  if (tally.faults.length > 0) throw new Error(`${tally.faults.length} faults`)
} finally {
  await l.down()
}
