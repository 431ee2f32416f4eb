import { readFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { GenericResource } from '#proto'
import { type Api, createApi, isTaskContainer, type SystemFacts } from '../api/index.js'
import { type Builder, createBuilder } from '../build/index.js'
import { invalid, systemClock, systemRng, unavailable } from '../common/index.js'
import type { Logger, RootLogger } from '../common/log.js'
import {
  type ContainerDefaults,
  createEngine,
  createPlugins,
  type Engine,
  type EngineOptions,
  type PluginService,
  runtimeProgram,
} from '../engine/index.js'
import { createCaClient, createManager } from '../manager/index.js'
import { createNetworkService, DEFAULT_ADDRESS_POOLS } from '../overlay/index.js'
import {
  createImageService,
  createSnapshotService,
  createVolumeService,
  DEFAULT_PLUGIN_DIRS,
  type LocalImageService,
  native,
  PluginDistribution,
  Plugins,
} from '../runtime/index.js'
import { createAgent, createExecutor } from '../worker/index.js'
import { AttachedNetworks } from './attached-networks.js'
import { Authorizers } from './authorizers.js'
import { metricsAddress } from './check.js'
import { ClusterNode } from './cluster-node.js'
import { warnWhenFull } from './disk-space.js'
import { systemFacts } from './facts.js'
import { listenAll } from './listen.js'
import { Metrics } from './metrics.js'
import type { DaemonOptions } from './options.js'
import { planReload } from './reload.js'

/** Swarm stores and shows ticks of one second; ours are shorter, so that a new leader is found sooner (raft.md §6). */
const RAFT_TICK_MS = 100
/** HOST/{*.crt,*.cert,*.key} of registries: our own place, then docker's, where operators have them. */
const REGISTRY_CERTS_DIRS = ['/etc/shoal/certs.d', '/etc/docker/certs.d']

/**
 * The drawing of the system: every room is built here, in the order in which each needs the others, and stopped in
 * reverse.
 *
 *     images, snapshots, volumes ─┐
 *     networks ───────────────────┴─> engine ──> executor ──> agent ─┐
 *                                       │                  manager ──┴─> cluster node
 *                                       ├──> builder ─┐                      │
 *                                       └─────────────┴> api <───────────────┘
 */
export class Daemon {
  private constructor(
    private readonly engine: Engine,
    private readonly builder: Builder,
    private readonly plugins: PluginService,
    private readonly cluster: ClusterNode,
    private readonly api: Api,
    private readonly images: LocalImageService,
    private readonly running: Running,
  ) {}

  static async start(o: DaemonOptions, top: string, logger: RootLogger): Promise<Daemon> {
    const clock = systemClock
    const rng = systemRng
    await mkdir(o.dataRoot, { recursive: true, mode: 0o711 })
    await mkdir(o.execRoot, { recursive: true, mode: 0o711 })
    const pools = o.defaultAddressPools.length > 0 ? o.defaultAddressPools : DEFAULT_ADDRESS_POOLS
    const facts: Mutable<SystemFacts> = await systemFacts(o, top, clock.now(), pools)
    const modules = (room: string) => ({ clock, rng, logger: logger.child({ room }) })
    const nativeDir = join(top, 'build/native')

    const images = createImageService(
      {
        root: join(o.dataRoot, 'image'),
        scratchDir: o.execRoot,
        certsDirs: REGISTRY_CERTS_DIRS,
        ...imageSettings(o),
        layerTool: join(nativeDir, 'shoal-layer'),
      },
      modules('image'),
    )
    const snapshots = createSnapshotService({ images })
    const plugins = new Plugins(
      {
        sockets: [join(o.execRoot, 'plugins'), ...DEFAULT_PLUGIN_DIRS.sockets],
        specs: [join(o.execRoot, 'plugins'), ...DEFAULT_PLUGIN_DIRS.specs],
      },
      modules('plugin'),
    )
    const volumes = createVolumeService({ root: join(o.dataRoot, 'volumes') }, { ...modules('volume'), plugins })
    await warnWhenFull(o.dataRoot, logger)
    await images.start()
    await volumes.start()
    const hostNetworks = createNetworkService(
      {
        root: join(o.dataRoot, 'network'),
        runDir: join(o.execRoot, 'network'),
        bip: o.bip || null,
        bridge: o.bridge,
        fixedCidr: o.fixedCidr || null,
        defaultGateway: o.defaultGateway || null,
        ipv6: o.ipv6,
        fixedCidr6: o.fixedCidrV6 || null,
        defaultGateway6: o.defaultGatewayV6 || null,
        uniqueLocalSeed: facts.id,
        icc: o.icc,
        masquerade: o.ipMasquerade,
        publishAddress: o.publishAddress === '0.0.0.0' ? '' : o.publishAddress,
        forwarding: o.ipForward,
        packetRules: o.iptables,
        packetRules6: o.ip6tables,
        relay: o.userlandProxy ? join(nativeDir, 'shoal-relay') : null,
        hostGateway: o.hostGatewayIp || null,
        defaultAddressPools: pools,
        ...(o.mtu > 0 ? { mtu: o.mtu } : {}),
        dns: { servers: o.dns, search: o.dnsSearch, options: o.dnsOptions },
      },
      { ...modules('overlay'), plugins },
    )
    // The engine starts before the node takes its place in the swarm up: until then no manager can be asked.
    let attachments: ClusterNode['attachments'] = () => null
    const stopping = new AbortController()
    const networks = AttachedNetworks.wrap(join(o.dataRoot, 'network'), hostNetworks, {
      ...modules('networks'),
      stopping: stopping.signal,
      managers: () => attachments(),
      container: (id) => {
        const c = engine.containers.list().find((x) => x.id === id)
        return c ? { name: c.name, isTask: isTaskContainer(c) } : null
      },
    })
    const engineOptions: Mutable<EngineOptions> = {
      dataRoot: o.dataRoot,
      execRoot: o.execRoot,
      nativeDir,
      cgroupParent: o.cgroupParent,
      defaultRuntime: o.defaultRuntime,
      runtimes: o.runtimes,
      logDriver: o.logDriver,
      logOptions: o.logOptions,
      defaultUlimits: o.defaultUlimits,
      init: o.init,
      defaults: containerDefaults(o),
      shutdownTimeoutSeconds: o.shutdownTimeoutSeconds,
      liveRestore: o.liveRestore,
      dns: { servers: o.dns, search: o.dnsSearch, options: o.dnsOptions },
    }
    const engine: Engine = createEngine(engineOptions, { ...modules('engine'), images, snapshots, volumes, networks })
    const managed = createPlugins(
      {
        dataRoot: o.dataRoot,
        execRoot: o.execRoot,
        nativeDir,
        cgroupParent: o.cgroupParent,
        runtime: () => runtimeProgram(engineOptions.defaultRuntime, engineOptions),
        liveRestore: () => engineOptions.liveRestore,
      },
      {
        ...modules('plugins'),
        distribution: new PluginDistribution(images.store),
        plugins,
        driversInUse: () => {
          const ofNetworks = networks.networks().flatMap((n) => [n.driver, n.ipam.driver])
          return new Set([...volumes.driversInUse(), ...ofNetworks.map((name) => plugins.canonical(name))])
        },
        publish: (event) => engine.events.publish(event),
      },
    )
    // Containers that start with the daemon may need them.
    await managed.start()
    const authorizers = new Authorizers(o.authorizationPlugins, managed, plugins)
    await authorizers.check()
    await engine.start()
    const builder = createBuilder(
      { root: join(o.dataRoot, 'tmp'), layerTool: join(nativeDir, 'shoal-layer') },
      { ...modules('build'), engine, snapshots },
    )
    await builder.start()
    const executorOptions = {
      engineVersion: facts.version,
      labels: labelMap(o.labels),
      genericResources: o.genericResources.map(parseGenericResource),
      filesDir: join(o.execRoot, 'tasks'),
      preferLocalImages: process.env.DOCKER_SERVICE_PREFER_OFFLINE_IMAGE === '1',
    }
    const cluster: ClusterNode = new ClusterNode(
      {
        dir: join(o.dataRoot, 'swarm'),
        scratchDir: o.execRoot,
        defaultAdvertiseAddr: o.defaultAdvertiseAddr,
        tickMs: RAFT_TICK_MS,
      },
      {
        ...modules('cluster'),
        networks,
        disconnect: () => disconnectFromSwarm(engine, logger),
        executor: createExecutor(executorOptions, {
          engine,
          mounts: native(),
          logger: logger.child({ room: 'executor' }),
          membership: () => cluster.membership(),
        }),
        publish: (event) => engine.events.publish(event),
        ca: createCaClient({ clock }),
        createManager,
        createAgent,
      },
    )
    attachments = () => cluster.attachments()
    const api = await createApi({
      engine,
      builder,
      authorizers: () => authorizers.chain(),
      plugins: managed,
      cluster,
      facts,
      clock,
      rng,
      logger: logger.child({ room: 'api' }),
      unreadBytes: (fd) => native().unreadBytes(fd),
    })
    await cluster.start()
    const metrics =
      o.metricsAddr === ''
        ? null
        : await Metrics.start(metricsAddress(o.metricsAddr), {
            engine,
            facts,
            isManager: () => cluster.state().controlAvailable,
          })
    if (metrics) logger.info('metrics are served', { address: metrics.address })
    await listenAll(api, o, logger)
    return new Daemon(engine, builder, managed, cluster, api, images, {
      o,
      metrics,
      logger,
      facts,
      engineOptions,
      executorOptions,
      authorizers,
      stopping,
    })
  }

  /** What SIGHUP brings: who reads these settings reads them anew each time. */
  reload(next: DaemonOptions): void {
    const { running } = this
    const { options, changed, needRestart, attributes } = planReload(running.o, next)
    running.o = options
    running.logger.setLevel(options.logLevel)
    Object.assign(running.engineOptions, {
      liveRestore: options.liveRestore,
      shutdownTimeoutSeconds: options.shutdownTimeoutSeconds,
      runtimes: options.runtimes,
      defaultRuntime: options.defaultRuntime,
      defaults: containerDefaults(options),
    })
    Object.assign(running.facts, {
      labels: options.labels,
      debug: options.debug,
      liveRestore: options.liveRestore,
      insecureRegistries: options.insecureRegistries,
      registryMirrors: options.registryMirrors,
      runtimes: { shoal: running.facts.runtimes.shoal, ...options.runtimes },
      defaultRuntime: options.defaultRuntime,
    })
    running.executorOptions.labels = labelMap(options.labels)
    running.authorizers.names = options.authorizationPlugins
    this.images.reconfigure(imageSettings(options))
    running.logger.info('the configuration is reloaded', { changed })
    if (needRestart.length > 0)
      running.logger.warn('settings have changed that only a restart takes over', { settings: needRestart })
    this.engine.events.publish({
      type: 'daemon',
      action: 'reload',
      actorId: running.facts.id,
      attributes: { name: running.facts.name, ...attributes },
      scope: 'local',
    })
  }

  /** In order: no new calls, out of the swarm's way, containers, the plugins that they use, stores. */
  async stop(): Promise<void> {
    const { logger, stopping, metrics } = this.running
    stopping.abort(unavailable('stopping', 'this daemon is stopping'))
    const { api, builder, cluster, engine, plugins, images } = this
    const parts = { api: () => api.close(), metrics: () => metrics?.stop(), builder, cluster, engine, plugins, images }
    const ms: Record<string, number> = {}
    for (const [name, part] of Object.entries(parts)) {
      const begun = performance.now()
      await (typeof part === 'function' ? part() : part.stop())
      ms[name] = Math.round(performance.now() - begun)
    }
    logger.info('stopped', { ms })
  }
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

/** What the rooms were built with and may change under them. */
interface Running {
  readonly metrics: Metrics | null
  o: DaemonOptions
  readonly logger: RootLogger
  readonly facts: Mutable<SystemFacts>
  readonly engineOptions: Mutable<EngineOptions>
  readonly executorOptions: { labels: Readonly<Record<string, string>> }
  readonly authorizers: Authorizers
  readonly stopping: AbortController
}

async function disconnectFromSwarm({ containers, networks }: Engine, logger: Logger): Promise<void> {
  for (const n of networks.networks().filter((x) => x.scope === 'swarm'))
    for (const c of containers.list().filter((x) => x.state.status === 'running' && x.endpoints.has(n.name)))
      await containers.disconnect(c.id, n.id, true).catch((e: unknown) => {
        logger.warn('a container could not leave a network of the swarm', {
          container: c.id,
          network: n.name,
          error: String(e),
        })
      })
}

const imageSettings = (o: DaemonOptions) => ({
  insecureRegistries: o.insecureRegistries,
  mirrors: o.registryMirrors,
  downloadsMax: o.maxConcurrentDownloads,
  uploadsMax: o.maxConcurrentUploads,
  attemptsMax: o.maxDownloadAttempts,
})

const containerDefaults = (o: DaemonOptions): ContainerDefaults => ({
  shmBytes: o.defaultShmBytes,
  ipcMode: o.defaultIpcMode,
  cgroupnsMode: o.defaultCgroupnsMode,
  noNewPrivileges: o.noNewPrivileges,
  seccomp: seccompOf(o.seccompProfile),
  network: o.bridge === 'none' ? 'none' : 'bridge',
})

function seccompOf(setting: string): ContainerDefaults['seccomp'] {
  if (setting === '') return 'default'
  return setting === 'unconfined' ? setting : (JSON.parse(readFileSync(setting, 'utf8')) as object)
}

const labelMap = (labels: readonly string[]): Record<string, string> =>
  Object.fromEntries(labels.map((l) => [l.split('=')[0]!, l.slice(l.indexOf('=') + 1)]))

/** KIND=VALUE: a count where it is a whole number, else one named resource. */
function parseGenericResource(text: string): GenericResource {
  const m = /^([A-Za-z0-9_-]+)=(.+)$/.exec(text)
  if (!m) throw invalid('badResource', `--node-generic-resource "${text}": use KIND=COUNT or KIND=NAME`)
  return /^\d+$/.test(m[2]!) ? { kind: m[1]!, value: '', count: Number(m[2]) } : { kind: m[1]!, value: m[2]!, count: 0 }
}
