import test from 'ava'
import {
  ConfigReference,
  ConfigSpec,
  type ContainerSpec,
  Driver,
  EndpointMode,
  EndpointSpec,
  FileTarget,
  GenericResource,
  GlobalJobMode,
  GlobalMode,
  HealthConfig,
  Mount,
  NetworkAttachmentConfig,
  NetworkSpec,
  ObjectKind,
  Placement,
  PortConfig,
  PublishMode,
  PullOptions,
  ReplicatedJobMode,
  ReplicatedMode,
  ResourceRequirements,
  Resources,
  RestartPolicy,
  SecretReference,
  SecretSpec,
  type Service,
  ServiceMode,
  type ServiceSpec,
  type TaskSpec,
  UpdateConfig,
  UpdateRequest,
} from '#proto'
import type { ShoalError } from '../../../src/common/index.js'
import { ControlLab, NOTHING, named, spec } from './lab.js'

const KIND = ObjectKind.KIND_SERVICE

const task = (fields: Partial<TaskSpec>, container: Partial<ContainerSpec> = {}): ServiceSpec => {
  const s = spec({}, container)
  return { ...s, task: { ...s.task!, ...fields } }
}
const ports = (...list: Partial<PortConfig>[]): EndpointSpec =>
  EndpointSpec.create({ ports: list.map((p) => PortConfig.create({ targetPort: 80, ...p })) })
const limits = (r: Partial<Resources>): ServiceSpec =>
  task({ resources: ResourceRequirements.create({ limits: Resources.create(r) }) })
const health = (h: Partial<HealthConfig>): ServiceSpec => spec({}, { healthcheck: HealthConfig.create(h) })
const secretRef = (id: string, name: string, target = name): SecretReference =>
  SecretReference.create({ secretId: id, secretName: name, target: FileTarget.create({ name: target }) })

/** Specs that are refused, and what Docker says to each. */
const REFUSED: readonly [string, ServiceSpec, string | RegExp][] = [
  ['no name', spec({ annotations: named('') }), 'meta: name must be provided'],
  ['a name that is no DNS label', spec({ annotations: named('a_b!') }), 'name must be valid as a DNS name component'],
  ['a name of 64 characters', spec({ annotations: named('a'.repeat(64)) }), 'name must be 63 characters or fewer'],
  ['no image', spec({}, { image: '' }), 'ContainerSpec: image reference must be provided'],
  [
    'an image that is no reference',
    spec({}, { image: 'UPPER case' }),
    'ContainerSpec: "UPPER case" is not a valid repository/tag',
  ],
  ['no mode', spec({ mode: null }), 'must specify service mode'],
  [
    'a mount twice',
    spec({}, { mounts: [Mount.create({ target: '/a' }), Mount.create({ target: '/a' })] }),
    'ContainerSpec: duplicate mount point: /a',
  ],
  ['too little CPU', limits({ nanoCpus: 999_999 }), 'invalid cpu value 0.000999999: Must be at least 0.001'],
  ['too little memory', limits({ memoryBytes: 4_000_000 }), 'invalid memory value 4000000: Must be at least 4MiB'],
  [
    'a limit of generic resources',
    limits({ generic: [GenericResource.create({ kind: 'gpu', count: 1 })] }),
    /generic resources can be reserved/,
  ],
  [
    'a negative restart delay',
    task({ restart: RestartPolicy.create({ delay: -1 }) }),
    'TaskSpec: restart-delay cannot be negative',
  ],
  [
    'a negative restart window',
    task({ restart: RestartPolicy.create({ window: -1 }) }),
    'TaskSpec: restart-window cannot be negative',
  ],
  [
    'a negative update delay',
    spec({ update: UpdateConfig.create({ delay: -1 }) }),
    'TaskSpec: update-delay cannot be negative',
  ],
  [
    'a failure ratio above one',
    spec({ update: UpdateConfig.create({ maxFailureRatio: 1.5 }) }),
    'TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1',
  ],
  [
    'a negative monitor',
    spec({ rollback: UpdateConfig.create({ monitor: -1 }) }),
    'TaskSpec: rollback-monitor cannot be negative',
  ],
  [
    'a constraint without operator',
    task({ placement: Placement.create({ constraints: ['node.role=manager'] }) }),
    'constraint expected one operator from ==, !=',
  ],
  [
    'a constraint on a bad key',
    task({ placement: Placement.create({ constraints: ['node role==manager'] }) }),
    "key 'node role' is invalid",
  ],
  [
    'a constraint with a bad value',
    task({ placement: Placement.create({ constraints: ['node.role=={x}'] }) }),
    "value '{x}' is invalid",
  ],
  ['a negative health time', health({ timeout: -1 }), 'ContainerSpec: Timeout in HealthConfig cannot be negative'],
  ['negative health retries', health({ retries: -1 }), 'ContainerSpec: Retries in HealthConfig cannot be negative'],
  [
    'the same published port twice',
    spec({ endpoint: ports({ publishedPort: 80 }, { publishedPort: 80 }) }),
    'EndpointSpec: duplicate published ports provided',
  ],
  [
    'a mesh port with dnsrr',
    spec({ endpoint: { ...ports({ publishedPort: 80 }), mode: EndpointMode.DNSRR } }),
    "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
  ],
  [
    'an update config of a job',
    spec({ mode: ServiceMode.create({ replicatedJob: ReplicatedJobMode.create() }), update: UpdateConfig.create() }),
    'job-mode services may not have an update config',
  ],
  [
    'a secret target twice',
    spec({}, { secrets: [secretRef('1', 'a', 't'), secretRef('2', 'b', 't')] }),
    "secret references 'a' and 'b' have a conflicting target: 't'",
  ],
  ['a secret that is not there', spec({}, { secrets: [secretRef('1', 'a')] }), 'secret not found: a'],
  [
    'secrets that are not there',
    spec({}, { secrets: [secretRef('1', 'a'), secretRef('2', 'b')] }),
    'secrets not found: a, b',
  ],
  [
    'a config that is not there',
    spec(
      {},
      {
        configs: [ConfigReference.create({ configId: '1', configName: 'c', target: FileTarget.create({ name: 'c' }) })],
      },
    ),
    'config not found: c',
  ],
  [
    'a network that is not there',
    task({ networks: [NetworkAttachmentConfig.create({ target: 'nope' })] }),
    'network nope not found',
  ],
]

