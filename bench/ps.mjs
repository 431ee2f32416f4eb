// npm run bench -- ps [CONTAINERS] [N]: lists with 200 containers, by the command and by the API alone; ours and dockerd in turn.
import { call, docker, header, image, row, timed, withEngines } from './lib.mjs'

const count = Number(process.argv[2] ?? 200)
const n = Number(process.argv[3] ?? 15)
header(`lists with ${count} containers, a tenth of them running, ${n} pairs in turn`)
await withEngines({ managers: 1, workers: 0 }, async (engines) => {
  for (const e of engines) {
    e.host = e.lab.plan.hosts[0]
    e.image = await image(e.lab, e.host)
    for (let i = 0; i < count; i++) {
      const { Id } = await call(e.host.socket, 'POST', `/containers/create?name=c${i}`, {
        body: { Image: e.image, Cmd: ['sleep', '1d'], Labels: { number: String(i) }, ExposedPorts: { '80/tcp': {} } },
      })
      if (i % 10 === 0) await call(e.host.socket, 'POST', `/containers/${Id}/start`)
    }
  }
  const asked = async (e, path) => {
    const begun = performance.now()
    await call(e.host.socket, 'GET', path)
    return performance.now() - begun
  }
  const measures = {
    'docker ps -a': (e) => timed(e.host, 'ps', '-a'),
    'docker ps -aq': (e) => timed(e.host, 'ps', '-aq'),
    'GET /containers/json?all=1': (e) => asked(e, '/containers/json?all=1'),
    'GET the same with size=1': (e) => asked(e, '/containers/json?all=1&size=1'),
    'GET one by name filter': (e) =>
      asked(e, `/containers/json?all=1&filters=${encodeURIComponent('{"name":["c150"]}')}`),
  }
  docker(engines[0].host, 'ps', '-a')
  for (const [name, measure] of Object.entries(measures)) {
    const results = Object.fromEntries(engines.map((e) => [e.name, []]))
    for (const e of engines) await measure(e)
    for (let i = 0; i < n; i++) for (const e of engines) results[e.name].push(await measure(e))
    row(name, results)
  }
})
