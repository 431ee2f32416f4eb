// npm run bench -- logs [MIB] [N]: output of a container into its log (json-file), and the log read back; ours and dockerd in turn.
import { docker, header, image, row, timed, withEngines } from './lib.mjs'

const mib = Number(process.argv[2] ?? 1024)
const n = Number(process.argv[3] ?? 1)
header(`${mib} MiB of container output in lines of 100 bytes, ${n} pairs in turn`)
await withEngines({ managers: 1, workers: 0 }, async (engines) => {
  const write = `yes ${'x'.repeat(99)} | head -c ${mib * 1024 * 1024}`
  for (const e of engines) {
    e.host = e.lab.plan.hosts[0]
    e.image = await image(e.lab, e.host)
  }
  const names = ['written to the log', 'last 100,000 lines read']
  const results = Object.fromEntries(names.map((x) => [x, Object.fromEntries(engines.map((e) => [e.name, []]))]))
  for (let i = 0; i < n; i++)
    for (const e of engines) {
      docker(e.host, 'create', '--name', 'writer', '--log-driver', 'json-file', e.image, 'sh', '-c', write)
      const begun = performance.now()
      docker(e.host, 'start', 'writer')
      docker(e.host, 'wait', 'writer')
      results[names[0]][e.name].push((performance.now() - begun) / 1000)
      results[names[1]][e.name].push(timed(e.host, 'logs', '--tail', '100000', 'writer') / 1000)
      docker(e.host, 'rm', 'writer')
    }
  for (const x of names) row(x, results[x], 's')
})