for (const [what, given, message] of REFUSED)
  test(`a service with ${what} is refused`, async (t) => {
    const lab = await ControlLab.create()
    const error = await t.throwsAsync<ShoalError>(
      lab.service(given),
      typeof message === 'string' ? { message } : { message },
    )
    t.true(error?.kind === 'invalid' || error?.kind === 'notFound')
    t.deepEqual(await lab.list(KIND), [])
  })

test('a name in use is refused with the sentence that scripts look for', async (t) => {
  const lab = await ControlLab.create()
  await lab.service(spec())
  const error = await t.throwsAsync<ShoalError>(lab.service(spec({ annotations: named('WEB') })), {
    message: 'name conflicts with an existing object: service WEB already exists',
  })
  t.is(error?.kind, 'conflict')
})

test('a published port belongs to one service; host ports may repeat among themselves only', async (t) => {
  const lab = await ControlLab.create()
  await t.throwsAsync(lab.service(spec({ endpoint: ports({ publishedPort: 80 }) })), {
    message: 'service needs ingress network, but no ingress network is present',
  })
  await lab.create({ network: NetworkSpec.create({ annotations: named('mesh'), ingress: true }) })
  const a = await lab.service(spec({ annotations: named('a'), endpoint: ports({ publishedPort: 80 }) }))
  const host = { publishedPort: 81, publishMode: PublishMode.HOST }
  const b = await lab.service(spec({ annotations: named('b'), endpoint: ports(host) }))
  await lab.service(spec({ annotations: named('c'), endpoint: ports(host) }))
  await t.throwsAsync(lab.service(spec({ annotations: named('d'), endpoint: ports({ publishedPort: 80 }) })), {
    message: `port '80' is already in use by service 'a' (${a.id}) as an ingress port`,
  })
  await t.throwsAsync(lab.service(spec({ annotations: named('d'), endpoint: ports({ publishedPort: 81 }) })), {
    message: `port '81' is already in use by service 'b' (${b.id}) as a host-published port`,
  })
  await lab.service(spec({ annotations: named('udp'), endpoint: ports({ publishedPort: 80, protocol: 1 }) }))
  await lab.update(KIND, a.id, {
    service: { ...a.spec!, endpoint: ports({ publishedPort: 80 }, { publishedPort: 90 }) },
  })
  await lab.remove(KIND, a.id)
  await lab.service(spec({ annotations: named('d'), endpoint: ports({ publishedPort: 80 }) }))
})

