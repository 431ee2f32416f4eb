// What the suites of moby and of client libraries look for in answers: statuses, words, and files that are there in time.
import test, { type ExecutionContext } from 'ava'
import { ask } from './raw-http.js'
import { call, type Lab, type LabHost, lab, ok, webImage } from './support.js'

let l: Lab
let m1: LabHost
let image: string

test.before(async () => {
  l = await lab('ics', '10.92.6', 1, 0)
  ;[m1] = l.plan.hosts as [LabHost]
  image = await webImage(l, m1)
})
test.after.always(async () => {
  await l?.down()
})

/** Answered with this status and, where there is one, exactly this message. */
async function answered(
  t: ExecutionContext,
  [method, path, body]: readonly [string, string, object?],
  status: number,
  message: string | RegExp | null = null,
): Promise<void> {
  const a = await ask(m1.socket, method, path, body ? JSON.stringify(body) : '')
  const fits = message === null || (typeof message === 'string' ? a.message === message : message.test(a.message ?? ''))
  t.true(
    a.status === status && fits,
    `${method} ${path} ${JSON.stringify(body)}: ${a.status} ${a.message}, not ${status} ${message}`,
  )
}
const create = (body: object, name = ''): readonly [string, string, object] => [
  'POST',
  `/containers/create?name=${name}`,
  { Image: image, Cmd: ['sleep', '60'], ...body },
]

test.serial('a creation is refused in words that clients know', async (t) => {
  await answered(t, ['POST', '/containers/create', {}], 400, 'Config cannot be empty in order to create a container')
  await answered(t, create({ Env: [''] }), 400, 'invalid environment variable: ')
  await answered(t, create({ Memory: 524287 }), 400, 'Minimum memory limit allowed is 6MB')
  const mounted = (mount: object) => create({ HostConfig: { Mounts: [mount] } })
  const config = 'invalid mount config for type'
  await answered(t, mounted({ Type: 'odd', Target: '/a' }), 400, `${config} "odd": mount type unknown`)
  await answered(t, mounted({ Target: '/a' }), 400, `${config} "": mount type unknown`)
  await answered(
    t,
    mounted({ Type: 'volume', Target: '/a', ReadOnly: true }),
    400,
    `${config} "volume": must not set ReadOnly mode when using anonymous volumes`,
  )
  await answered(t, create({ HostConfig: { IpcMode: 'container:nobody' } }), 400, 'No such container: nobody')
  const many = { NetworkingConfig: { EndpointsConfig: { n1: {}, n2: {} } } }
  const words = 'Container cannot be connected to network endpoints: n1, n2'
  await answered(t, create(many), 400, `${words}: network n1 not found`)
  await answered(t, ['DELETE', '/containers/'], 400, 'invalid name or ID supplied: ""')
})

test.serial('a container may be made before the one whose network it is to join', async (t) => {
  await answered(t, create({ HostConfig: { NetworkMode: 'container:later' } }, 'joins'), 201)
  const made = await call<{ HostConfig: { NetworkMode: string } }>(m1.socket, 'GET', '/containers/joins/json')
  t.is(made.HostConfig.NetworkMode, 'container:later')
  await answered(t, ['POST', '/containers/joins/start'], 404, 'No such container: later')
  await answered(t, create({ HostConfig: { NetworkMode: 'container:self' } }, 'self'), 201)
  await answered(t, ['POST', '/containers/self/start'], 409, 'cannot join own network')
  await ok(m1, 'run', '-d', '--name', 'later', image, 'sleep', '60')
  await answered(t, ['POST', '/containers/joins/start'], 204)
  await ok(m1, 'rm', '-f', 'joins', 'later', 'self')
})

test.serial('the working directory is there before the first start, and cannot be a file', async (t) => {
  await answered(t, create({ WorkingDir: '/home/of/it' }, 'works'), 201)
  await answered(t, ['HEAD', '/containers/works/archive?path=/home/of/it'], 200)
  await answered(t, create({ WorkingDir: '/bin/busybox' }), 400, 'Cannot mkdir: /bin/busybox is not a directory')
  await answered(t, create({ WorkingDir: '/bin/busybox/a' }), 400, 'Cannot mkdir: /bin/busybox/a is not a directory')
  await ok(m1, 'rm', 'works')
})

test.serial(
  'a file asked for as a directory is none, and a missing one is told with the name that was given',
  async (t) => {
    await answered(t, create({}, 'files'), 201)
    await answered(t, ['GET', '/containers/files/archive?path=/bin/busybox/'], 400, /not a directory$/)
    await answered(
      t,
      ['GET', '/containers/files/archive?path=/a'],
      404,
      'Could not find the file /a in container files',
    )
    const copied = await ask(m1.socket, 'POST', '/v1.23/containers/files/copy', '{"Resource":"/bin/busybox"}')
    t.is(copied.status, 200)
    t.regex(copied.text, /\r\n\r\n[\s\S]*busybox\0/)
    await answered(t, ['POST', '/containers/files/copy', { Resource: '/bin/busybox' }], 404)
    await ok(m1, 'rm', 'files')
  },
)

