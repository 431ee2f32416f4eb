import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { GenericResource } from '#proto'
import { type Api, createApi } from '../api/index.js'
import { invalid, systemClock, systemRng } from '../common/index.js'
import type { Logger } from '../common/log.js'
import { createEngine, type Engine } from '../engine/index.js'
import { createCaClient, createManager } from '../manager/index.js'
import { createNetworkService, DEFAULT_ADDRESS_POOLS } from '../overlay/index.js'
import { createImageService, createSnapshotService, createVolumeService, native } from '../runtime/index.js'
import { createAgent, createExecutor } from '../worker/index.js'
import { AttachedNetworks } from './attached-networks.js'
import { ClusterNode } from './cluster-node.js'
import { systemFacts } from './facts.js'
import { listenAll } from './listen.js'
import type { DaemonOptions } from './options.js'

/** Swarm stores and shows ticks of one second; ours are shorter, so that a new leader is found sooner (raft.md §6). */
const RAFT_TICK_MS = 100

/**
 * The drawing of the system: every room is built here, in the order in which each needs the others, and stopped in
 * reverse.
 *
 *     images, snapshots, volumes ─┐
 *     networks ───────────────────┴─> engine ──> executor ──> agent ─┐
 *                                       │                  manager ──┴─> cluster node
 *                                       └────────────> api <─────────────────┘
 */
export class Daemon {
  private constructor(
    private readonly engine: Engine,
    private readonly cluster: ClusterNode,
    private readonly api: Api,
    private readonly images: { stop(): Promise<void> },
  ) {}

  static async start(o: DaemonOptions, top: string, logger: Logger): Promise<Daemon> {
    const clock = systemClock
    const rng = systemRng
    await mkdir(o.dataRoot, { recursive: true, mode: 0o711 })
    await mkdir(o.execRoot, { recursive: true, mode: 0o711 })
    const pools = o.defaultAddressPools.length > 0 ? o.defaultAddressPools : DEFAULT_ADDRESS_POOLS
    const facts = await systemFacts(o, top, clock.now(), pools)
    const modules = (room: string) => ({ clock, rng, logger: logger.child({ room }) })
    const nativeDir = join(top, 'build/native')

    const images = createImageService(
      {
        root: join(o.dataRoot, 'image'),
        insecureRegistries: o.insecureRegistries,
        mirrors: o.registryMirrors,
        layerTool: join(nativeDir, 'shoal-layer'),
      },
      modules('image'),
    )
    const snapshots = createSnapshotService({ images })
    const volumes = createVolumeService({ root: join(o.dataRoot, 'volumes') }, modules('volume'))
    await images.start()
    await volumes.start()
    const hostNetworks = createNetworkService(
      {
        root: join(o.dataRoot, 'network'),
        runDir: join(o.execRoot, 'network'),
        bip: o.bip || null,
        defaultAddressPools: pools,
        ...(o.mtu > 0 ? { mtu: o.mtu } : {}),
        dns: { servers: o.dns, search: o.dnsSearch, options: o.dnsOptions },
      },
      modules('overlay'),
    )
    // The engine starts before the node takes its place in the swarm up: until then no manager can be asked.
    let attachments: ClusterNode['attachments'] = () => null
    const networks = AttachedNetworks.wrap(join(o.dataRoot, 'network'), hostNetworks, {
      ...modules('networks'),
      managers: () => attachments(),
      container: (id) => {
        const c = engine.containers.list().find((x) => x.id === id)
        return c ? { name: c.name, isTask: 'com.docker.swarm.task.id' in (c.config.Labels ?? {}) } : null
      },
    })
    const engine: Engine = createEngine(
      {
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
        shutdownTimeoutSeconds: o.shutdownTimeoutSeconds,
        liveRestore: o.liveRestore,
        dns: { servers: o.dns, search: o.dnsSearch, options: o.dnsOptions },
      },
      { ...modules('engine'), images, snapshots, volumes, networks },
    )
    await engine.start()
    const cluster: ClusterNode = new ClusterNode(
      { dir: join(o.dataRoot, 'swarm'), defaultAdvertiseAddr: o.defaultAdvertiseAddr, tickMs: RAFT_TICK_MS },
      {
        ...modules('cluster'),
        networks,
        executor: createExecutor(
          {
            engineVersion: facts.version,
            labels: Object.fromEntries(o.labels.map((l) => [l.split('=')[0]!, l.slice(l.indexOf('=') + 1)])),
            genericResources: o.genericResources.map(parseGenericResource),
            filesDir: join(o.execRoot, 'tasks'),
          },
          {
            engine,
            mounts: native(),
            logger: logger.child({ room: 'executor' }),
            membership: () => cluster.membership(),
          },
        ),
        publish: (event) => engine.events.publish(event),
        ca: createCaClient({ clock }),
        createManager,
        createAgent,
      },
    )
    attachments = () => cluster.attachments()
    const api = await createApi({
      engine,
      cluster,
      facts,
      clock,
      rng,
      logger: logger.child({ room: 'api' }),
      unreadBytes: (fd) => native().unreadBytes(fd),
    })
    await cluster.start()
    await listenAll(api, o, logger)
    return new Daemon(engine, cluster, api, images)
  }

  /** In order: no new calls, out of the swarm's way, containers, stores. */
  async stop(): Promise<void> {
    await this.api.close()
    await this.cluster.stop()
    await this.engine.stop()
    await this.images.stop()
  }
}

/** KIND=VALUE: a count where it is a whole number, else one named resource. */
function parseGenericResource(text: string): GenericResource {
  const m = /^([A-Za-z0-9_-]+)=(.+)$/.exec(text)
  if (!m) throw invalid('badResource', `--node-generic-resource "${text}": use KIND=COUNT or KIND=NAME`)
  return /^\d+$/.test(m[2]!) ? { kind: m[1]!, value: '', count: Number(m[2]) } : { kind: m[1]!, value: m[2]!, count: 0 }
}
