import type * as grpc from '@grpc/grpc-js'
import { Empty, Raft, type RaftFrame, type RaftFrameAck, type RaftMember, type RaftMessage } from '#proto'
import { callUnary, dialGrpc, openClientStream, type TlsIdentity } from '../../common/grpc/index.js'
import type { Clock, Rng, Timer } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import type { Message } from '../core/index.js'
import {
  COMMIT_HOLD_MS,
  FRAME_BYTES_WANTED,
  FRAME_MESSAGES_MAX,
  HEALTH_DEADLINE_MS,
  HEALTH_INTERVAL_MS,
  PEER_QUEUE_BYTES,
  PEER_QUEUE_MESSAGES,
  RECONNECT_MAX_MS,
  RECONNECT_MIN_MS,
  STREAM_STALL_MS,
} from '../options.js'
import { isUrgent, messageBytes, toWire } from './wire.js'

export interface PeerModules {
  readonly identity: () => TlsIdentity
  readonly clock: Clock
  readonly rng: Rng
  readonly logger: Logger
  readonly self: () => RaftMember
  readonly unreachable: () => void
  /** The peer says that we were removed from the cluster. */
  readonly removed: () => void
}

interface Queue {
  messages: Message[]
  bytes: number
}

/**
 * One direction to one other member: a long-lived client stream, dialled again when it ends, when the member's address
 * changes, or when our certificate is renewed (an open connection keeps the old identity). Messages that do not fit its
 * bounded queues are dropped: Raft sends what matters again.
 */
export class Peer {
  #client: grpc.Client | null = null
  #stream: grpc.ClientWritableStream<RaftFrame> | null = null
  #dialledWith: { cert: string; address: string } | null = null
  /** Frames handed to gRPC and not yet taken by it. */
  #writing = false
  #writingSince = 0
  #named = false
  readonly #urgent: Queue = { messages: [], bytes: 0 }
  readonly #bulk: Queue = { messages: [], bytes: 0 }
  /** The last append without entries, until one with entries makes it needless or its time is up. */
  #held: Message | null = null
  #holding: Timer | null = null
  #retryMs = RECONNECT_MIN_MS
  #retry: Timer | null = null
  #closed = false
  #lastOkAt = Number.NEGATIVE_INFINITY
  #failed = false
  /** A member runs at the other end of the present stream. */
  #accepted = false
  #healthRunning = false
  readonly #watch: Timer

  constructor(
    public member: RaftMember,
    private readonly modules: PeerModules,
  ) {
    this.#watch = modules.clock.every(HEALTH_INTERVAL_MS, () => this.#check())
    this.#open()
  }

