import test from 'ava'
import { ServiceSpec } from '#proto'
import { object, unknownFields } from '../../src/api/body.js'
import { serviceSpecFrom, serviceSpecJson } from '../../src/api/convert/service.js'
import { withServiceDefaults } from '../../src/api/convert/service-defaults.js'
import type { ServiceSpecJson } from '../../src/api/convert/service-json.js'
import { SERVICE_BODY } from '../../src/api/convert/service-shape.js'
import { isKind } from '../../src/common/index.js'

const FULL: ServiceSpecJson = {
  Name: 'web',
  Labels: { a: '1' },
  TaskTemplate: {
    ContainerSpec: {
      Image: 'nginx:latest@sha256:0000000000000000000000000000000000000000000000000000000000000000',
      Labels: { l: 'v' },
      Command: ['a'],
      Args: ['b', 'c'],
      Hostname: '{{.Node.Hostname}}',
      Env: ['A=B'],
      Dir: '/d',
      User: 'u',
      Groups: ['g'],
      Privileges: { CredentialSpec: null, SELinuxContext: null, NoNewPrivileges: true },
      TTY: true,
      OpenStdin: true,
      ReadOnly: true,
      Mounts: [
        { Type: 'bind', Source: '/s', Target: '/t', ReadOnly: true, BindOptions: { Propagation: 'rslave' } },
        {
          Type: 'volume',
          Source: 'v',
          Target: '/v',
          VolumeOptions: { NoCopy: true, Labels: { x: 'y' }, DriverConfig: { Name: 'local', Options: { o: 'p' } } },
        },
        { Type: 'tmpfs', Target: '/tmp', TmpfsOptions: { SizeBytes: 1024, Mode: 511 } },
      ],
      StopSignal: 'SIGINT',
      StopGracePeriod: 5e9,
      Healthcheck: {
        Test: ['CMD', 'true'],
        Interval: 1e9,
        Timeout: 2e9,
        Retries: 3,
        StartPeriod: 4e9,
        StartInterval: 5e9,
      },
      Hosts: ['10.0.0.1 a b'],
      DNSConfig: { Nameservers: ['1.1.1.1'], Search: ['s'], Options: ['ndots:1'] },
      Secrets: [{ File: { Name: 'f', UID: '0', GID: '0', Mode: 292 }, SecretID: 'id', SecretName: 'n' }],
      Configs: [{ File: { Name: 'f', UID: '1', GID: '2', Mode: 292 }, ConfigID: 'id', ConfigName: 'n' }],
      Init: true,
      Sysctls: { 'net.core.somaxconn': '1' },
      CapabilityAdd: ['CAP_NET_ADMIN'],
      CapabilityDrop: ['CAP_MKNOD'],
      Ulimits: [{ Name: 'nofile', Soft: 1, Hard: 2 }],
      OomScoreAdj: 5,
    },
    Resources: {
      Limits: { NanoCPUs: 5e8, MemoryBytes: 1 << 20, Pids: 10 },
      Reservations: {
        NanoCPUs: 1e8,
        GenericResources: [
          { DiscreteResourceSpec: { Kind: 'gpu', Value: 1 } },
          { NamedResourceSpec: { Kind: 'fpga', Value: 'f1' } },
        ],
      },
      SwapBytes: 5,
    },
    RestartPolicy: { Condition: 'on-failure', Delay: 1e9, MaxAttempts: 3, Window: 2e9 },
    Placement: {
      Constraints: ['node.role==worker'],
      Preferences: [{ Spread: { SpreadDescriptor: 'node.labels.z' } }],
      MaxReplicas: 2,
      Platforms: [{ Architecture: 'amd64', OS: 'linux' }],
    },
    ForceUpdate: 1,
    Networks: [{ Target: 'n', Aliases: ['x'], DriverOpts: { k: 'v' } }],
    LogDriver: { Name: 'json-file', Options: { 'max-size': '1m' } },
  },
  Mode: { Replicated: { Replicas: 3 } },
  UpdateConfig: {
    Parallelism: 2,
    Delay: 1e9,
    FailureAction: 'rollback',
    Monitor: 5e9,
    MaxFailureRatio: 0.1,
    Order: 'start-first',
  },
  RollbackConfig: { Parallelism: 1, FailureAction: 'pause', MaxFailureRatio: 0, Order: 'stop-first' },
  EndpointSpec: {
    Mode: 'vip',
    Ports: [{ Name: 'p', Protocol: 'udp', TargetPort: 53, PublishedPort: 5353, PublishMode: 'host' }],
  },
}

