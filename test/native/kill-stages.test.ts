// SIGKILL in the stages of create, start, exec and delete, sampled; `npm run soak -- native-kills` goes through every system call.
import { join } from 'node:path'
import test from 'ava'
import { killShimAtEachCall } from './kill-shim.js'
import { killAtEachCall } from './kill-stages.js'
import { canRun, makeDir, removeDir } from './kit.js'

const run = canRun ? test.serial : test.skip
let base = ''

test.before(() => {
  if (canRun) base = makeDir('kills')
})
test.after.always(async () => {
  if (canRun) await removeDir(base)
})

for (const [verb, step] of [
  ['create', 41],
  ['start', 11],
  ['exec', 19],
  ['delete', 19],
  ['init', 41],
] as const)
  run(
    `SIGKILL at any call of ${verb === 'init' ? "the container's first process" : verb}: a following delete --force cleans all, and nothing else is harmed`,
    async (t) => {
      const kills = await killAtEachCall(join(base, verb), verb, step)
      t.log(`${kills} kills`)
      t.true(kills > 3)
    },
  )

for (const [victim, step] of [
  ['shim', 47],
  ['init', 61],
  ['exec', 23],
  ['daemon', 97],
] as const)
  run(
    `SIGKILL to the ${victim} at any call from create to delete: what follows cleans all, and nothing else is harmed`,
    async (t) => {
      const kills = await killShimAtEachCall(join(base, `shim-${victim}`), victim, step)
      t.log(`${kills} kills`)
      t.true(kills > 3)
    },
  )
