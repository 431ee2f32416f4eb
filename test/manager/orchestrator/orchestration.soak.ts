// npm run soak -- orchestration [SEEDS] [FIRST]: bad hours of a leader's orchestration, one a seed; a failing seed replays to the same failure.
import { badHour } from '../support/bad-hour.js'

const [count = 200, first = 1] = process.argv.slice(2).map(Number)
let failed = 0
for (let seed = first; seed < first + count; seed++) {
  const problems = await badHour(seed)
  if (problems.length === 0) continue
  failed++
  console.log(`seed ${seed}: ${problems.length} problems\n  ${problems.slice(0, 5).join('\n  ')}`)
}
console.log(`${count} bad hours, ${failed} failed`)
process.exit(failed === 0 ? 0 : 1)
