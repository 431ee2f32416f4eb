import type * as grpc from '@grpc/grpc-js'
import {
  CA,
  Control,
  Empty,
  IssueNodeCertificateRequest,
  type Node,
  Raft,
  RaftJoinRequest,
  type RaftJoinResponse,
} from '#proto'
import {
  callUnary,
  dialGrpc,
  type GrpcServer,
  listenGrpc,
  type Peer,
  peerOf,
  serviceDefinition,
  toServiceError,
} from '../common/grpc/index.js'
import {
  type Clock,
  Emitter,
  forbidden,
  invalid,
  isKind,
  newObjectId,
  rfc3339,
  ShoalError,
  unavailable,
} from '../common/index.js'
import type { Logger } from '../common/log.js'
import {
  createRaftHub,
  createRaftNode,
  forgetRaftState,
  type RaftHub,
  type RaftNode,
  type RaftNodeStatus,
} from '../raft/index.js'
import { writeBackup } from './backup/index.js'
import { authorise, CertificateAuthority, caHandlers, newSigningRequest, readIdentity } from './ca/index.js'
import type { ControlApi, Manager, ManagerModules, ManagerOptions, NodeIdentity } from './contract.js'
import { controlHandlers, ForwardingControl, LeaderControl } from './control/index.js'
import { Dispatcher, Reporter } from './dispatcher/index.js'
import { AutolockKeeper } from './keys/index.js'
import { LeaderLink } from './leader-link.js'
import { Leadership } from './leadership.js'
import { LogBroker } from './logs/index.js'
import { RaftSettings } from './raft-settings.js'
import { createStore, type ReplicatedStore } from './store/index.js'

/** A new member has this long to find the leader and be taken in. */
const JOIN_DEADLINE_MS = 60_000
/** From its start until it is a voter, with a leader and the cluster's state. */
const SETTLE_DEADLINE_MS = 60_000
const JOIN_CALL_MS = 15_000
const JOIN_RETRY_MS = 300
const ADDRESS_RETRY_MS = 500
/** Handing leadership over when stopping may take this long. */
const TRANSFER_MS = 3_000

export const createManager = (options: ManagerOptions, modules: ManagerModules): Manager =>
  new SwarmManager(options, modules)

/** Who leads, as the manager that refused a call said beside its refusal. */
function leaderIn(e: unknown): string | null {
  const leader = (ShoalError.from(e).cause as Partial<grpc.ServiceError> | undefined)?.metadata?.get('leader')[0]
  return typeof leader === 'string' ? leader : null
}

/** What exists once this member has its Raft id. */
interface Parts {
  readonly raft: RaftNode
  readonly link: LeaderLink
  readonly leadership: Leadership
  readonly reporter: Reporter
  readonly dispatcher: Dispatcher
  readonly autolock: AutolockKeeper
  readonly authority: CertificateAuthority
  readonly control: ControlApi
  readonly services: {
    readonly control: grpc.UntypedServiceImplementation
    readonly ca: grpc.UntypedServiceImplementation
    readonly dispatcher: grpc.UntypedServiceImplementation
  }
}

/** Raft member, store, API, dispatcher and CA of one node, behind one listener. */
class SwarmManager implements Manager {
  readonly control: ControlApi
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #store: ReplicatedStore
  readonly #hub: RaftHub
  readonly #removed = new Emitter<void>()
  readonly #failed = new Emitter<ShoalError>()
  readonly #settings: RaftSettings
  #identity: NodeIdentity
  #server: GrpcServer | null = null
  #parts: Parts | null = null
  #stopping: Promise<void> | null = null
  #raftRuns = false
  /** Why this member will not become a voter any more. */
  #failure: ShoalError | null = null
  /** Ends waits and calls of a manager that stops. */
  readonly #ending = new AbortController()
  #correcting: Promise<void> = Promise.resolve()
  /** Wraps the data key on disk when the member starts. */
  #unlockKey: Uint8Array | null

