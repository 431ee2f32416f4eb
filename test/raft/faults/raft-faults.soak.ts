import { FAULTS, type Fault } from './faults.js'
import { runWithFault } from './plant.js'

/**
 * `npm run soak -- raft-faults [WORD…]`: plants each fault (whose name contains a word) in a copy of the core and runs
 * its tests; every one must be caught, and the copy without a fault must pass. Ends with `N passed, N failed`.
 */
const words = process.argv.slice(2)
const chosen = FAULTS.filter((f) => words.length === 0 || words.some((w) => f.name.includes(w)))
let failed = 0
const report = (ok: boolean, line: string): void => {
  if (!ok) failed++
  process.stdout.write(`${ok ? 'ok    ' : 'FAILED'} ${line}\n`)
}

async function tryFault(fault: Fault | null): Promise<void> {
  const name = fault?.name ?? 'the core without a fault'
  try {
    const { caught, by } = await runWithFault(fault)
    report(caught === (fault !== null), `${name}: ${by}`)
  } catch (error) {
    report(false, `${name}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

for (const fault of [null, ...chosen]) await tryFault(fault)
process.stdout.write(`${chosen.length + 1 - failed} passed, ${failed} failed\n`)
process.exitCode = failed > 0 ? 1 : 0
