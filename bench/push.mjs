// npm run bench -- push [N]: 300 MB in 20 layers to an empty local registry, and again when all is there; ours and dockerd in turn.
import { emptyRegistry, makeImage, plant } from './layers.mjs'
import { docker, header, row, timed, withEngines } from './lib.mjs'

const n = Number(process.argv[2] ?? 5)
const image = await makeImage({ megabytes: 300, layers: 20, seed: 1 })
header(`push of 300 MB in 20 layers, ${n} pairs in turn`)
await withEngines({ managers: 1, workers: 0 }, async (engines) => {
  for (const e of engines) {
    e.host = e.lab.plan.hosts[0]
    e.image = plant(e.lab, 'big', image)
    docker(e.host, 'pull', '-q', e.image)
  }
  const results = {
    'push, nothing is there': Object.fromEntries(engines.map((e) => [e.name, []])),
    'push, all is there': Object.fromEntries(engines.map((e) => [e.name, []])),
  }
  for (let i = 0; i < n; i++)
    for (const e of engines) {
      emptyRegistry(e.lab)
      const [first, second] = Object.values(results)
      first[e.name].push(timed(e.host, 'push', '-q', e.image))
      second[e.name].push(timed(e.host, 'push', '-q', e.image))
    }
  for (const [name, r] of Object.entries(results)) row(name, r)
})
