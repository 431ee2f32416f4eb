// npm test: every ava file, then the main job. Prints skipped tests with their reasons, and what tests counted (lines that they
// log with "COUNTED: "); ends with a line
// "N passed, N failed, N skipped". In CI a skip that is not for a missing kernel feature is a failure.
//
//   npm test                 all
//   npm test -- raft engine  only files whose path contains one of the words, without the main job
//
// A file with a failure is run once more, alone: what then passes was starved by its neighbours, and is told in a line
// "passed when run again alone". What fails twice has failed.
import { spawn } from 'node:child_process'
import { existsSync, globSync } from './glob.mjs'

const words = process.argv.slice(2)
const ci = process.env.CI === 'true' || process.env.CI === '1'
const files = globSync('build/test', /\.test\.js$/).filter(
  (f) => words.length === 0 || words.some((w) => f.includes(w)),
)

/** What one run of ava says of each file. */
class Results {
  byFile = new Map()

  of(file) {
    if (!this.byFile.has(file)) this.byFile.set(file, { passed: 0, failed: 0, skipped: 0, failures: [] })
    return this.byFile.get(file)
  }

  fail(file, text) {
    const r = this.of(file)
    r.failed++
    r.failures.push(text)
  }
}

/** ava puts the file's place before each title when it runs several: "raft › log › durable-log › a torn tail ...". */
function fileOf(title, list) {
  if (list.length === 1) return list[0]
  const parts = title.split(' › ')
  for (let k = parts.length - 1; k > 0; k--) {
    const end = `/${parts.slice(0, k).join('/')}.test.js`
    const found = list.find((f) => `/${f}`.endsWith(end))
    if (found) return found
  }
  return '(unknown file)'
}

/** Runs ava over some files and reads its TAP output. */
async function ava(list, concurrency) {
  const results = new Results()
  if (list.length === 0) return results
  await new Promise((resolve) => {
    const p = spawn(
      process.execPath,
      ['node_modules/ava/entrypoints/cli.mjs', '--tap', '--concurrency', String(concurrency), ...list],
      { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, FORCE_COLOR: '0' } },
    )
    let rest = ''
    let detail = false
    let last = ''
    p.stdout.setEncoding('utf8')
    p.stdout.on('data', (text) => {
      const lines = (rest + text).split('\n')
      rest = lines.pop()
      for (const line of lines) {
        const m = /^(not ok|ok) \d+ - (.*?)(?: # (SKIP|TODO)(.*))?$/.exec(line)
        const gone = /^(?:not ok \d+ - )?(build\/test\/\S+\.js) exited due to (\S+)/.exec(line)
        if (gone) results.fail(gone[1], `${gone[1]} exited due to ${gone[2]}`)
        else if (m) {
          const file = fileOf(m[2], list)
          last = file
          detail = false
          if (m[3]) {
            results.of(file).skipped++
            console.log(`skipped: ${m[2]}`)
            if (ci)
              results.fail(
                file,
                `${m[2]}: skipped in the test file; skip at run time with a missing kernel feature as the reason instead`,
              )
          } else if (m[1] === 'ok') results.of(file).passed++
          else {
            results.fail(file, m[2])
            detail = true
            console.log(`FAILED: ${m[2]}`)
          }
        } else if (/SKIPPED: /.test(line)) {
          // test/support/skip.ts logs this line: "SKIPPED: title: reason".
          const r = results.of(last)
          r.skipped++
          r.passed--
          console.log(line.replace(/^\s*#?\s*/, '').trim())
          if (ci && !/missing kernel feature/.test(line)) results.fail(last, line.trim())
        } else if (/COUNTED: /.test(line)) console.log(line.replace(/^\s*#?\s*/, '').trim())
        else if (detail && line.trim() !== '') console.log(`    ${line}`)
      }
    })
    p.on('exit', (code, signal) => {
      if (code !== 0 && [...results.byFile.values()].every((r) => r.failed === 0))
        results.fail('(ava)', `ava ended with ${signal ?? code}`)
      resolve()
    })
  })
  return results
}

async function mainJob(total) {
  console.log('main job: npm start -- --once')
  const code = await new Promise((resolve) => {
    const p = spawn(process.execPath, ['build/src/lab/start.js', '--once', '--name', 'test'], {
      stdio: ['ignore', 'inherit', 'inherit'],
    })
    p.on('exit', (c, s) => resolve(c ?? s))
  })
  if (code === 0) total.of('main job').passed++
  else total.fail('main job', `npm start -- --once ended with ${code}`)
}

const started = performance.now()
const total = new Results()
// Two files at a time; what looks at how soon a cluster is well again has the machine for itself.
const alone = files.filter((f) => /integration\/(cluster|managers|kill)\.test/.test(f))
const heavy = files.filter((f) => /build\/test\/(integration|simulation|cli)\//.test(f) && !alone.includes(f))
for (const [list, concurrency] of [
  [files.filter((f) => !heavy.includes(f) && !alone.includes(f)), 2],
  [heavy, 2],
  [alone, 1],
]) {
  for (const [file, r] of (await ava(list, concurrency)).byFile) total.byFile.set(file, r)
  console.log(`${list.length} files after ${Math.round((performance.now() - started) / 1000)} s`)
}
for (const [file, first] of [...total.byFile]) {
  if (first.failed === 0 || !files.includes(file)) continue
  console.log(`again, alone: ${file}`)
  const second = (await ava([file], 1)).of(file)
  if (second.passed + second.failed + second.skipped === 0) {
    second.failed++
    second.failures.push(`${file}: nothing was reported`)
  }
  total.byFile.set(file, second)
  if (second.failed === 0) console.log(`passed when run again alone: ${first.failures.join('; ')}`)
}
if (words.length === 0 && existsSync('build/src/lab/start.js')) await mainJob(total)

const all = [...total.byFile.values()]
const sum = (key) => all.reduce((n, r) => n + r[key], 0)
const failures = all.flatMap((r) => r.failures)
if (failures.length > 0) console.log(`\nFailures:\n${failures.map((f) => `  ${f}`).join('\n')}`)
console.log(`took ${Math.round((performance.now() - started) / 1000)} s`)
console.log(`${sum('passed')} passed, ${sum('failed')} failed, ${sum('skipped')} skipped`)
process.exit(sum('failed') > 0 || sum('passed') === 0 ? 1 : 0)
