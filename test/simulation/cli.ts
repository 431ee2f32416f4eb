// npm run sim -- --seed N --runs K [--steps S] [--members M] [--trace] [--plant NAME] [--until-found]
import { parseArgs } from 'node:util'
import { PLANTS } from './plan.js'
import { simulate } from './world.js'

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    runs: { type: 'string', default: '1' },
    steps: { type: 'string', default: '10000' },
    members: { type: 'string' },
    trace: { type: 'boolean', default: false },
    // A bug on purpose (plan.ts), and: stop at the first failure with one line about it.
    plant: { type: 'string' },
    'until-found': { type: 'boolean', default: false },
  },
})
const first = Number(values.seed)
const steps = Number(values.steps)
const members = values.members === undefined ? {} : { members: Number(values.members) }
const trace = values.trace ? { trace: (line: string) => console.log(line) } : {}
const bug = PLANTS.find((p) => p === values.plant)
if (values.plant !== undefined && bug === undefined) throw new Error(`--plant is one of ${PLANTS.join(', ')}`)
const plant = bug === undefined ? {} : { plant: bug }
const begun = performance.now()
const sum = { steps: 0, acknowledged: 0, unknown: 0, reads: 0, snapshots: 0, damage: 0 }
let failed = 0
for (let seed = first; seed < first + Number(values.runs); seed++) {
  // Whoever waits for the end of a seed that has none, sees which one it is.
  if (values['until-found']) console.log(`seed ${seed}`)
  try {
    const r = await simulate({ seed, steps, ...members, ...trace, ...plant })
    sum.steps += r.steps
    sum.acknowledged += r.acknowledged
    sum.unknown += r.unknown
    sum.reads += r.reads
    sum.snapshots += r.snapshotsInstalled
    sum.damage += r.damageFound
    if (values.runs === '1') console.log(JSON.stringify(r))
  } catch (e) {
    failed++
    if (values['until-found']) {
      console.log(`found at seed ${seed}: ${String(e).split('\n')[0]}`)
      process.exit(1)
    }
    console.error(`seed ${seed} failed: ${e instanceof Error ? (e.stack ?? e.message) : String(e)}`)
    console.error(
      `replay: npm run sim -- --seed ${seed} --steps ${steps}${values.members ? ` --members ${values.members}` : ''} --trace`,
    )
  }
}
const seconds = (performance.now() - begun) / 1000
console.log(
  `${Number(values.runs) - failed} of ${values.runs} seeds clean; ${sum.steps} steps, ${sum.acknowledged} writes acknowledged, ${sum.unknown} unknown, ` +
    `${sum.reads} reads, ${sum.snapshots} snapshots restored, ${sum.damage} damaged disks noticed; ${Math.round(sum.steps / seconds)} steps/s`,
)
process.exit(failed > 0 ? 1 : 0)
