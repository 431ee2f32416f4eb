// npm run soak -- native-kills [STEP=1]: SIGKILL at every system call of create, of the container's first process, of exec and of delete (kill-stages.ts).
import { join } from 'node:path'
import { killAtEachCall, strace, type Verb } from './kill-stages.js'
import { makeDir, removeDir } from './kit.js'

const step = Number(process.argv[2] ?? 1)
if (process.getuid?.() !== 0 || !strace) {
  console.log('skipped: needs root and strace')
  process.exit(0)
}
const base = makeDir('kills')
try {
  for (const verb of ['create', 'init', 'exec', 'delete'] satisfies Verb[])
    console.log(`${verb}: ${await killAtEachCall(join(base, verb), verb, step)} kills, all cleaned by delete --force`)
} finally {
  await removeDir(base)
}
