// npm run bench -- failover: the leader's host is switched off; time until a write is accepted, and for a worker until all
// its tasks run elsewhere. Ours, then dockerd.
import { call, DOCKERD, docker, header, image, row, running, SHOALD, swarm, until, withLab } from './lib.mjs'

header('leader loss and worker loss on 3 managers and 2 workers')
const write = {}
const tasks = {}
for (const [name, engine] of [['shoal', SHOALD], ...(DOCKERD ? [['dockerd', DOCKERD]] : [])]) {
  await withLab(
    {
      name: name === 'shoal' ? 'bs' : 'bd',
      subnet: name === 'shoal' ? '10.89.1' : '10.89.2',
      managers: 3,
      workers: 2,
      engine,
    },
    async (lab) => {
      const [m1, m2] = lab.plan.hosts
      const w2 = lab.plan.hosts.at(-1)
      await swarm(lab)
      const img = await image(lab, m1)
      docker(
        m1,
        'service',
        'create',
        '-d',
        '--name',
        'web',
        '--replicas',
        '10',
        '--stop-grace-period',
        '1s',
        img,
        'sleep',
        '1d',
      )
      await running(m1, 'web', 10, 120)
      let begun = performance.now()
      await lab.kill(w2)
      await until('all tasks run elsewhere', 120, async () => {
        const nodes = await call(m1.socket, 'GET', '/nodes')
        const down = nodes.find((n) => n.Status.State === 'down')
        return down && (await running(m1, 'web', 10, 1)).every((t) => t.NodeID !== down.ID)
      })
      tasks[name] = [(performance.now() - begun) / 1000]
      begun = performance.now()
      await lab.kill(m1)
      let n = 0
      await until(
        'a write is accepted',
        120,
        async () => docker(m2, 'service', 'update', '-d', '--label-add', `n=${n++}`, 'web') !== '',
      )
      write[name] = [(performance.now() - begun) / 1000]
    },
  )
}
row('worker off to all running', tasks, 's')
row('leader off to write accepted', write, 's')