  constructor(
    private readonly options: ManagerOptions,
    private readonly modules: ManagerModules,
  ) {
    this.#identity = options.identity
    this.#unlockKey = options.unlockKey
    this.#clock = modules.clock
    this.#logger = modules.logger.child({ room: 'manager' })
    this.#settings = new RaftSettings(options.dir, this.#logger)
    this.#store = createStore({ clock: modules.clock })
    this.#hub = createRaftHub({
      identity: () => this.#identity,
      clock: modules.clock,
      rng: modules.rng,
      logger: modules.logger.child({ room: 'raft' }),
    })
    this.control = this.#publicControl()
  }

  async start(): Promise<void> {
    const { bootstrap } = this.options
    try {
      // A joiner is called back before it is taken in, so it must listen first.
      await this.#listen()
      const raft = await this.#member(bootstrap)
      this.#assemble(raft)
      await raft.start()
      this.#raftRuns = true
      this.#hub.attach(raft)
      if (bootstrap.kind !== 'join') this.#correcting = this.#correctAddress(raft)
      await this.#settled(raft)
    } catch (e) {
      await this.stop()
      throw e
    }
  }

  stop(): Promise<void> {
    this.#ending.abort(unavailable('stopping', 'this manager stops'))
    this.#stopping ??= this.#stop()
    return this.#stopping
  }

  async #stop(): Promise<void> {
    const parts = this.#parts
    if (parts) {
      const { raft } = parts
      if (this.#raftRuns && raft.status().leading) await this.#handOver(raft)
      parts.dispatcher.stop()
      parts.reporter.stop()
      parts.link.close()
      await parts.leadership.stop()
      await this.#correcting
      this.#hub.attach(null)
      await raft.stop()
      await parts.autolock.stop()
    }
    await this.#settings.stop()
    await this.#server?.close()
  }

  /** To whoever Raft thinks best; alone there is nobody. */
  async #handOver(raft: RaftNode): Promise<void> {
    const others = raft.status().members.filter((m) => m.raftId !== raft.raftId && !m.learner && m.reachable)
    if (others.length === 0) return
    const late = new AbortController()
    const timer = this.#clock.sleep(TRANSFER_MS, late.signal).catch(() => {})
    const moved = raft
      .transferLeadership()
      .catch((e: unknown) =>
        this.#logger.warn('leadership not handed over before stopping', { error: ShoalError.from(e).message }),
      )
    await Promise.race([moved, timer])
    late.abort()
  }

  get isStarted(): boolean {
    return this.#parts !== null
  }

  status(): RaftNodeStatus {
    return this.#started().raft.status()
  }

  setIdentity(identity: NodeIdentity): void {
    this.#identity = identity
    this.#server?.setIdentity(identity)
    this.#parts?.link.identityChanged()
  }

  onRemoved(listener: () => void): () => void {
    return this.#removed.on(listener)
  }

  onFailed(listener: (error: ShoalError) => void): () => void {
    return this.#failed.on(listener)
  }

  async renewAlone(): Promise<NodeIdentity> {
    const { raft, link, authority } = this.#started()
    const notAlone = (): ShoalError => unavailable('notAlone', 'other managers may issue the certificate of this node')
    const { nodeId, clusterId } = this.#identity
    const { csr, key } = await newSigningRequest()
    const request = IssueNodeCertificateRequest.create({ csr })
    const answer = await link.call(
      async () => {
        if (raft.status().members.length !== 1) throw notAlone()
        return authority.issue(request, { nodeId, clusterId, role: 'manager', address: '' })
      },
      async () => {
        throw notAlone()
      },
    )
    const [cert, ca] = [answer.certificate, answer.rootCa].map((pem) => Buffer.from(pem).toString())
    return readIdentity({ key, cert: cert!, ca: ca! })
  }

  unlockKeys(): readonly Uint8Array[] {
    return this.#parts?.autolock.keys() ?? (this.#unlockKey ? [this.#unlockKey] : [])
  }

  self(): Node | null {
    return this.#store.view().get('node', this.#identity.nodeId)
  }

  leaderAddress(): string | null {
    return this.#parts?.raft.leaderAddress() ?? null
  }

  async unlockKey(): Promise<Uint8Array> {
    await this.#started().raft.readBarrier()
    return this.#store.view().cluster()?.unlockKey ?? new Uint8Array()
  }

  async backup(): Promise<Iterable<Uint8Array>> {
    const { raft } = this.#started()
    await raft.readBarrier()
    // Nothing is applied before this turn ends: members, index and state are of one moment.
    const cluster = this.#store.view().cluster()
    if (!cluster) throw unavailable('noCluster', 'the cluster is not set up yet; try again')
    const { members, applied, term } = raft.status()
    const about = {
      createdAt: rfc3339(this.#clock.now()),
      clusterId: cluster.id,
      unlockKey: cluster.unlockKey.length > 0 ? cluster.unlockKey : null,
    }
    const manifest = {
      ...{ index: applied, term, removed: raft.membership().removed },
      members: members.map(({ raftId, nodeId, address, learner }) => ({ raftId, nodeId, address, learner })),
    }
    return writeBackup(about, manifest, this.#store.snapshot())
  }

  #started(): Parts {
    if (!this.#parts) throw unavailable('starting', 'this manager is starting; try again')
    return this.#parts
  }

  // ---------------------------------------------------------------- the listener

  async #listen(): Promise<void> {
    const at = /^(.*):(\d+)$/.exec(this.options.listenAddress)
    if (!at) throw invalid('badAddress', `listen address ${this.options.listenAddress} is not host:port`)
    this.#server = await listenGrpc({
      host: at[1]!.replace(/^\[|\]$/g, ''),
      port: Number(at[2]),
      identity: this.#identity,
      register: (server) => this.#register(server),
    })
  }

  #register(server: grpc.Server): void {
    server.addService(serviceDefinition(Raft), { ...this.#hub.handlers, Join: this.#guardedJoin() })
    const late = (definition: grpc.ServiceDefinition, pick: (p: Parts) => grpc.UntypedServiceImplementation): void =>
      server.addService(
        definition,
        Object.fromEntries(Object.keys(definition).map((name) => [name, this.#late(name, pick)])),
      )
    late(serviceDefinition(Control), (p) => p.services.control)
    late(serviceDefinition(CA), (p) => p.services.ca)
    late(Dispatcher.definition(), (p) => p.services.dispatcher)
  }

  /** Calls before this member has started are told to try again. */
  #late(name: string, pick: (p: Parts) => grpc.UntypedServiceImplementation): grpc.UntypedHandleCall {
    return ((call: { emit(event: string, e: unknown): void }, callback?: (e: unknown) => void) => {
      try {
        const handler = pick(this.#started())[name] as (call: unknown, callback: unknown) => void
        handler(call, callback)
      } catch (e) {
        if (callback) callback(toServiceError(e))
        else call.emit('error', toServiceError(e))
      }
    }) as unknown as grpc.UntypedHandleCall
  }

  /** Only a node that is to be a manager now may become a member: an old certificate is not enough. */
  #guardedJoin(): grpc.UntypedHandleCall {
    const join = this.#hub.handlers['Join'] as grpc.handleUnaryCall<RaftJoinRequest, RaftJoinResponse>
    const guarded: grpc.handleUnaryCall<RaftJoinRequest, RaftJoinResponse> = (call, callback) => {
      try {
        const peer = this.#authorise(peerOf(call), 'manager')
        const node = this.#store.view().get('node', peer.nodeId)
        if (this.#parts?.raft.status().leading && node?.role !== 1)
          throw forbidden('notManager', `node ${peer.nodeId} is not to be a manager`)
      } catch (e) {
        callback(toServiceError(e))
        return
      }
      join(call, callback)
    }
    return guarded as unknown as grpc.UntypedHandleCall
  }

  #authorise(peer: Peer | null, role: 'manager' | 'any'): Peer {
    const known = authorise(peer, this.#store.view().cluster(), role)
    if (known.clusterId !== this.#identity.clusterId)
      throw forbidden('foreignCluster', `node ${known.nodeId} belongs to another cluster`)
    return known
  }

  // ---------------------------------------------------------------- the member

  async #member(bootstrap: ManagerOptions['bootstrap']): Promise<RaftNode> {
    const settings = await this.#settings.load()
    this.#settings.follow(this.#store)
    const joining = bootstrap.kind === 'join' ? await this.#join(bootstrap.remote) : null
    const joined = joining?.answer
    const dir = `${this.options.dir}/raft`
    if (joining) {
      this.#unlockKey = joining.unlockKey
      // The answer has a new id: what an attempt before has left is the log of an id that the cluster has removed for it.
      await forgetRaftState(dir)
    }
    const raft = createRaftNode(
      {
        dir,
        nodeId: this.#identity.nodeId,
        advertiseAddress: this.options.advertiseAddress,
        bootstrap: joined
          ? {
              kind: 'join',
              raftId: joined.raftId,
              members: joined.membership?.members ?? [],
              removed: joined.membership?.removed ?? [],
            }
          : bootstrap.kind === 'create'
            ? { kind: 'create' }
            : bootstrap.kind === 'forceNewCluster'
              ? { kind: 'forceNewCluster' }
              : null,
        kek: this.#unlockKey,
        tickMs: this.options.tickMs,
        heartbeatTick: settings.heartbeatTick,
        electionTick: settings.electionTick,
        snapshotInterval: settings.snapshotInterval,
        entriesForSlowFollowers: settings.logEntriesForSlowFollowers,
      },
      {
        clock: this.#clock,
        rng: this.modules.rng,
        logger: this.modules.logger.child({ room: 'raft' }),
        stateMachine: this.#store,
        transport: this.#hub.transport,
      },
    )
    this.#store.connect(raft)
    return raft
  }

  /**
   * Goes to the leader by what each answer says; a cluster between two leaders is asked again. The unlock key comes along,
   * so that a locked cluster's data key never lies on the new disk in clear.
   */
  async #join(remote: string): Promise<{ readonly answer: RaftJoinResponse; readonly unlockKey: Uint8Array | null }> {
    const giveUp = this.#clock.monotonic() + JOIN_DEADLINE_MS
    const incarnation = newObjectId()
    let address = remote
    for (;;) {
      this.#ending.signal.throwIfAborted()
      try {
        const answer = await this.#askToJoin(address, incarnation)
        return { answer, unlockKey: await this.#unlockKeyOf(address) }
      } catch (e) {
        const error = ShoalError.from(e)
        const leader = leaderIn(e)
        const moved = leader !== null && leader !== address
        if (!isKind(e, 'unavailable') || this.#clock.monotonic() > giveUp) throw e
        address = moved ? leader : remote
        this.#logger.debug('not taken in yet, asked again', { address, error: error.message })
        if (!moved) await this.#clock.sleep(JOIN_RETRY_MS, this.#ending.signal)
      }
    }
  }

  #assemble(raft: RaftNode): void {
    const store = this.#store
    const clock = this.#clock
    const identity = (): NodeIdentity => this.#identity
    const { bootstrap } = this.options
    const link = new LeaderLink(raft, identity, clock)
    const leadership = new Leadership({
      store,
      raft,
      link,
      identity,
      clock,
      rng: this.modules.rng,
      logger: this.#logger,
      create: bootstrap.kind === 'create' ? bootstrap : null,
    })
    const check = (peer: Peer | null, role: 'manager' | 'any'): Peer => this.#authorise(peer, role)
    const logger = this.modules.logger.child({ room: 'dispatcher' })
    const desk = () => leadership.desk
    const reporter = new Reporter(link, desk, this.#identity.nodeId, clock, logger)
    const self = {
      nodeId: this.#identity.nodeId,
      address: this.options.advertiseAddress.replace(/:\d+$/, '').replace(/^\[|\]$/g, ''),
    }
    const dispatcher = new Dispatcher({ store, clock, logger, reporter, authorise: check, self, desk })
    const managerOf = (nodeId: string): string | null => leadership.desk?.managerOf(nodeId) ?? null
    const broker = new LogBroker({ store, dispatcher, managerOf, identity })
    const local = new LeaderControl({ store, clock, raft, logs: (r, s) => broker.logs(r, s) })
    const forwarding = new ForwardingControl(link, local)
    const authority = new CertificateAuthority(store, clock)
    this.#parts = {
      raft,
      link,
      leadership,
      reporter,
      dispatcher,
      autolock: new AutolockKeeper(
        store,
        raft,
        this.modules.sealNodeKey,
        this.modules.logger.child({ room: 'keys' }),
        this.#unlockKey,
      ),
      authority,
      control: forwarding,
      services: {
        control: controlHandlers({
          authorise: (peer) => check(peer, 'manager'),
          authoriseNode: (peer) => check(peer, 'any'),
          forwarding,
          isLeader: () => link.leading,
          control: local,
          localLogs: (request, nodes, signal) => broker.local(request, nodes, signal),
        }),
        ca: caHandlers({ store, link, authority, authorise: check }),
        dispatcher: dispatcher.handlers(),
      },
    }
    raft.onRemoved(() => {
      this.#failure ??= unavailable('removed', 'this manager was removed from the cluster before it was a full member')
      this.#removed.emit()
    })
    raft.onFailed((e) => {
      this.#failure = e
      this.#failed.emit(e)
    })
    leadership.start()
  }

  /**
   * This host may have another address than when it last ran. The others cannot reach it there, so it hears of no leader:
   * it asks each member it knows, and they say who leads. Its streams to them name the new address too, so that a cluster
   * of two, which has no leader without it, gets one.
   */
  async #correctAddress(raft: RaftNode): Promise<void> {
    const { advertiseAddress: address } = this.options
    while (!this.#ending.signal.aborted) {
      const { members } = raft.membership()
      const own = members.find((m) => m.raftId === raft.raftId)
      if (own?.address === address) return
      const others = members.filter((m) => m !== own).map((m) => m.address)
      try {
        // Not in its own log yet: asking might add it a second time. It waits for the others to reach it.
        if (!own) this.#logger.debug('this member has not read of itself yet')
        else if (raft.status().leading) await raft.updateAddress(address)
        else await this.#askInTurn(others)
      } catch (e) {
        this.#logger.debug('the new address is not known to the others yet', { error: ShoalError.from(e).message })
      }
      // Aborted: the loop ends.
      await this.#clock.sleep(ADDRESS_RETRY_MS, this.#ending.signal).catch(() => {})
    }
  }

  async #askInTurn(addresses: readonly string[]): Promise<void> {
    for (const address of addresses) {
      try {
        await this.#askToJoin(address)
        return
      } catch (e) {
        const leader = leaderIn(e)
        if (leader !== null && leader !== address) {
          await this.#askToJoin(leader)
          return
        }
      }
    }
  }

  /** Without an incarnation only the address changes, of a member that goes on with its disk. */
  async #askToJoin(at: string, incarnation = ''): Promise<RaftJoinResponse> {
    const { nodeId } = this.#identity
    const request = RaftJoinRequest.create({ nodeId, address: this.options.advertiseAddress, incarnation })
    const client = dialGrpc({ address: at, identity: this.#identity })
    try {
      return await callUnary(client, Raft.Join, request, { deadlineMs: JOIN_CALL_MS, signal: this.#ending.signal })
    } finally {
      client.close()
    }
  }

  async #unlockKeyOf(at: string): Promise<Uint8Array | null> {
    const client = dialGrpc({ address: at, identity: this.#identity })
    try {
      const { signal } = this.#ending
      const answer = await callUnary(client, CA.GetUnlockKey, Empty.create(), { deadlineMs: JOIN_CALL_MS, signal })
      return answer.unlockKey.length > 0 ? answer.unlockKey : null
    } finally {
      client.close()
    }
  }

  /** A voter, with a leader known and the cluster's state here. */
  async #settled(raft: RaftNode): Promise<void> {
    const isSettled = (): boolean => {
      const status = raft.status()
      const self = status.members.find((m) => m.nodeId === this.#identity.nodeId)
      const ready = status.leader !== 0 && this.#store.view().cluster() !== null
      return ready && self !== undefined && !self.learner && (!status.leading || this.#parts!.link.leading)
    }
    // An old member starts without its quorum too: the others may come later.
    if (this.options.bootstrap.kind === 'restart') return
    const { link } = this.#started()
    const { signal } = this.#ending
    const stops: (() => void)[] = []
    try {
      await new Promise<void>((resolve, reject) => {
        const look = (): void => {
          if (signal.aborted) reject(signal.reason)
          else if (this.#failure) reject(this.#failure)
          else if (isSettled()) resolve()
        }
        const late = this.#clock.after(SETTLE_DEADLINE_MS, () =>
          reject(
            unavailable('notSettled', `this manager found no leader within ${SETTLE_DEADLINE_MS} ms of its start`),
          ),
        )
        signal.addEventListener('abort', look)
        stops.push(
          () => late.cancel(),
          () => signal.removeEventListener('abort', look),
          raft.onStatus(look),
          raft.onRemoved(look),
          raft.onFailed(look),
          this.#store.onCommit(look),
          link.onChange(look),
        )
        look()
      })
    } finally {
      for (const stop of stops) stop()
    }
  }

  /** The API before start says so, instead of being absent. */
  #publicControl(): ControlApi {
    const at = (): ControlApi => this.#started().control
    return {
      list: async (r) => at().list(r),
      get: async (r) => at().get(r),
      create: async (r) => at().create(r),
      update: async (r) => at().update(r),
      remove: async (r) => at().remove(r),
      serviceStatuses: async (r) => at().serviceStatuses(r),
      attachNetwork: async (r) => at().attachNetwork(r),
      watch: (r, s) => at().watch(r, s),
      logs: (r, s) => at().logs(r, s),
    }
  }
}
