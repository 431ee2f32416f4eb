import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { isOutOfSpace, RecordDatabase } from '../../src/common/index.js'

const run = process.getuid?.() === 0 ? test : test.skip

const dir = (): string => mkdtempSync(join(tmpdir(), 'shoal-records-'))

function fill(path: string): void {
  try {
    execFileSync('dd', ['if=/dev/zero', `of=${path}`, 'bs=4k'], { stdio: 'ignore' })
  } catch {
    // Full, as wanted.
  }
}

test('records are there after a reopening, and those that were removed are not', async (t) => {
  const root = dir()
  try {
    const place = { path: join(root, 'db'), scratchDir: root }
    const database = new RecordDatabase<number>(place)
    t.deepEqual(await database.open(), [])
    await Promise.all([1, 2, 3].map((n) => database.write([{ key: `k${n}`, value: n }], n === 2)))
    await database.write([{ key: 'k1' }, { key: 'k4', value: 4 }], true)
    await database.close()
    const again = new RecordDatabase<number>(place)
    t.deepEqual(await again.open(), [
      ['k2', 2],
      ['k3', 3],
      ['k4', 4],
    ])
    await again.close()
  } finally {
    rmSync(root, { recursive: true })
  }
})

run(
  'what is acknowledged after a write that met a full disk stays, and states that found no room follow',
  async (t) => {
    const root = dir()
    const scratchDir = dir()
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'small', root])
    try {
      const place = { path: join(root, 'db'), scratchDir }
      const database = new RecordDatabase<string>(place)
      await database.open()
      const acknowledged: string[] = []
      // Something is refused in the middle of a record.
      for (let refused = 0, n = 0; refused < 3; n++) {
        fill(join(root, `filler${n}`))
        const key = `k${String(n).padStart(4, '0')}`
        try {
          await database.write([{ key, value: 'x'.repeat(3000 + 777 * n) }], true)
          acknowledged.push(key)
        } catch (caught) {
          t.true(isOutOfSpace(caught), String(caught))
          refused++
        }
      }
      await database.write([{ key: 'nothing' }], true).catch(() => {})
      await database.writeState('state', 'kept', true)
      const full = new RecordDatabase<string>({ ...place, scratchDir })
      await database.close()
      const known = (await full.open()).map(([key]) => key)
      t.deepEqual(
        acknowledged.filter((key) => !known.includes(key)),
        [],
      )
      fill(join(root, 'filler199'))
      await full.writeState('state', 'kept', true)
      await t.throwsAsync(full.write([{ key: 'no', value: 'x'.repeat(10_000) }], true))
      for (let n = 0; n < 200; n++) rmSync(join(root, `filler${n}`), { force: true })
      for (let n = 0; n < 50; n++) {
        await full.write([{ key: `later${n}`, value: 'x'.repeat(1000) }], true)
        acknowledged.push(`later${n}`)
      }
      await full.close()
      const last = new RecordDatabase<string>(place)
      const entries = new Map(await last.open())
      await last.close()
      t.deepEqual(
        acknowledged.filter((key) => !entries.has(key)),
        [],
      )
      t.is(entries.get('state'), 'kept')
    } finally {
      execFileSync('umount', ['-l', root]) // a test that failed may have left it open
      rmSync(root, { recursive: true })
      rmSync(scratchDir, { recursive: true })
    }
  },
)
