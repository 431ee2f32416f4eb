import type * as grpc from '@grpc/grpc-js'
import {
  type AgentMessage,
  Dispatcher as DispatcherService,
  type LogChunk,
  type LogRequest,
  ManagerMessage,
  Node,
  NodeState,
  type ReportAck,
  type ReportBatch,
} from '#proto'
import { type Peer, peerOf, serviceDefinition, toServiceError } from '../../common/grpc/index.js'
import { type Clock, forbidden, invalid, notFound, ShoalError, type Timer, unavailable } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import { isRemoved, signer } from '../ca/index.js'
import type { Commit, Store, StoreEvent } from '../store/index.js'
import { clusterMembers, managerPeers, memberKey } from './members.js'
import { NetworkState } from './network-state.js'
import {
  FLUSH_MS,
  MEMBERS_MS,
  NODE_APPEARS_MS,
  NODE_DOWN_MS,
  nodeDownMs,
  REGISTRATIONS_MAX,
  RENEW_BATCH,
  RENEW_PAUSE_MS,
  SWEEP_MS,
} from './options.js'
import type { LeaderDesk, Reporter } from './reporter.js'
import { type ClusterFacts, Session } from './session.js'

type Call = grpc.ServerDuplexStream<AgentMessage, ManagerMessage>

export interface DispatcherModules {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly reporter: Reporter
  /** Throws unless the caller is a node (or manager) of this cluster. */
  readonly authorise: (peer: Peer | null, role: 'manager' | 'any') => Peer
  /** This manager's own node, whose agent dials loopback: others reach it at its advertised address. */
  readonly self: { readonly nodeId: string; readonly address: string }
  /** Null where this manager does not lead. */
  readonly desk: () => LeaderDesk | null
}

/** Sessions of agents with this manager. All it tells them is from this manager's own replica. */
export class Dispatcher {
  readonly #sessions = new Map<string, Session>()
  readonly #networks = new NetworkState()
  readonly #registrations = new Map<string, number[]>()
  #facts: ClusterFacts
  #flushTimer: Timer | null = null
  #membersTimer: Timer | null = null
  #renewTimer: Timer | null = null
  #membersDirty = false
  #membersSentAt = Number.NEGATIVE_INFINITY
  readonly #sweep: Timer
  readonly #stopWatch: () => void
  #stopped = false

