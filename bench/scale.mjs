// npm run bench -- scale [ROUNDS]: a service from 0 to 30 tasks on a lab of five hosts, ours and dockerd in turn.
import { docker, header, image, row, running, swarm, withEngines } from './lib.mjs'

const rounds = Number(process.argv[2] ?? 3)
const replicas = 30
header(`service scale 0 to ${replicas} on 3 managers and 2 workers, ${rounds} rounds in turn`)
await withEngines({ managers: 3, workers: 2 }, async (engines) => {
  for (const e of engines) {
    e.host = e.lab.plan.hosts[0]
    await swarm(e.lab)
    e.image = await image(e.lab, e.host)
    for (const h of e.lab.plan.hosts) docker(h, 'pull', '-q', e.image)
    docker(
      e.host,
      'service',
      'create',
      '-d',
      '--name',
      'web',
      '--replicas',
      '0',
      '--stop-grace-period',
      '1s',
      e.image,
      'sleep',
      '1d',
    )
  }
  const results = Object.fromEntries(engines.map((e) => [e.name, []]))
  for (let i = 0; i < rounds; i++) {
    for (const e of engines) {
      const begun = performance.now()
      docker(e.host, 'service', 'scale', '-d', `web=${replicas}`)
      await running(e.host, 'web', replicas, 180)
      results[e.name].push((performance.now() - begun) / 1000)
      docker(e.host, 'service', 'scale', '-d', 'web=0')
      await running(e.host, 'web', 0, 180)
    }
  }
  row(`scale 0 to ${replicas}`, results, 's')
})
