import {
  type ContainerStatus,
  type LogLine,
  type LogRequest,
  type Node,
  type PortConfig,
  PortProtocol,
  PublishMode,
  type Task,
} from '#proto'
import { isKind, millisOf, ShoalError } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import type { ContainerView, Engine } from '../../engine/index.js'
import type { Dependencies, TaskController } from '../contract.js'
import { expandContainerSpec, taskName } from '../dependencies/index.js'
import { containerBody, TASK_LABEL } from './container-plan.js'
import { filesOf, type TaskFiles } from './task-files.js'

/** Error codes of the engine that no second attempt on this node can mend. */
const REJECTED_KINDS = new Set(['invalid', 'notFound', 'forbidden', 'conflict'])

const rejected = (e: unknown): ShoalError => {
  const s = ShoalError.from(e)
  return REJECTED_KINDS.has(s.kind)
    ? new ShoalError(s.kind, s.code, s.message, { ...s.fields, rejected: true }, { cause: s })
    : s
}

/** Docker's sentence, which scripts look for in a task's error. */
const unhealthy = (): ShoalError => new ShoalError('unavailable', 'unhealthy', 'dockerexec: unhealthy container')

export interface ControllerModules {
  readonly engine: Engine
  readonly logger: Logger
  readonly dependencies: Dependencies
  readonly files: TaskFiles
  readonly preferLocalImages: boolean
  /** This node, for templates. */
  readonly node: () => Promise<Pick<Node, 'id' | 'description'>>
}

/** Drives the one container of one task through the engine. */
export class ContainerController implements TaskController {
  #task: Task
  private readonly engine: Engine
  private readonly logger: Logger

  constructor(
    task: Task,
    private readonly modules: ControllerModules,
  ) {
    this.#task = task
    this.engine = modules.engine
    this.logger = modules.logger
  }

  #container(): ContainerView | null {
    return this.engine.containers.list().find((c) => c.config.Labels?.[TASK_LABEL] === this.#task.id) ?? null
  }