test('rename and mode change are refused as not implemented; a stale version as out of sequence', async (t) => {
  const lab = await ControlLab.create()
  const s = await lab.service(spec())
  const rename = await t.throwsAsync<ShoalError>(
    lab.update(KIND, s.id, { service: spec({ annotations: named('other') }) }),
  )
  t.is(rename?.kind, 'unimplemented')
  t.is(rename?.message, 'renaming services is not supported')
  const mode = await t.throwsAsync<ShoalError>(
    lab.update(KIND, s.id, { service: spec({ mode: ServiceMode.create({ global: GlobalMode.create() }) }) }),
  )
  t.is(mode?.message, 'service mode change is not allowed')
  t.is(mode?.kind, 'unimplemented')
  await lab.update(KIND, s.id, { service: s.spec! })
  const stale = lab.control.update(
    UpdateRequest.create({ kind: KIND, id: s.id, version: s.meta!.version, spec: { ...NOTHING, service: s.spec } }),
  )
  await t.throwsAsync(stale, { message: 'update out of sequence' })
})

test('an update keeps the old spec; a rollback swaps them, twice is back again; without one it is refused', async (t) => {
  const lab = await ControlLab.create()
  const s = await lab.service(spec())
  await t.throwsAsync(lab.update(KIND, s.id, { service: null }, { rollback: true }), {
    message: 'service web does not have a previous spec',
  })
  const scaled = { ...s.spec!, mode: ServiceMode.create({ replicated: ReplicatedMode.create({ replicas: 7 }) }) }
  const updated = (await lab.update(KIND, s.id, { service: scaled })).object!.service!
  t.is(updated.previousSpec?.mode?.replicated?.replicas, 1)
  t.not(updated.specVersion?.index, s.specVersion?.index)
  const back = (await lab.update(KIND, s.id, { service: null }, { rollback: true })).object!.service!
  t.is(back.spec?.mode?.replicated?.replicas, 1)
  t.is(back.previousSpec?.mode?.replicated?.replicas, 7)
  t.is(back.specVersion?.index, s.specVersion?.index)
  t.is(back.updateStatus?.state, 4)
  const again = (await lab.update(KIND, s.id, { service: null }, { rollback: true })).object!.service!
  t.is(again.spec?.mode?.replicated?.replicas, 7)
  const meta = [s, updated, back, again].map((x) => x.meta!.version!.index)
  t.deepEqual(
    meta,
    [...meta].sort((x, y) => x - y),
  )
})

test('registry credentials are kept where the update brings none, never shown, and may come from the previous spec', async (t) => {
  const lab = await ControlLab.create()
  const auth = (a: string) => ({ pullOptions: PullOptions.create({ registryAuth: a }) })
  const s = await lab.service(spec({}, auth('one')))
  t.is(s.spec?.task?.container?.pullOptions, null)
  const stored = () => lab.store.view().get('service', s.id)!.spec!.task!.container!.pullOptions?.registryAuth
  t.is(stored(), 'one')
  await lab.update(KIND, s.id, { service: spec({}, auth('two')) })
  await lab.update(KIND, s.id, { service: spec() })
  t.is(stored(), 'two')
  await lab.update(KIND, s.id, { service: spec({}, auth('three')) })
  await lab.update(KIND, s.id, { service: spec() }, { registryAuthFrom: 'previous-spec' })
  t.is(stored(), 'two')
})

test('networks by name become ids, also in the old place, where they stay until they change; the mesh cannot be named', async (t) => {
  const lab = await ControlLab.create()
  const net = (await lab.create({ network: NetworkSpec.create({ annotations: named('back') }) })).object!.network!
  await lab.create({ network: NetworkSpec.create({ annotations: named('mesh'), ingress: true }) })
  const on = (...targets: string[]) =>
    spec({ networks: targets.map((target) => NetworkAttachmentConfig.create({ target })) })
  const places = (s: Service) => [s.spec!.networks, s.spec!.task!.networks].map((l) => l.map((n) => n.target))
  const s = await lab.service(on('BACK'))
  t.deepEqual(places(s), [[net.id], []])
  const updated = async (to: ServiceSpec) => (await lab.update(KIND, s.id, { service: to })).object!.service!
  t.deepEqual(places(await updated(on('back'))), [[net.id], []])
  t.deepEqual(places(await updated(on('back', 'host'))), [[], [net.id, 'host']])
  t.deepEqual(places(await updated(on('back'))), [[], [net.id]])
  const mesh = { ...spec({ annotations: named('x') }), networks: [NetworkAttachmentConfig.create({ target: 'mesh' })] }
  await t.throwsAsync(lab.service(mesh), { message: /ingress network/ })
})

