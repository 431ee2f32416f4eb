// npm run bench -- run [N]: one container from create to exit, through the stock docker command, ours and dockerd in turn.
import { docker, header, image, row, timed, withEngines } from './lib.mjs'

const n = Number(process.argv[2] ?? 15)
header(`container create to exit, ${n} pairs in turn`)
await withEngines({ managers: 1, workers: 0 }, async (engines) => {
  for (const e of engines) {
    e.host = e.lab.plan.hosts[0]
    e.image = await image(e.lab, e.host)
    docker(e.host, 'run', '-d', '--name', 'keep', e.image, 'sleep', '1d')
  }
  const measures = {
    'run --rm IMAGE true': (e) => timed(e.host, 'run', '--rm', e.image, 'true'),
    'start -a of a created one': (e, i) => {
      docker(e.host, 'create', '--name', `s${i}`, e.image, 'true')
      const ms = timed(e.host, 'start', '-a', `s${i}`)
      docker(e.host, 'rm', `s${i}`)
      return ms
    },
    'exec in a running one': (e) => timed(e.host, 'exec', 'keep', 'true'),
    'ps -a': (e) => timed(e.host, 'ps', '-a'),
  }
  for (const [name, measure] of Object.entries(measures)) {
    const results = Object.fromEntries(engines.map((e) => [e.name, []]))
    for (const e of engines) measure(e, 'warm')
    for (let i = 0; i < n; i++) for (const e of engines) results[e.name].push(measure(e, i))
    row(name, results)
  }
})
