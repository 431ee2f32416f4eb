import { join } from 'node:path'
import { type SessionInfo, NodeState as WrittenState } from '#proto'
import type {
  ClusterBackend,
  ClusterState,
  SwarmInitRequest,
  SwarmJoinRequest,
  SwarmRestoreRequest,
} from '../api/index.js'
import {
  type Clock,
  conflict,
  intBetween,
  invalid,
  newObjectId,
  type Rng,
  rfc3339,
  type ShoalError,
  type Timer,
  unauthorized,
  unavailable,
} from '../common/index.js'
import type { Logger } from '../common/log.js'
import {
  type AttachmentClient,
  type CaClient,
  type ControlApi,
  formatUnlockKey,
  localAttachments,
  type Manager,
  type ManagerModules,
  type ManagerOptions,
  type NodeIdentity,
  openNodeKey,
  parseUnlockKey,
  readBackup,
  remoteAttachments,
  restoreManager,
} from '../manager/index.js'
import type { NetworkService } from '../overlay/index.js'
import type { Agent, AgentModules, AgentOptions, Executor } from '../worker/index.js'
import { resolveAdvertiseAddress, resolveDataPathAddress, resolveListenAddress } from './addresses.js'
import type { ClusterEvent } from './cluster-events.js'
import { requireLogSpace } from './disk-space.js'
import { ManagerSeat } from './manager-seat.js'
import { type NodeState, NodeStateStore, validFromMs } from './node-state.js'

export interface ClusterNodeOptions {
  /** <data-root>/swarm */
  readonly dir: string
  /** Directory in memory: see RecordDatabase. */
  readonly scratchDir: string
  readonly defaultAdvertiseAddr: string
  /** Raft tick, milliseconds. */
  readonly tickMs: number
}

export interface ClusterNodeModules {
  readonly clock: Clock
  readonly rng: Rng
  readonly logger: Logger
  readonly networks: NetworkService
  /** Takes the host's running containers off the swarm's networks. */
  readonly disconnect: () => Promise<void>
  readonly executor: Executor
  readonly publish: (event: ClusterEvent) => void
  readonly ca: CaClient
  readonly createManager: (options: ManagerOptions, modules: ManagerModules) => Manager
  readonly createAgent: (options: AgentOptions, modules: AgentModules) => Agent
}

const NOT_IN_SWARM =
  'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.'
const IS_WORKER =
  "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager."
const IN_SWARM =
  'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
const NO_SWARM = 'This node is not part of a swarm'
const LOCKED =
  'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.'
const LEAVE_LOCKED = 'Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.'
const JOIN_TIMEOUT_MS = 20_000

/**
 * This host's membership in a swarm: an agent always, a manager where its certificate says so. Operations (init, join,
 * leave, role changes) run one after another.
 *
 *     inactive ──init/join──> active(worker | manager) ──leave/removed──> inactive
 *                                  │ restart, key missing: locked ──unlock──> active
 */
export class ClusterNode implements ClusterBackend {
  readonly #store: NodeStateStore
  /** Where a restored manager's state is made, before it takes the place of `#store`. */
  readonly #staged: NodeStateStore
  #state: NodeState | null = null
  #identity: NodeIdentity | null = null
  readonly #seat: ManagerSeat
  #agent: Agent | null = null
  #status: 'inactive' | 'pending' | 'active' | 'error' | 'locked' = 'inactive'
  #error = ''
  #renewal: Timer | null = null
  #queue: Promise<unknown> = Promise.resolve()
  #certificateEpoch = 0
  /** As the last word of a manager has it. */
  #isReady = false
  #stopping = false

  constructor(
    private readonly options: ClusterNodeOptions,
    private readonly m: ClusterNodeModules,
  ) {
    this.#store = new NodeStateStore(options.dir)
    this.#staged = new NodeStateStore(`${options.dir}.restore`)
    const { clock, rng, logger, publish, createManager } = m
    this.#seat = new ManagerSeat(
      { dir: options.dir, tickMs: options.tickMs },
      {
        ...{ clock, rng, logger, publish, createManager },
        sealNodeKey: (secret) => this.#store.sealWith(secret),
        place: () => ({ ...this.#state!, identity: this.#identity! }),
        exclusive: (fn) => this.#exclusive(fn),
        onRemoved: () => this.#dropManager(),
      },
    )
  }

  get #manager(): Manager | null {
    return this.#seat.manager
  }

