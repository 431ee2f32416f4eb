// Types, lint, import directions and cycles. Import directions are the project references of each room's tsconfig.json:
// an import that they do not allow does not compile. Purity of src/raft/core is its empty `types`.
import { spawnSync } from 'node:child_process'

const steps = [
  ['types and import directions', ['node_modules/typescript/bin/tsc', '-b']],
  [
    'lint and import cycles',
    [
      'node_modules/@biomejs/biome/bin/biome',
      'check',
      '--diagnostic-level=warn',
      'src',
      'test',
      'scripts',
      'bench',
      'certs',
    ],
  ],
]
let failed = 0
for (const [name, args] of steps) {
  const r = spawnSync(process.execPath, args, { stdio: 'inherit' })
  console.log(`${r.status === 0 ? 'ok' : 'FAILED'}: ${name}`)
  if (r.status !== 0) failed++
}
process.exit(failed ? 1 : 0)
