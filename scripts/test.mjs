// npm test: every ava file, then the main job. Prints skipped tests with their reasons and ends with a line
// "N passed, N failed, N skipped". In CI a skip that is not for a missing kernel feature is a failure.
//
//   npm test                 all
//   npm test -- raft engine  only files whose path contains one of the words, without the main job
import { spawn } from 'node:child_process'
import { existsSync, globSync } from './glob.mjs'

const words = process.argv.slice(2)
const ci = process.env.CI === 'true' || process.env.CI === '1'
const files = globSync('build/test', /\.test\.js$/).filter(
  (f) => words.length === 0 || words.some((w) => f.includes(w)),
)
const counts = { passed: 0, failed: 0, skipped: 0 }
const failures = []

/** Runs ava over some files and reads its TAP output. */
async function ava(list, concurrency) {
  if (list.length === 0) return
  await new Promise((resolve) => {
    const p = spawn(
      process.execPath,
      ['node_modules/ava/entrypoints/cli.mjs', '--tap', '--concurrency', String(concurrency), ...list],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
        env: { ...process.env, FORCE_COLOR: '0' },
      },
    )
    let rest = ''
    let detail = null
    p.stdout.setEncoding('utf8')
    p.stdout.on('data', (text) => {
      const lines = (rest + text).split('\n')
      rest = lines.pop()
      for (const line of lines) {
        const m = /^(not ok|ok) \d+ - (.*?)(?: # (SKIP|TODO)(.*))?$/.exec(line)
        if (m) {
          detail = null
          if (m[3]) {
            counts.skipped++
            console.log(`skipped: ${m[2]}`)
            if (ci) {
              counts.failed++
              failures.push(
                `${m[2]}: skipped in the test file; skip at run time with a missing kernel feature as the reason instead`,
              )
            }
          } else if (m[1] === 'ok') counts.passed++
          else {
            counts.failed++
            failures.push(m[2])
            detail = m[2]
            console.log(`FAILED: ${m[2]}`)
          }
        } else if (/^# SKIPPED /.test(line.trim()) || /SKIPPED: /.test(line)) {
          // test/support/skip.ts logs this line: "SKIPPED: reason".
          counts.skipped++
          counts.passed--
          console.log(line.replace(/^#\s*/, '').trim())
          if (ci && !/missing kernel feature/.test(line)) {
            counts.failed++
            failures.push(line.trim())
          }
        } else if (detail && line.trim() !== '') console.log(`    ${line}`)
      }
    })
    p.on('exit', (code, signal) => {
      if (code !== 0 && counts.failed === 0) {
        counts.failed++
        failures.push(`ava ended with ${signal ?? code}`)
      }
      resolve()
    })
  })
}

async function mainJob() {
  console.log('main job: npm start -- --once')
  const code = await new Promise((resolve) => {
    const p = spawn(process.execPath, ['build/src/lab/start.js', '--once', '--name', 'test'], {
      stdio: ['ignore', 'inherit', 'inherit'],
    })
    p.on('exit', (c, s) => resolve(c ?? s))
  })
  if (code === 0) counts.passed++
  else {
    counts.failed++
    failures.push(`npm start -- --once ended with ${code}`)
  }
}

const started = performance.now()
// Whole daemons, namespaces and clusters want the machine for themselves; the rest runs two files at a time.
const heavy = files.filter((f) => /build\/test\/(integration|simulation)\//.test(f))
await ava(
  files.filter((f) => !heavy.includes(f)),
  2,
)
await ava(heavy, 1)
if (words.length === 0 && existsSync('build/src/lab/start.js')) await mainJob()
if (failures.length > 0) console.log(`\nFailures:\n${failures.map((f) => `  ${f}`).join('\n')}`)
console.log(`took ${Math.round((performance.now() - started) / 1000)} s`)
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
process.exit(counts.failed > 0 || counts.passed === 0 ? 1 : 0)
