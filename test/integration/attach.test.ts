import test from 'ava'
import { call, docker, type LabHost, lab, ok, running, swarm, until, webImage } from './support.js'

interface Attached {
  readonly ID: string
  readonly Spec: { readonly NetworkAttachmentSpec?: { readonly ContainerID: string } }
}
const attachments = (h: LabHost): Promise<Attached[]> =>
  call<Attached[]>(h.socket, 'GET', `/tasks?filters=${encodeURIComponent('{"runtime":["attachment"]}')}`)

test.serial('single containers join an attachable network of the cluster, on a manager and on a worker', async (t) => {
  t.timeout(300_000)
  const l = await lab('iat', '10.92.7', 1, 1)
  try {
    const [m1, w1] = l.plan.hosts as [LabHost, LabHost]
    await swarm(l)
    const image = await webImage(l, m1)
    await ok(w1, 'pull', image)
    await ok(m1, 'network', 'create', '-d', 'overlay', '--attachable', 'open')
    await ok(m1, 'network', 'create', '-d', 'overlay', 'closed')
    await ok(m1, 'service', 'create', '-d', '--name', 'web', '--network', 'open', '--stop-grace-period', '1s', image)
    await running(m1, 'web', 1, 60)

    for (const h of [m1, w1]) {
      const refused = await docker(h, ['run', '--rm', '--network', 'closed', image, 'true'])
      t.is(refused.status, 125)
      t.regex(
        refused.stderr,
        /Could not attach to network closed: rpc error: code = PermissionDenied desc = network closed not manually attachable/,
      )
      const unknown = await docker(h, ['run', '--rm', '--network', 'nowhere', image, 'true'])
      t.regex(unknown.stderr, /network nowhere not found/)
    }

    const a = await ok(m1, 'run', '-d', '--name', 'aa', '--network', 'open', '--network-alias', 'first', image)
    await ok(w1, 'run', '-d', '--name', 'bb', '--network', 'open', image)
    const fetches = (h: LabHost, from: string, name: string): Promise<true> =>
      until(`${from} fetches from ${name}`, 30, async () => {
        const r = await docker(h, ['exec', from, 'timeout', '3', 'wget', '-q', '-O', '-', `http://${name}/`])
        if (r.status !== 0) throw new Error(`${r.status}: ${r.stderr.trim()}`)
        return true as const
      })
    for (const name of ['aa', 'first', 'web']) t.true(await fetches(w1, 'bb', name))
    for (const name of ['bb', 'web']) t.true(await fetches(m1, 'aa', name))
    t.is((await attachments(m1)).length, 2)

    // A stop gives the address back, a start gets one again.
    await ok(m1, 'stop', '-t', '1', 'aa')
    await until('the attachment of a is gone', 20, async () => (await attachments(m1)).length === 1)
    await ok(m1, 'start', 'aa')
    t.true(await fetches(w1, 'bb', 'aa'))
    await ok(m1, 'run', '-d', '--name', 'cc', image)
    await ok(m1, 'network', 'connect', '--alias', 'third', 'open', 'cc')
    t.true(await fetches(w1, 'bb', 'third'))
    await ok(m1, 'network', 'disconnect', 'open', 'cc')

    // A killed daemon leaves the container on the network, and the next one knows whose address it is.
    await l.killDaemon(m1)
    await l.startDaemon(m1)
    t.true(await fetches(w1, 'bb', 'aa'))
    t.true((await attachments(m1)).some((x) => x.Spec.NetworkAttachmentSpec?.ContainerID === a))
    const inUse = await docker(m1, ['network', 'rm', 'open'])
    t.not(inUse.status, 0)

    await ok(m1, 'rm', '-f', 'aa', 'cc')
    await ok(w1, 'rm', '-f', 'bb')
    await ok(m1, 'service', 'rm', 'web')
    await until('no attachment is left', 30, async () => (await attachments(m1)).length === 0)
    await until('the network can go', 30, async () => (await docker(m1, ['network', 'rm', 'open'])).status === 0)
  } finally {
    await l.down()
  }
})