test('a job starts its next iteration at each update and rollback', async (t) => {
  const lab = await ControlLab.create()
  const mode = ServiceMode.create({ globalJob: GlobalJobMode.create() })
  const s = await lab.service(spec({ mode }))
  t.is(s.jobStatus?.jobIteration, 0)
  t.truthy(s.jobStatus?.lastExecution)
  const next = (await lab.update(KIND, s.id, { service: spec({ mode }) })).object!.service!
  t.is(next.jobStatus?.jobIteration, 1)
  const back = (await lab.update(KIND, s.id, { service: null }, { rollback: true })).object!.service!
  t.is(back.jobStatus?.jobIteration, 2)
  t.is(back.updateStatus, null, 'nobody follows the update of a job')
})

test('a service told to go is not shown, and its name is free at once', async (t) => {
  const lab = await ControlLab.create()
  const s = await lab.service(spec())
  await lab.remove(KIND, s.id)
  t.true(lab.store.view().get('service', s.id)?.pendingDelete)
  t.deepEqual(await lab.list(KIND), [])
  await t.throwsAsync(lab.get(KIND, 'web'), { message: 'service web not found' })
  await t.throwsAsync(lab.get(KIND, s.id), { message: `service ${s.id} not found` })
  await t.throwsAsync(lab.remove(KIND, s.id), { message: `service ${s.id} not found` })
  const again = await lab.service(spec())
  t.not(again.id, s.id)
})

test('secrets and configs: sizes, names, immutability, use', async (t) => {
  const lab = await ControlLab.create()
  const secret = (name: string, size: number) =>
    lab.create({ secret: SecretSpec.create({ annotations: named(name), data: new Uint8Array(size) }) })
  const config = (name: string, size: number) =>
    lab.create({ config: ConfigSpec.create({ annotations: named(name), data: new Uint8Array(size) }) })
  await t.throwsAsync(secret('s', 0), { message: 'secret data must be larger than 0 and less than 512000 bytes' })
  await t.throwsAsync(secret('s', 512_001), { message: 'secret data must be larger than 0 and less than 512000 bytes' })
  await t.throwsAsync(config('c', 1_024_001), {
    message: 'config data must be larger than 0 and less than 1024000 bytes',
  })
  await t.throwsAsync(
    lab.create({ secret: SecretSpec.create({ annotations: named('s'), driver: Driver.create({ name: 'vault' }) }) }),
    { message: 'secret driver vault: this engine has no secret drivers; create the secret with its data' },
  )
  await t.throwsAsync(secret('-s', 1), { message: /^invalid name, only 64/ })
  await t.throwsAsync(secret('s'.repeat(65), 1), { message: /^invalid name, only 64/ })
  const s = (await secret('my.key_1', 512_000)).object!.secret!
  const c = (await config('c', 1_024_000)).object!.config!
  t.is(s.spec?.data.length, 0)
  t.is(c.spec?.data.length, 1_024_000)
  await t.throwsAsync(secret('MY.key_1', 1), { message: 'secret MY.key_1 already exists' })
  await t.throwsAsync(
    lab.update(ObjectKind.KIND_CONFIG, c.id, {
      config: ConfigSpec.create({ annotations: named('c'), data: Buffer.from('x') }),
    }),
    { message: 'only updates to Labels are allowed' },
  )
  await lab.update(ObjectKind.KIND_SECRET, s.id, {
    secret: SecretSpec.create({ annotations: named('my.key_1', { a: 'b' }) }),
  })
  const stored = lab.store.view().get('secret', s.id)!
  t.is(stored.spec?.data.length, 512_000)
  t.deepEqual(stored.spec?.annotations?.labels, { a: 'b' })
  await lab.service(spec({}, { secrets: [secretRef(s.id, 'my.key_1')] }))
  await lab.service(spec({ annotations: named('api') }, { secrets: [secretRef(s.id, 'my.key_1')] }))
  await t.throwsAsync(lab.remove(ObjectKind.KIND_SECRET, s.id), {
    message: "secret 'my.key_1' is in use by the following services: web, api",
  })
  await lab.remove(ObjectKind.KIND_CONFIG, c.id)
})