  #must(): ContainerView {
    const c = this.#container()
    if (!c) throw new ShoalError('notFound', 'taskContainerGone', `the container of task ${this.#task.id} is gone`)
    return c
  }

  async prepare(signal: AbortSignal): Promise<void> {
    if (this.#container()) return
    for (const a of this.#task.networks) if (a.network) await this.engine.networks.ensureSwarmNetwork(a.network)
    await this.#pull(signal)
    try {
      await this.#create()
    } catch (e) {
      throw rejected(e)
    }
  }

  async #create(): Promise<void> {
    const { dependencies, files } = this.modules
    const node = await this.modules.node()
    const spec = expandContainerSpec(this.#task, node)
    const wanted = filesOf(this.#task, spec, node, dependencies)
    const paths = await files.write(this.#task.id, wanted)
    const mounts = wanted.map((f, i) => ({ source: paths[i]!, target: f.target }))
    try {
      await this.engine.containers.create(containerBody(this.#task, spec, mounts), { name: taskName(this.#task) })
    } catch (e) {
      await files.remove(this.#task.id)
      throw e
    }
  }

  /** An image that is here by digest is never asked for again; a tag is, and what is here serves when the registry does not answer. */
  async #pull(signal: AbortSignal): Promise<void> {
    const image = this.#task.spec?.container?.image ?? ''
    const local = await this.engine.images.get(image).catch((e: unknown) => {
      if (isKind(e, 'notFound')) return null
      throw e
    })
    if (local && this.modules.preferLocalImages) return
    if (local && (image.includes('@sha256:') || image.startsWith('sha256:'))) return
    const registryAuth = this.#task.spec?.container?.pullOptions?.registryAuth
    try {
      await this.engine.images.pull(image, {
        auth: registryAuth ? JSON.parse(Buffer.from(registryAuth, 'base64url').toString('utf8')) : undefined,
        signal,
      })
    } catch (e) {
      if (signal.aborted || !local) throw rejected(e)
      this.logger.warn('pull failed; going on with the image that is here', { image, error: (e as Error).message })
    }
  }

  async start(signal: AbortSignal, runs: () => Promise<void>): Promise<void> {
    const c = this.#must()
    const events = new AbortController()
    const stop = (): void => events.abort()
    signal.addEventListener('abort', stop, { once: true })
    // Subscribed before the start, so that a health change between the two is not missed.
    const changes = this.engine.events.subscribe({ sinceMs: null, untilMs: null, signal: events.signal })
    try {
      await this.engine.containers.start(c.id).catch((e: unknown) => {
        if (!isKind(e, 'notModified')) throw e
      })
      const settled = (): boolean => {
        const s = this.#must().state
        if (s.status !== 'running' && s.status !== 'paused') return true
        const health = s.health?.status ?? 'none'
        if (health === 'unhealthy') throw unhealthy()
        return health !== 'starting'
      }
      if (settled()) return
      await runs()
      for await (const e of changes) if (e.type === 'container' && e.actorId === c.id && settled()) return
      signal.throwIfAborted()
    } finally {
      signal.removeEventListener('abort', stop)
      events.abort()
    }
  }

  async wait(signal: AbortSignal): Promise<{ exitCode: number; message: string }> {
    const c = this.#must()
    const both = new AbortController()
    const stop = (): void => both.abort(signal.reason)
    signal.addEventListener('abort', stop, { once: true })
    try {
      const end = await Promise.race([this.#untilExit(c.id, both.signal), this.#untilUnhealthy(c.id, both.signal)])
      await this.modules.files.remove(this.#task.id)
      return end
    } finally {
      signal.removeEventListener('abort', stop)
      both.abort()
    }
  }

  async #untilExit(id: string, signal: AbortSignal): Promise<{ exitCode: number; message: string }> {
    const { exitCode, error } = await this.engine.containers.wait(id, 'not-running', signal)
    return { exitCode, message: error || (exitCode === 0 ? '' : `task: non-zero exit (${exitCode})`) }
  }

  async #untilUnhealthy(id: string, signal: AbortSignal): Promise<never> {
    for await (const e of this.engine.events.subscribe({ sinceMs: null, untilMs: null, signal })) {
      if (e.type === 'container' && e.actorId === id && e.action === 'health_status: unhealthy') throw unhealthy()
    }
    return new Promise(() => {})
  }

  async shutdown(): Promise<void> {
    const c = this.#container()
    if (!c) return
    const grace = this.#task.spec?.container?.stopGracePeriod ?? null
    await this.engine.containers
      .stop(c.id, grace !== null ? { timeoutSeconds: Math.ceil(grace / 1e9) } : {})
      .catch((e: unknown) => {
        if (!isKind(e, 'notModified') && !isKind(e, 'notFound')) throw e
      })
    await this.modules.files.remove(this.#task.id)
  }

  async remove(): Promise<void> {
    const c = this.#container()
    if (c) await this.#removeContainer(c.id)
    await this.modules.files.remove(this.#task.id)
  }

  async #removeContainer(id: string): Promise<void> {
    await this.engine.containers.remove(id, { force: true, volumes: true, link: false }).catch((e: unknown) => {
      if (!isKind(e, 'notFound')) throw e
    })
  }

  async update(task: Task): Promise<void> {
    this.#task = task
  }

  async status(): Promise<{ container: ContainerStatus | null; ports: PortConfig[] }> {
    const c = this.#container()
    if (!c) return { container: null, ports: [] }
    const wanted = (this.#task.endpoint?.ports ?? []).filter((p) => p.publishMode === PublishMode.HOST)
    const words = { tcp: PortProtocol.TCP, udp: PortProtocol.UDP, sctp: PortProtocol.SCTP } as const
    return {
      container: { containerId: c.id, pid: c.state.pid, exitCode: c.state.exitCode },
      // One of both families is one port of the service.
      ports: c.ports
        .filter((p) => p.hostIp !== '::')
        .map((p) => ({
          name: wanted.find((w) => w.targetPort === p.containerPort && w.protocol === words[p.protocol])?.name ?? '',
          protocol: words[p.protocol],
          targetPort: p.containerPort,
          publishedPort: p.hostPort,
          publishMode: PublishMode.HOST,
        })),
    }
  }

  async *logs(request: LogRequest, signal: AbortSignal): AsyncIterable<LogLine> {
    const c = this.#must()
    const since = request.since
    const labels = {
      'com.docker.swarm.node.id': this.#task.nodeId,
      'com.docker.swarm.service.id': this.#task.serviceId,
      'com.docker.swarm.task.id': this.#task.id,
    }
    for await (const e of this.engine.containers.logs(
      c.id,
      {
        stdout: request.stdout,
        stderr: request.stderr,
        follow: request.follow,
        sinceMs: since ? millisOf(since.seconds, since.nanos) : null,
        untilMs: null,
        tail: request.tail < 0 ? null : request.tail,
      },
      signal,
    )) {
      yield {
        taskId: this.#task.id,
        timestamp: timestampOf(e.time),
        stream: e.stream === 'stderr' ? 2 : 1,
        data: e.data,
        attributes: { ...e.attributes, ...labels },
      }
    }
  }
}

/** RFC 3339 with up to nine digits, exactly. */
function timestampOf(time: string): { seconds: number; nanos: number } {
  const m = /^(.*?)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)$/.exec(time)
  if (!m) return { seconds: 0, nanos: 0 }
  return {
    seconds: Math.floor(Date.parse(`${m[1]}${m[3]}`) / 1000),
    nanos: Number((m[2] ?? '').padEnd(9, '0').slice(0, 9)),
  }
}