test.serial('an exec that was not started goes with the process of its container', async (t) => {
  await ok(m1, 'run', '-d', '--init', '--name', 'execs', image, 'sleep', '60')
  const { Id } = await call<{ Id: string }>(m1.socket, 'POST', '/containers/execs/exec', { body: { Cmd: ['true'] } })
  await ok(m1, 'restart', '-t', '0', 'execs')
  await answered(t, ['POST', `/exec/${Id}/start`, { Detach: true }], 404, `No such exec instance: ${Id}`)
  await answered(t, ['GET', `/exec/${Id}/json`], 404, `No such exec instance: ${Id}`)
  await answered(
    t,
    ['DELETE', '/containers/execs'],
    409,
    /^You cannot remove a running container [0-9a-f]{64}\. Stop the container before/,
  )
  await ok(m1, 'rm', '-f', 'execs')
})

test.serial('networks: what excludes each other is told with the sentence for it', async (t) => {
  await ok(m1, 'run', '-d', '--name', 'plain', image, 'sleep', '60')
  await ok(m1, 'run', '-d', '--name', 'onhost', '--network', 'host', image, 'sleep', '60')
  await ok(m1, 'network', 'create', '--subnet', '10.77.0.0/16', 'wide')
  const connect = (network: string, Container: string) =>
    ['POST', `/networks/${network}/connect`, { Container }] as const
  await answered(
    t,
    connect('host', 'plain'),
    400,
    'container cannot be disconnected from host network or connected to host network',
  )
  await answered(t, connect('none', 'plain'), 400, /in private \(none\) mode$/)
  await answered(
    t,
    connect('wide', 'onhost'),
    400,
    /^container sharing network namespace with another container or host/,
  )
  const IPAM = { Config: [{ Subnet: '10.77.1.0/24' }] }
  await answered(t, ['POST', '/networks/create', { Name: 'narrow', IPAM }], 403, /^Pool overlaps with other one/)
  await ok(m1, 'rm', '-f', 'plain', 'onhost')
  await ok(m1, 'network', 'rm', 'wide')
})

test.serial("a commit's labels are the container's and its own", async (t) => {
  await answered(t, create({ Labels: { a: '1', b: '1' } }, 'labelled'), 201)
  const { Id } = await call<{ Id: string }>(m1.socket, 'POST', '/commit?container=labelled', {
    body: { Labels: { b: '2' } },
  })
  const made = await call<{ Config: { Labels: object; Cmd: string[] } }>(m1.socket, 'GET', `/images/${Id}/json`)
  t.like(made.Config.Labels, { a: '1', b: '2' })
  t.deepEqual(made.Config.Cmd, ['sleep', '60'])
  await ok(m1, 'rm', 'labelled')
  await ok(m1, 'rmi', Id)
})

test.serial('a link is a name of its container, follows its renaming, and can be removed alone', async (t) => {
  await ok(m1, 'run', '-d', '--name', 'child', image, 'sleep', '60')
  await ok(m1, 'create', '--name', 'parent', '--link', 'child:one', '--link', 'child', image, 'true')
  const links = async (): Promise<string[] | null> =>
    (await call<{ HostConfig: { Links: string[] | null } }>(m1.socket, 'GET', '/containers/parent/json')).HostConfig
      .Links
  const names = async (): Promise<string[][]> =>
    (await call<{ Names: string[] }[]>(m1.socket, 'GET', '/containers/json')).map((c) => c.Names)
  t.deepEqual(await names(), [['/child', '/parent/child', '/parent/one']])
  await ok(m1, 'rename', 'child', 'kid')
  t.deepEqual(await links(), ['/kid:/parent/one', '/kid:/parent/child'])
  await answered(t, ['DELETE', '/containers/parent/one?link=1'], 204)
  t.deepEqual(await links(), ['/kid:/parent/child'])
  await answered(t, ['DELETE', '/containers/parent/one?link=1'], 404, 'No such link: parent/one')
  await answered(t, ['DELETE', '/containers/nobody/one?link=1'], 404, /^Could not get parent container for the link/)
  await answered(t, ['DELETE', '/containers/parent?link=1'], 409, /^Conflict, cannot remove the default link name/)
  await answered(t, ['DELETE', '/containers/parent/child?link=1'], 204)
  t.is(await links(), null)
  await ok(m1, 'run', '-d', '--name', 'sharer', '--net', 'container:kid', image, 'sleep', '60')
  const hosts = await ok(m1, 'run', '--rm', '--link', 'sharer:side', image, 'cat', '/etc/hosts')
  t.regex(hosts, /^\S+\tside( |$)/m, 'one that shares a network is reached on that')
  await ok(m1, 'rm', '-f', 'parent', 'kid', 'sharer')
})

