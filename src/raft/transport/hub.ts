import { X509Certificate } from 'node:crypto'
import type * as grpc from '@grpc/grpc-js'
import { Metadata } from '@grpc/grpc-js'
import {
  Empty,
  Raft,
  type RaftFrame,
  type RaftFrameAck,
  type RaftJoinRequest,
  type RaftJoinResponse,
  type RaftLeaveRequest,
  type RaftMember,
  type SnapshotChunk,
} from '#proto'
import {
  type Peer as Caller,
  callUnary,
  dialGrpc,
  peerOf,
  type TlsIdentity,
  toServiceError,
} from '../../common/grpc/index.js'
import {
  type Clock,
  forbidden,
  invalid,
  isKind,
  notFound,
  type Rng,
  ShoalError,
  type Timer,
  unavailable,
} from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import type { IncomingSnapshot, RaftInbox, RaftNode, RaftTransport, RaftTransportFactory } from '../contract.js'
import type { Message, RaftId } from '../core/index.js'
import { JOIN_HEALTH_DEADLINE_MS, REMOVED_LINGER_MS, TRANSFER_STALL_MS } from '../options.js'
import { Peer } from './peer.js'
import { checkSequence, StallWatch, sendSnapshot } from './snapshot-transfer.js'
import { fromWire, fromWireMeta } from './wire.js'

export interface RaftHubOptions {
  /** The node's certificate as it is now; asked again for each connection and each second for open ones. */
  readonly identity: () => TlsIdentity
  readonly clock: Clock
  readonly rng: Rng
  readonly logger: Logger
}

/**
 * Where the daemon's gRPC server and the member that currently runs in it meet. The server lives as long as the daemon;
 * members come and go with promotions, and calls that arrive while there is none are refused.
 */
export interface RaftHub {
  /** For RaftNodeModules. Only one transport at a time; its close detaches it. */
  readonly transport: RaftTransportFactory
  /** The node whose addMember and removeMember the Join and Leave calls use; null when it stopped. */
  attach(node: RaftNode | null): void
  /** For the gRPC server: addService(serviceDefinition(Raft), raftHandlers(hub)). */
  readonly handlers: grpc.UntypedServiceImplementation
}

export const raftHandlers = (hub: RaftHub): grpc.UntypedServiceImplementation => hub.handlers

