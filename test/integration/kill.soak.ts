// npm run soak -- kill [ROUNDS] [SEED]: the daemon is killed with SIGKILL 200 times under a random workload.
import { killDaemonAtRandom } from './kill.js'
import { type LabHost, lab } from './support.js'

const rounds = Number(process.argv[2] ?? 200)
const seed = Number(process.argv[3] ?? Date.now() % 100_000)
console.log(`seed ${seed}`)
const l = await lab('skl', '10.92.7', 1, 0)
try {
  const tally = await killDaemonAtRandom(l, l.plan.hosts[0] as LabHost, { rounds, seed, log: (x) => console.log(x) })
  console.log(
    `${tally.rounds} kills, ${tally.acknowledged} calls acknowledged, ${tally.unanswered} unanswered, nothing lost`,
  )
} finally {
  await l.down()
}
