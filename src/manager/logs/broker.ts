import { Metadata } from '@grpc/grpc-js'
import { Control, LogRequest, ServiceLogsRequest, ServiceLogsResponse, type Task, TaskState } from '#proto'
import { dialGrpc, openServerStream, type TlsIdentity } from '../../common/grpc/index.js'
import { notFound, ShoalError, unavailable } from '../../common/index.js'
import { readStream } from '../control/forwarding.js'
import { LOCAL_NODES } from '../control/handlers.js'
import type { Dispatcher } from '../dispatcher/index.js'
import type { Store } from '../store/index.js'
import { Channel } from './channel.js'

/** Batches of lines that wait for the reader; the nodes' pumps wait when there are more. */
const UNREAD = 64

export interface LogModules {
  readonly store: Store
  readonly dispatcher: Pick<Dispatcher, 'holds' | 'logs'>
  /** On the leader: which manager holds the node's session. */
  readonly managerOf: (nodeId: string) => string | null
  readonly identity: () => TlsIdentity
}

/** Asks only nodes that have tasks of it, through whichever manager holds their session. A node that cannot be asked is a warning. */
export class LogBroker {
  constructor(private readonly modules: LogModules) {}

  /** On the leader. */
  async *logs(request: ServiceLogsRequest, signal: AbortSignal): AsyncGenerator<ServiceLogsResponse> {
    const { store } = this.modules
    const options = request.options ?? LogRequest.create({ stdout: true, stderr: true, tail: -1 })
    const wanted = wantedTasks(request)
    const end = new AbortController()
    const stopped = (): void => end.abort(signal.reason)
    signal.addEventListener('abort', stopped, { once: true })
    const channel = new Channel<ServiceLogsResponse>(UNREAD)
    end.signal.addEventListener('abort', () => channel.close(), { once: true })
    const asked = new Set<string>()
    let open = 0
    const ask = (tasks: readonly Task[], from: LogRequest): void => {
      const byNode = new Map<string, string[]>()
      for (const t of tasks) {
        if (asked.has(t.id) || t.nodeId === '' || (t.status?.state ?? 0) < TaskState.TASK_ASSIGNED) continue
        asked.add(t.id)
        byNode.set(t.nodeId, [...(byNode.get(t.nodeId) ?? []), t.id])
      }
      for (const [nodeId, ids] of byNode) {
        open++
        this.#pump(nodeId, { ...from, taskIds: ids }, channel, end.signal).finally(() => {
          open--
          if (open === 0 && !options.follow) channel.close()
        })
      }
    }
    const view = store.view()
    for (const id of request.serviceIds)
      if (!view.get('service', id)) throw notFound('serviceNotFound', `service ${id} not found`)
    for (const id of request.taskIds) if (!view.get('task', id)) throw notFound('taskNotFound', `task ${id} not found`)
    const first = [
      ...request.serviceIds.flatMap((id) => view.tasksOfService(id)),
      ...request.taskIds.flatMap((id) => view.get('task', id) ?? []),
    ]
    // Tasks that come later are followed from their first line.
    const later = { ...options, tail: -1, since: null }
    const stop = store.onCommit((commit) => {
      if (!options.follow) return
      const events = commit.events.flatMap((e) => (e.kind === 'task' && e.action !== 'remove' ? [e.object] : []))
      ask(events.filter(wanted), later)
    })
    try {
      if (signal.aborted) return
      ask(first, options)
      if (open === 0 && !options.follow) return
      yield* channel
    } finally {
      stop()
      signal.removeEventListener('abort', stopped)
      end.abort()
    }
  }

  /** For another manager: only nodes whose session is here. */
  async *local(
    request: ServiceLogsRequest,
    nodeIds: readonly string[],
    signal: AbortSignal,
  ): AsyncGenerator<ServiceLogsResponse> {
    const options = { ...(request.options ?? LogRequest.create()), taskIds: [...request.taskIds] }
    for (const nodeId of nodeIds)
      for await (const chunk of this.modules.dispatcher.logs(nodeId, options, signal)) {
        if (chunk.lines.length > 0) yield ServiceLogsResponse.create({ lines: chunk.lines })
        if (chunk.end && chunk.error !== '') yield this.#warning(nodeId, chunk.error)
      }
  }

  async #pump(
    nodeId: string,
    options: LogRequest,
    channel: Channel<ServiceLogsResponse>,
    signal: AbortSignal,
  ): Promise<void> {
    try {
      for await (const message of this.#ofNode(nodeId, options, signal)) if (!(await channel.push(message))) return
    } catch (e) {
      if (!signal.aborted) await channel.push(this.#warning(nodeId, ShoalError.from(e).message))
    }
  }

  #ofNode(nodeId: string, options: LogRequest, signal: AbortSignal): AsyncIterable<ServiceLogsResponse> {
    const { dispatcher, managerOf, store, identity } = this.modules
    const request = ServiceLogsRequest.create({ taskIds: options.taskIds, options })
    if (dispatcher.holds(nodeId)) return this.local(request, [nodeId], signal)
    const manager = managerOf(nodeId)
    const address = manager === null ? '' : (store.view().get('node', manager)?.managerStatus?.address ?? '')
    if (address === '') throw unavailable('nodeDown', 'the node is not connected to any manager')
    return relayed(address, identity(), request, nodeId, signal)
  }

  #warning(nodeId: string, reason: string): ServiceLogsResponse {
    const name = this.modules.store.view().get('node', nodeId)?.description?.hostname || nodeId
    return ServiceLogsResponse.create({ warning: `logs of node ${name} (${nodeId}) are not available: ${reason}` })
  }
}

async function* relayed(
  address: string,
  identity: TlsIdentity,
  request: ServiceLogsRequest,
  nodeId: string,
  signal: AbortSignal,
): AsyncGenerator<ServiceLogsResponse> {
  const client = dialGrpc({ address, identity })
  const metadata = new Metadata()
  metadata.set(LOCAL_NODES, nodeId)
  try {
    yield* readStream(openServerStream(client, Control.Logs, request, metadata), signal)
  } finally {
    client.close()
  }
}

function wantedTasks(request: ServiceLogsRequest): (task: Task) => boolean {
  const services = new Set(request.serviceIds)
  const tasks = new Set(request.taskIds)
  return (t) => services.has(t.serviceId) || tasks.has(t.id)
}
