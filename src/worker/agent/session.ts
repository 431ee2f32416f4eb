import {
  AgentMessage,
  type Assignments,
  type ManagerMessage,
  type NetworkUpdate,
  type Node,
  NodeDescription,
  type SessionInfo,
} from '#proto'
import type { Clock, Timer } from '../../common/index.js'
import { unavailable } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import type { Executor } from '../contract.js'
import { BEAT_MS, DESCRIBE_MS, REGISTER_TIMEOUT_MS, RESYNC_MS } from '../options.js'
import type { TaskSet } from '../tasks/index.js'
import { LogServer } from './log-server.js'
import type { StatusReporter } from './status-reporter.js'
import type { AgentStream } from './stream.js'

/** What outlives a session: where the next one goes on. */
export interface SessionMemory {
  sessionId: string
  node: Node | null
  /** Monotonic ms at which the whole network state was last asked for again. */
  resyncMs: number
}

export interface SessionModules {
  readonly clock: Clock
  readonly logger: Logger
  readonly executor: Executor
  readonly tasks: TaskSet
  readonly reporter: StatusReporter
  readonly memory: SessionMemory
  /** The manager took us; also for each later SessionInfo. */
  readonly onInfo: (info: SessionInfo) => void
}

/**
 * One session with one manager, from registration to its end. Messages are handled one after another: a network update has
 * been applied before the assignments that came after it start anything. Rejects with the reason when the stream breaks.
 */
export class Session {
  #assignmentVersion = -1
  readonly #networkVersions = new Map<string, number>()
  #described: Uint8Array | null = null
  #beat: Timer | null = null
  #beatMs = 0
  readonly #timers: Timer[] = []
  readonly #logs: LogServer
  #isRegistered = false
  #end: Error | null = null

  constructor(
    private readonly stream: AgentStream,
    private readonly modules: SessionModules,
  ) {
    this.#logs = new LogServer(stream, (taskId) => modules.tasks.controller(taskId))
  }

  get isRegistered(): boolean {
    return this.#isRegistered
  }

  async run(): Promise<void> {
    const { clock, reporter } = this.modules
    try {
      await this.#register(true)
      this.#timers.push(
        clock.after(REGISTER_TIMEOUT_MS, () => {
          if (!this.#isRegistered)
            this.#fail(unavailable('registerTimeout', `the manager did not answer within ${REGISTER_TIMEOUT_MS} ms`))
        }),
        clock.every(DESCRIBE_MS, () => void this.#register(false)),
      )
      this.#setBeat(BEAT_MS)
      for await (const message of this.stream.messages) {
        if (this.#end !== null) break
        await this.#handle(message)
      }
      if (this.#end !== null) throw this.#end
    } finally {
      this.#beat?.cancel()
      for (const timer of this.#timers) timer.cancel()
      this.#logs.close()
      reporter.detach()
      this.stream.close()
    }
  }

  /** Ends it from outside, without an error. */
  close(): void {
    this.stream.close()
  }

  #fail(error: Error): void {
    this.#end ??= error
    this.stream.close()
  }

  /** Says who we are; again only when the description changed. */
  async #register(always: boolean): Promise<void> {
    const { executor, memory, logger } = this.modules
    try {
      const description = await executor.describe()
      const bytes = NodeDescription.encode(description)
      if (!always && this.#described !== null && Buffer.compare(bytes, this.#described) === 0) return
      this.#described = bytes
      this.stream.send(AgentMessage.create({ register: { description, sessionId: memory.sessionId } }))
    } catch (error) {
      if (always) throw error
      logger.warn('the node could not be described', { error: String(error) })
    }
  }

  #setBeat(ms: number): void {
    if (this.#beatMs === ms) return
    this.#beatMs = ms
    this.#beat?.cancel()
    this.#beat = this.modules.clock.every(ms, () => this.stream.send(AgentMessage.create({ beat: {} })))
  }

  async #handle(message: ManagerMessage): Promise<void> {
    const { executor, reporter } = this.modules
    if (message.session) await this.#onInfo(message.session)
    else if (message.assignments) await this.#onAssignments(message.assignments)
    else if (message.members) {
      const members = message.members
      await this.#tell('cluster members', () => executor.applyMembers(members))
    } else if (message.network) await this.#onNetwork(message.network)
    else if (message.ack) reporter.acknowledge(message.ack.sequence)
    else if (message.log) this.#logs.handle(message.log)
  }

  async #onInfo(info: SessionInfo): Promise<void> {
    const { memory, executor, reporter, onInfo } = this.modules
    memory.sessionId = info.sessionId
    const wanted = info.beatPeriod > 0 ? Math.floor(info.beatPeriod / 1e6) : BEAT_MS
    this.#setBeat(Math.max(100, Math.min(BEAT_MS, wanted)))
    if (!this.#isRegistered) {
      this.#isRegistered = true
      reporter.attach((m) => this.stream.send(m))
    }
    onInfo(info)
    const node = info.node
    if (node !== null && node.meta?.version?.index !== memory.node?.meta?.version?.index) {
      memory.node = node
      await this.#tell('node object', () => executor.configureNode(node))
    }
  }

  async #onAssignments(assignments: Assignments): Promise<void> {
    if (!assignments.full && assignments.appliesTo !== this.#assignmentVersion)
      throw unavailable(
        'assignmentGap',
        `assignments for version ${assignments.appliesTo} came at version ${this.#assignmentVersion}: a new session asks for all`,
      )
    await this.modules.tasks.apply(assignments)
    this.#assignmentVersion = assignments.resultsIn
  }

  async #onNetwork(update: NetworkUpdate): Promise<void> {
    const known = this.#networkVersions.get(update.networkId)
    if (!update.full && !update.withdrawn && update.fromVersion !== known)
      throw unavailable(
        'networkGap',
        `an update of network ${update.networkId} from version ${update.fromVersion} came at ${known ?? 'none'}: a new session asks for all`,
      )
    if (update.withdrawn) this.#networkVersions.delete(update.networkId)
    else this.#networkVersions.set(update.networkId, update.toVersion)
    await this.#tell('network update', () => this.modules.executor.applyNetworkUpdate(update))
  }

  /**
   * Hands state to the executor. A failure must not keep tasks of other networks from starting: it is logged, and the whole state
   * is asked for again by a new session, though not over and over.
   */
  async #tell(what: string, fn: () => Promise<void>): Promise<void> {
    const { clock, logger, memory } = this.modules
    try {
      await fn()
    } catch (error) {
      logger.error('state from the manager was not applied', { what, error: String(error) })
      const waitMs = Math.max(0, memory.resyncMs + RESYNC_MS - clock.monotonic())
      this.#timers.push(
        clock.after(waitMs, () => {
          memory.resyncMs = clock.monotonic()
          this.#fail(unavailable('resync', `${what} was not applied: asking for the whole state again`))
        }),
      )
    }
  }
}
