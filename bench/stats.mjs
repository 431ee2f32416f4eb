// npm run bench -- stats [CONTAINERS] [N]: resource figures of running containers; ours and dockerd in turn.
import { call, clock, cpuSeconds, docker, header, image, row, withEngines } from './lib.mjs'

const count = Number(process.argv[2] ?? 20)
const n = Number(process.argv[3] ?? 15)
const STREAM_SECONDS = 10
header(`stats of ${count} running containers, ${n} pairs in turn`)

await withEngines({ managers: 1, workers: 0 }, async (engines) => {
  for (const e of engines) {
    e.host = e.lab.plan.hosts[0]
    e.image = await image(e.lab, e.host)
    e.ids = Array.from({ length: count }, () => docker(e.host, 'run', '-d', e.image, 'sleep', '1d'))
  }
  const all = async (e, query) => {
    const begun = performance.now()
    await Promise.all(e.ids.map((id) => call(e.host.socket, 'GET', `/containers/${id}/stats?${query}`)))
    return performance.now() - begun
  }
  const results = Object.fromEntries(engines.map((e) => [e.name, []]))
  for (const e of engines) await all(e, 'stream=0&one-shot=1')
  for (let i = 0; i < n; i++) for (const e of engines) results[e.name].push(await all(e, 'stream=0&one-shot=1'))
  row(`one-shot of all ${count}`, results)

  // The same figures as streams, one a second for each container: what that costs the engine.
  const streamed = Object.fromEntries(engines.map((e) => [e.name, []]))
  for (const e of engines) {
    const { request } = await import('node:http')
    const open = e.ids.map((id) =>
      request({ socketPath: e.host.socket, path: `/containers/${id}/stats?stream=1` }, (res) => res.resume()).end(),
    )
    for (const r of open) r.on('error', () => {}) // destroyed below
    await clock.sleep(2000)
    const before = cpuSeconds(e.host)
    await clock.sleep(STREAM_SECONDS * 1000)
    streamed[e.name].push(((cpuSeconds(e.host) - before) / STREAM_SECONDS) * 1000)
    for (const r of open) r.destroy()
  }
  row(`cpu a second for ${count} streams`, streamed)
})
