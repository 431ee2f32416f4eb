import { readFileSync } from 'node:fs'
import test from 'ava'
import { processesIn } from '../../src/lab/kernel.js'
import { clock, docker, type LabHost, lab, nodes, ok, running, swarm, tasks, until, webImage } from './support.js'

/** Containers' processes of a host that run a command, seen from outside: what really runs. */
const runningCommands = (h: LabHost, command: string): number =>
  processesIn(`${h.cgroup}/containers`).filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim() === command
    } catch {
      return false
    }
  }).length

test.serial(
  'five hosts: what the managers say is what runs, through the loss of a leader and of a worker',
  async (t) => {
    t.timeout(400_000)
    const l = await lab('icl', '10.92.1', 3, 2)
    try {
      const [m1, m2, m3, , w2] = l.plan.hosts as [LabHost, LabHost, LabHost, LabHost, LabHost]
      await swarm(l)
      const image = await webImage(l, m1)

      await ok(
        m2,
        'service',
        'create',
        '-d',
        '--name',
        'web',
        '--replicas',
        '10',
        '--stop-grace-period',
        '1s',
        image,
        'sleep',
        '12345',
      )
      await running(m1, 'web', 10, 60)
      t.regex(await ok(m3, 'service', 'ls', '--format', '{{.Name}} {{.Replicas}}'), /^web 10\/10$/)
      await ok(m1, 'service', 'scale', '-d', 'web=30')
      const thirty = await running(m1, 'web', 30, 90)
      const hostname = new Map((await nodes(m1)).map((n) => [n.ID, n.Description.Hostname]))
      for (const h of l.plan.hosts) {
        const told = thirty.filter((x) => hostname.get(x.NodeID) === h.name).length
        t.is(told, 6, `${h.name}: 30 tasks spread evenly over 5 hosts`)
        t.is(runningCommands(h, 'sleep 12345'), told, `${h.name}: processes that run`)
      }
      t.is((await ok(m1, 'service', 'ps', '-q', '-f', 'desired-state=running', 'web')).split('\n').length, 30)
      t.is(
        (await ok(m1, 'node', 'ls', '--format', '{{.Hostname}} {{.Status}}'))
          .split('\n')
          .filter((x) => x.endsWith('Ready')).length,
        5,
      )

      // A worker is switched off: everything runs again elsewhere within 20 s.
      const w2Id = [...hostname].find(([, name]) => name === w2.name)![0]
      let begun = clock.monotonic()
      await l.kill(w2)
      const moved = await until('all run elsewhere', 60, async () => {
        const all = (await tasks(m1, 'web')).filter((x) => x.DesiredState === 'running')
        return all.length === 30 && all.every((x) => x.Status.State === 'running' && x.NodeID !== w2Id) ? all : null
      })
      t.log(`worker off to all running: ${((clock.monotonic() - begun) / 1000).toFixed(2)} s`)
      t.true((await nodes(m1)).some((n) => n.ID === w2Id && n.Status.State === 'down'))
      t.is(moved.filter((x) => thirty.some((y) => y.ID === x.ID)).length, 24, 'tasks on living hosts were left alone')

      // The leader is switched off: another one takes writes, and no task of a living host is touched.
      const leader = l.host((await nodes(m1)).find((n) => n.ManagerStatus?.Leader)!.Description.Hostname)
      const other = [m1, m2, m3].find((h) => h !== leader)!
      const leaderId = [...hostname].find(([, name]) => name === leader.name)![0]
      const kept = moved.filter((x) => x.NodeID !== leaderId)
      begun = clock.monotonic()
      await l.kill(leader)
      await until(
        'a write is accepted',
        30,
        async () =>
          (await docker(other, ['service', 'update', '-d', '--label-add', 'after=loss', 'web'], { timeoutMs: 5000 }))
            .status === 0,
      )
      t.log(`leader off to write accepted: ${((clock.monotonic() - begun) / 1000).toFixed(2)} s`)
      const after = await until('all run again', 60, async () => {
        const all = (await tasks(other, 'web')).filter((x) => x.DesiredState === 'running')
        return all.length === 30 && all.every((x) => x.Status.State === 'running' && x.NodeID !== leaderId) ? all : null
      })
      for (const x of kept) {
        const same = after.find((y) => y.ID === x.ID)
        const now = same ?? (await tasks(other, 'web')).find((y) => y.ID === x.ID)
        t.is(
          same?.Status.ContainerStatus?.PID,
          x.Status.ContainerStatus?.PID,
          `task ${x.Slot} on ${hostname.get(x.NodeID)} was left alone; it is now ${JSON.stringify(now?.Status)}, wanted ${now?.DesiredState}`,
        )
      }

      // Both come back, and are nodes like before.
      await l.start(leader)
      await l.start(w2)
      await until('all five are ready again', 60, async () =>
        (await nodes(other)).every((n) => n.Status.State === 'ready'),
      )
      await ok(other, 'service', 'rm', 'web')
      await until('nothing of the service runs', 60, async () =>
        l.plan.hosts.every((h) => runningCommands(h, 'sleep 12345') === 0),
      )
    } finally {
      await l.down()
    }
  },
)
