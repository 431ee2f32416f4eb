// npm run soak -- native [AT_ONCE=200] [CYCLES=1000]: containers started all at once, then start-stop cycles one after the other, with
// what the machine holds before and after. What carries this program's name must be gone; the machine's own counts are printed.
import { readdirSync, readFileSync, readlinkSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { cgroupFolders, makeConfig, makeDir, makeImage, removeDir, TestContainer, traces } from './kit.js'

const [atOnce = 200, cycles = 1000] = process.argv.slice(2).map(Number)
if (process.getuid?.() !== 0) {
  console.log('skipped: containers need root')
  process.exit(0)
}

const own = `native-test-${process.pid}`

function countCgroups(): number {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((l) => / - cgroup2? /.test(l))
    .map((l) => l.split(' ')[4]!)
  let n = 0
  const walk = (dir: string): void => {
    for (const e of readdirSync(dir, { withFileTypes: true }))
      if (e.isDirectory()) {
        n++
        try {
          walk(join(dir, e.name))
        } catch {} // removed meanwhile by its owner
      }
  }
  for (const m of mounts) walk(m)
  return n
}

function machine(): string {
  const pids = readdirSync('/proc').filter((p) => /^\d+$/.test(p))
  const spaces = new Set<string>()
  let zombies = 0
  for (const pid of pids) {
    try {
      spaces.add(readlinkSync(`/proc/${pid}/ns/net`))
      if (/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))) zombies++
    } catch {} // ended meanwhile
  }
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').trim().split('\n').length
  return `mounts ${mounts}, cgroups ${countCgroups()}, processes ${pids.length} (${zombies} zombies), network namespaces ${spaces.size}, own descriptors ${readdirSync('/proc/self/fd').length}`
}

const base = makeDir('soak')
const image = makeImage(join(base, 'image'))
let failed = 0
const expect = (ok: boolean, what: string): void => {
  if (ok) return
  failed++
  console.log(`FAILED: ${what}`)
}

async function one(i: number): Promise<void> {
  const status = i % 120
  const c = new TestContainer(base, image, makeConfig(['/bin/sh', '-c', `echo ${i}; exit ${status}`]))
  const exit = await c.run()
  expect(exit['exitCode'] === status, `container ${i}: ${JSON.stringify(exit)}`)
  expect(c.log() === `${i}\n`, `log of container ${i}: ${JSON.stringify(c.log())}`)
  expect(cgroupFolders(c.cgroup).length === 0, `cgroups of container ${i}`)
  await removeDir(c.dir)
}

// A pending wait does not keep Node alive.
const alive = setInterval(() => {}, 1000)
try {
  // The first container loads the addon and makes the parent cgroup.
  await one(0)
  console.log(`before: ${machine()}`)
  const cpu = process.cpuUsage()
  await Promise.all(Array.from({ length: atOnce }, (_, i) => one(i)))
  console.log(`${atOnce} at once: ${machine()}`)
  for (let i = 0; i < cycles; i++) await one(i)
  console.log(`${cycles} cycles: ${machine()}`)
  console.log(`CPU of this process ${(process.cpuUsage(cpu).user / 1e6).toFixed(1)} s`)
  const left = traces(own)
  expect(left.length === 0, `left behind: ${left.join('; ')}`)
  expect(readdirSync(base).length === 1, `files left: ${readdirSync(base).join(' ')}`)
} finally {
  clearInterval(alive)
  for (const folder of cgroupFolders(`/${own}`)) rmdirSync(folder)
  await removeDir(base)
}
console.log(failed === 0 ? 'nothing was left behind, every status was right' : `${failed} failures`)
process.exit(failed === 0 ? 0 : 1)
