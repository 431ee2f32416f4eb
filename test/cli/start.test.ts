// How the command starts: from the code that the build kept, or, where V8 refuses that, from the source.
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'

const dir = mkdtempSync(join(tmpdir(), 'shoal-start-'))
test.after.always(() => rmSync(dir, { recursive: true, force: true }))

test('this Node takes the code that the build kept', (t) => {
  const ask = "console.log(require('./build/src/cli/start.cjs').compile().cachedDataRejected)"
  const { stdout } = spawnSync(process.execPath, ['-e', ask], { encoding: 'utf8' })
  t.is(stdout, 'false\n')
})

test('code that is missing or damaged costs time only', (t) => {
  for (const part of ['bin/shoal', 'build/src/cli/start.cjs', 'build/cli'])
    cpSync(part, join(dir, part), { recursive: true })
  const code = join(dir, 'build/cli/shoal.cjs.code')
  const run = () => spawnSync(join(dir, 'bin/shoal'), ['--version'], { encoding: 'utf8' })
  writeFileSync(code, 'not code')
  t.like(run(), { status: 0, stderr: '' })
  rmSync(code)
  t.like(run(), { status: 0, stderr: '' })
  t.regex(run().stdout, /^Shoal version /)
})
