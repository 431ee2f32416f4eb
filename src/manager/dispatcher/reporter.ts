import type * as grpc from '@grpc/grpc-js'
import {
  Dispatcher,
  type NodeDescription,
  NodeReport,
  type ReportAck,
  ReportBatch,
  type TaskStatusUpdate,
} from '#proto'
import { openBidi } from '../../common/grpc/index.js'
import { type Clock, ShoalError, type Timer, unavailable } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import type { LeaderLink } from '../leader-link.js'
import { GONE_MAX, PRESENCE_MS, REPORT_MAX, REPORT_MS, SESSION_STATUS_MAX } from './options.js'

/** Waits this long before it tries again after the leader could not be reached. */
const RETRY_MS = 200
/** The leader did not acknowledge a batch for so long: start over on a new stream. */
const ACK_DEADLINE_MS = 10_000

/** The leader's end, when it is in this process. */
export interface LeaderDesk {
  accept(fromManager: string, batch: ReportBatch): Promise<void>
}

interface Waiting {
  readonly update: TaskStatusUpdate
  readonly done: (error: ShoalError | null) => void
}

/** A node with a session here, as the leader has to know it. */
interface LiveNode {
  readonly sessionId: string
  readonly address: string
  description: NodeDescription
  /** The leader has not been told (or another leader has). */
  unregistered: boolean
  heard: boolean
  statuses: Waiting[]
}

/**
 * Carries presence and statuses of the nodes with sessions here to whoever leads. One batch is under way at a time: what
 * comes meanwhile makes the next one, so that a slow leader gets bigger batches, not more. When the way breaks, everything
 * unacknowledged goes again, and every node is registered anew; the leader takes repetitions without harm.
 */
export class Reporter {
  readonly #nodes = new Map<string, LiveNode>()
  readonly #gone: NodeReport[] = []
  readonly #dirty = new Set<string>()
  #timer: Timer | null = null
  #busy = false
  #stopped = false
  #stream: { client: grpc.Client; call: grpc.ClientDuplexStream<ReportBatch, ReportAck> } | null = null
  #acked: ((sequence: number) => void) | null = null
  #broken: ((error: Error) => void) | null = null
  #sequence = 0
  #registeredAt: unknown = null
  readonly #presence: Timer
  readonly #offLink: () => void

  constructor(
    private readonly link: LeaderLink,
    private readonly desk: () => LeaderDesk | null,
    private readonly selfId: string,
    private readonly clock: Clock,
    private readonly logger: Logger,
  ) {
    this.#presence = clock.every(PRESENCE_MS, () => this.#beat())
    this.#offLink = link.onChange(() => this.#schedule(0))
  }