export function createRaftHub(options: RaftHubOptions): RaftHub {
  let live: LiveTransport | null = null
  let node: RaftNode | null = null
  const clusterId = clusterIdOf(options.identity)

  /** Only managers of this cluster speak Raft with us. */
  const authorise = (call: Parameters<typeof peerOf>[0]): Caller => {
    const caller = peerOf(call)
    if (caller === null)
      throw forbidden('noCertificate', 'raft calls need the certificate of a manager; none was presented')
    if (caller.role !== 'manager')
      throw forbidden(
        'notManager',
        `node ${caller.nodeId} is a ${caller.role}; raft calls need a manager's certificate`,
      )
    if (caller.clusterId !== clusterId())
      throw forbidden('foreignCluster', `node ${caller.nodeId} is of cluster ${caller.clusterId}, not ${clusterId()}`)
    return caller
  }
  const running = (): LiveTransport => {
    if (live === null) throw unavailable('noRaftNode', 'this node is not a running manager; try another one')
    return live
  }
  const leader = (): RaftNode => {
    if (node === null) throw unavailable('noRaftNode', 'this node is not a running manager; try another one')
    return node
  }

  const stream: grpc.handleClientStreamingCall<RaftFrame, RaftFrameAck> = (call, callback) => {
    let answered = false
    const answer = (error: unknown, ack?: RaftFrameAck): void => {
      if (answered) return
      answered = true
      if (error) callback(toServiceError(error))
      else callback(null, ack)
    }
    let caller: Caller
    let to: LiveTransport
    try {
      caller = authorise(call)
      to = running()
    } catch (e) {
      call.resume()
      answer(e)
      return
    }
    const end = (): void => answer(unavailable('stopping', 'this raft member stops'))
    to.closing.add(end)
    // Tells the sender that a member runs here: a health check alone is answered without one too.
    call.sendMetadata(new Metadata())
    let sender: RaftMember | null = null
    call.on('data', (frame: RaftFrame) => {
      if (answered) return
      sender ??= frame.sender
      try {
        if (to.receive(frame, caller, sender) === 'removed') answer(null, { removed: true })
      } catch (e) {
        answer(e)
      }
    })
    const gone = (): void => {
      to.closing.delete(end)
      answer(null, { removed: false })
    }
    call.on('end', gone)
    call.on('cancelled', gone)
    call.on('error', gone)
  }

  const snapshot: grpc.handleClientStreamingCall<SnapshotChunk, Empty> = (call, callback) => {
    receiveSnapshot(call, () => ({ caller: authorise(call), to: running() }), options.clock).then(
      () => callback(null, Empty.create()),
      (e) => {
        options.logger.warn('snapshot not received', { error: ShoalError.from(e).message })
        call.resume()
        callback(toServiceError(e))
      },
    )
  }

  /** Answers with the leader's address beside the error, so that the caller goes there. */
  const leaderCall =
    <Q, S>(fn: (request: Q, caller: Caller) => Promise<S>): grpc.handleUnaryCall<Q, S> =>
    (call, callback) => {
      const run = async (): Promise<S> => fn(call.request, authorise(call))
      run().then(
        (v) => callback(null, v),
        (e) => {
          const error = toServiceError(e)
          const address = node?.leaderAddress()
          if (address && isKind(e, 'unavailable')) error.metadata?.set('leader', address)
          callback(error)
        },
      )
    }

  const join = async (request: RaftJoinRequest, caller: Caller): Promise<RaftJoinResponse> => {
    if (request.nodeId !== caller.nodeId)
      throw forbidden('foreignNode', `node ${caller.nodeId} asked to join as ${request.nodeId}`)
    const at = leader()
    if (!at.status().leading) throw unavailable('notLeader', 'only the leader adds members')
    const address = withHost(request.address, caller.address)
    const client = dialGrpc({ address, identity: options.identity() })
    try {
      await callUnary(client, Raft.Health, Empty.create(), { deadlineMs: JOIN_HEALTH_DEADLINE_MS })
    } catch (e) {
      throw unavailable(
        'joinerUnreachable',
        `node ${caller.nodeId} does not answer at ${address}: ${ShoalError.from(e).message}; check its advertise address and firewall`,
        { address },
        { cause: e },
      )
    } finally {
      client.close()
    }
    const member = await at.addMember(caller.nodeId, address, request.incarnation)
    return { raftId: member.raftId, membership: at.membership() }
  }

  const leave = async (request: RaftLeaveRequest, caller: Caller): Promise<Empty> => {
    if (request.nodeId !== caller.nodeId)
      throw forbidden(
        'foreignNode',
        `node ${caller.nodeId} asked to remove ${request.nodeId}; a node can only remove itself here`,
      )
    const at = leader()
    const member = at.membership().members.find((m) => m.nodeId === caller.nodeId)
    if (member === undefined) throw notFound('notMember', `node ${caller.nodeId} is not a member of the raft group`)
    await at.removeMember(member.raftId)
    return Empty.create()
  }

  return {
    transport: (self, inbox) => {
      if (live !== null) throw new Error('a raft transport is already open in this process')
      const made = new LiveTransport(options, self, inbox, () => {
        if (live === made) live = null
      })
      live = made
      return made
    },
    attach: (n) => {
      node = n
    },
    handlers: {
      Stream: stream,
      Snapshot: snapshot,
      Join: leaderCall(join),
      Leave: leaderCall(leave),
      Health: leaderCall(async () => Empty.create()),
    } as grpc.UntypedServiceImplementation,
  }
}

/** Our cluster's id is the organisation of our own certificate. */
function clusterIdOf(identity: () => TlsIdentity): () => string {
  let cert = ''
  let id = ''
  return () => {
    const now = identity().cert
    if (now !== cert) {
      cert = now
      id = /^O=(.*)$/m.exec(new X509Certificate(now).subject)?.[1] ?? ''
    }
    return id
  }
}

const isWildcard = (address: string): boolean => /^(0\.0\.0\.0|\[::\]|):\d+$/.test(address)

function withHost(address: string, host: string): string {
  const m = /^(.*):(\d+)$/.exec(address)
  if (m === null) throw invalid('badAddress', `${JSON.stringify(address)} is not host:port`)
  if (!isWildcard(address)) return address
  return host.includes(':') ? `[${host}]:${m[2]}` : `${host}:${m[2]}`
}