  send(messages: readonly Message[]): void {
    for (const m of messages)
      if (m.type !== 'MsgApp') {
        // Whoever waits for a read wants the commit index that it rests on.
        if (m.type === 'MsgReadIndexResp') this.#release()
        this.#enqueue(m)
      } else if (m.entries.length === 0) {
        this.#held = m
        this.#holding ??= this.modules.clock.after(COMMIT_HOLD_MS, () => {
          this.#release()
          this.#flush()
        })
      } else {
        this.#unhold()
        this.#enqueue(m)
      }
    this.#flush()
  }

  #release(): void {
    const m = this.#held
    this.#unhold()
    if (m !== null) this.#enqueue(m)
  }

  #unhold(): void {
    this.#holding?.cancel()
    this.#holding = null
    this.#held = null
  }

  #enqueue(m: Message): void {
    const queue = isUrgent(m.type) ? this.#urgent : this.#bulk
    const bytes = messageBytes(m)
    if (queue.messages.length >= PEER_QUEUE_MESSAGES || queue.bytes + bytes > PEER_QUEUE_BYTES) {
      this.modules.unreachable()
      return
    }
    queue.messages.push(m)
    queue.bytes += bytes
  }

  /** Its member took our stream, and a message from it or an answered health check is not long ago. */
  get reachable(): boolean {
    return (
      this.#accepted &&
      !this.#failed &&
      this.modules.clock.monotonic() - this.#lastOkAt < 3 * HEALTH_INTERVAL_MS + HEALTH_DEADLINE_MS
    )
  }

  /** Something arrived from this member, so it lives. */
  heard(): void {
    this.#lastOkAt = this.modules.clock.monotonic()
    this.#failed = false
  }

  update(member: RaftMember): void {
    const moved = member.address !== this.member.address
    this.member = member
    if (moved) this.#redial()
  }

  close(): void {
    this.#closed = true
    this.#watch.cancel()
    this.#retry?.cancel()
    this.#hangUp()
  }

  #open(): void {
    if (this.#closed) return
    this.#retry = null
    const identity = this.modules.identity()
    const { address } = this.member
    this.#dialledWith = { cert: identity.cert, address }
    const client = dialGrpc({ address, identity })
    this.#client = client
    const stream = openClientStream(client, Raft.Stream, (error, ack?: RaftFrameAck) => {
      if (this.#stream !== stream) return
      if (ack?.removed) this.modules.removed()
      this.#lost(error?.message ?? 'the receiver ended the stream')
    })
    this.#stream = stream
    this.#named = false
    this.#writing = false
    // Errors come to the callback above as well; without a listener they would end the process.
    stream.on('error', () => {})
    stream.on('metadata', () => {
      if (this.#stream !== stream) return
      this.#accepted = true
      this.heard()
    })
    stream.on('drain', () => this.#flush())
    this.#flush()
  }

  #flush(): void {
    const stream = this.#stream
    if (stream === null || this.#writing) return
    const messages = this.#take()
    // A new stream says who we are although there is nothing to send: so one that only waits to hear of a leader learns that it
    // was removed.
    if (messages.length === 0 && this.#named) return
    const frame: RaftFrame = { messages, sender: this.#named ? null : this.modules.self() }
    this.#named = true
    this.#writing = true
    this.#writingSince = this.modules.clock.monotonic()
    stream.write(frame, (error?: Error | null) => {
      if (this.#stream !== stream) return
      this.#writing = false
      if (error) return
      // Taken by our own kernel: that says nothing of the member, which may have been switched off.
      this.#retryMs = RECONNECT_MIN_MS
      this.#flush()
    })
  }

  #take(): RaftMessage[] {
    const frame: RaftMessage[] = []
    let bytes = 0
    for (const queue of [this.#urgent, this.#bulk]) {
      let n = 0
      while (n < queue.messages.length && frame.length < FRAME_MESSAGES_MAX && bytes < FRAME_BYTES_WANTED) {
        const m = queue.messages[n++]!
        const size = messageBytes(m)
        queue.bytes -= size
        bytes += size
        frame.push(toWire(m))
      }
      queue.messages.splice(0, n)
    }
    return frame
  }

  #lost(why: string): void {
    this.#hangUp()
    if (this.#closed) return
    if (!this.#failed)
      this.modules.logger.info('stream to a raft member lost', {
        raftId: this.member.raftId,
        address: this.member.address,
        why,
      })
    this.#failed = true
    this.modules.unreachable()
    const wait = this.#retryMs * (0.5 + this.modules.rng.random())
    this.#retryMs = Math.min(this.#retryMs * 2, RECONNECT_MAX_MS)
    this.#retry = this.modules.clock.after(wait, () => this.#open())
  }

  #redial(): void {
    this.#retry?.cancel()
    this.#hangUp()
    this.#open()
  }

  #hangUp(): void {
    const stream = this.#stream
    this.#stream = null
    this.#accepted = false
    stream?.cancel()
    this.#client?.close()
    this.#client = null
    // What was queued for the old stream is stale by the time of a new one.
    this.#unhold()
    this.#urgent.messages = []
    this.#bulk.messages = []
    this.#urgent.bytes = 0
    this.#bulk.bytes = 0
  }

  /** Renewed certificate: dial again. Quiet stream: ask for its health. Stuck write: dial again. */
  #check(): void {
    const { clock, identity } = this.modules
    if (this.#stream === null) return
    if (identity().cert !== this.#dialledWith?.cert) {
      this.#redial()
      return
    }
    if (this.#writing && clock.monotonic() - this.#writingSince > STREAM_STALL_MS) {
      this.#lost('a write made no progress')
      return
    }
    if (this.#healthRunning || this.#client === null || clock.monotonic() - this.#lastOkAt < HEALTH_INTERVAL_MS) return
    this.#healthRunning = true
    const client = this.#client
    callUnary(client, Raft.Health, Empty.create(), { deadlineMs: HEALTH_DEADLINE_MS }).then(
      () => {
        this.#healthRunning = false
        if (client === this.#client) this.heard()
      },
      () => {
        // The next check or the stream's own end tells more; here it only counts as not reachable.
        this.#healthRunning = false
        if (client === this.#client) this.#failed = true
      },
    )
  }
}
