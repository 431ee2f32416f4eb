import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { FAULT_KINDS, type FaultKind, PLANTS } from './plan.js'
import { simulate } from './world.js'

/** From 1 on, the same each time. */
const FIXED_SEEDS = 100
/** From a first one that is drawn for each run. */
const NEW_SEEDS = 100
const STEPS = 10_000
const DETERMINISM_SEEDS = 20
/** Seeds that once found a bug, in the member or in the simulated world. */
const REGRESSIONS: readonly number[] = [77, 85, 1258152429]
/** The same of the soak: more steps, and members by the seed. */
const SOAK_STEPS = 20_000
const SOAK_REGRESSIONS: readonly (readonly [seed: number, members: number])[] = [
  [110, 7],
  [274, 5],
  [513, 3],
  [529, 5],
  [600, 3],
  [915, 3],
  [1126, 5],
  [1241, 7],
  [1260, 3],
  [1587, 3],
  [2313, 3],
  [2880, 3],
  [3171, 3],
  [8976, 3],
]

interface Range {
  readonly seed: number
  readonly runs: number
  readonly steps: number
  readonly members?: number
}

/** `npm run sim` in a process of its own; what it printed, and whether all its seeds were clean. */
function simulateIn({ seed, runs, steps, members }: Range): Promise<{ clean: boolean; text: string }> {
  const cli = fileURLToPath(new URL('./cli.js', import.meta.url))
  return new Promise((resolve, reject) => {
    const args = [cli, '--seed', String(seed), '--runs', String(runs), '--steps', String(steps)]
    if (members !== undefined) args.push('--members', String(members))
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let text = ''
    child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (text += chunk.toString()))
    child.on('error', reject)
    child.on('close', (code) => resolve({ clean: code === 0, text: text.trim() }))
  })
}

test.serial(`${FIXED_SEEDS + NEW_SEEDS} clusters under half of all faults keep every invariant`, async (t) => {
  t.timeout(30 * 60_000)
  const lanes = Math.max(1, Math.min(availableParallelism(), 4))
  const drawn = randomInt(1_000_000, 2 ** 31)
  t.log(`seeds 1 to ${FIXED_SEEDS}, and ${NEW_SEEDS} from ${drawn} on`)
  const share = (first: number, count: number, lane: number): Range => {
    const from = Math.floor((count * lane) / lanes)
    return { seed: first + from, runs: Math.floor((count * (lane + 1)) / lanes) - from, steps: STEPS }
  }
  const ranges = Array.from({ length: lanes }, (_, i) => i).flatMap((lane) => [
    share(1, FIXED_SEEDS, lane),
    share(drawn, NEW_SEEDS, lane),
  ])
  await clean(t, ranges)
})

test.serial('seeds that once found a bug are clean', async (t) => {
  t.timeout(10 * 60_000)
  for (const seed of REGRESSIONS) await clean(t, [{ seed, runs: 1, steps: STEPS }])
  for (const [seed, members] of SOAK_REGRESSIONS) await clean(t, [{ seed, runs: 1, steps: SOAK_STEPS, members }])
})

async function clean(t: ExecutionContext, ranges: readonly Range[]): Promise<void> {
  for (const r of await Promise.all(ranges.map(simulateIn))) {
    t.log(r.text)
    t.true(r.clean, r.text)
  }
}

test.serial('the same seed gives the same run', async (t) => {
  t.timeout(120_000)
  const all: readonly FaultKind[] = FAULT_KINDS
  const hashes = new Set<number>()
  for (let seed = 77; seed < 77 + DETERMINISM_SEEDS; seed++) {
    const first = await simulate({ seed, steps: 3000, faults: all })
    t.deepEqual(await simulate({ seed, steps: 3000, faults: all }), first)
    hashes.add(first.hash)
  }
  t.is(hashes.size, DETERMINISM_SEEDS, 'and another seed another')
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
