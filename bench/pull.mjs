// npm run bench -- pull [N]: 300 MB in 20 layers from a local registry, to the moment the command ends, ours and dockerd in turn.
import { makeImage, plant } from './layers.mjs'
import { cpuSeconds, docker, header, row, timed, withEngines } from './lib.mjs'

const n = Number(process.argv[2] ?? 5)
const image = await makeImage({ megabytes: 300, layers: 20, seed: 1 })
header(`pull of 300 MB in 20 layers (${(image.bytes / 1e6).toFixed(0)} MB packed), ${n} pairs in turn`)
await withEngines({ managers: 1, workers: 0 }, async (engines) => {
  for (const e of engines) {
    e.host = e.lab.plan.hosts[0]
    e.image = plant(e.lab, 'big', image)
  }
  const pull = (e) => {
    const before = cpuSeconds(e.host)
    const ms = timed(e.host, 'pull', '-q', e.image)
    const cpuMs = (cpuSeconds(e.host) - before) * 1000
    docker(e.host, 'rmi', e.image)
    return { ms, cpuMs }
  }
  const results = Object.fromEntries(engines.map((e) => [e.name, []]))
  for (const e of engines) pull(e)
  for (let i = 0; i < n; i++) for (const e of engines) results[e.name].push(pull(e))
  const of = (what) => Object.fromEntries(Object.entries(results).map(([name, all]) => [name, all.map((r) => r[what])]))
  row('pull and unpack', of('ms'))
  row('its processor time', of('cpuMs'))
})
