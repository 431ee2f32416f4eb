import type * as grpc from '@grpc/grpc-js'
import {
  type AgentMessage,
  type LogChunk,
  LogRequest,
  ManagerMessage,
  NetworkUpdate,
  type Node,
  NodeRole,
  SessionInfo,
  StatusAck,
  type Task,
  type WeightedPeer,
} from '#proto'
import { type Peer, toServiceError } from '../../common/grpc/index.js'
import { BoundedQueue, newObjectId, type ShoalError, unavailable } from '../../common/index.js'
import type { ReadView } from '../store/index.js'
import { AssignmentSet } from './assignments.js'
import { type NetworkState, networksOf } from './network-state.js'
import { BEAT_MS, LOG_BACKLOG, SESSION_BACKLOG } from './options.js'

type Call = grpc.ServerDuplexStream<AgentMessage, ManagerMessage>

/** What all sessions are told alike. */
export interface ClusterFacts {
  readonly managers: readonly WeightedPeer[]
  readonly trust: Uint8Array
  /** Rises when every node shall renew its certificate. */
  readonly rootEpoch: number
}

/** One agent's stream: what it has been told, and what it asks. */
export class Session {
  readonly id = newObjectId()
  readonly nodeId: string
  readonly assignments: AssignmentSet
  /** Tasks that need the network here, by network. */
  readonly #networks = new Map<string, number>()
  readonly #known = new Set<string>()
  readonly #changedNetworks = new Set<string>()
  readonly #logs = new Map<number, BoundedQueue<LogChunk>>()
  #subscription = 0
  #renewals = 0
  #ended = false
  /** Monotonic ms of the agent's last message. */
  lastHeard: number
  /** Something arrived since presence was last reported. */
  heard = true
  assignmentsSent = false

  constructor(
    private readonly call: Call,
    readonly peer: Peer,
    now: number,
    /** Of the root that this agent was last asked to have a certificate of; see ClusterFacts. */
    public rootEpoch: number,
  ) {
    this.nodeId = peer.nodeId
    this.assignments = new AssignmentSet(peer.nodeId)
    this.lastHeard = now
  }

  get ended(): boolean {
    return this.#ended
  }

