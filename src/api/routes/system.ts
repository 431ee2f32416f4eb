import { readdirSync, readFileSync } from 'node:fs'
import { cpus, release, totalmem } from 'node:os'
import type { FastifyInstance } from 'fastify'
import { invalid, rfc3339, unimplemented } from '../../common/index.js'
import { LOG_DRIVERS } from '../../engine/index.js'
import { object } from '../body.js'
import { API_VERSION, type ApiModules, MIN_API_VERSION, type SystemFacts } from '../contract.js'
import { eventJson, eventMatches } from '../convert/event.js'
import { imageSummary } from '../convert/image.js'
import { swarmInfo } from '../convert/swarm.js'
import { volumeJson } from '../convert/volume.js'
import { Filters, type Query, text, timestamp } from '../query.js'
import { atLeast, clientGone, startStream, writeChunk } from '../streams.js'
import { sized, unlessTaken } from './containers.js'
import { clientAgent, withoutIntermediate } from './images.js'

const EVENT_FILTERS = [
  'config',
  'container',
  'daemon',
  'event',
  'image',
  'label',
  'network',
  'node',
  'plugin',
  'scope',
  'secret',
  'service',
  'type',
  'volume',
]

const NETWORK_DRIVERS = ['bridge', 'host', 'macvlan', 'null', 'overlay']

