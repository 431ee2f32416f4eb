import { X509Certificate } from 'node:crypto'
import { cpus, hostname, totalmem } from 'node:os'
import type { ClusterMembers, GenericResource, Network, NetworkUpdate, Node, NodeDescription, Task } from '#proto'
import { isKind } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import { type Engine, LOG_DRIVERS } from '../../engine/index.js'
import type { Dependencies, Executor, TaskController } from '../contract.js'
import { TASK_LABEL } from './container-plan.js'
import { ContainerController } from './controller.js'
import { type MountCalls, TaskFiles } from './task-files.js'

export interface ExecutorOptions {
  readonly engineVersion: string
  readonly labels: Readonly<Record<string, string>>
  readonly genericResources: readonly GenericResource[]
  /** <exec-root>/tasks: a tmpfs for each task that has secrets or configs. */
  readonly filesDir: string
  /** An image that is here is not asked for again, whatever its tag may name by now. */
  readonly preferLocalImages: boolean
}

export interface ExecutorModules {
  readonly engine: Engine
  readonly mounts: MountCalls
  readonly logger: Logger
  /** PEM root and certificate, and where this node's VXLAN packets come from; null while in no swarm. */
  readonly membership: () => {
    readonly nodeId: string
    readonly ca: string
    readonly cert: string
    readonly dataPathAddress: string
  } | null
}

/** Runs tasks as containers of this host's engine. */
export function createExecutor(options: ExecutorOptions, m: ExecutorModules): Executor {
  const files = new TaskFiles(options.filesDir, m.mounts)
  const taskIds = (): string[] => m.engine.containers.list().flatMap((c) => c.config.Labels?.[TASK_LABEL] ?? [])
  const describe = async (): Promise<NodeDescription> => {
    const membership = m.membership()
    const issuer = membership ? issuerOf(membership.ca) : null
    return {
      hostname: hostname(),
      platform: {
        architecture: { x64: 'x86_64', arm64: 'aarch64' }[process.arch as string] ?? process.arch,
        os: 'linux',
      },
      resources: {
        nanoCpus: cpus().length * 1e9,
        memoryBytes: totalmem(),
        pids: 0,
        generic: [...options.genericResources],
      },
      engineVersion: options.engineVersion,
      engineLabels: { ...options.labels },
      plugins: [
        ...['bridge', 'host', 'macvlan', 'null', 'overlay'].map((name) => ({ type: 'Network', name })),
        ...LOG_DRIVERS.map((name) => ({ type: 'Log', name })),
        ...(await m.engine.volumes.drivers()).map((name) => ({ type: 'Volume', name })),
      ],
      trustRoot: Buffer.from(membership?.ca ?? ''),
      certIssuerSubject: issuer?.subject ?? new Uint8Array(0),
      certIssuerPublicKey: issuer?.publicKey ?? new Uint8Array(0),
      dataPathAddress: membership?.dataPathAddress ?? '',
    }
  }
  return {
    describe,
    controller(task: Task, dependencies: Dependencies): TaskController {
      return new ContainerController(task, {
        engine: m.engine,
        logger: m.logger,
        dependencies,
        files,
        preferLocalImages: options.preferLocalImages,
        node: async () => ({ id: m.membership()?.nodeId ?? '', description: await describe() }),
      })
    },
    async knownTasks() {
      const known = new Set(taskIds())
      await files.sweep((id) => known.has(id))
      return [...known]
    },
    async removeTask(taskId) {
      const c = m.engine.containers.list().find((x) => x.config.Labels?.[TASK_LABEL] === taskId)
      if (c)
        await m.engine.containers.remove(c.id, { force: true, volumes: true, link: false }).catch((e: unknown) => {
          if (!isKind(e, 'notFound')) throw e
        })
      await files.remove(taskId)
    },
    async configureNode(_node: Node) {},
    applyMembers: (members: ClusterMembers) => m.engine.networks.applyMembers(members),
    applyNetworkUpdate: (update: NetworkUpdate) => m.engine.networks.applyNetworkUpdate(update),
    async ensureNetwork(network: Network) {
      await m.engine.networks.ensureSwarmNetwork(network)
    },
  }
}

/** Subject (DER text form is not exposed by Node: the readable one) and public key of the root that signs this swarm's nodes. */
function issuerOf(ca: string): { subject: Uint8Array; publicKey: Uint8Array } {
  const x = new X509Certificate(ca)
  return { subject: Buffer.from(x.subject), publicKey: x.publicKey.export({ type: 'spki', format: 'der' }) }
}
