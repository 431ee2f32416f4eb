// Local networks of one host, in real namespaces.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { loadNetNative } from '../../src/overlay/native.js'
import { Lab, whyNoLab } from './support/lab.js'

const reason = await whyNoLab()
if (reason) console.log(`skipped: ${reason}`)
const run = reason ? test.serial.skip : test.serial

run(
  'a container on the default bridge is reached through its published port, sees its client, and reaches out',
  async (t) => {
    const lab = await Lab.open(1)
    t.teardown(() => lab.close())
    const [h] = lab.hosts as [Lab['hosts'][0]]
    await h.start()
    const bridge = await h.service.findNetwork('bridge')
    const a = await h.container('a', bridge.id)
    const b = await h.container('b', bridge.id)
    await lab.serve(a.netns, 'a', 80)
    const ports = await h.service.publish(a.id, [
      { containerPort: 80, protocol: 'tcp', hostIp: '', hostPort: 8080 },
      { containerPort: 80, protocol: 'udp', hostIp: '', hostPort: 8080 },
      { containerPort: 80, protocol: 'tcp', hostIp: '127.0.0.1', hostPort: 8081 },
      { containerPort: 80, protocol: 'tcp', hostIp: '', hostPort: 0 },
    ])
    t.is(ports.length, 4)
    t.true(ports[3]!.hostPort >= 32768)
    const hostIp = h.address
    t.deepEqual(await lab.get(b.netns, a.endpoint.ipv4Address, 80), {
      answers: [`a ${b.endpoint.ipv4Address}`],
      error: null,
    })
    t.deepEqual(await lab.get(lab.outside, hostIp, 8080, 3), { answers: Array(3).fill('a 10.88.0.100'), error: null })
    t.deepEqual((await lab.udp(lab.outside, hostIp, 8080)).answers, ['a 10.88.0.100'])
    t.is((await lab.get(lab.outside, hostIp, ports[3]!.hostPort)).error, null)
    t.is((await lab.get(h.netns, '127.0.0.1', 8080)).error, null)
    t.is((await lab.get(h.netns, hostIp, 8080)).error, null)
    t.is((await lab.get(h.netns, '127.0.0.1', 8081)).error, null)
    t.is((await lab.get(lab.outside, hostIp, 8081)).error, 'ECONNREFUSED')
    t.is((await lab.get(a.netns, hostIp, 8080)).error, null, 'to itself by the published port')
    t.is((await lab.get(b.netns, hostIp, 8080)).error, null, 'from its neighbour by the published port')
    await lab.serve(lab.outside, 'out', 99)
    t.deepEqual(await lab.get(a.netns, '10.88.0.100', 99), { answers: [`out ${hostIp}`], error: null })
    const native = loadNetNative()
    const { dev } = (await native.netAddresses(h.netns)).find((x) => x.address === hostIp)!
    await native.netLink(h.netns, [{ op: 'addrAdd', dev, address: '10.88.0.77', prefix: 24 }])
    const shown = await h.network('shown', { options: { 'com.docker.network.host_ipv4': '10.88.0.77' } })
    const c = await h.container('c', shown.id)
    t.deepEqual(await lab.get(c.netns, '10.88.0.100', 99), { answers: ['out 10.88.0.77'], error: null })
    await h.service.deleteSandbox(c.id)
    await h.service.removeNetwork(shown.id)

    const next = ports[3]!.hostPort + 1
    const inTurn = await h.service.publish(b.id, [
      { containerPort: 80, protocol: 'tcp', hostIp: '', hostPort: 0 },
      { containerPort: 81, protocol: 'tcp', hostIp: '', hostPort: next },
    ])
    t.true(inTurn[0]!.hostPort > next, 'a port that was asked for is not given to who takes any')
    t.is(inTurn[1]!.hostPort, next)
    await h.service.publish(b.id, [])

    const taken = await t.throwsAsync(
      h.service.publish(b.id, [{ containerPort: 80, protocol: 'tcp', hostIp: '', hostPort: 8080 }]),
    )
    t.like(taken, { kind: 'conflict', code: 'portInUse' })
    t.regex(taken!.message, /0\.0\.0\.0:8080/)
    await lab.serve(h.netns, 'foreign', 7070)
    t.like(
      await t.throwsAsync(
        h.service.publish(b.id, [{ containerPort: 80, protocol: 'tcp', hostIp: '', hostPort: 7070 }]),
      ),
      { code: 'portInUse' },
    )
    t.regex(readFileSync(join(a.files, 'hosts'), 'utf8'), new RegExp(`^${a.endpoint.ipv4Address}\ta$`, 'm'))

    await h.service.publish(a.id, [])
    t.is((await lab.get(lab.outside, hostIp, 8080)).error, 'ECONNREFUSED')
    await h.service.deleteSandbox(a.id)
    await h.service.deleteSandbox(b.id)
    await h.service.deleteSandbox(b.id)
    const left = await lab.leftovers(h)
    t.deepEqual(left.links, ['docker0'])
    t.deepEqual(left.namespaces, [])
  },
)
