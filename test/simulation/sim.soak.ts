// npm run soak -- sim [SEEDS] [--steps N] [--from-start]
// Runs seeds one after another, with 3, 5 and 7 members in turn, and keeps its place in build/soak-sim.json: started again it
// goes on where it ended. Prints a line now and then and at the end `N passed, N failed`.
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { simulate } from './world.js'

interface Place {
  /** The next seed. */
  seed: number
  readonly stepsEach: number
  steps: number
  acknowledged: number
  unknown: number
  reads: number
  snapshots: number
  damage: number
  cpuSeconds: number
  readonly failed: { readonly seed: number; readonly members: number; readonly why: string }[]
}

const { values, positionals } = parseArgs({
  options: { steps: { type: 'string', default: '20000' }, 'from-start': { type: 'boolean', default: false } },
  allowPositionals: true,
})
const seeds = Number(positionals[0] ?? 10_000)
const stepsEach = Number(values.steps)
if (!(seeds > 0 && stepsEach > 0))
  throw new Error(`npm run soak -- sim [SEEDS]: ${positionals[0]} is no number of seeds`)
const file = join(dirname(fileURLToPath(import.meta.url)), '../../soak-sim.json')

const fresh: Place = {
  ...{ seed: 1, stepsEach, steps: 0, acknowledged: 0, unknown: 0, reads: 0, snapshots: 0, damage: 0 },
  ...{ cpuSeconds: 0, failed: [] },
}
const kept = !values['from-start'] && existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Place) : null
const place = kept?.stepsEach === stepsEach ? kept : fresh
if (place.seed > 1) console.log(`going on at seed ${place.seed} (${file})`)

const save = (): void => {
  writeFileSync(`${file}.tmp`, JSON.stringify(place))
  renameSync(`${file}.tmp`, file)
}
const tell = (): void =>
  console.log(
    `${place.seed - 1} of ${seeds} seeds, ${place.failed.length} failed; ${place.steps} steps, ${place.acknowledged} writes acknowledged, ` +
      `${place.unknown} unknown, ${place.reads} reads, ${place.snapshots} snapshots restored, ${place.damage} damaged disks noticed; ` +
      `${Math.round(place.steps / Math.max(1, place.cpuSeconds))} steps per CPU second`,
  )

let told = performance.now()
while (place.seed <= seeds) {
  const { seed } = place
  const members = [3, 5, 7][seed % 3]!
  const before = process.cpuUsage()
  try {
    const r = await simulate({ seed, steps: stepsEach, members })
    place.steps += r.steps
    place.acknowledged += r.acknowledged
    place.unknown += r.unknown
    place.reads += r.reads
    place.snapshots += r.snapshotsInstalled
    place.damage += r.damageFound
  } catch (e) {
    const why = e instanceof Error ? e.message : String(e)
    place.failed.push({ seed, members, why })
    console.log(`seed ${seed} failed: ${why}`)
    console.log(`replay: npm run sim -- --seed ${seed} --steps ${stepsEach} --members ${members} --trace`)
  }
  const used = process.cpuUsage(before)
  place.cpuSeconds += (used.user + used.system) / 1e6
  place.seed++
  save()
  if (performance.now() - told > 60_000) {
    told = performance.now()
    tell()
  }
}
tell()
console.log(`${seeds - place.failed.length} passed, ${place.failed.length} failed`)
process.exit(place.failed.length > 0 ? 1 : 0)
