import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { FAULTS } from './faults.js'
import { findFault, runWithFault } from './plant.js'

// The full list runs with `npm run soak -- raft-faults`; here a sample keeps the machinery itself honest.

test('every planted fault still has exactly one place in the core', (t) => {
  const core = join(dirname(fileURLToPath(import.meta.url)), '../../../src/raft/core')
  t.true(FAULTS.length >= 25)
  t.is(new Set(FAULTS.map((f) => f.name)).size, FAULTS.length)
  for (const f of FAULTS)
    t.is(readFileSync(join(core, f.file), 'utf8').split(f.search).length - 1, 1, `${f.name}: ${f.search}`)
})

for (const name of [
  'entries of older terms commit by counting',
  'acknowledges before the write',
  'reads without a heartbeat round',
]) {
  test(`the tests catch a core that does this: ${name}`, async (t) => {
    t.timeout(180_000)
    const { caught, by } = await runWithFault(findFault(name)!)
    t.true(caught, by)
    t.log(by)
  })
}