for (const [name, body] of Object.entries({
  'a full specification': FULL,
  'the least specification': { Name: 'a', TaskTemplate: { ContainerSpec: { Image: 'b' } } },
  'what the docker command sends for a plain service': {
    Name: 'a',
    Labels: {},
    TaskTemplate: {
      ContainerSpec: { Image: 'b', Init: false, DNSConfig: {}, Isolation: 'default' },
      Resources: { Limits: {}, Reservations: {} },
      Placement: {},
      ForceUpdate: 0,
    },
    Mode: { Replicated: {} },
    EndpointSpec: { Mode: 'vip' },
  },
  'a global job': {
    Name: 'a',
    TaskTemplate: { ContainerSpec: { Image: 'b' }, Resources: {} },
    Mode: { GlobalJob: {} },
  },
} satisfies Record<string, ServiceSpecJson>)) {
  test(`${name}, read back from inspect, is stored as it was: an update that changes nothing restarts nothing`, (t) => {
    const once = serviceSpecFrom(body, '')
    const shown = serviceSpecJson(once) as ServiceSpecJson
    t.deepEqual(serviceSpecFrom(shown, ''), once)
    t.deepEqual(serviceSpecJson(serviceSpecFrom(shown, '')), shown)
  })
}

test('every field of a full specification is shown again', (t) => {
  t.like(serviceSpecJson(serviceSpecFrom(FULL, '')), {
    ...FULL,
    UpdateConfig: { ...FULL.UpdateConfig, MaxFailureRatio: 0.1 },
  })
})

/** Every way from the root to a value, those of whole objects and arrays too. */
function* places(value: unknown, path: readonly (string | number)[] = []): Generator<readonly (string | number)[]> {
  if (path.length > 0) yield path
  if (typeof value !== 'object' || value === null) return
  for (const [key, x] of Object.entries(value)) yield* places(x, [...path, Array.isArray(value) ? Number(key) : key])
}

test('a value of a wrong type anywhere is refused before the cluster sees it', (t) => {
  let refused = 0
  for (const path of places(FULL))
    for (const wrong of [5, 1.5, true, 'x', {}, [], [5], [null], [[5]], { a: 5 }, { a: null }]) {
      const body = structuredClone(FULL) as Record<string | number, unknown>
      let at = body
      for (const key of path.slice(0, -1)) at = at[key] as typeof at
      at[path.at(-1)!] = wrong
      try {
        ServiceSpec.encode(serviceSpecFrom(object(body, SERVICE_BODY, 'service'), ''))
      } catch (caught) {
        t.true(isKind(caught, 'invalid'), `${path.join('.')} = ${JSON.stringify(wrong)}: ${caught}`)
        refused++
      }
    }
  t.true(refused > 500)
})

test('an unknown word names itself and the known ones', (t) => {
  const body = { Name: 'a', TaskTemplate: { ContainerSpec: { Image: 'b' }, RestartPolicy: { Condition: 'sometimes' } } }
  t.throws(() => serviceSpecFrom(body, ''), {
    message: /restart condition "sometimes": use one of any, none, on-failure/,
  })
})

test('defaults are shown where nothing was said, and nothing that was said is lost', (t) => {
  const bare = withServiceDefaults({
    TaskTemplate: { ContainerSpec: { Image: 'a' } },
    Mode: { Replicated: { Replicas: 1 } },
  })
  t.deepEqual(bare.TaskTemplate?.RestartPolicy, { Condition: 'any', Delay: 5e9, MaxAttempts: 0 })
  t.is(bare.TaskTemplate?.ContainerSpec?.StopGracePeriod, 10e9)
  t.like(bare.UpdateConfig, { Parallelism: 1, FailureAction: 'pause', Monitor: 5e9, Order: 'stop-first' })
  t.deepEqual(bare.RollbackConfig, bare.UpdateConfig)
  const said = { Parallelism: 3, FailureAction: 'rollback', Order: 'start-first' }
  const own = withServiceDefaults({ ...FULL, UpdateConfig: said })
  t.deepEqual(own.UpdateConfig, { Monitor: 5e9, MaxFailureRatio: 0, ...said })
  t.like(own.TaskTemplate, FULL.TaskTemplate!)
  t.false('UpdateConfig' in withServiceDefaults({ Mode: { GlobalJob: {} } }))
})

test('fields that no table knows are named, nulls and other spellings are not', (t) => {
  const body = {
    name: 'web',
    Foo: null,
    TaskTemplate: { Bar: 1, containerspec: { Image: 'nginx', Zip: { a: 1 } }, Networks: [{ Target: 'n', New: 2 }] },
  }
  t.deepEqual(unknownFields(object(structuredClone(FULL), SERVICE_BODY, 'service'), SERVICE_BODY), [])
  t.deepEqual(unknownFields(object(body, SERVICE_BODY, 'service'), SERVICE_BODY).sort(), [
    'TaskTemplate.Bar',
    'TaskTemplate.ContainerSpec.Zip',
    'TaskTemplate.Networks[0].New',
  ])
})