async function receiveSnapshot(
  call: grpc.ServerReadableStream<SnapshotChunk, Empty>,
  open: () => { caller: Caller; to: LiveTransport },
  clock: Clock,
): Promise<void> {
  const { caller, to } = open()
  let sink: IncomingSnapshot | null = null
  let finished = false
  const watch = new StallWatch(clock, () => call.destroy(new Error(`no progress for ${TRANSFER_STALL_MS} ms`)))
  const end = (): void => {
    call.destroy(new Error('this raft member stops'))
  }
  to.closing.add(end)
  // grpc-js announces a cancelled call but does not end its stream.
  call.on('cancelled', () => call.destroy(new Error('the sender gave the transfer up')))
  try {
    let sequence = 0
    for await (const chunk of call as AsyncIterable<SnapshotChunk>) {
      watch.progress()
      if (sink === null) {
        sink = await to.openSnapshot(chunk, caller)
        continue
      }
      checkSequence(chunk, ++sequence)
      await sink.write(chunk.data)
    }
    if (sink === null) throw invalid('emptySnapshot', 'a snapshot transfer ended before its header')
    await sink.finish()
    finished = true
  } finally {
    watch.end()
    to.closing.delete(end)
    if (!finished && sink !== null) await sink.abort()
  }
}

/** The transport of one member, from its start to its stop. */
class LiveTransport implements RaftTransport {
  readonly closing = new Set<() => void>()
  readonly #peers = new Map<RaftId, Peer>()
  readonly #lingering = new Map<RaftId, Timer>()
  /** As the log says. */
  #members = new Map<RaftId, RaftMember>()
  /**
   * Where members say that they are, while the log still has another address for them: two managers of which one moved
   * need each other to write the new one. Dropped when the log has it, or has again another.
   */
  readonly #moved = new Map<RaftId, { readonly to: RaftMember; readonly from: string }>()
  /** Senders that our log does not name yet, from their certificate and first frame. */
  readonly #introduced = new Map<RaftId, RaftMember>()
  #removed: ReadonlySet<RaftId> = new Set()

  constructor(
    private readonly options: RaftHubOptions,
    private self: RaftMember,
    private readonly inbox: RaftInbox,
    private readonly closed: () => void,
  ) {}

  send(messages: readonly Message[]): void {
    const byPeer = new Map<RaftId, Message[]>()
    for (const m of messages) {
      const list = byPeer.get(m.to)
      if (list) list.push(m)
      else byPeer.set(m.to, [m])
    }
    for (const [id, list] of byPeer) this.#peer(id)?.send(list)
  }

  #peer(id: RaftId): Peer | null {
    const open = this.#peers.get(id)
    if (open) return open
    if (this.#removed.has(id)) return null
    const member = this.#known(id)
    if (member === undefined) {
      this.options.logger.debug('no address known for a raft member', { raftId: id })
      return null
    }
    const { identity, clock, rng, logger } = this.options
    const peer = new Peer(member, {
      identity,
      clock,
      rng,
      logger,
      self: () => this.self,
      unreachable: () => this.inbox.unreachable(id),
      removed: () => this.inbox.removed(),
    })
    this.#peers.set(id, peer)
    return peer
  }