  register(nodeId: string, sessionId: string, description: NodeDescription, address: string): void {
    const old = this.#nodes.get(nodeId)
    if (old && old.sessionId === sessionId) {
      old.description = description
      old.unregistered = true
    } else {
      this.#fail(old, unavailable('sessionReplaced', `node ${nodeId} has a newer session`))
      this.#nodes.set(nodeId, {
        sessionId,
        address,
        description,
        unregistered: true,
        heard: true,
        statuses: [],
      })
    }
    this.#mark(nodeId)
  }

  heard(nodeId: string, sessionId: string): void {
    const node = this.#nodes.get(nodeId)
    if (node?.sessionId === sessionId) node.heard = true
  }

  /** Resolves when the store has them all. */
  async statuses(nodeId: string, sessionId: string, updates: readonly TaskStatusUpdate[]): Promise<void> {
    const node = this.#nodes.get(nodeId)
    if (node?.sessionId !== sessionId) throw unavailable('sessionLost', `node ${nodeId} has no such session here`)
    if (node.statuses.length + updates.length > SESSION_STATUS_MAX)
      throw unavailable('overloaded', `${node.statuses.length} statuses of node ${nodeId} wait for the leader`)
    const waits = updates.map(
      (update) =>
        new Promise<void>((resolve, reject) =>
          node.statuses.push({ update, done: (e) => (e ? reject(e) : resolve()) }),
        ),
    )
    this.#mark(nodeId)
    await Promise.all(waits)
  }

  gone(nodeId: string, sessionId: string): void {
    const node = this.#nodes.get(nodeId)
    if (node?.sessionId !== sessionId) return
    this.#nodes.delete(nodeId)
    this.#dirty.delete(nodeId)
    this.#fail(node, unavailable('sessionLost', `the session of node ${nodeId} ended`))
    // Only news for the leader, not needed for anything: without a leader the oldest are dropped.
    if (this.#gone.length >= GONE_MAX) this.#gone.shift()
    this.#gone.push(NodeReport.create({ nodeId, sessionId, gone: true }))
    this.#schedule(REPORT_MS)
  }

  stop(): void {
    this.#stopped = true
    this.#presence.cancel()
    this.#timer?.cancel()
    this.#offLink()
    this.#drop(unavailable('stopped', 'this manager stops'))
    for (const node of this.#nodes.values()) this.#fail(node, unavailable('stopped', 'this manager stops'))
  }

  #mark(nodeId: string): void {
    this.#dirty.add(nodeId)
    this.#schedule(REPORT_MS)
  }

  #beat(): void {
    for (const [id, node] of this.#nodes) if (node.heard) this.#dirty.add(id)
    if (this.#dirty.size > 0) this.#schedule(0)
  }

  #schedule(ms: number): void {
    if (this.#stopped || this.#busy || this.#timer) return
    if (this.#dirty.size === 0 && this.#gone.length === 0) return
    this.#timer = this.clock.after(ms, () => {
      this.#timer = null
      this.#busy = true
      this.#send().then(
        (more) => {
          this.#busy = false
          this.#schedule(more ? 0 : REPORT_MS)
        },
        (e: unknown) => {
          this.#busy = false
          this.logger.debug('report not taken by the leader, sent again', { error: ShoalError.from(e).message })
          this.#schedule(RETRY_MS)
        },
      )
    })
  }

  async #send(): Promise<boolean> {
    const way = this.#way()
    if (way === null) throw unavailable('noLeader', 'no leader to report to')
    // Another leader, or a new stream to it: it knows none of our nodes.
    if (way !== this.#registeredAt) {
      this.#registeredAt = way
      for (const [id, node] of this.#nodes) {
        node.unregistered = true
        this.#dirty.add(id)
      }
    }
    const { batch, settle } = this.#collect()
    try {
      if (way === this.desk()) await (way as LeaderDesk).accept(this.selfId, batch)
      else await this.#deliver(batch)
    } catch (e) {
      this.#registeredAt = null
      this.#drop(ShoalError.from(e))
      settle(false)
      throw e
    }
    settle(true)
    return this.#dirty.size > 0
  }

  /** Desk or stream; compared by identity to notice a change. */
  #way(): unknown {
    const desk = this.desk()
    if (desk) {
      this.#drop(unavailable('leaderMoved', 'this manager leads now'))
      return desk
    }
    const client = this.link.connection()
    if (!client) return null
    if (this.#stream?.client !== client) {
      this.#drop(unavailable('leaderMoved', 'another manager leads now'))
      const call = openBidi(client, Dispatcher.Report)
      const stream = { client, call }
      this.#stream = stream
      const broken = (error: Error): void => {
        if (this.#stream !== stream) return
        this.#stream = null
        this.#broken?.(error)
      }
      call.on('data', (ack: ReportAck) => this.#acked?.(ack.sequence))
      call.on('error', broken)
      call.on('end', () => broken(unavailable('leaderMoved', 'the leader ended the report stream')))
    }
    return this.#stream?.call ?? null
  }

  #collect(): { batch: ReportBatch; settle: (taken: boolean) => void } {
    const reports = this.#gone.splice(0)
    const gone = reports.length
    const members: { id: string; node: LiveNode; registered: boolean; statuses: Waiting[] }[] = []
    let statuses = 0
    for (const id of this.#dirty) {
      if (statuses >= REPORT_MAX) break
      const node = this.#nodes.get(id)
      this.#dirty.delete(id)
      if (!node) continue
      const taken = node.statuses.splice(0, REPORT_MAX - statuses)
      statuses += taken.length
      if (node.statuses.length > 0) this.#dirty.add(id)
      const registered = node.unregistered
      node.unregistered = false
      node.heard = false
      members.push({ id, node, registered, statuses: taken })
      reports.push(
        NodeReport.create({
          nodeId: id,
          sessionId: node.sessionId,
          description: registered ? node.description : null,
          address: registered ? node.address : '',
          statuses: taken.map((w) => w.update),
        }),
      )
    }
    const settle = (taken: boolean): void => {
      if (!taken) this.#gone.unshift(...reports.slice(0, gone))
      for (const m of members) {
        if (taken) for (const w of m.statuses) w.done(null)
        else if (this.#nodes.get(m.id) === m.node) {
          m.node.statuses.unshift(...m.statuses)
          m.node.unregistered ||= m.registered
          this.#dirty.add(m.id)
        } else for (const w of m.statuses) w.done(unavailable('sessionLost', `the session of node ${m.id} ended`))
      }
    }
    return { batch: ReportBatch.create({ sequence: ++this.#sequence, reports }), settle }
  }

  #deliver(batch: ReportBatch): Promise<void> {
    const stream = this.#stream
    if (!stream) return Promise.reject(unavailable('noLeader', 'no leader to report to'))
    return new Promise((resolve, reject) => {
      const end = (then: () => void): void => {
        timer.cancel()
        this.#acked = null
        this.#broken = null
        then()
      }
      const timer = this.clock.after(ACK_DEADLINE_MS, () =>
        end(() => reject(unavailable('noAck', `the leader did not take a report within ${ACK_DEADLINE_MS} ms`))),
      )
      this.#acked = (sequence) => {
        if (sequence === batch.sequence) end(resolve)
      }
      this.#broken = (e) => end(() => reject(e))
      stream.call.write(batch)
    })
  }

  #drop(error: Error): void {
    const stream = this.#stream
    this.#stream = null
    stream?.call.cancel()
    this.#broken?.(error)
  }

  #fail(node: LiveNode | undefined, error: ShoalError): void {
    for (const w of node?.statuses.splice(0) ?? []) w.done(error)
  }
}
