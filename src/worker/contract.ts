import type {
  ClusterMembers,
  Config,
  ContainerStatus,
  LogLine,
  LogRequest,
  Network,
  NetworkUpdate,
  Node,
  NodeDescription,
  PortConfig,
  Secret,
  SessionInfo,
  Task,
} from '#proto'
import type { TlsIdentity } from '../common/grpc/index.js'
import type { Clock, Rng } from '../common/index.js'
import type { Logger } from '../common/log.js'

/** Secrets and configs by id, as far as this node has been given them; in memory only. */
export interface Dependencies {
  secret(id: string): Secret | null
  config(id: string): Config | null
}

/**
 * One task's container, as the task's state machine drives it. Calls never overlap, but for `status` and `logs`. An error that says the task can
 * never run (bad mount, no such image) is a ShoalError with fields {rejected: true}. Others mean REJECTED in `prepare`, else FAILED.
 */
export interface TaskController {
  /**
   * Image, networks, container created. Idempotent: a container left by an earlier daemon is adopted. For a task that was
   * running then, it is followed by `wait`, never by another `start`.
   */
  prepare(signal: AbortSignal): Promise<void>
  /** Resolves when it runs and, with a health check, is healthy. `runs` is called when it runs and is not healthy yet. */
  start(signal: AbortSignal, runs: () => Promise<void>): Promise<void>
  /** Resolves when the container ended by itself. Rejects with `unhealthy` when its health check failed. */
  wait(signal: AbortSignal): Promise<{ readonly exitCode: number; readonly message: string }>
  /** Stop signal, grace period, then SIGKILL. */
  shutdown(): Promise<void>
  /** Container and its writable layer are gone afterwards. Idempotent. */
  remove(): Promise<void>
  /** Same container, newer task object (e.g. desired state, resources). */
  update(task: Task): Promise<void>
  status(): Promise<{ readonly container: ContainerStatus | null; readonly ports: readonly PortConfig[] }>
  logs(request: LogRequest, signal: AbortSignal): AsyncIterable<LogLine>
}

export interface Executor {
  describe(): Promise<NodeDescription>
  controller(task: Task, dependencies: Dependencies): TaskController
  /** Task ids whose containers this host has, also of tasks no longer assigned. */
  knownTasks(): Promise<readonly string[]>
  /** Removes a container of a task that is assigned to us no more. */
  removeTask(taskId: string): Promise<void>
  configureNode(node: Node): Promise<void>
  applyMembers(members: ClusterMembers): Promise<void>
  applyNetworkUpdate(update: NetworkUpdate): Promise<void>
  ensureNetwork(network: Network): Promise<void>
}

export interface AgentOptions {
  /** <data-root>/swarm/worker: accepted tasks and their last status, durable. */
  readonly dir: string
  /** Directory in memory: see RecordDatabase. */
  readonly scratchDir: string
  readonly nodeId: string
}

export interface AgentModules {
  readonly clock: Clock
  readonly rng: Rng
  readonly logger: Logger
  readonly executor: Executor
  /** Present identity; asked again for each connection. */
  readonly identity: () => TlsIdentity
  /** Managers to try, best first; the agent adds those that sessions tell it. */
  readonly managers: () => readonly string[]
  /** Each SessionInfo: role changes, root certificate, manager list. */
  readonly onSession: (info: SessionInfo) => void
  /** Our certificate was refused for good: the node was removed. */
  readonly onRemoved: () => void
}

export interface Agent {
  /** Goes on with the tasks on disk before any manager answers. */
  start(): Promise<void>
  /** Ends the session; containers keep running. */
  stop(): Promise<void>
  /** Stops and removes all tasks: the node leaves. */
  leave(): Promise<void>
  /** The certificate changed: connect again. */
  reconnect(): void
  /** Connected to a manager now? */
  readonly connected: boolean
}
