// What an answer looks like depends on the version in its path: the switches between 1.24 and 1.50 that clients notice.
import test from 'ava'
import { containerInspect } from '../../src/api/convert/container.js'
import { imageInspect, imageSummary } from '../../src/api/convert/image.js'
import { olderInspect, olderStats } from '../../src/api/convert/legacy.js'
import { createBodyOf } from '../../src/api/convert/older.js'
import { streamType } from '../../src/api/streams.js'
import type { ContainerView } from '../../src/engine/index.js'
import type { Image } from '../../src/runtime/index.js'

const VERSIONS = Array.from({ length: 27 }, (_, i) => `1.${24 + i}`)
/** The versions at which something is there. */
const where = (has: (version: string) => boolean): string => {
  const those = VERSIONS.filter(has)
  return those.length === 0 ? 'never' : `${those[0]} to ${those.at(-1)}`
}

const image: Image = {
  id: `sha256:${'1'.repeat(64)}`,
  config: { architecture: 'amd64', os: 'linux', config: { Cmd: ['x'] }, rootfs: { type: 'layers', diff_ids: [] } },
  repoTags: ['a:1'],
  repoDigests: [],
  sizeBytes: 5,
  createdMs: 0,
  lastTaggedMs: 0,
  parent: null,
  rawConfig: new Uint8Array(),
  manifest: { mediaType: 'm', digest: `sha256:${'2'.repeat(64)}`, size: 1 },
  layerSizes: [],
}

test('streams are named from 1.42 on', (t) => {
  t.is(
    where((v) => streamType(v, false) === 'application/vnd.docker.multiplexed-stream'),
    '1.42 to 1.50',
  )
  t.is(
    where((v) => streamType(v, true) === 'application/vnd.docker.raw-stream'),
    '1.24 to 1.50',
  )
})

test("an image's fields come and go", (t) => {
  const inspect = (v: string): Record<string, unknown> => imageInspect(image, v) as Record<string, unknown>
  t.is(
    where((v) => 'VirtualSize' in imageSummary(image, v)),
    '1.24 to 1.43',
  )
  t.is(
    where((v) => 'VirtualSize' in inspect(v)),
    '1.24 to 1.43',
  )
  t.is(
    where((v) => 'Container' in inspect(v)),
    '1.24 to 1.44',
  )
  t.is(
    where((v) => 'Descriptor' in inspect(v)),
    '1.48 to 1.50',
  )
  t.is(
    where((v) => 'Hostname' in (inspect(v).Config as object)),
    '1.24 to 1.49',
  )
  t.is(
    where((v) => 'ContainerConfig' in inspect(v)),
    '1.24 to 1.50',
    'docker-compose 1.29 reads it',
  )
})

test("the short id leaves a container's aliases at 1.45", (t) => {
  const id = 'abcdef0123456789'.repeat(4)
  const endpoint = { settings: { Aliases: ['www'] }, record: null }
  const c = {
    id,
    name: 'c',
    createdMs: 0,
    path: 'x',
    args: [],
    config: {},
    hostConfig: {},
    state: { status: 'exited', pid: 0, startedAtMs: 0, finishedAtMs: 0 },
    mounts: [],
    ports: [],
    execIds: [],
    lower: [],
    endpoints: new Map([
      ['net1', endpoint],
      ['bridge', endpoint],
    ]),
  } as unknown as ContainerView
  const aliases = (v: string, name: string): string[] =>
    (containerInspect(c, v).NetworkSettings as { Networks: Record<string, { Aliases: string[] }> }).Networks[name]!
      .Aliases
  t.is(
    where((v) => aliases(v, 'net1').includes(id.slice(0, 12))),
    '1.24 to 1.44',
  )
  t.is(
    where((v) => aliases(v, 'bridge').includes(id.slice(0, 12))),
    'never',
  )
  t.is(
    where((v) => aliases(v, 'net1').includes('www')),
    '1.24 to 1.50',
  )
})

