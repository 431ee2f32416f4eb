// What the suites of moby and of client libraries look for in answers: statuses, words, and files that are there in time.
import test, { type ExecutionContext } from 'ava'
import { ask, raw } from './raw-http.js'
import { call, docker, type Lab, type LabHost, lab, ok, running, webImage } from './support.js'

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
  await answered(t, ['POST', '/containers/create', { Image: '' }], 400, 'No command specified')
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
  const { Id: ended } = await call<{ Id: string }>(m1.socket, 'POST', '/containers/execs/exec', {
    body: { Cmd: ['true'] },
  })
  await answered(t, ['POST', `/exec/${ended}/start`, { Detach: true }], 200)
  await answered(t, ['POST', `/exec/${Id}/start`, { Detach: true }], 404, `No such exec instance: ${Id}`)
  await answered(t, ['GET', `/exec/${Id}/json`], 404, `No such exec instance: ${Id}`)
  await answered(
    t,
    ['DELETE', '/containers/execs'],
    409,
    /^You cannot remove a running container [0-9a-f]{64}\. Stop the container before/,
  )
  await answered(t, ['GET', `/exec/${ended}/json`], 200)
  await ok(m1, 'rm', '-f', 'execs')
  await answered(t, ['GET', `/exec/${ended}/json`], 404, `No such exec instance: ${ended}`)
})

test.serial('an exec without a terminal has no TERM, whatever its container has', async (t) => {
  await ok(m1, 'run', '-dt', '--name', 'term', image, 'sleep', '60')
  const { Id } = await call<{ Id: string }>(m1.socket, 'POST', '/containers/term/exec', {
    body: { AttachStdout: true, Cmd: ['sh', '-c', 'echo "[$TERM]"'] },
  })
  t.regex((await ask(m1.socket, 'POST', `/exec/${Id}/start`, '{}')).text, /\[\]/)
  await ok(m1, 'rm', '-f', 'term')
})

