// npm run bench -- memory [CONTAINERS]: memory of an engine's own processes (PSS) with idle containers, ours and dockerd.
import { readFileSync } from 'node:fs'
import { processesIn } from '../build/src/lab/kernel.js'
import { clock, docker, header, image, withEngines } from './lib.mjs'

const count = Number(process.argv[2] ?? 50)
const SETTLE_MS = 5000
header(`resident memory (PSS) with ${count} idle containers`)

/** Program name → [processes, PSS in MB], of everything in the host's group that is not a container's own. */
function memory(host) {
  const theirs = new Set(processesIn(`${host.cgroup}/containers`))
  const by = new Map()
  for (const pid of processesIn(host.cgroup)) {
    if (theirs.has(pid)) continue
    try {
      const pss = Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))[1]) / 1024
      const name = readFileSync(`/proc/${pid}/comm`, 'utf8').trim()
      const [n, sum] = by.get(name) ?? [0, 0]
      by.set(name, [n + 1, sum + pss])
    } catch {
      // Ended meanwhile.
    }
  }
  return by
}

await withEngines({ managers: 1, workers: 0 }, async (engines) => {
  const totals = {}
  for (const e of engines) {
    e.host = e.lab.plan.hosts[0]
    const name = await image(e.lab, e.host)
    for (let i = 0; i < count; i++) docker(e.host, 'run', '-d', name, 'sleep', '1d')
  }
  await clock.sleep(SETTLE_MS)
  for (const e of engines) {
    const by = memory(e.host)
    totals[e.name] = [...by.values()].reduce((n, [, mb]) => n + mb, 0)
    const parts = [...by].map(([name, [n, mb]]) => `${n} ${name} ${mb.toFixed(1)}`)
    console.log(`${e.name.padEnd(8)} ${totals[e.name].toFixed(1)} MB: ${parts.join(', ')}`)
  }
  const [a, b] = Object.values(totals)
  if (b) console.log(`ratio ${(a / b).toFixed(3)}`)
})