  constructor(private readonly modules: DispatcherModules) {
    const { store, clock } = modules
    const { view, stop } = store.viewAndWatch((commit) => this.#commit(commit))
    this.#stopWatch = stop
    this.#networks.reset(view, store.version)
    this.#facts = this.#readFacts()
    this.#sweep = clock.every(SWEEP_MS, () => this.#endSilent())
  }

  /** A message written to many streams is encoded once. */
  static definition(): grpc.ServiceDefinition {
    const definition = serviceDefinition(DispatcherService) as unknown as Record<
      'Session' | 'Report',
      grpc.MethodDefinition<unknown, unknown>
    >
    const encoded = new WeakMap<ManagerMessage, Buffer>()
    const serialize = (message: ManagerMessage): Buffer => {
      let bytes = encoded.get(message)
      if (!bytes) {
        bytes = Buffer.from(ManagerMessage.encode(message))
        encoded.set(message, bytes)
      }
      return bytes
    }
    const session = { ...definition.Session, responseSerialize: serialize as (value: unknown) => Buffer }
    return { ...definition, Session: session }
  }

  handlers(): grpc.UntypedServiceImplementation {
    return {
      Session: (call: Call) => this.#open(call),
      Report: (call: grpc.ServerDuplexStream<ReportBatch, ReportAck>) => this.#report(call),
    }
  }

  holds(nodeId: string): boolean {
    return this.#sessions.has(nodeId)
  }

  /** Lines of tasks on a node whose session is here. Throws unavailable `sessionLost` when there is none (any more). */
  async *logs(nodeId: string, request: LogRequest, signal: AbortSignal): AsyncGenerator<LogChunk> {
    const session = this.#sessions.get(nodeId)
    if (!session) throw unavailable('sessionLost', `node ${nodeId} has no session with this manager`)
    yield* session.logs(request, signal)
  }

  stop(): void {
    this.#stopped = true
    this.#stopWatch()
    this.#sweep.cancel()
    this.#flushTimer?.cancel()
    this.#membersTimer?.cancel()
    this.#renewTimer?.cancel()
    for (const s of [...this.#sessions.values()]) this.#end(s, unavailable('stopping', 'this manager stops'))
  }

  // ---------------------------------------------------------------- sessions

  #open(call: Call): void {
    let session: Session | null = null
    const refuse = (e: unknown): void => {
      if (session) this.#end(session, ShoalError.from(e))
      else call.emit('error', toServiceError(e))
    }
    let peer: Peer
    try {
      if (this.#stopped) throw unavailable('stopping', 'this manager stops')
      peer = this.modules.authorise(peerOf(call), 'any')
    } catch (e) {
      refuse(e)
      return
    }
    // Messages are taken one after another: registration waits for the node to appear in the replica.
    let turn: Promise<void> = Promise.resolve()
    call.on('data', (message: AgentMessage) => {
      if (session) {
        session.lastHeard = this.modules.clock.monotonic()
        session.heard = true
        this.modules.reporter.heard(session.nodeId, session.id)
      }
      turn = turn
        .then(async () => {
          if (message.register) session = await this.#register(call, peer, session, message.register)
          else if (!session) throw invalid('notRegistered', 'the first message of a session must register the node')
          else this.#message(session, message)
        })
        .catch(refuse)
    })
    const closed = (): void => {
      if (session) this.#end(session, null)
    }
    call.on('end', closed)
    call.on('cancelled', closed)
    call.on('error', closed)
  }

  #addressOf(peer: Peer): string {
    const { self } = this.modules
    return peer.nodeId === self.nodeId ? self.address : peer.address
  }

  async #register(
    call: Call,
    peer: Peer,
    present: Session | null,
    register: NonNullable<AgentMessage['register']>,
  ): Promise<Session> {
    const { clock, reporter, store } = this.modules
    if (!register.description) throw invalid('noDescription', 'a node registers with its description')
    if (present) {
      reporter.register(peer.nodeId, present.id, register.description, this.#addressOf(peer))
      return present
    }
    this.#limit(peer.nodeId)
    const node = await this.#node(peer.nodeId)
    if (call.cancelled || this.#stopped) throw unavailable('stopping', 'the session ended while it began')
    const old = this.#sessions.get(peer.nodeId)
    const session = new Session(call, peer, clock.monotonic(), this.#facts.rootEpoch)
    this.#sessions.set(peer.nodeId, session)
    old?.end(unavailable('sessionReplaced', `node ${peer.nodeId} began another session`))
    reporter.register(peer.nodeId, session.id, register.description, this.#addressOf(peer))
    session.tellSession(node, this.#facts, false)
    if (session.hasOldRole(node)) session.tellSession(node, this.#facts, true)
    session.send(clusterMembers(store.view()))
    this.#flush()
    session.tellAll(store.view(), this.#networks)
    this.modules.logger.debug('session opened', { nodeId: peer.nodeId, sessionId: session.id })
    return session
  }

  #message(session: Session, message: AgentMessage): void {
    if (message.log) session.gotLog(message.log)
    const batch = message.statuses
    if (!batch) return
    this.modules.reporter.statuses(session.nodeId, session.id, batch.updates).then(
      () => session.acknowledge(batch.sequence),
      (e: unknown) => this.#end(session, ShoalError.from(e)),
    )
  }

  #end(session: Session, error: ShoalError | null): void {
    session.end(error)
    if (this.#sessions.get(session.nodeId) !== session) return
    this.#sessions.delete(session.nodeId)
    this.modules.reporter.gone(session.nodeId, session.id)
    this.modules.logger.debug('session ended', { nodeId: session.nodeId, error: error?.message })
  }

  /** An agent that starts over again and again must not keep everybody busy. */
  #limit(nodeId: string): void {
    const now = this.modules.clock.monotonic()
    const recent = (this.#registrations.get(nodeId) ?? []).filter((t) => now - t < NODE_DOWN_MS)
    if (recent.length >= REGISTRATIONS_MAX)
      throw unavailable('tooManyRegistrations', `node ${nodeId} registered ${recent.length} times within 8 s: wait`)
    this.#registrations.set(nodeId, [...recent, now])
  }

  /** The node as the replica has it; one that joined a moment ago may not be here yet. */
  #node(nodeId: string): Promise<Node> {
    const { clock, store } = this.modules
    const look = (): Node | null => {
      const cluster = store.view().cluster()
      if (cluster && isRemoved(cluster, nodeId))
        throw forbidden('nodeRemoved', `node ${nodeId} was removed from the cluster`)
      return store.view().get('node', nodeId)
    }
    return new Promise((resolve, reject) => {
      let stop = (): void => {}
      const timer = clock.after(NODE_APPEARS_MS, () => {
        stop()
        reject(
          notFound('nodeNotFound', `node ${nodeId} is not known to the cluster: was it removed? Leave and join anew`),
        )
      })
      const attempt = (): void => {
        try {
          const node = look()
          if (!node) return
          resolve(node)
        } catch (e) {
          reject(e)
        }
        timer.cancel()
        stop()
      }
      stop = store.onCommit(attempt)
      attempt()
    })
  }

  #endSilent(): void {
    const now = this.modules.clock.monotonic()
    const downMs = nodeDownMs(this.modules.store.view().cluster())
    for (const [id, times] of this.#registrations)
      if (now - times.at(-1)! > NODE_DOWN_MS) this.#registrations.delete(id)
    for (const s of [...this.#sessions.values()])
      if (now - s.lastHeard > downMs)
        this.#end(s, unavailable('silent', `nothing was heard of node ${s.nodeId} for ${downMs} ms`))
  }

  // ---------------------------------------------------------------- what the store says

  #commit(commit: Commit): void {
    if (commit.reset) {
      this.#reset()
      return
    }
    let dirty = false
    for (const event of commit.events) dirty = this.#note(event) || dirty
    if (dirty) this.#flushSoon()
  }

  #reset(): void {
    const { store } = this.modules
    this.#networks.reset(store.view(), store.version)
    this.#facts = this.#readFacts()
    for (const session of [...this.#sessions.values()]) {
      const node = store.view().get('node', session.nodeId)
      // Perhaps the snapshot is older than the node: it registers again until it appears.
      if (!node) {
        this.#end(session, unavailable('stateReplaced', "this manager's state was replaced; register again"))
        continue
      }
      session.tellSession(node, this.#facts, session.hasOldRole(node))
      session.tellAll(store.view(), this.#networks)
    }
    this.#renewSome()
    this.#membersChanged()
  }

  /** True when something has to be flushed to agents. */
  #note(event: StoreEvent): boolean {
    const removed = event.action === 'remove'
    const network = this.#networks.note(event)
    switch (event.kind) {
      case 'task': {
        const now = removed ? null : event.object
        const nodes = new Set([event.old?.nodeId, now?.nodeId])
        for (const id of nodes) if (id) this.#sessions.get(id)?.noteTask(event.old, now)
        return network || nodes.size > 0
      }
      case 'secret':
      case 'config':
        for (const s of this.#sessions.values()) s.assignments.notePayload(event.kind, event.object.id)
        return event.action === 'update'
      case 'network':
        if (event.object.spec?.ingress && event.action !== 'update')
          for (const s of this.#sessions.values()) s.followIngress(event.object.id, removed ? -1 : 1)
        return true
      case 'node':
        this.#nodeChanged(event)
        return network
      case 'cluster':
        this.#factsChanged()
        return network
      default:
        return network
    }
  }

  #nodeChanged(event: StoreEvent & { kind: 'node' }): void {
    const { old, object: node } = event
    if (memberKey(old) !== memberKey(event.action === 'remove' ? null : node)) this.#membersChanged()
    if ((old?.managerStatus?.address ?? '') !== (node.managerStatus?.address ?? '') || event.action === 'remove')
      this.#factsChanged()
    const session = this.#sessions.get(node.id)
    if (!session) return
    if (event.action === 'remove') {
      this.#end(session, forbidden('nodeRemoved', `node ${node.id} was removed from the cluster`))
      return
    }
    const roleChanged = old?.role !== node.role
    // The agent wrote the status and description itself; that the cluster has them it learns once.
    if (roleChanged || !sameSpec(old, node) || (isReady(node) && !isReady(old)))
      session.tellSession(node, this.#facts, roleChanged)
  }

  #factsChanged(): void {
    const before = this.#facts
    this.#facts = this.#readFacts()
    if (before.rootEpoch !== this.#facts.rootEpoch) this.#renewSome()
    const same =
      Buffer.compare(before.trust, this.#facts.trust) === 0 &&
      before.managers.map((m) => m.nodeId + m.address).join() ===
        this.#facts.managers.map((m) => m.nodeId + m.address).join()
    if (same) return
    const view = this.modules.store.view()
    for (const s of [...this.#sessions.values()]) {
      const node = view.get('node', s.nodeId)
      if (node) s.tellSession(node, this.#facts, false)
    }
  }

  /** A changed root asks every node for a new certificate: a few at a time, because the leader signs them all. */
  #renewSome(): void {
    if (this.#renewTimer) return
    const { clock, store } = this.modules
    let left = RENEW_BATCH
    for (const s of [...this.#sessions.values()]) {
      if (s.rootEpoch === this.#facts.rootEpoch) continue
      if (left-- === 0) {
        this.#renewTimer = clock.after(RENEW_PAUSE_MS, () => {
          this.#renewTimer = null
          this.#renewSome()
        })
        return
      }
      s.rootEpoch = this.#facts.rootEpoch
      const node = store.view().get('node', s.nodeId)
      if (node) s.tellSession(node, this.#facts, false)
    }
  }

  #readFacts(): ClusterFacts {
    const view = this.modules.store.view()
    const cluster = view.cluster()
    const root = cluster?.rootCa
    return {
      managers: managerPeers(view),
      trust: cluster && root ? Buffer.from(signer(cluster).trust) : new Uint8Array(),
      // Raised twice by a rotation: for certificates of the new root, then to stop trusting the old one.
      rootEpoch: root ? root.epoch * 2 + (root.rotation ? 1 : 0) : 0,
    }
  }

  // ---------------------------------------------------------------- telling agents

  #flushSoon(): void {
    if (this.#sessions.size === 0) {
      // Nobody to tell: what changed is in the full state that a session begins with.
      this.#networks.flush(this.modules.store.version)
      return
    }
    this.#flushTimer ??= this.modules.clock.after(FLUSH_MS, () => this.#flush())
  }

  #flush(): void {
    this.#flushTimer?.cancel()
    this.#flushTimer = null
    const { store } = this.modules
    const updates = new Map<string, ManagerMessage>()
    for (const [id, network] of this.#networks.flush(store.version)) updates.set(id, ManagerMessage.create({ network }))
    for (const s of [...this.#sessions.values()]) if (s.assignmentsSent) s.flush(store.view(), this.#networks, updates)
  }

  #membersChanged(): void {
    this.#membersDirty = true
    if (this.#membersTimer || this.#sessions.size === 0) return
    const { clock } = this.modules
    const wait = Math.max(FLUSH_MS, this.#membersSentAt + MEMBERS_MS - clock.monotonic())
    this.#membersTimer = clock.after(wait, () => {
      this.#membersTimer = null
      if (!this.#membersDirty) return
      this.#membersDirty = false
      this.#membersSentAt = clock.monotonic()
      const message = clusterMembers(this.modules.store.view())
      for (const s of [...this.#sessions.values()]) s.send(message)
    })
  }

  // ---------------------------------------------------------------- other managers' reports

  #report(call: grpc.ServerDuplexStream<ReportBatch, ReportAck>): void {
    const fail = (e: unknown): void => {
      call.emit('error', toServiceError(e))
    }
    let manager: Peer
    try {
      manager = this.modules.authorise(peerOf(call), 'manager')
    } catch (e) {
      fail(e)
      return
    }
    let failed = false
    call.on('data', (batch: ReportBatch) => {
      const desk = this.modules.desk()
      const taken = desk
        ? desk.accept(manager.nodeId, batch)
        : Promise.reject(unavailable('notLeader', 'this manager does not lead the cluster'))
      taken.then(
        () => {
          if (!failed && !call.cancelled) call.write({ sequence: batch.sequence })
        },
        (e: unknown) => {
          if (failed) return
          failed = true
          fail(e)
        },
      )
    })
    call.on('end', () => {
      if (!failed) call.end()
    })
    // The sender notices by itself and starts over.
    call.on('error', () => {
      failed = true
    })
  }
}

const EMPTY = new Uint8Array()

const isReady = (n: Node | null): boolean => n?.status?.state === NodeState.NODE_READY

function sameSpec(a: Node | null, b: Node): boolean {
  if (!a) return false
  if (a.spec === b.spec && a.ingressIndex === b.ingressIndex) return true
  const encode = (n: Node): Uint8Array =>
    Node.encode({ ...n, meta: null, status: null, description: null, managerStatus: null, certificate: EMPTY })
  return Buffer.compare(encode(a), encode(b)) === 0
}
