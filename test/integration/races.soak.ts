// npm run soak -- races [MINUTES] [SEED]: clients race for a handful of names on one daemon.
import { faultsOf, raceClients } from './races.js'
import { type LabHost, lab } from './support.js'

const minutes = Number(process.argv[2] ?? 10)
const seed = Number(process.argv[3] ?? Date.now() % 100_000)
console.log(`seed ${seed}`)
const l = await lab('srace', '10.92.28', 1, 0)
try {
  const tally = await raceClients(l, l.plan.hosts[0] as LabHost, {
    ms: minutes * 60_000,
    seed,
    log: (x) => console.log(x),
  })
  console.log(`${tally.rounds} rounds, ${tally.calls} calls, ${tally.undecided} undecided`)
  console.log(JSON.stringify(tally.answers))
  console.log(`resident memory, MB: ${tally.memoryMb.join(' ')}`)
  const faults = faultsOf(tally)
  if (faults.length > 0) throw new Error(`${faults.length} faults, the first: ${faults[0]}`)
} finally {
  await l.down()
}