test.serial("the end of a client's input ends the container's only where it was asked for", async (t) => {
  await ok(m1, 'run', '-di', '--name', 'reads', image, 'cat')
  const attach = (name: string): Promise<string> =>
    raw(
      m1.socket,
      `POST /containers/${name}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello\n`,
      { half: true, timeoutMs: 1500 },
    )
  t.regex(await attach('reads'), /hello/)
  t.is(await ok(m1, 'inspect', '-f', '{{.State.Running}}', 'reads'), 'true')
  t.is((await docker(m1, ['run', '-i', '--rm', image, 'cat'], { input: 'hello' })).stdout, 'hello')
  // Closed before the process is there.
  const { Id } = await call<{ Id: string }>(m1.socket, 'POST', '/containers/reads/exec', {
    body: { AttachStdin: true, AttachStdout: true, Cmd: ['sh', '-c', 'cat; echo after'] },
  })
  const body = '{"Detach":false}'
  const started = await raw(
    m1.socket,
    `POST /exec/${Id}/start HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    { half: true },
  )
  t.regex(started, /after/)
  await ok(m1, 'rm', '-f', 'reads')
})

test.serial('before 1.24 the settings of the host may come with the start', async (t) => {
  await answered(
    t,
    [
      'POST',
      '/v1.23/containers/create?name=old',
      { Image: image, Cmd: ['sleep', '60'], Volumes: { '/a': {}, '/b': {} } },
    ],
    201,
  )
  const mounts = async (): Promise<Record<string, string>> =>
    Object.fromEntries(
      (
        await call<{ Mounts: { Destination: string; Name?: string; Source: string }[] }>(
          m1.socket,
          'GET',
          '/containers/old/json',
        )
      ).Mounts.map((m) => [m.Destination, m.Name ?? m.Source]),
    )
  const before = await mounts()
  const start = (body: object) => ['POST', '/v1.23/containers/old/start', body] as const
  const plain = async (body: object, words: RegExp): Promise<void> => {
    const a = await ask(m1.socket, ...(start(body).slice(0, 2) as [string, string]), JSON.stringify(body))
    t.is(a.status, 400)
    t.regex(a.text, words)
  }
  await plain({ Memory: 524287 }, /Minimum memory limit allowed is 6MB/)
  await plain({ Binds: ['/srv:/b', '/tmp:/b'] }, /Duplicate mount point/)
  t.deepEqual(await mounts(), before)
  await answered(t, start({ HostConfig: { Binds: ['/tmp:/b'], Dns: null } }), 204)
  t.deepEqual(await mounts(), { '/a': before['/a']!, '/b': '/tmp' })
  await answered(t, ['GET', `/volumes/${before['/b']}`], 404)
  t.is(await ok(m1, 'inspect', '-f', '{{json .HostConfig.Dns}}', 'old'), '[]')
  await ok(m1, 'rm', '-fv', 'old')
})

test.serial(
  'copies into a container at rest follow links of its volumes, and find the files that it is given',
  async (t) => {
    await ok(m1, 'volume', 'create', 'linked')
    await ok(m1, 'run', '--rm', '-v', 'linked:/v', image, 'ln', '-s', '/etc', '/v/link')
    await ok(m1, 'create', '--name', 'rests', '--read-only', '-v', 'linked:/v', image, 'true')
    await answered(t, ['PUT', '/containers/rests/archive?path=/v/link'], 403, /^container rootfs is marked read-only/)
    await answered(t, ['HEAD', '/containers/rests/archive?path=/v/link/passwd'], 200)
    await ok(m1, 'start', '-a', 'rests')
    t.regex((await docker(m1, ['cp', 'rests:/etc/hosts', '-'])).stdout, /localhost/)
    await ok(m1, 'rm', 'rests')
    await ok(m1, 'create', '--name', 'rests', '-v', 'linked:/v:ro', image, 'true')
    await answered(t, ['PUT', '/containers/rests/archive?path=/v'], 403, /^mounted volume is marked read-only/)
    await ok(m1, 'rm', 'rests')
    await ok(m1, 'volume', 'rm', 'linked')
  },
)

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

test.serial('networks of one name: up to 1.43 as many as are asked for, told apart by their ids', async (t) => {
  const made = async (body: object): Promise<string> =>
    (await call<{ Id: string }>(m1.socket, 'POST', '/v1.43/networks/create', { body: { Name: 'twin', ...body } })).Id
  const ids = [await made({}), await made({ CheckDuplicate: false })]
  const taken = 'network with name twin already exists'
  await answered(t, ['POST', '/v1.43/networks/create', { Name: 'twin', CheckDuplicate: true }], 409, taken)
  await answered(t, ['POST', '/v1.44/networks/create', { Name: 'twin' }], 409, taken)
  for (const id of ids) await answered(t, ['GET', `/networks/${id}`], 200)
  const words = 'network twin is ambiguous (2 matches found'
  await answered(t, ['GET', '/networks/twin'], 400, `${words} based on name)`)
  await answered(t, create({ HostConfig: { NetworkMode: 'twin' } }), 400, `${words} on name): use an id`)
  await answered(t, create({ HostConfig: { NetworkMode: ids[1] } }, 'inTwin'), 201)
  const again = { Container: 'inTwin', EndpointConfig: { Aliases: ['late'] } }
  await answered(t, ['POST', `/networks/${ids[1]}/connect`, again], 200)
  await answered(t, ['POST', '/containers/inTwin/start'], 204)
  await answered(t, ['POST', `/networks/${ids[1]}/connect`, again], 409, /is already attached to network twin$/)
  const { NetworkSettings } = await call<{ NetworkSettings: { Networks: { twin: { Aliases: string[] } } } }>(
    m1.socket,
    'GET',
    '/containers/inTwin/json',
  )
  t.deepEqual(NetworkSettings.Networks.twin.Aliases, ['late'])
  const { Containers } = await call<{ Containers: object }>(m1.socket, 'GET', `/networks/${ids[1]}`)
  t.is(Object.keys(Containers).length, 1)
  await ok(m1, 'rm', '-f', 'inTwin')
  await ok(m1, 'network', 'rm', ...ids)
})

test.serial('a swarm is neither made nor joined without the addresses and the token for it', async (t) => {
  const init = (body: object) => ['POST', '/swarm/init', body] as const
  const join = (body: object) => ['POST', '/swarm/join', { ListenAddr: '0.0.0.0:2377', ...body }] as const
  await answered(t, init({}), 400, 'invalid ListenAddr "": invalid empty address')
  await answered(t, join({ RemoteAddrs: [''] }), 400, 'invalid remoteAddr "": invalid empty address')
  await answered(
    t,
    join({ RemoteAddrs: ['127.0.0.1:1'] }),
    400,
    /^A valid join token is necessary to join this cluster/,
  )
  for (const DataPathAddr of ['0.0.0.0', '0.0.0.0:2000'])
    await answered(
      t,
      init({ ListenAddr: '0.0.0.0:2377', AdvertiseAddr: m1.address, DataPathAddr }),
      400,
      /data path address must be a non-zero IP address or network interface/,
    )
})

test.serial("a commit's labels are the container's and its own", async (t) => {
  await answered(t, create({ Labels: { a: '1', b: '1' } }, 'labelled'), 201)
  const { Id } = await call<{ Id: string }>(m1.socket, 'POST', '/commit?container=labelled', {
    body: { Labels: { b: '2' }, Cmd: null, Env: null },
  })
  const made = await call<{ Config: { Labels: object; Cmd: string[] } }>(m1.socket, 'GET', `/images/${Id}/json`)
  t.like(made.Config.Labels, { a: '1', b: '2' })
  t.deepEqual(made.Config.Cmd, ['sleep', '60'])
  const shown = (): Promise<string> =>
    ok(m1, 'ps', '-a', '--no-trunc', '--filter', 'name=labelled', '--format', '{{.Image}}')
  await ok(m1, 'tag', image, 'moves:1')
  await ok(m1, 'create', '--name', 'labelled2', 'moves:1')
  t.is((await shown()).split('\n')[0], 'moves:1')
  await ok(m1, 'create', '--name', 'descends', Id)
  const from = (ancestor: string) =>
    ok(m1, 'ps', '-a', '--filter', `ancestor=${ancestor}`, '--filter', 'name=descends', '--format', '{{.Names}}')
  t.is(await from(image), 'descends', 'an image that was committed from it')
  t.is(await from(Id), 'descends')
  t.is(await from('nothing:here'), '')
  await ok(m1, 'rm', 'descends')
  const since = String(Date.now() / 1000)
  await ok(m1, 'tag', Id, 'moves:1')
  const labelled = ['--filter', 'type=image', '--filter', 'label=b=2']
  t.regex(await ok(m1, 'events', '--since', since, '--until', String(Date.now() / 1000), ...labelled), /name=moves:1/)
  t.is((await shown()).split('\n')[0], await ok(m1, 'inspect', '-f', '{{.Image}}', 'labelled2'))
  await ok(m1, 'rm', 'labelled2')
  await ok(m1, 'rm', 'labelled')
  await ok(m1, 'rmi', 'moves:1')
})

test.serial('a link is a name of its container, follows its renaming, and can be removed alone', async (t) => {
  const child = await ok(m1, 'run', '-d', '--name', 'child', '--hostname', 'fred', image, 'sleep', '60')
  t.regex(
    await ok(m1, 'run', '--rm', '--link', 'child:one', image, 'cat', '/etc/hosts'),
    /\tone\n\S+\tfred\n\S+\tchild$/m,
  )
  await ok(m1, 'create', '--name', 'parent', '--link', 'child:one', '--link', 'child', image, 'true')
  const links = async (): Promise<string[] | null> =>
    (await call<{ HostConfig: { Links: string[] | null } }>(m1.socket, 'GET', '/containers/parent/json')).HostConfig
      .Links
  const names = async (): Promise<string[][]> =>
    (await call<{ Names: string[] }[]>(m1.socket, 'GET', '/containers/json')).map((c) => c.Names)
  t.deepEqual(await names(), [['/child', '/parent/child', '/parent/one']])
  t.is((await call<{ Id: string }>(m1.socket, 'GET', '/containers/parent/one/json')).Id, child)
  await answered(t, ['GET', '/containers/parent/two/json'], 404)
  await ok(m1, 'run', '-d', '--name', 'onhost', '--network', 'host', image, 'sleep', '60')
  await answered(t, create({ HostConfig: { Links: ['onhost:h'] } }), 400, /^conflicting options: host type networking/)
  await ok(m1, 'rm', '-f', 'onhost')
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
  const ps = (filter: object) =>
    ['GET', `/containers/json?filters=${encodeURIComponent(JSON.stringify(filter))}`] as const
  for (const [key, value] of [
    ['exited', 'a'],
    ['is-task', '1'],
    ['publish', 'http'],
    ['publish', '8080:80'],
    ['expose', '90-80'],
    ['expose', '65536'],
  ] as const)
    await answered(t, ps({ [key]: [value] }), 400, new RegExp(`^Invalid filter '${key}=${value}': `))
  for (const key of ['before', 'since']) await answered(t, ps({ [key]: ['nosuch'] }), 404, 'No such container: nosuch')
  await answered(t, ps({ publish: ['80/foo', '80-81'], 'is-task': ['true'], exited: ['0'] }), 200)
  await ok(m1, 'volume', 'create', 'shelf1')
  const labels = async (name: string) =>
    (await call<{ Labels: object | null }>(m1.socket, 'GET', `/volumes/${name}`)).Labels
  t.is(await labels('shelf1'), null, 'none were given')
  await answered(t, ['POST', '/volumes/create', { Name: 'shelf2', Labels: {} }], 201)
  t.deepEqual(await labels('shelf2'), {})
  await ok(m1, 'volume', 'rm', 'shelf2')
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
  const pids = async (PidsLimit: number, version = ''): Promise<number | null> => {
    await answered(t, ['POST', `${version}/containers/brief/update`, { PidsLimit }], 200)
    const { HostConfig } = await call<{ HostConfig: { PidsLimit: number | null } }>(
      m1.socket,
      'GET',
      '/containers/brief/json',
    )
    return HostConfig.PidsLimit
  }
  t.is(await pids(20), 20)
  t.is(await pids(30, '/v1.39'), 20, 'not before 1.40')
  t.is(await pids(-2), 0)
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
  const past = await ok(m1, 'events', '--until', String(Date.now() / 1000), '--filter', 'event=tag')
  t.regex(past, /image tag .*name=other:name/)
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

test.serial('networks have any names, and refuse what docker refuses', async (t) => {
  await answered(t, ['POST', '/networks/create', { Name: 'default' }], 403, /predefined default network/)
  await answered(t, ['POST', '/networks/create', { Name: ' ' }], 400)
  await ok(m1, 'network', 'create', 'auto@#$ 1')
  await ok(m1, 'network', 'rm', 'auto@#$ 1')
  await ok(m1, 'network', 'create', 'auto')
  await ok(m1, 'network', 'create', '--subnet', '172.29.77.0/24', 'own')
  const EndpointsConfig = { auto: { IPAMConfig: { IPv4Address: '172.29.99.9' } } }
  await answered(
    t,
    create({ HostConfig: { NetworkMode: 'auto' }, NetworkingConfig: { EndpointsConfig } }),
    400,
    /only when connecting to networks with user configured subnets/,
  )
  await ok(m1, 'run', '-d', '--name', 'far', '--network', 'own', '--ip', '172.29.77.7', image, 'sleep', '60')
  const link = ['--link', 'far:f', image, 'true']
  t.regex(
    (await docker(m1, ['run', ...link])).stderr,
    /Cannot link to \/far, as it does not belong to the default network/,
  )
  await ok(m1, 'network', 'connect', 'bridge', 'far')
  await ok(m1, 'run', ...link)
  await ok(m1, 'stop', '-t', '0', 'far')
  await ok(m1, 'network', 'rm', 'own')
  await answered(t, ['POST', '/networks/own/disconnect', { Container: 'far' }], 404)
  await ok(m1, 'network', 'disconnect', '-f', 'own', 'far')
  const { NetworkSettings } = await call<{ NetworkSettings: { Networks: object } }>(
    m1.socket,
    'GET',
    '/containers/far/json',
  )
  t.deepEqual(Object.keys(NetworkSettings.Networks), ['bridge'])
  await ok(m1, 'network', 'rm', 'auto')
  await ok(m1, 'container', 'prune', '-f')
})

test.serial('a platform may be an operating system or an architecture alone', async (t) => {
  const pull = (platform: string): Parameters<typeof answered>[1] => [
    'POST',
    `/images/create?fromImage=${encodeURIComponent('127.0.0.1:1/x')}&platform=${platform}`,
  ]
  await answered(t, pull('foobar'), 400, '"foobar": unknown operating system or architecture: invalid argument')
  await answered(t, pull('aarch64'), 503, /: connect: connection refused$/)
})

test.serial('containers are found by an ancestor of their image, by any of its names', async (t) => {
  await ok(m1, 'create', '--name', 'elder', image, 'true')
  await ok(m1, 'commit', '--change', 'LABEL gen=2', 'elder', 'gen:2')
  await ok(m1, 'create', '--name', 'child', 'gen:2', 'true')
  await ok(m1, 'commit', 'child', 'gen:3')
  await ok(m1, 'create', '--name', 'grandchild', 'gen:3', 'true')
  const found = (name: string): Promise<string> =>
    ok(m1, 'ps', '-a', '--format', '{{.Names}}', '--filter', `ancestor=${name}`)
  const id = (await ok(m1, 'images', '-q', '--no-trunc', 'gen:2')).split(':')[1]!
  for (const name of ['gen:2', id, id.slice(0, 12)]) t.is(await found(name), 'grandchild\nchild', name)
  t.is(await found(image), 'grandchild\nchild\nelder')
  t.is(await found('nobody'), '')
  await ok(m1, 'rm', 'elder', 'child', 'grandchild')
  await ok(m1, 'rmi', 'gen:2', 'gen:3')
})

test.serial(
  'a service takes the networks that every host has, and those of the swarm, but no other of the host',
  async (t) => {
    t.timeout(120_000)
    await ok(m1, 'swarm', 'init', '--advertise-addr', m1.address, '--default-addr-pool', '10.55.0.0/16')
    await ok(m1, 'network', 'create', 'own')
    const Networks = [{ Target: 'own' }]
    await answered(
      t,
      ['POST', '/services/create', { Name: 'x', TaskTemplate: { ContainerSpec: { Image: image }, Networks } }],
      403,
      /^The network own cannot be used with services\. Only networks scoped to the swarm can be used/,
    )
    await ok(m1, 'network', 'create', '--scope', 'swarm', '-d', 'bridge', 'each')
    const inside: Record<string, string> = {}
    for (const network of ['host', 'each']) {
      await ok(m1, 'service', 'create', '-d', '--name', network, '--network', network, image, 'sleep', '600')
      const [task] = await running(m1, network, 1, 60)
      inside[network] = await ok(m1, 'exec', task!.Status.ContainerStatus!.ContainerID, 'ls', '/sys/class/net')
    }
    const gone = await ok(m1, 'service', 'inspect', '-f', '{{.ID}}', 'host')
    await ok(m1, 'service', 'rm', 'host')
    const filters = encodeURIComponent(JSON.stringify({ service: [gone] }))
    await answered(t, ['GET', `/tasks?filters=${filters}`], 404, `service ${gone} not found`)
    t.regex(inside.host!, /^docker0$/m)
    t.regex(inside.each!, /^eth0$/m)
    t.is(await ok(m1, 'network', 'inspect', '-f', '{{.Scope}} {{.Driver}}', 'each'), 'swarm bridge')
    t.regex(await ok(m1, 'network', 'inspect', '-f', '{{range .IPAM.Config}}{{.Subnet}}{{end}}', 'each'), /^172\./)
    const { IPAM } = await call<{ IPAM: object }>(m1.socket, 'GET', '/networks/ingress')
    t.like(IPAM, { Config: [{ Subnet: '10.55.0.0/24' }], Options: { 'com.docker.network.ipam.serial': 'true' } })
    await ok(m1, 'network', 'create', '-d', 'overlay', '--attachable', 'joined')
    await ok(m1, 'run', '-d', '--name', 'single', '--network', 'joined', image, 'sleep', '600')
    await ok(m1, 'swarm', 'leave', '--force')
    t.is(await ok(m1, 'inspect', '-f', '{{json .NetworkSettings.Networks}}', 'single'), '{}')
    await ok(m1, 'restart', '-t', '0', 'single')
    t.is((await docker(m1, ['network', 'inspect', 'each'])).status, 1)
  },
)

test.serial('a locked swarm is unlocked with its key only, and left by force only', async (t) => {
  t.timeout(120_000)
  await ok(m1, 'swarm', 'init', '--advertise-addr', m1.address, '--autolock')
  await l.killDaemon(m1)
  await l.startDaemon(m1)
  await answered(t, ['POST', '/swarm/unlock', { UnlockKey: 'wrong' }], 400, /^invalid key/)
  await answered(t, ['POST', '/swarm/leave'], 503, /^Swarm is encrypted and locked\. Please unlock it first/)
  await answered(t, ['POST', '/swarm/leave?force=1'], 200)
})
