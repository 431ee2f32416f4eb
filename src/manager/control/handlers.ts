import type { EventEmitter } from 'node:events'
import type * as grpc from '@grpc/grpc-js'
import {
  type AttachNetworkRequest,
  type CreateRequest,
  Empty,
  type GetRequest,
  type ListRequest,
  type RemoveRequest,
  type ServiceLogsRequest,
  type ServiceStatusRequest,
  type UpdateRequest,
  type WatchRequest,
} from '#proto'
import { type Peer, peerOf, toServiceError, unary } from '../../common/grpc/index.js'
import { ShoalError, unavailable } from '../../common/index.js'
import type { ControlApi } from '../contract.js'
import { NodeAccess } from './node-access.js'

/** Asks one manager for the logs of nodes whose sessions it holds itself; see logs/. */
export const LOCAL_NODES = 'shoal-local-nodes'

export interface ControlHandlers {
  /** Throws unless the caller is a manager of this cluster. */
  readonly authorise: (peer: Peer | null) => Peer
  /** Throws unless the caller is a node of this cluster. */
  readonly authoriseNode: (peer: Peer | null) => Peer
  readonly isLeader: () => boolean
  readonly control: ControlApi
  /** Passes on to the leader: for callers that do not know who leads. */
  readonly forwarding: ControlApi
  readonly localLogs: (
    request: ServiceLogsRequest,
    nodeIds: readonly string[],
    signal: AbortSignal,
  ) => AsyncIterable<import('#proto').ServiceLogsResponse>
}

/**
 * For other managers, and in the bounds of NodeAccess for every node. A manager's call is never passed on twice: not
 * leading, the caller looks for the leader again.
 */
export function controlHandlers(options: ControlHandlers): grpc.UntypedServiceImplementation {
  const { control } = options
  const check = (call: Parameters<typeof peerOf>[0]): void => {
    options.authorise(peerOf(call))
    if (!options.isLeader()) throw unavailable('notLeader', 'this manager does not lead the cluster')
  }
  const answer = <Q, S>(fn: (request: Q) => Promise<S>) =>
    unary<Q, S>(async (request, call) => {
      check(call)
      return fn(request)
    })
  const access = new NodeAccess(options.forwarding)
  const answerNode = <Q, S>(fn: (request: Q) => Promise<S>, forNode: (request: Q, peer: Peer) => Promise<S>) =>
    unary<Q, S>(async (request, call) => {
      const peer = options.authoriseNode(peerOf(call))
      if (peer.role === 'worker') return forNode(request, peer)
      check(call)
      return fn(request)
    })
  return {
    List: answer((q: ListRequest) => control.list(q)),
    Get: answerNode(
      (q: GetRequest) => control.get(q),
      (q, peer) => access.get(q, peer),
    ),
    Create: answer((q: CreateRequest) => control.create(q)),
    Update: answer((q: UpdateRequest) => control.update(q)),
    Remove: answerNode(
      async (q: RemoveRequest) => {
        await control.remove(q)
        return Empty.create()
      },
      (q, peer) => access.remove(q, peer),
    ),
    ServiceStatuses: answer((q: ServiceStatusRequest) => control.serviceStatuses(q)),
    AttachNetwork: answerNode(
      (q: AttachNetworkRequest) => control.attachNetwork(q),
      (q, peer) => access.attachNetwork(q, peer),
    ),
    Watch: streaming<WatchRequest, unknown>((q, signal, call) => {
      options.authorise(peerOf(call))
      return control.watch(q, signal)
    }),
    Logs: streaming<ServiceLogsRequest, unknown>((q, signal, call) => {
      options.authorise(peerOf(call))
      const nodes = call.metadata.get(LOCAL_NODES)[0]
      if (typeof nodes === 'string') return options.localLogs(q, nodes.split(','), signal)
      check(call)
      return control.logs(q, signal)
    }),
  } as grpc.UntypedServiceImplementation
}

/** A server stream out of an iteration, at the reader's pace. */
function streaming<Q, S>(
  fn: (request: Q, signal: AbortSignal, call: grpc.ServerWritableStream<Q, S>) => AsyncIterable<S>,
): grpc.handleServerStreamingCall<Q, S> {
  return (call) => {
    const end = new AbortController()
    call.on('cancelled', () => end.abort(new ShoalError('cancelled', 'cancelled', 'the caller hung up')))
    const run = async (): Promise<void> => {
      for await (const message of fn(call.request, end.signal, call)) {
        if (end.signal.aborted) return
        if (!call.write(message)) await drained(call, end.signal)
      }
    }
    run().then(
      () => call.end(),
      (e) => {
        if (!end.signal.aborted) call.emit('error', toServiceError(e))
      },
    )
  }
}

const drained = (call: EventEmitter, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const done = (): void => {
      call.removeListener('drain', done)
      signal.removeEventListener('abort', done)
      resolve()
    }
    call.once('drain', done)
    signal.addEventListener('abort', done, { once: true })
    if (signal.aborted) done()
  })