export function registerSystem(app: FastifyInstance, m: ApiModules): void {
  const ping = async (_q: unknown, reply: import('fastify').FastifyReply): Promise<string> => {
    const s = m.cluster.state()
    reply.header('Builder-Version', '1')
    reply.header('Cache-Control', 'no-cache, no-store, must-revalidate')
    reply.header('Pragma', 'no-cache')
    reply.header(
      'Swarm',
      s.localNodeState === 'active' ? (s.controlAvailable ? 'active/manager' : 'active/worker') : s.localNodeState,
    )
    reply.type('text/plain; charset=utf-8')
    return 'OK'
  }
  app.get('/_ping', ping)
  app.head('/_ping', async (q, reply) => {
    await ping(q, reply)
    reply.header('Content-Length', '0')
    return ''
  })
  app.options('/*', async (_q, reply) => reply.code(200).send())
  for (const path of ['/session', '/grpc'])
    app.post(path, async () => {
      throw unimplemented(
        'buildkit',
        'this engine does not speak BuildKit: set DOCKER_BUILDKIT=0 for the builder that it has, or build elsewhere and load the image',
      )
    })
  app.get('/version', async () => version(m))
  app.get('/info', async (request) => info(m, request.apiVersion))

  app.get('/events', async (request, reply) => {
    const q = request.query as Query
    const filters = Filters.parse(q, EVENT_FILTERS)
    const now = m.clock.now()
    const gone = clientGone(request)
    // "0" is the beginning of time here, and no end at all for logs.
    const [sinceMs, untilMs] = (['since', 'until'] as const).map((name) =>
      text(q, name) === '0' ? 0 : timestamp(q, name, now),
    ) as [number | null, number | null]
    if (sinceMs !== null && untilMs !== null && sinceMs > untilMs)
      throw invalid(
        'badParameter',
        `\`since\` time (${text(q, 'since')}) cannot be after \`until\` time (${text(q, 'until')})`,
      )
    const events = m.engine.events.subscribe({ sinceMs, untilMs, signal: gone })
    const out = startStream(request, reply, 'application/json')
    for await (const e of events) {
      if (!eventMatches(filters, e)) continue
      if (!(await writeChunk(out, `${JSON.stringify(eventJson(e))}\n`))) break
    }
    out.end()
  })

  app.post('/auth', async (request) => {
    const body = object<{ username?: string; password?: string; serveraddress?: string }>(
      request.body ?? {},
      {
        username: 'string',
        password: 'string',
        serveraddress: 'string',
        identitytoken: 'string',
        registrytoken: 'string',
      },
      'auth',
    )
    const registry = (body.serveraddress || 'docker.io').replace(/^https?:\/\//, '').replace(/\/.*$/, '')
    const auth = { ...body, ...clientAgent(request) }
    const IdentityToken = await m.engine.images.login(registry, { auth, signal: clientGone(request) })
    return { Status: 'Login Succeeded', IdentityToken }
  })

  app.get('/system/df', async (request) => {
    const { engine } = m
    const containers = engine.containers.list()
    const images = withoutIntermediate(await engine.images.list())
    const usage = await engine.images.usage()
    const volumes = await engine.volumes.list()
    return {
      LayersSize: usage.layersBytes,
      Images: images.map((i) => ({
        ...imageSummary(i, request.apiVersion),
        SharedSize: usage.sharedBytes.get(i.id) ?? 0,
        Containers: containers.filter((c) => c.image === i.id).length,
      })),
      Containers: await sized(m, containers),
      Volumes: (
        await Promise.all(
          volumes.map(async (v) => {
            const Size = await unlessTaken(engine.volumes.usage(v.name))
            return Size === null
              ? []
              : [{ ...volumeJson(v), UsageData: { Size, RefCount: engine.volumes.users(v.name).length } }]
          }),
        )
      ).flat(),
      BuildCache: [],
      BuilderSize: 0,
    }
  })
}

function version(m: ApiModules): object {
  const f = m.facts
  const details = {
    ApiVersion: API_VERSION,
    Arch: arch(),
    BuildTime: f.buildTime,
    Experimental: String(f.experimental),
    GitCommit: f.gitCommit,
    GoVersion: `node${process.version}`,
    KernelVersion: release(),
    MinAPIVersion: MIN_API_VERSION,
    Os: 'linux',
  }
  return {
    Platform: { Name: 'Shoal Engine' },
    Components: [
      { Name: 'Engine', Version: f.version, Details: details },
      { Name: 'shoal-runtime', Version: f.version, Details: { GitCommit: f.gitCommit } },
    ],
    Version: f.version,
    ApiVersion: API_VERSION,
    MinAPIVersion: MIN_API_VERSION,
    GitCommit: f.gitCommit,
    GoVersion: details.GoVersion,
    Os: 'linux',
    Arch: details.Arch,
    KernelVersion: details.KernelVersion,
    BuildTime: f.buildTime,
  }
}

export const arch = (): string => ({ x64: 'amd64', arm64: 'arm64', arm: 'arm' })[process.arch as string] ?? process.arch

function osRelease(): { name: string; version: string } {
  try {
    const text = readFileSync('/etc/os-release', 'utf8')
    const get = (k: string): string => new RegExp(`^${k}="?([^"\n]*)"?`, 'm').exec(text)?.[1] ?? ''
    return { name: get('PRETTY_NAME') || get('NAME'), version: get('VERSION_ID') }
  } catch {
    return { name: 'Linux', version: '' }
  }
}

async function info(m: ApiModules, apiVersion: string): Promise<object> {
  const { engine, facts: f } = m
  const containers = engine.containers.list()
  const authorizers = m.authorizers()
  const count = (s: string): number => containers.filter((c) => c.state.status === s).length
  const system = osRelease()
  const security = [
    `name=seccomp,profile=${f.seccompProfile}`,
    ...(f.cgroupVersion === '2' ? ['name=cgroupns'] : []),
    ...(f.noNewPrivileges ? ['name=no-new-privileges'] : []),
  ]
  const isOld = !atLeast(apiVersion, '1.25')
  const commit = (id: string): object => (atLeast(apiVersion, '1.49') ? { ID: id } : { ID: id, Expected: id })
  return {
    ID: f.id,
    Containers: containers.length,
    ContainersRunning: count('running'),
    ContainersPaused: count('paused'),
    ContainersStopped: containers.length - count('running') - count('paused'),
    Images: (await engine.images.list()).length,
    Driver: f.storageDriver,
    DriverStatus: [
      ['Backing Filesystem', 'extfs'],
      ['Supports d_type', 'true'],
      ['Native Overlay Diff', 'true'],
    ],
    Plugins: {
      Volume: await engine.volumes.drivers(),
      // Ours, and the plugins that there are networks of, as with dockerd.
      Network: [...new Set([...NETWORK_DRIVERS, ...engine.networks.networks().map((n) => n.driver)])].sort(),
      Authorization: authorizers.length > 0 ? authorizers.map((a) => a.name) : null,
      Log: LOG_DRIVERS,
    },
    MemoryLimit: true,
    SwapLimit: true,
    CpuCfsPeriod: true,
    CpuCfsQuota: true,
    CPUShares: true,
    CPUSet: true,
    PidsLimit: true,
    OomKillDisable: f.cgroupVersion === '1',
    IPv4Forwarding: true,
    ...(atLeast(apiVersion, '1.50') ? {} : { BridgeNfIptables: false, BridgeNfIp6tables: false }),
    Debug: f.debug,
    NFd: readdirSync('/proc/self/fd').length,
    NGoroutines: process.getActiveResourcesInfo().length,
    SystemTime: rfc3339(m.clock.now()),
    LoggingDriver: f.loggingDriver,
    CgroupDriver: 'cgroupfs',
    CgroupVersion: f.cgroupVersion,
    NEventsListener: 0,
    KernelVersion: release(),
    OperatingSystem: system.name,
    OSVersion: system.version,
    OSType: 'linux',
    Architecture: ({ amd64: 'x86_64', arm64: 'aarch64' } as Record<string, string>)[arch()] ?? arch(),
    IndexServerAddress: 'https://index.docker.io/v1/',
    RegistryConfig: {
      ...(atLeast(apiVersion, '1.49')
        ? {}
        : { AllowNondistributableArtifactsCIDRs: [], AllowNondistributableArtifactsHostnames: [] }),
      ...registryConfig(f, apiVersion),
    },
    NCPU: cpus().length,
    MemTotal: totalmem(),
    GenericResources: null,
    DockerRootDir: f.dataRoot,
    HttpProxy: '',
    HttpsProxy: '',
    NoProxy: '',
    Name: f.name,
    Labels: f.labels,
    ExperimentalBuild: f.experimental,
    ServerVersion: f.version,
    Runtimes: f.runtimes,
    DefaultRuntime: f.defaultRuntime,
    Swarm: await swarmInfo(m),
    LiveRestoreEnabled: f.liveRestore,
    Isolation: '',
    InitBinary: f.initBinary,
    ContainerdCommit: commit(''),
    RuncCommit: commit(f.gitCommit),
    InitCommit: commit(''),
    SecurityOptions: isOld ? security.map((o) => o.split(',')[0]!.slice('name='.length)) : security,
    ...(isOld ? { ExecutionDriver: '<not supported>' } : {}),
    DefaultAddressPools: f.defaultAddressPools.map((p) => ({ Base: p.base, Size: p.size })),
    Warnings: f.warnings.length > 0 ? f.warnings : null,
  }
}

function registryConfig(f: SystemFacts, apiVersion: string): object {
  const isBlock = (registry: string): boolean => registry.includes('/')
  const mirrors = f.registryMirrors.map((m) => (m.endsWith('/') ? m : `${m}/`))
  const index = (Name: string, Mirrors: string[], Secure: boolean): [string, object] => [
    Name,
    { Name, Mirrors, Secure, Official: Secure },
  ]
  return {
    InsecureRegistryCIDRs: [
      ...(atLeast(apiVersion, '1.42') ? ['::1/128'] : []),
      '127.0.0.0/8',
      ...f.insecureRegistries.filter(isBlock),
    ],
    IndexConfigs: Object.fromEntries([
      index('docker.io', mirrors, true),
      ...f.insecureRegistries.filter((r) => !isBlock(r)).map((r) => index(r, [], false)),
    ]),
    Mirrors: mirrors,
  }
}
