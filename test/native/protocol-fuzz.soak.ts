// npm run soak -- protocol-fuzz [CLIENTS=5000] [SEED=1]: hostile clients against the shim built with AddressSanitizer and
// UndefinedBehaviorSanitizer (make -C native sanitized; SHOAL_TEST_SHIM names another build). They may also end the container, which is
// then started anew. A report of a sanitizer, a shim that ends otherwise than its container, or one that hangs is a failure.
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { attack } from './fuzz-frames.js'
import { bin, cgroupFolders, makeConfig, makeDir, makeImage, removeDir, TestContainer, traces } from './kit.js'

const [clients = 5000, first = 1] = process.argv.slice(2).map(Number)
process.env['SHOAL_TEST_SHIM'] ??= 'shoal-shim-san'
if (process.getuid?.() !== 0) throw new Error('protocol-fuzz needs root')
execFileSync('make', ['-s', '-C', 'native', 'sanitized'], { stdio: 'inherit' })
const base = makeDir('frames')
const image = makeImage(join(base, 'image'))
const alive = setInterval(() => {}, 1000)
let containers = 0
try {
  let c: TestContainer | undefined
  const finish = async (): Promise<void> => {
    if (!c) return
    if (existsSync(join(c.dir, 'shim.sock'))) {
      let answer: unknown
      try {
        const s = await c.connect()
        answer = await s.ask({ op: 'delete', force: true })
        s.close()
      } catch (e) {
        answer = e // it may be ending by itself at this moment
      }
      await c.ended().catch((e: Error) => {
        throw new Error(
          `clients before ${seed}: ${e.message}; delete: ${answer instanceof Error ? answer.message : JSON.stringify(answer)}`,
        )
      })
    }
    await c.ended()
    const log = readFileSync(join(c.dir, 'shim.log'), 'utf8')
    if (/Sanitizer|runtime error/.test(log)) throw new Error(`clients before ${seed}: ${log}`)
    if (!c.has('exit.json')) throw new Error(`clients before ${seed}: the shim ended without a record\n${log}`)
    const left = [...traces(c.id), ...cgroupFolders(c.cgroup)]
    if (left.length) throw new Error(`clients before ${seed}: left behind ${left.join(' ')}`)
    await removeDir(c.dir)
    c = undefined
  }
  let seed = first
  for (; seed < first + clients; seed += 4) {
    if (!c) {
      containers++
      c = new TestContainer(base, image, makeConfig(['/bin/sh', '-c', 'while :; do echo tick; sleep 0.05; done']), {
        stdin: true,
      })
      await c.start()
    }
    const target = c
    await Promise.all([0, 1, 2, 3].map((k) => attack(target, seed + k, seed % 16 === 1)))
    // All that they sent is dealt with before the next ones come, or the work would pile up for minutes.
    const ping = await c.connect().catch((e: Error) => e)
    if (!(ping instanceof Error)) ping.close()
    // A hundred clients to a container at most: the end is fuzzed too.
    if (c.has('exit.json') || !c.has('shim.sock') || seed % 100 === 1) await finish()
  }
  await finish()
  console.log(`${clients} clients against ${bin('shoal-shim')}, ${containers} containers, nothing failed`)
} catch (e) {
  console.log(`FAILED: ${(e as Error).stack}`)
  console.log(`the container's folder stays: ${base}`)
  process.exit(1)
} finally {
  clearInterval(alive)
  for (const folder of cgroupFolders(`/native-test-${process.pid}`)) rmdirSync(folder)
  await removeDir(base)
}