  /** Takes up the membership that is on disk. A swarm that cannot be taken up is shown in `docker info`; the engine works on. */
  async start(): Promise<void> {
    await this.#store.takeStaged(this.#staged)
    const found = await this.#store.load()
    if (!found) return
    this.#state = found.state
    this.#identity = found.identity
    await this.#exclusive(() => this.#takeUp())
  }

  async #takeUp(): Promise<void> {
    if (this.#lapse !== '') this.m.logger.error('this node cannot talk to its swarm', { error: this.#lapse })
    try {
      await this.#resume(null)
    } catch (e) {
      if ((e as ShoalError).code === 'wrongUnlockKey') {
        this.#status = 'locked'
        return
      }
      this.#status = 'error'
      this.#error = (e as Error).message
      this.m.logger.error('the swarm on disk cannot be taken up', { error: (e as Error).stack ?? String(e) })
    }
  }

  /** Empty unless this node was off for so long that its certificate ran out: then nobody talks to it. */
  get #lapse(): string {
    const until = this.#identity?.expiresAtMs ?? Number.POSITIVE_INFINITY
    if (until > this.m.clock.now()) return ''
    return `the certificate of this node ran out on ${rfc3339(until)}: to come back as the node that it was, join with the token of its role (docker swarm join --token TOKEN MANAGER); to give its place up, docker swarm leave --force`
  }

  async stop(): Promise<void> {
    this.#stopping = true
    this.#seat.breakOff()
    await this.#exclusive(() => this.#stopParts()).catch(() => {})
  }

  state(): ClusterState {
    const manager = this.#manager?.isStarted ? this.#manager : null
    const remotes = this.#state?.remoteManagers ?? []
    return {
      localNodeState: this.#status === 'active' && this.#lapse !== '' ? 'error' : this.#status,
      nodeId: this.#identity?.nodeId ?? '',
      nodeAddress: (this.#state?.advertiseAddress ?? '').replace(/:\d+$/, '').replace(/^\[|\]$/g, ''),
      controlAvailable: manager !== null,
      error: this.#error || this.#seat.trouble || this.#lapse,
      remoteManagers: manager
        ? manager
            .status()
            .members.filter((x) => !x.learner)
            .map((x) => ({ nodeId: x.nodeId, address: x.address }))
        : remotes,
    }
  }

  /** For the node's description: absent while in no swarm. */
  membership(): { nodeId: string; ca: string; cert: string; dataPathAddress: string } | null {
    if (!this.#identity || !this.#state) return null
    const { nodeId, ca, cert } = this.#identity
    return { nodeId, ca, cert, dataPathAddress: this.#state.dataPathAddress }
  }

  control(): ControlApi {
    if (this.#manager) return this.#manager.control
    if (this.#status === 'locked') throw unavailable('locked', LOCKED)
    if (this.#seat.trouble)
      throw unavailable('managerDown', `the manager on this node does not run: ${this.#seat.trouble}`)
    if (this.#status === 'error')
      throw unavailable('swarmError', `the swarm on this node cannot be used: ${this.#error}`)
    throw unavailable('notManager', this.#status === 'inactive' ? NOT_IN_SWARM : IS_WORKER)
  }

  attachments(): { readonly client: AttachmentClient; readonly nodeId: string } | null {
    if (this.#status !== 'active' || !this.#identity) return null
    const client = this.#manager
      ? localAttachments(this.#manager.control)
      : remoteAttachments({
          managers: () => (this.#state?.remoteManagers ?? []).map((r) => r.address),
          identity: () => this.#identity!,
        })
    return { client, nodeId: this.#identity.nodeId }
  }

  async unlockKey(): Promise<string> {
    this.control() // explains where this node is no manager
    const key = await this.#manager!.unlockKey()
    return key.length > 0 ? formatUnlockKey(key) : ''
  }

  // ---------------------------------------------------------------------------------------------- operations

  init(request: SwarmInitRequest): Promise<string> {
    return this.#exclusive(async () => {
      if (request.forceNewCluster) return this.#forceNewCluster(request)
      if (this.#status !== 'inactive') throw unavailable('inSwarm', IN_SWARM)
      const { listen, advertise, dataPath } = this.#addresses(request)
      if (request.dataPathPort < 1024 || request.dataPathPort > 49151)
        throw invalid('badPort', `data path port ${request.dataPathPort} is not between 1024 and 49151`)
      const root = await this.m.ca.createRoot()
      const identity = await this.m.ca.issueFirst(root, {
        clusterId: newObjectId(),
        nodeId: newObjectId(),
        expiryMs: (request.spec.ca?.nodeCertExpiry ?? 0) / 1e6,
      })
      const state: NodeState = {
        listenAddress: listen,
        advertiseAddress: advertise,
        dataPathAddress: dataPath,
        remoteManagers: [],
        autolock: request.spec.autoLockManagers,
      }
      await this.#enter(state, identity, {
        kind: 'create',
        root,
        init: {
          defaultAddressPool: request.defaultAddressPool.length > 0 ? request.defaultAddressPool : ['10.0.0.0/8'],
          subnetSize: request.subnetSize,
          dataPathPort: request.dataPathPort,
          spec: request.spec,
          availability: request.availability,
        },
      })
      return identity.nodeId
    })
  }

  join(request: SwarmJoinRequest): Promise<void> {
    return this.#exclusive(async () => {
      if (this.#status !== 'inactive' && this.#lapse !== '') return this.#comeBack(request)
      if (this.#status !== 'inactive') throw unavailable('inSwarm', IN_SWARM)
      const { listen, advertise, dataPath } = this.#addresses(request)
      const { identity, remote } = await this.#askForCertificate(request)
      const state: NodeState = {
        listenAddress: listen,
        advertiseAddress: advertise,
        dataPathAddress: dataPath,
        remoteManagers: [{ nodeId: '', address: remote }],
        autolock: false,
      }
      await this.#enter(state, identity, identity.role === 'manager' ? { kind: 'join', remote } : null)
    })
  }

  /** Under its old id, with what it has on disk: its tasks were never stopped, a manager's log is a member's still. */
  async #comeBack(request: SwarmJoinRequest): Promise<void> {
    const { identity, remote } = await this.#askForCertificate(request, this.#identity!.nodeId)
    await this.#stopParts()
    await this.#store.saveIdentity(identity)
    this.#identity = identity
    this.#state = { ...this.#state!, remoteManagers: [{ nodeId: '', address: remote }] }
    await this.#store.saveState(this.#state)
    this.#isReady = false
    await this.#takeUp()
    if (this.#status === 'active') await this.#untilReady()
  }

  async backup(): Promise<Iterable<Uint8Array>> {
    this.control() // explains where this node is no manager
    return this.#manager!.backup()
  }

  /**
   * The new state is made beside the old one and checked whole before anything of this node changes. A crash leaves the one or
   * the other (`takeStaged`), or with `force` a node that has left its old swarm and holds the new state.
   */
  async restore(request: SwarmRestoreRequest): Promise<string> {
    this.#mayRestore(request.force)
    const key = request.unlockKey === '' ? null : parseUnlockKey(request.unlockKey)
    const backup = await readBackup(request.file, key)
    return this.#exclusive(async () => {
      this.#mayRestore(request.force)
      const { listen, advertise, dataPath } = this.#addresses(request)
      await requireLogSpace(this.options.dir)
      const staged = this.#staged
      await staged.wipe()
      const { clock, rng, logger } = this.m
      try {
        const { identity, unlockKey } = await restoreManager(
          backup,
          { dir: staged.dir, advertiseAddress: advertise },
          { clock, rng, logger },
        )
        const state: NodeState = {
          ...{ listenAddress: listen, advertiseAddress: advertise, dataPathAddress: dataPath },
          remoteManagers: [],
          autolock: unlockKey !== null,
        }
        await staged.save(state, identity)
        if (this.#status !== 'inactive') await this.#goAway(true)
        await this.#store.replaceBy(staged)
        logger.warn('a swarm is restored from a backup', { clusterId: backup.clusterId, madeAt: backup.createdAt })
        await this.#enter(state, identity, { kind: 'restart' }, unlockKey ? [unlockKey] : [])
        return identity.nodeId
      } finally {
        await staged.wipe()
      }
    })
  }

  #mayRestore(force: boolean): void {
    if (this.#status !== 'inactive' && !force)
      throw unavailable(
        'inSwarm',
        'This node is already part of a swarm. Use "shoal swarm restore --force" to leave it and restore the backup.',
      )
  }

  /** `nodeId`: the one to be admitted under again. */
  async #askForCertificate(
    request: SwarmJoinRequest,
    nodeId = '',
  ): Promise<{ identity: NodeIdentity; remote: string }> {
    let failure: unknown = null
    for (const remote of request.remoteAddresses) {
      const address = /:\d+$/.test(remote) ? remote : `${remote}:2377`
      try {
        return {
          identity: await this.m.ca.join({
            remote: address,
            token: request.token,
            availability: request.availability,
            nodeId,
          }),
          remote: address,
        }
      } catch (e) {
        failure = e
        // Only silence is worth another address; a refused token is refused everywhere.
        if ((e as ShoalError).kind !== 'unavailable') throw e
      }
    }
    throw failure
  }

  leave(force: boolean): Promise<void> {
    return this.#exclusive(async () => {
      if (this.#status === 'inactive') throw unavailable('notInSwarm', NO_SWARM)
      if (this.#status === 'locked' && !force) throw unavailable('locked', LEAVE_LOCKED)
      if (this.#manager && !force) throw unavailable('managerLeaves', this.#leaveWarning(this.#manager))
      await this.#goAway(true)
    })
  }

  #leaveWarning(manager: Manager): string {
    const voters = manager.status().members.filter((x) => !x.learner)
    const start = 'You are attempting to leave the swarm on a node that is participating as a manager. '
    if (voters.length <= 1)
      return `${start}Removing the last manager erases all current state of the swarm. Use \`--force\` to ignore this message. `
    const reachable = voters.filter((x) => x.reachable).length - 1
    const left = voters.length - 1
    return `${start}Removing this node leaves ${reachable} managers out of ${left === 0 ? 1 : voters.length}. Without a Raft quorum your swarm will be inaccessible. The only way to restore a swarm that has lost consensus is to reinitialize it with \`--force-new-cluster\`. Use \`--force\` to suppress this message. `
  }

  unlock(key: string): Promise<void> {
    return this.#exclusive(async () => {
      if (this.#status !== 'locked') throw conflict('notLocked', 'swarm is not locked')
      try {
        await this.#resume(parseUnlockKey(key))
      } catch (e) {
        if ((e as ShoalError).code === 'wrongUnlockKey') {
          this.#status = 'locked'
          throw unauthorized(
            'wrongUnlockKey',
            'invalid key: it does not unlock this swarm; see `docker swarm unlock-key` on a manager that runs',
          )
        }
        throw e
      }
    })
  }

  async #forceNewCluster(request: SwarmInitRequest): Promise<string> {
    if (this.#identity?.role !== 'manager' || !this.#state) throw unavailable('notManager', NOT_IN_SWARM)
    if (this.#status === 'locked') throw unavailable('locked', LOCKED)
    const { listen, advertise, dataPath } = this.#addresses({
      ...request,
      listenAddress: request.listenAddress || this.#state.listenAddress,
      advertiseAddress: request.advertiseAddress || this.#state.advertiseAddress,
    })
    const unlockKeys = this.#manager?.unlockKeys() ?? []
    await this.#stopParts()
    this.#state = {
      ...this.#state,
      listenAddress: listen,
      advertiseAddress: advertise,
      dataPathAddress: dataPath,
      remoteManagers: [],
    }
    await this.#store.saveState(this.#state)
    await this.#seat.start({ kind: 'forceNewCluster' }, unlockKeys)
    await this.#startAgent()
    this.#status = 'active'
    return this.#identity.nodeId
  }

  // ---------------------------------------------------------------------------------------------- parts

  #addresses(r: { listenAddress: string; advertiseAddress: string; dataPathAddress: string }): {
    listen: string
    advertise: string
    dataPath: string
  } {
    const listen = resolveListenAddress(r.listenAddress)
    const advertise = resolveAdvertiseAddress(r.advertiseAddress, listen, this.options.defaultAdvertiseAddr)
    return { listen, advertise, dataPath: resolveDataPathAddress(r.dataPathAddress, advertise) }
  }

  /** From nothing to a running member; anything that fails leaves nothing behind. */
  async #enter(
    state: NodeState,
    identity: NodeIdentity,
    bootstrap: ManagerOptions['bootstrap'] | null,
    unlockKeys: readonly Uint8Array[] = [],
  ): Promise<void> {
    if (bootstrap) await requireLogSpace(this.options.dir)
    this.#status = 'pending'
    this.#error = ''
    this.#isReady = false
    this.#state = state
    this.#identity = identity
    try {
      if (bootstrap) await this.#seat.start(bootstrap, unlockKeys)
      await this.#store.save(state, identity)
      await this.#startAgent()
      await this.#untilReady()
    } catch (e) {
      if ((e as ShoalError).code === 'joinTimeout') {
        this.#status = 'active'
        throw e
      }
      await this.#goAway(false).catch((x: unknown) =>
        this.m.logger.error('cleaning up after a failed join', { error: String(x) }),
      )
      throw e
    }
    this.#status = 'active'
  }

  /** Connected, and the cluster has written so: from then on nothing of this node's own start changes its object. */
  async #untilReady(): Promise<void> {
    const deadline = this.m.clock.monotonic() + JOIN_TIMEOUT_MS
    while (!this.#agent?.connected || !this.#isReady) {
      if (this.#stopping || this.m.clock.monotonic() > deadline)
        throw unavailable(
          'joinTimeout',
          'Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the "docker info" command to see the current swarm status of your node.',
        )
      await this.m.clock.sleep(10)
    }
  }

  /** After a restart: the log is on disk; a leader may be long in coming, and containers must not wait for it. */
  async #resume(unlockKey: Uint8Array | null): Promise<void> {
    try {
      const { key, secret } = await openNodeKey(this.#identity!.key, join(this.options.dir, 'raft'), unlockKey)
      this.#store.opened(key, secret)
      const identity = { ...this.#identity!, key }
      this.#identity = identity
      if (identity.role === 'manager') await this.#seat.start({ kind: 'restart' }, unlockKey ? [unlockKey] : [])
      await this.#startAgent()
    } catch (e) {
      await this.#stopParts()
      throw e
    }
    this.#status = 'active'
    this.#error = ''
  }

  async #startAgent(): Promise<void> {
    const state = this.#state!
    const identity = this.#identity!
    await this.m.networks.clusterJoined({ nodeId: identity.nodeId, dataPathAddress: state.dataPathAddress })
    const agent = this.m.createAgent(
      { dir: join(this.options.dir, 'worker'), scratchDir: this.options.scratchDir, nodeId: identity.nodeId },
      {
        clock: this.m.clock,
        rng: this.m.rng,
        logger: this.m.logger.child({ room: 'worker' }),
        executor: this.m.executor,
        identity: () => this.#identity!,
        managers: () => [
          ...new Set([
            ...(this.#manager ? [this.#localAddress()] : []),
            ...(this.#state?.remoteManagers ?? []).map((r) => r.address),
          ]),
        ],
        onSession: (info) => this.#onSession(info),
        onRemoved: () => {
          this.m.logger.warn('this node was removed from the swarm')
          void this.#exclusive(() => this.#goAway(true)).catch((e: unknown) =>
            this.m.logger.error('leaving after removal', { error: String(e) }),
          )
        },
      },
    )
    this.#agent = agent
    await agent.start()
    this.#planRenewal()
  }

  /** A manager's own agent dials the listener of its own process. */
  #localAddress(): string {
    const { listenAddress, advertiseAddress } = this.#state!
    return /^(0\.0\.0\.0|\[::\]|::):/.test(listenAddress)
      ? `127.0.0.1:${listenAddress.slice(listenAddress.lastIndexOf(':') + 1)}`
      : listenAddress || advertiseAddress
  }

  #onSession(info: SessionInfo): void {
    this.#isReady = info.node?.status?.state === WrittenState.NODE_READY
    const managers = info.managers.map((x) => ({ nodeId: x.nodeId, address: x.address }))
    const state = this.#state
    if (state && managers.length > 0 && JSON.stringify(managers) !== JSON.stringify(state.remoteManagers)) {
      this.#state = { ...state, remoteManagers: managers }
      void this.#store
        .saveState(this.#state)
        .catch((e: unknown) => this.m.logger.error('saving the list of managers', { error: String(e) }))
    }
    const wanted = info.node?.spec?.desiredRole === 1 ? 'manager' : 'worker'
    const epochRose = info.certificateEpoch > this.#certificateEpoch && this.#certificateEpoch !== 0
    this.#certificateEpoch = info.certificateEpoch
    if (info.node && (epochRose || wanted !== this.#identity?.role)) this.#renewSoon()
  }

  #renewSoon(): void {
    void this.#exclusive(() => this.#renew()).catch((e: unknown) => {
      if (this.#stopping || this.#status !== 'active' || this.#lapse !== '') return
      this.m.logger.warn('renewing the certificate failed; trying again', { error: String(e) })
      this.m.clock.after(1000, () => this.#renewSoon())
    })
  }

  /** The CA decides the role: a certificate of another role starts or stops the manager. */
  async #renew(): Promise<void> {
    if (this.#stopping || !this.#identity || !this.#state || this.#status !== 'active') return
    const before = this.#identity
    const identity = await this.#renewed(before)
    // What seals the key goes with a manager, and a new one brings its own.
    if (identity.role === 'worker' || !this.#seat.taken) await this.#store.sealWith(null)
    await this.#store.saveIdentity(identity)
    this.#identity = identity
    if (identity.role === 'manager' && !this.#seat.taken) {
      const remote = this.#state.remoteManagers[0]?.address
      if (!remote) throw unavailable('noManager', 'no manager is known to join')
      await this.#seat.start({ kind: 'join', remote }, [])
    } else if (identity.role === 'worker' && before.role === 'manager') await this.#dropManager()
    else this.#seat.setIdentity(identity)
    this.#agent?.reconnect()
    this.#planRenewal()
  }

  /** By any manager. Where it has run out nobody listens: the only manager of a cluster has the key itself, others wait for a token. */
  #renewed(identity: NodeIdentity): Promise<NodeIdentity> {
    if (this.#lapse !== '' && this.#manager) return this.#manager.renewAlone()
    const managers = this.#state!.remoteManagers.map((r) => r.address)
    return this.m.ca.renew({
      remotes: [...new Set([...managers, ...(this.#manager ? [this.#localAddress()] : [])])],
      identity,
    })
  }

  /** At a random point between 50 % and 80 % of the certificate's life. */
  #planRenewal(): void {
    this.#renewal?.cancel()
    const identity = this.#identity
    if (!identity) return
    const from = validFromMs(identity.cert)
    const at = from + ((identity.expiresAtMs - from) * intBetween(this.m.rng, 50, 80)) / 100
    // Timers longer than 2^31 ms fire at once.
    const ms = Math.min(Math.max(at - this.m.clock.now(), 1000), 2 ** 31 - 1)
    this.#renewal = this.m.clock.after(ms, () =>
      this.m.clock.now() >= at - 1000 ? this.#renewSoon() : this.#planRenewal(),
    )
  }

  async #dropManager(): Promise<void> {
    await this.#store.sealWith(null)
    await this.#seat.remove()
    if (this.#identity?.role === 'manager') this.#renewSoon()
  }

  async #stopParts(): Promise<void> {
    this.#renewal?.cancel()
    const agent = this.#agent
    this.#agent = null
    await agent?.stop()
    await this.#seat.stop()
  }

  async #goAway(graceful: boolean): Promise<void> {
    this.#renewal?.cancel()
    const agent = this.#agent
    this.#agent = null
    if (graceful) await agent?.leave()
    else await agent?.stop()
    await this.#seat.stop()
    await this.#store.wipe()
    await this.m.disconnect()
    await this.m.networks.clusterLeft()
    this.#state = null
    this.#identity = null
    this.#certificateEpoch = 0
    this.#status = 'inactive'
    this.#error = ''
  }

  #exclusive<T>(fn: () => Promise<T>): Promise<T> {
    const run = this.#queue.then(fn, fn)
    this.#queue = run.catch(() => {})
    return run
  }
}
