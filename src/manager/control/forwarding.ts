import type * as grpc from '@grpc/grpc-js'
import {
  type AttachNetworkRequest,
  Control,
  type CreateRequest,
  Empty,
  type GetRequest,
  type ListRequest,
  type Method,
  type RemoveRequest,
  type ServiceLogsRequest,
  type ServiceLogsResponse,
  type ServiceStatusRequest,
  type UpdateRequest,
  type WatchEvent,
  type WatchRequest,
} from '#proto'
import { callUnary, fromServiceError, openServerStream } from '../../common/grpc/index.js'
import type { ControlApi } from '../contract.js'
import type { LeaderLink } from '../leader-link.js'

/** Longest that one forwarded call may take at the leader. */
const CALL_DEADLINE_MS = 60_000

/** The API on any manager: answered here when it leads, else by the leader. */
export class ForwardingControl implements ControlApi {
  constructor(
    private readonly link: LeaderLink,
    private readonly local: ControlApi,
  ) {}

  list = (request: ListRequest) => this.#read(Control.List, request, () => this.local.list(request))
  get = (request: GetRequest) => this.#read(Control.Get, request, () => this.local.get(request))
  create = (request: CreateRequest) => this.#call(Control.Create, request, () => this.local.create(request))
  update = (request: UpdateRequest) => this.#call(Control.Update, request, () => this.local.update(request))

  async remove(request: RemoveRequest): Promise<void> {
    await this.#call(Control.Remove, request, async () => {
      await this.local.remove(request)
      return Empty.create()
    })
  }

  serviceStatuses = (request: ServiceStatusRequest) =>
    this.#read(Control.ServiceStatuses, request, () => this.local.serviceStatuses(request))

  attachNetwork = (request: AttachNetworkRequest) =>
    this.#call(Control.AttachNetwork, request, () => this.local.attachNetwork(request))

  /** Every member sees every change: no need to ask the leader. */
  watch(request: WatchRequest, signal: AbortSignal): AsyncIterable<WatchEvent> {
    return this.local.watch(request, signal)
  }

  /** The leader knows which manager holds which node's session. */
  async *logs(request: ServiceLogsRequest, signal: AbortSignal): AsyncGenerator<ServiceLogsResponse> {
    const source = await this.link.call(
      async () => this.local.logs(request, signal),
      async (client) => readStream(openServerStream(client, Control.Logs, request), signal),
    )
    yield* source
  }

  #read<Q, S>(method: Method<Q, S>, request: Q, local: () => Promise<S>): Promise<S> {
    return this.link.read(local, (client, signal) =>
      callUnary(client, method, request, { deadlineMs: CALL_DEADLINE_MS, signal }),
    )
  }

  #call<Q, S>(method: Method<Q, S>, request: Q, local: () => Promise<S>): Promise<S> {
    return this.link.call(local, (client) => callUnary(client, method, request, { deadlineMs: CALL_DEADLINE_MS }))
  }
}

/** A server's stream as an iteration that ends quietly when the signal fires. */
export async function* readStream<S>(stream: grpc.ClientReadableStream<S>, signal: AbortSignal): AsyncGenerator<S> {
  const cancel = (): void => stream.cancel()
  signal.addEventListener('abort', cancel, { once: true })
  if (signal.aborted) cancel()
  try {
    for await (const message of stream as AsyncIterable<S>) yield message
  } catch (e) {
    if (!signal.aborted) throw fromServiceError(e)
  } finally {
    signal.removeEventListener('abort', cancel)
    stream.cancel()
  }
}
