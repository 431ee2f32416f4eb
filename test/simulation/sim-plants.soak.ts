// npm run soak -- sim-plants [WORD…] [--trials 3] [--runs 1000] [--steps 10000]
// Plants each bug (whose name contains a word) and runs seeds until one shows it, from several first seeds; prints a table
// with the mean number of seeds. A bug of the core that the seeds do not show is left to the core's own tests, and the one that
// fails is named. Ends with `N passed, N failed`; what neither finds has failed. Without words it also sees that the first
// seeds are clean when there is no bug.
import { parseArgs } from 'node:util'
import { findFault, runWithFault } from '../raft/faults/plant.js'
import { Nursery, SIMULATION_PLANTS } from './plants.js'

const { values, positionals } = parseArgs({
  options: {
    trials: { type: 'string', default: '3' },
    runs: { type: 'string', default: '1000' },
    steps: { type: 'string', default: '10000' },
  },
  allowPositionals: true,
})
const steps = Number(values.steps)
const chosen = SIMULATION_PLANTS.filter((p) => positionals.length === 0 || positionals.some((w) => p.name.includes(w)))
const nursery = new Nursery()
let failed = 0
let simulated = 0
let tested = 0
try {
  if (positionals.length === 0) {
    const clean = await nursery.try(null, 1, 10, steps)
    if (clean.seeds !== null) failed++
    console.log(`${clean.seeds === null ? 'clean ' : 'FAILED'}            no bug: ${clean.why}`)
  }
  for (const plant of chosen) {
    const seeds: (number | null)[] = []
    let why = ''
    for (let trial = 0; trial < Number(values.trials); trial++) {
      const found = await nursery.try(plant, 1 + trial * 100_000, Number(values.runs), steps)
      seeds.push(found.seeds)
      why = found.why
      if (found.seeds === null) break
    }
    if (seeds.every((n) => n !== null)) {
      simulated++
      const mean = seeds.reduce((a, b) => a + b, 0) / seeds.length
      console.log(`found  ${mean.toFixed(1).padStart(6)} seeds  ${plant.name}: ${why.slice(0, 110)}`)
      continue
    }
    const fault = findFault(plant.name)
    const { caught, by } = fault
      ? await runWithFault(fault)
      : { caught: false, by: 'no test of the core looks at this' }
    if (caught) tested++
    else failed++
    console.log(`${caught ? 'found   by a test' : 'FAILED           '}  ${plant.name}: ${why}; ${by}`)
  }
} finally {
  nursery.close()
}
console.log(`${simulated} found by the simulation, ${tested} more by the core's tests`)
console.log(`${chosen.length + (positionals.length === 0 ? 1 : 0) - failed} passed, ${failed} failed`)
process.exitCode = failed > 0 ? 1 : 0
