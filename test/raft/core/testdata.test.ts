import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import test from 'ava'
import { needShared } from '../../support/shared.js'
import { parseDirective, parseFile } from '../testdata/datadriven.js'
import { describeFailure, findFiles, rewriteFile, runFile } from '../testdata/runner.js'

const SEEDS = [1, 2, 77, 4_000_000_000]

test('every test data file comes out byte for byte, whatever the seed', (t) => {
  const folder = needShared(t, 'raft-testdata')
  if (folder === null) return
  const files = findFiles([folder])
  t.true(files.length > 0, `no .txt files in ${folder}`)
  for (const file of files) {
    for (const seed of SEEDS) {
      const failure = runFile(file, seed)
      t.is(failure && describeFailure(failure), null)
    }
  }
})

const inTemporaryFolder = (body: (dir: string) => void): void => {
  const dir = mkdtempSync(join(tmpdir(), 'raft-core-'))
  try {
    body(dir)
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

test('a wrong expectation is found, and the rewrite mode puts it right and nothing else', (t) => {
  const text =
    '# a comment\n\nadd-nodes 1 voters=(1) \\\n  index=3\n----\nwrong\n\n# between\nlog-level none\n----\n\ncampaign 1\n----\nok\n'
  inTemporaryFolder((dir) => {
    const file = join(dir, 'interaction.txt')
    writeFileSync(file, text)
    const failure = runFile(file, 1)
    t.is(failure?.line, 3)
    t.is(failure?.expected, 'wrong\n')
    rewriteFile(file, 1)
    const rewritten = readFileSync(file, 'utf8')
    t.is(runFile(file, 1), null)
    t.true(rewritten.startsWith('# a comment\n\nadd-nodes 1 voters=(1) \\\n  index=3\n----\nINFO 1 switched'))
    t.true(rewritten.includes('\n\n# between\nlog-level none\n----\nok\n'))
  })
})

test('rewriting a file that passes leaves it as it is', (t) => {
  const folder = needShared(t, 'raft-testdata')
  if (folder === null) return
  for (const file of findFiles([folder]).filter((_, i) => i % 9 === 0)) {
    inTemporaryFolder((dir) => {
      const copy = join(dir, basename(dirname(file)), basename(file))
      mkdirSync(dirname(copy))
      copyFileSync(file, copy)
      rewriteFile(copy, 5)
      t.is(readFileSync(copy, 'utf8'), readFileSync(file, 'utf8'))
    })
  }
})

test('arguments are keys, values and lists; output with blank lines stands between doubled separators', (t) => {
  t.deepEqual(parseDirective('cmd 1 a=b c=(1, 2,x) d=() e', 1), {
    command: 'cmd',
    args: [
      { key: '1', values: [] },
      { key: 'a', values: ['b'] },
      { key: 'c', values: ['1', '2', 'x'] },
      { key: 'd', values: [] },
      { key: 'e', values: [] },
    ],
  })
  const { directives } = parseFile('one\ninput\n----\n----\na\n\nb\n----\n----\n\ntwo\n----\nc\n')
  t.deepEqual(
    directives.map((d) => [d.command, d.input, d.expected]),
    [
      ['one', 'input', 'a\n\nb\n'],
      ['two', '', 'c\n'],
    ],
  )
  t.throws(() => parseFile('cmd without output\n'), { message: /without ----/ })
})
