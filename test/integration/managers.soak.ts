// npm run soak -- managers [ROUNDS]: every manager is killed with SIGKILL 20 times in turn while services are created.
import { killManagers } from './managers.js'
import { lab, swarm } from './support.js'

const rounds = Number(process.argv[2] ?? 20)
const l = await lab('smk', '10.92.3', 3, 0)
try {
  await swarm(l)
  const tally = await killManagers(l, rounds, (line) => console.log(line))
  console.log(
    `${tally.kills} kills, ${tally.acknowledged} services acknowledged, ${tally.refused} calls refused, 0 missing`,
  )
} finally {
  await l.down()
}
