import { execFileSync } from 'node:child_process'
import test from 'ava'
import { clock, Lab, type LabHost, nodes, ok, running, SHOALD, swarm, until, webImage } from './support.js'

/** The host's table of the routing mesh. */
const MESH = /shoal-cluster/

const namespaces = (h: LabHost): string[] =>
  execFileSync('sh', ['-c', `grep -F ' ${h.execRoot}/' /proc/self/mountinfo || true`], { encoding: 'utf8' })
    .split('\n')
    .flatMap((line) => line.split(' ')[4] ?? [])
const tables = (h: LabHost): string =>
  execFileSync('nsenter', [`--net=/run/netns/${h.netns}`, '/usr/sbin/nft', 'list', 'tables'], { encoding: 'utf8' })

async function terminate(l: Lab, h: LabHost): Promise<void> {
  process.kill(l.daemonPid(h), 'SIGTERM')
  await until('the daemon ended', 60, async () => !l.isUp(h))
}

const reached = (from: LabHost, to: LabHost): Promise<boolean> =>
  until(
    'the published port answers',
    30,
    async () =>
      execFileSync(
        'nsenter',
        [`--net=/run/netns/${from.netns}`, 'curl', '-sf', '-m', '2', `http://${to.address}:8080/`],
        { encoding: 'utf8' },
      ).length > 0,
  )

for (const liveRestore of [false, true])
  test.serial(
    liveRestore
      ? 'a manager that is terminated with live-restore leaves its tasks and their networks, and takes them up again'
      : 'a manager that is terminated leaves no namespace of a cluster network behind, and makes them anew',
    async (t) => {
      t.timeout(180_000)
      const l = await Lab.up(
        {
          name: liveRestore ? 'isl' : 'ist',
          subnet: '10.92.9',
          managers: 1,
          workers: 1,
          engine: SHOALD,
          engineFlags: liveRestore ? ['--live-restore'] : [],
        },
        clock,
        () => {},
      )
      try {
        const [m1, w1] = l.plan.hosts as readonly [LabHost, LabHost]
        await swarm(l)
        // What others dial, also for the manager whose own agent dials its own process.
        for (const h of [m1, w1]) {
          const [node] = (await nodes(m1)).filter((n) => n.Description.Hostname === h.name)
          t.is(node!.Status.Addr, h.address)
        }
        const image = await webImage(l, m1)
        await ok(m1, 'network', 'create', '-d', 'overlay', 'back')
        await ok(
          m1,
          ...['service', 'create', '-d', '--name', 'web', '--mode', 'global', '--network', 'back'],
          ...['--stop-grace-period', '1s', '--publish', '8080:80', '--no-resolve-image', image],
        )
        const before = await running(m1, 'web', 2, 60)
        await reached(w1, m1)
        t.regex(tables(m1), MESH)
        t.true(namespaces(m1).some((x) => /\/network\/netns\/ov-/.test(x)))
        await terminate(l, m1)
        if (liveRestore) t.true(namespaces(m1).some((x) => /\/network\/netns\/ov-/.test(x)))
        else {
          t.deepEqual(namespaces(m1), [])
          t.notRegex(tables(m1), MESH)
        }
        await l.startDaemon(m1)
        const after = await until('the tasks run', 60, () => running(m1, 'web', 2, 60))
        await reached(w1, m1)
        await reached(m1, w1)
        if (liveRestore)
          t.deepEqual(
            after.map((x) => x.Status.ContainerStatus!.PID).sort(),
            before.map((x) => x.Status.ContainerStatus!.PID).sort(),
          )
      } finally {
        await l.down()
      }
    },
  )
