// npm run soak -- differential [BUNDLES=200] [SEED=1]: generated bundles run by shoal-runtime, crun and runc must look alike from inside.
import { disagreement } from './agreement.js'
import { generated } from './bundles.js'
import { canRun, makeDir, removeDir } from './kit.js'

const [bundles = 200, first = 1] = process.argv.slice(2).map(Number)
if (!canRun) {
  console.log('skipped: containers need root and busybox')
  process.exit(0)
}
const base = makeDir('agree')
let failed = 0
try {
  for (let seed = first; seed < first + bundles; seed++) {
    const r = await disagreement(base, generated(seed))
    if (!r.errors && !r.differences.length && !r.missing.length) continue
    failed++
    console.log(`bundle ${seed}: ${JSON.stringify(r)}`)
  }
} finally {
  await removeDir(base)
}
console.log(`${bundles} generated bundles, ${failed} seen differently`)
process.exit(failed === 0 ? 0 : 1)
