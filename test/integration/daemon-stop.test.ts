// What becomes of containers when the daemon stops, and when host or daemon come back.
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test from 'ava'
import { call, clock, type LabHost, lab, ok, swarm, until, webImage } from './support.js'

interface State {
  Status: string
  Pid: number
  ExitCode: number
  FinishedAt: string
}
const stateOf = async (h: LabHost, name: string): Promise<State> =>
  (await call<{ State: State }>(h.socket, 'GET', `/containers/${name}/json`, { timeoutMs: 5000 })).State

function hasEnded(pid: number): boolean {
  try {
    return / Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return true
  }
}

/** SIGTERM, and the end of the process. */
async function stopDaemon(pid: number): Promise<void> {
  process.kill(pid, 'SIGTERM')
  await until('the daemon ends', 60, async () => hasEnded(pid))
}

test.serial(
  'containers end within the shutdown time-out, run on with live-restore, and come back to the networks of their cluster',
  async (t) => {
    t.timeout(240_000)
    const l = await lab('ids', '10.92.12', 1, 0)
    try {
      const h = l.plan.hosts[0] as LabHost
      const config = join(dirname(h.socket), 'daemon.json')
      const image = await webImage(l, h)
      await swarm(l)
      await ok(h, 'network', 'create', '-d', 'overlay', '--attachable', 'front')
      await ok(h, 'run', '-d', '--name', 'attached', '--restart', 'always', '--network', 'front', image)
      await ok(h, 'run', '-d', '--name', 'obeys', image, 'sh', '-c', 'trap "exit 7" TERM; while :; do sleep 0.1; done')
      await ok(h, 'run', '-d', '--name', 'deaf', image, 'sh', '-c', 'trap "" TERM; while :; do sleep 0.1; done')
      await ok(h, 'run', '-d', '--name', 'unless', '--restart', 'unless-stopped', image, 'sleep', '1000')
      await ok(h, 'run', '-d', '--name', 'by-hand', '--restart', 'unless-stopped', image, 'sleep', '1000')
      await ok(h, 'stop', '-t', '0', 'by-hand')

      // With live-restore nothing is touched; without, each gets its signal, and SIGKILL after the daemon's time-out.
      writeFileSync(config, JSON.stringify({ 'live-restore': true, 'shutdown-timeout': 3 }))
      await l.killDaemon(h)
      await l.startDaemon(h)
      const before = await Promise.all(['attached', 'obeys', 'deaf', 'unless'].map((n) => stateOf(h, n)))
      await stopDaemon(l.daemonPid(h))
      await l.startDaemon(h)
      const after = await Promise.all(['attached', 'obeys', 'deaf', 'unless'].map((n) => stateOf(h, n)))
      t.deepEqual(
        after.map((s) => [s.Status, s.Pid]),
        before.map((s) => ['running', s.Pid]),
      )

      writeFileSync(config, JSON.stringify({ 'live-restore': false, 'shutdown-timeout': 3 }))
      await l.killDaemon(h)
      await l.startDaemon(h)
      const { Pid } = await stateOf(h, 'deaf')
      const impatient = l.daemonPid(h)
      await until('the daemon ends at the third signal', 60, async () => {
        if (!hasEnded(impatient)) process.kill(impatient, 'SIGTERM')
        return hasEnded(impatient)
      })
      await l.startDaemon(h)
      t.like(await stateOf(h, 'deaf'), { Status: 'running', Pid }, 'it did not wait for it')
      const stoppedAt = clock.now()
      await stopDaemon(l.daemonPid(h))
      await l.startDaemon(h)
      t.like(await stateOf(h, 'obeys'), { Status: 'exited', ExitCode: 7 })
      const deaf = await stateOf(h, 'deaf')
      t.like(deaf, { Status: 'exited', ExitCode: 137 })
      t.true(Date.parse(deaf.FinishedAt) - stoppedAt >= 2900, 'SIGKILL comes after the time-out and not before')
      for (const name of ['attached', 'unless'])
        await until(`${name} is back`, 30, async () => (await stateOf(h, name)).Status === 'running')
      t.is((await stateOf(h, 'by-hand')).Status, 'exited')

      // The machine goes down: the container is wanted before the node has taken its place in the swarm again.
      await l.kill(h)
      await l.start(h)
      await until('the attached container is back', 30, async () => (await stateOf(h, 'attached')).Status === 'running')
      const networks = await ok(h, 'inspect', '-f', '{{json .NetworkSettings.Networks}}', 'attached')
      t.regex((JSON.parse(networks) as { front: { IPAddress: string } }).front.IPAddress, /^10\./)
    } finally {
      await l.down()
    }
  },
)