  send(message: ManagerMessage): void {
    if (this.#ended) return
    this.call.write(message)
    if (this.call.writableLength > SESSION_BACKLOG)
      this.end(
        unavailable('slowAgent', `node ${this.nodeId} does not read what it is sent; it may start a new session`),
      )
  }

  /** Null: the manager stops and the agent shall go elsewhere. */
  end(error: ShoalError | null): void {
    if (this.#ended) return
    this.#ended = true
    for (const queue of this.#logs.values())
      queue.fail(unavailable('sessionLost', `the session of node ${this.nodeId} ended`))
    this.#logs.clear()
    if (error) this.call.emit('error', toServiceError(error))
    else this.call.end()
  }

  // ---------------------------------------------------------------- node, managers, certificate

  /** `renew`: whatever the agent has, it shall ask for a new certificate. */
  tellSession(node: Node, facts: ClusterFacts, renew: boolean): void {
    if (renew) this.#renewals++
    this.send(
      ManagerMessage.create({
        session: SessionInfo.create({
          sessionId: this.id,
          node,
          managers: [...facts.managers],
          rootCa: facts.trust,
          beatPeriod: BEAT_MS * 1e6,
          certificateEpoch: this.rootEpoch * 1000 + this.#renewals,
        }),
      }),
    )
  }

  /** The certificate at the other end says another role than the cluster wants. */
  hasOldRole(node: Node): boolean {
    return (node.role === NodeRole.MANAGER) !== (this.peer.role === 'manager')
  }

  acknowledge(sequence: number): void {
    this.send(ManagerMessage.create({ ack: StatusAck.create({ sequence }) }))
  }

  // ---------------------------------------------------------------- assignments and networks

  /** The agent gets everything: at the start, and after a snapshot replaced the replica's state. */
  tellAll(view: ReadView, state: NetworkState): void {
    const before = [...this.#known]
    this.#networks.clear()
    this.#known.clear()
    this.#changedNetworks.clear()
    this.#follow(state.meshes(), 1)
    for (const task of view.tasksOfNode(this.nodeId)) this.#follow(networksOf(task), 1)
    this.#tellNetworks(state, new Map())
    for (const id of before) if (!this.#known.has(id)) this.#withdraw(id)
    this.send(ManagerMessage.create({ assignments: this.assignments.full(view) }))
    this.assignmentsSent = true
  }

  noteTask(old: Task | null, now: Task | null): void {
    const mine = (t: Task | null): Task | null => (t?.nodeId === this.nodeId ? t : null)
    this.#follow(networksOf(mine(now)), 1)
    this.#follow(networksOf(mine(old)), -1)
    this.assignments.note(old, mine(now))
  }

  /** The mesh's network came or went. */
  followIngress(id: string, by: 1 | -1): void {
    this.#follow([id], by)
  }

  /** Networks first: a task may start as soon as it arrives. `shared` holds one message a network for all sessions. */
  flush(view: ReadView, state: NetworkState, shared: ReadonlyMap<string, ManagerMessage>): void {
    this.#tellNetworks(state, shared)
    const assignments = this.assignments.changes(view)
    if (assignments) this.send(ManagerMessage.create({ assignments }))
  }

  follows(): Iterable<string> {
    return this.#networks.keys()
  }

  #tellNetworks(state: NetworkState, shared: ReadonlyMap<string, ManagerMessage>): void {
    for (const [id, message] of shared)
      if (this.#known.has(id) && this.#networks.has(id) && !this.#changedNetworks.has(id)) this.send(message)
    const unknown: string[] = []
    for (const id of this.#changedNetworks) {
      if (this.#networks.has(id)) {
        const full = state.full(id)
        // Not a network that can be told (yet): asked again at the next flush.
        if (!full) {
          unknown.push(id)
          continue
        }
        this.#known.add(id)
        this.send(ManagerMessage.create({ network: full }))
      } else if (this.#known.delete(id)) this.#withdraw(id)
    }
    this.#changedNetworks.clear()
    for (const id of unknown) this.#changedNetworks.add(id)
  }

  #withdraw(networkId: string): void {
    this.send(ManagerMessage.create({ network: NetworkUpdate.create({ networkId, withdrawn: true }) }))
  }

  #follow(ids: readonly string[], by: 1 | -1): void {
    for (const id of ids) {
      const n = (this.#networks.get(id) ?? 0) + by
      if (n <= 0) this.#networks.delete(id)
      else this.#networks.set(id, n)
      // Followed again before anything was sent: the node knows it still.
      if (n > 0 === this.#known.has(id)) this.#changedNetworks.delete(id)
      else this.#changedNetworks.add(id)
    }
  }

  // ---------------------------------------------------------------- logs

  async *logs(request: LogRequest, signal: AbortSignal): AsyncGenerator<LogChunk> {
    if (this.#ended) throw unavailable('sessionLost', `the session of node ${this.nodeId} ended`)
    const subscription = ++this.#subscription
    const queue = new BoundedQueue<LogChunk>(LOG_BACKLOG)
    this.#logs.set(subscription, queue)
    const close = (): void => queue.close()
    signal.addEventListener('abort', close, { once: true })
    try {
      this.send(ManagerMessage.create({ log: LogRequest.create({ ...request, subscription, close: false }) }))
      for await (const chunk of queue) {
        yield chunk
        if (chunk.end) return
      }
    } finally {
      signal.removeEventListener('abort', close)
      if (this.#logs.delete(subscription))
        this.send(ManagerMessage.create({ log: LogRequest.create({ subscription, close: true }) }))
    }
  }

  gotLog(chunk: LogChunk): void {
    const queue = this.#logs.get(chunk.subscription)
    // Closed meanwhile.
    if (!queue) return
    queue.push(chunk)
    if (!chunk.end) return
    this.#logs.delete(chunk.subscription)
    queue.close()
  }
}