test('up to 1.20 settings of the host stand among those of the container', (t) => {
  const c = {
    id: '1',
    name: 'c',
    createdMs: 0,
    args: [],
    config: {},
    hostConfig: { CpusetCpus: '0-1', VolumeDriver: 'v' },
    state: { status: 'exited', startedAtMs: 0, finishedAtMs: 0, pid: 0 },
    mounts: [{ type: 'bind', source: '/s', destination: '/d', rw: false }],
    ports: [],
    execIds: [],
    lower: [],
    endpoints: new Map(),
  } as unknown as ContainerView
  const shown = (v: string) => olderInspect(containerInspect(c, v), c, v) as Record<string, Record<string, unknown>>
  const last = (has: (shown: Record<string, Record<string, unknown>>) => boolean): string | undefined =>
    ['1.12', '1.19', '1.20', '1.21', '1.24'].filter((v) => has(shown(v))).at(-1)
  t.is(
    last((s) => s.Config!.VolumeDriver === 'v'),
    '1.20',
  )
  t.is(
    last((s) => !('Networks' in s.NetworkSettings!)),
    '1.20',
  )
  t.is(
    last((s) => s.Config!.Cpuset === '0-1'),
    '1.19',
  )
  t.is(
    last((s) => !('Mounts' in s)),
    '1.19',
  )
  t.deepEqual([shown('1.19').Volumes, shown('1.19').VolumesRW], [{ '/d': '/s' }, { '/d': false }])
})

test('up to 1.20 statistics have one network, the sum of all', (t) => {
  const stats = { name: '/c', id: '1', read: 'r', networks: { eth0: { rx_bytes: 1 }, eth1: { rx_bytes: 2 } } }
  t.deepEqual(olderStats(stats, '1.20'), { read: 'r', network: { rx_bytes: 3 } })
  t.is(olderStats(stats, '1.21'), stats)
})

test("a creation's settings of the host may stand beside those of the container", (t) => {
  const of = (body: object) => createBodyOf(body as never, '1.41')
  t.deepEqual(of({ Image: 'a', CpuShares: 5, CapAdd: 'NET_ADMIN', Cpuset: '0' }), {
    Image: 'a',
    HostConfig: { CpuShares: 5, CapAdd: ['NET_ADMIN'], CpusetCpus: '0' },
  })
  // With a HostConfig, what it does not say of these five is taken, and no more.
  t.deepEqual(of({ Image: 'a', Memory: 7, CpuShares: 5, Privileged: true, HostConfig: { Memory: 8 } }), {
    Image: 'a',
    HostConfig: { Memory: 8, CpuShares: 5 },
  })
})

test('several networks at creation are refused before 1.44', (t) => {
  const body = { Image: 'a', NetworkingConfig: { EndpointsConfig: { n1: {}, n2: {} } } }
  t.throws(() => createBodyOf(body, '1.43'), { message: 'Container cannot be connected to network endpoints: n1, n2' })
  t.deepEqual(createBodyOf(body, '1.44').NetworkingConfig, body.NetworkingConfig)
})

test('what a version did not have yet means nothing in its requests', (t) => {
  const body = {
    Image: 'a',
    Healthcheck: { Test: ['CMD', 'x'], StartInterval: 5 },
    HostConfig: { Annotations: { a: 'b' }, ConsoleSize: [1, 2], Memory: 7 },
  } as never
  const made = (v: string) =>
    createBodyOf(body, v) as unknown as { Healthcheck: { StartInterval: number }; HostConfig: Record<string, unknown> }
  t.is(
    where((v) => made(v).Healthcheck.StartInterval === 5),
    '1.44 to 1.50',
  )
  t.is(
    where((v) => 'Annotations' in made(v).HostConfig),
    '1.43 to 1.50',
  )
  t.is(
    where((v) => 'ConsoleSize' in made(v).HostConfig),
    '1.42 to 1.50',
  )
  t.is(
    where((v) => made(v).HostConfig.CgroupnsMode === 'host'),
    '1.24 to 1.40',
  )
  t.is(
    where((v) => made(v).HostConfig.Memory === 7),
    '1.24 to 1.50',
  )
  t.deepEqual(createBodyOf({ Image: 'a' } as never, '1.30'), { Image: 'a' } as never)
})
