// npm run soak -- native-kills [STEP=1]: SIGKILL at every system call of shoal-runtime's commands and of the container's first process
// (kill-stages.ts), and of a shim's whole life, to the shim, to what it starts, and to the daemon in front of it (kill-shim.ts).
import { join } from 'node:path'
import { killShimAtEachCall } from './kill-shim.js'
import { killAtEachCall } from './kill-stages.js'
import { makeDir, removeDir } from './kit.js'

const step = Number(process.argv[2] ?? 1)
if (process.getuid?.() !== 0) {
  console.log('skipped: needs root')
  process.exit(0)
}
const base = makeDir('kills')
try {
  for (const verb of ['create', 'start', 'exec', 'delete', 'init'] as const)
    console.log(`${verb}: ${await killAtEachCall(join(base, verb), verb, step)} kills, all cleaned by delete --force`)
  for (const victim of ['shim', 'init', 'exec', 'daemon'] as const)
    console.log(
      `from create to delete, ${victim}: ${await killShimAtEachCall(join(base, `shim-${victim}`), victim, step)} kills, all cleaned`,
    )
} finally {
  await removeDir(base)
}
