// npm run bench -- ps [CONTAINERS] [N]: lists with 200 containers, by the command and by the API alone, ours and dockerd in turn;
// then the shoal command beside a Node that does nothing.
import { spawnSync } from 'node:child_process'
import { call, DOCKER, docker, header, image, median, row, timed, withEngines } from './lib.mjs'

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
  const medians = {}
  for (const [name, measure] of Object.entries(measures)) {
    const results = Object.fromEntries(engines.map((e) => [e.name, []]))
    for (const e of engines) await measure(e)
    for (let i = 0; i < n; i++) for (const e of engines) results[e.name].push(await measure(e))
    row(name, results)
    medians[name] = Object.values(results).map(median)
  }

  // The certificates that this variable names are read at each start of Node, whatever it runs: up to 40 ms.
  const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env
  const alone = (command, args) => {
    const begun = performance.now()
    const r = spawnSync(command, args, { env: { ...env, DOCKER_HOST: `unix://${engines[0].host.socket}` } })
    if (r.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${r.stderr || r.error?.message}`)
    return performance.now() - begun
  }
  const commands = {
    docker: () => alone(DOCKER, ['--version']),
    shoal: () => alone('bin/shoal', ['ps', '-a']),
    node: () => alone(process.execPath, ['-e', '0']),
  }
  const took = Object.fromEntries(Object.keys(commands).map((c) => [c, []]))
  for (const c of Object.values(commands)) c()
  for (let i = 0; i < n; i++) for (const [c, run] of Object.entries(commands)) took[c].push(run())
  row('docker --version', { 'start alone': took.docker })
  const start = median(took.docker)
  const of = (what, values) =>
    console.log(
      `${what.padEnd(28)} ${engines.map((e, i) => `${e.name} ${values[i].toFixed(1)} ms`).join('   ')}${values.length > 1 ? `  ratio ${(values[0] / values[1]).toFixed(3)}` : ''}`,
    )
  const command = medians['docker ps -a']
  const answer = medians['GET /containers/json?all=1']
  of(
    'docker ps -a less its start',
    command.map((ms) => ms - start),
  )
  // The command's own work with the answer, the same for both: no engine can make the command faster than this.
  of(
    'docker ps -a less the answer',
    command.map((ms, i) => ms - answer[i]),
  )
  row('shoal ps -a', { shoal: took.shoal, 'node -e 0': took.node })
})