test.serial('images and volumes: what is not asked rightly is refused before anything is looked for', async (t) => {
  await answered(t, ['DELETE', '/images/%20'], 400, 'image name cannot be blank')
  const search = (filter: string) => ['GET', `/images/search?term=x&filters=${filter}`] as const
  await answered(t, search('{"is-official":["a"]}'), 400, /^Invalid filter 'is-official=/)
  await answered(t, search('{"is-automated":["a"]}'), 400, /^Invalid filter 'is-automated=/)
  await answered(t, ['GET', '/volumes?filters={"dangling":["a"]}'], 400, /^Invalid filter 'dangling=/)
  await ok(m1, 'volume', 'create', 'shelf1')
  t.is(await ok(m1, 'volume', 'ls', '-q', '--filter', 'name=^shelf.$'), 'shelf1')
  await ok(m1, 'volume', 'rm', 'shelf1')
})

test.serial('an image is held by a container that runs, though another one has ended', async (t) => {
  await ok(m1, 'run', '--name', 'held-ended', image, 'true')
  await ok(m1, 'run', '-d', '--name', 'held-runs', image, 'sleep', '60')
  const { Id } = await call<{ Id: string }>(m1.socket, 'GET', `/images/${image}/json`)
  await answered(t, ['DELETE', `/images/${Id}?force=1`], 409, /\(cannot be forced\) - image is being used by running/)
  await ok(m1, 'rm', '-f', 'held-ended', 'held-runs')
})

test.serial('an update that cannot hold is refused', async (t) => {
  await ok(m1, 'run', '-d', '--rm', '--name', 'brief', image, 'sleep', '60')
  await answered(
    t,
    ['POST', '/containers/brief/update', { RestartPolicy: { Name: 'always' } }],
    409,
    /^Cannot update container \w+: Restart policy cannot be updated because AutoRemove is enabled for the container$/,
  )
  await ok(m1, 'rm', '-f', 'brief')
  await ok(m1, 'create', '--cpus', '0.5', '--name', 'half', image, 'true')
  const quota = ['POST', '/containers/half/update', { CpuQuota: 80_000 }] as const
  await answered(t, quota, 409, /CPU Quota cannot be updated as NanoCPUs has already been set$/)
  await ok(m1, 'rm', 'half')
  const EndpointsConfig = { bridge: { IPAMConfig: { IPv4Address: '1.2.3' } } }
  await answered(t, create({ NetworkingConfig: { EndpointsConfig } }), 400, 'invalid IPv4 address: 1.2.3')
})

test.serial('a port in use and a tag are told as clients look for them', async (t) => {
  await ok(m1, 'run', '-d', '--name', 'holder', '-p', '8123:80', image, 'sleep', '60')
  await answered(t, create({ HostConfig: { PortBindings: { '80/tcp': [{ HostPort: '8123' }] } } }, 'second'), 201)
  await answered(
    t,
    ['POST', '/containers/second/start'],
    409,
    /^Bind for 0\.0\.0\.0:8123 failed: port is already allocated/,
  )
  await ok(m1, 'rm', '-f', 'holder', 'second')
  const since = Date.now() / 1000
  await ok(m1, 'tag', image, 'other:name')
  const { Id } = await call<{ Id: string }>(m1.socket, 'GET', '/images/other:name/json')
  const [line = ''] = (
    await ok(m1, 'events', '--since', String(since), '--until', String(Date.now() / 1000), '--format', '{{json .}}')
  ).split('\n')
  t.like(JSON.parse(line), { Type: 'image', Action: 'tag', Actor: { ID: Id, Attributes: { name: 'other:name' } } })
  await ok(m1, 'rmi', 'other:name')
})

test.serial('the events of a run come in docker order: what a death takes away follows it', async (t) => {
  const since = Date.now() / 1000
  await ok(m1, 'run', '--rm', '-v', '/data', image, 'true')
  const told = await ok(
    m1,
    ...['events', '--since', String(since), '--until', String(Date.now() / 1000)],
    ...['--format', '{{.Type}} {{.Action}}'],
  )
  const events = told.split('\n')
  const death = events.indexOf('container die')
  t.deepEqual(events.slice(0, death).sort(), [
    ...['container attach', 'container create', 'container start', 'network connect', 'volume create', 'volume mount'],
  ])
  t.deepEqual(events.slice(death + 1).sort(), [
    ...['container destroy', 'network disconnect', 'volume destroy', 'volume unmount'],
  ])
})