  /** With the address where it is to be reached now. */
  #known(id: RaftId): RaftMember | undefined {
    return this.#moved.get(id)?.to ?? this.#members.get(id) ?? this.#introduced.get(id)
  }

  setMembers(members: readonly RaftMember[], removed: readonly RaftId[]): void {
    this.#members = new Map(members.map((m) => [m.raftId, m]))
    this.#removed = new Set(removed)
    // A wildcard is no address for others; the log has what the leader saw. Otherwise this process knows best where it is.
    const own = this.#members.get(this.self.raftId)
    if (own && isWildcard(this.self.address)) this.self = own
    for (const [id, moved] of this.#moved) if (this.#members.get(id)?.address !== moved.from) this.#moved.delete(id)
    for (const m of members) {
      this.#introduced.delete(m.raftId)
      if (m.raftId === this.self.raftId) continue
      const open = this.#peers.get(m.raftId)
      if (open) open.update(this.#known(m.raftId)!)
      else this.#peer(m.raftId)
    }
    for (const [id, peer] of this.#peers) {
      if (!this.#removed.has(id) || this.#lingering.has(id)) continue
      // It still gets the commit of its own removal.
      const timer = this.options.clock.after(REMOVED_LINGER_MS, () => {
        this.#lingering.delete(id)
        this.#peers.delete(id)
        peer.close()
      })
      this.#lingering.set(id, timer)
    }
  }

  reachable(raftId: RaftId): boolean {
    if (raftId === this.self.raftId) return true
    return !this.#removed.has(raftId) && (this.#peers.get(raftId)?.reachable ?? false)
  }

  sendSnapshot(
    message: Message,
    snapshot: Parameters<RaftTransport['sendSnapshot']>[1],
    signal: AbortSignal,
  ): Promise<void> {
    const to = this.#known(message.to)
    if (to === undefined)
      return Promise.reject(unavailable('unknownMember', `no address is known for raft member ${message.to}`))
    return sendSnapshot({ to, identity: this.options.identity(), clock: this.options.clock, message, snapshot, signal })
  }

  /** The id in each message must be one that the certificate's node may use. */
  #vouch(from: RaftId, caller: Caller): boolean {
    const member = this.#members.get(from) ?? this.#introduced.get(from)
    return member !== undefined && member.nodeId === caller.nodeId
  }

  /** The sender of a new stream, whose node id is its certificate's. */
  #hearOf(sender: RaftMember): void {
    const { raftId, nodeId, address } = sender
    const member = this.#members.get(raftId)
    if (member === undefined) this.#introduced.set(raftId, sender)
    else if (member.nodeId !== nodeId || isWildcard(address)) return
    else if (member.address === address) this.#moved.delete(raftId)
    else {
      this.options.logger.info('a raft member announces another address', { raftId, from: member.address, to: address })
      this.#moved.set(raftId, { to: { ...member, address }, from: member.address })
    }
    this.#peers.get(raftId)?.update(this.#known(raftId)!)
  }

  /** `sender`: as the first frame of the stream named it. Removed is only who sends, not whom a message is from. */
  receive(frame: RaftFrame, caller: Caller, sender: RaftMember | null): 'removed' | 'taken' {
    if (sender !== null && this.#removed.has(sender.raftId)) return 'removed'
    if (frame.sender !== null) {
      if (frame.sender.nodeId !== caller.nodeId)
        throw forbidden('foreignNode', `node ${caller.nodeId} sends as node ${frame.sender.nodeId}`)
      this.#hearOf(frame.sender)
    }
    const messages: Message[] = []
    for (const wire of frame.messages) {
      if (!this.#vouch(wire.from, caller))
        throw forbidden(
          'foreignMember',
          `node ${caller.nodeId} sends as raft member ${wire.from}, which is not its own`,
        )
      const m = wire.to === this.self.raftId ? fromWire(wire) : null
      if (m === null) {
        this.options.logger.warn('raft message dropped', { type: wire.type, to: wire.to, from: wire.from })
        continue
      }
      messages.push(m)
    }
    if (messages.length > 0) {
      this.#peers.get(messages[0]!.from)?.heard()
      this.inbox.receive(messages)
    }
    return 'taken'
  }

  openSnapshot(chunk: SnapshotChunk, caller: Caller): Promise<IncomingSnapshot> {
    const header = chunk.header
    if (header === null || header.meta === null)
      throw invalid('noSnapshotHeader', 'a snapshot transfer begins with a header')
    if (this.#removed.has(header.from) || header.to !== this.self.raftId)
      throw forbidden('wrongRecipient', `snapshot from ${header.from} to ${header.to} arrived at ${this.self.raftId}`)
    const known = this.#members.get(header.from) ?? this.#introduced.get(header.from)
    if (known === undefined) {
      // A leader that our log does not name yet: the snapshot itself must.
      const named = header.membership?.members.find((m) => m.raftId === header.from)
      if (named === undefined || named.nodeId !== caller.nodeId)
        throw forbidden('foreignMember', `node ${caller.nodeId} sends a snapshot as raft member ${header.from}`)
      this.#introduced.set(header.from, named)
    } else if (known.nodeId !== caller.nodeId)
      throw forbidden('foreignMember', `node ${caller.nodeId} sends a snapshot as raft member ${header.from}`)
    const snapshot = fromWireMeta(header.meta)
    return this.inbox.receiveSnapshot(
      {
        type: 'MsgSnap',
        to: header.to,
        from: header.from,
        term: header.term,
        logTerm: 0,
        index: 0,
        entries: [],
        commit: 0,
        vote: 0,
        snapshot,
        reject: false,
        rejectHint: 0,
        context: new Uint8Array(0),
        responses: [],
      },
      {
        meta: { index: snapshot.index, term: snapshot.term, confState: snapshot.confState },
        membership: header.membership ?? { members: [], removed: [] },
        size: header.size,
        sha256: Buffer.from(header.sha256).toString('hex'),
      },
    )
  }

  async close(): Promise<void> {
    for (const timer of this.#lingering.values()) timer.cancel()
    for (const peer of this.#peers.values()) peer.close()
    this.#peers.clear()
    for (const end of [...this.closing]) end()
    this.closed()
  }
}
