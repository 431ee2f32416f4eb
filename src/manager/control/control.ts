import {
  type AnyObject,
  type AttachNetworkRequest,
  type AttachNetworkResponse,
  type CreateRequest,
  CreateResponse,
  type GetRequest,
  GetResponse,
  type ListRequest,
  ListResponse,
  type RemoveRequest,
  type ServiceLogsRequest,
  type ServiceLogsResponse,
  type ServiceStatusRequest,
  ServiceStatusResponse,
  type UpdateRequest,
  UpdateResponse,
  type WatchEvent,
  type WatchRequest,
} from '#proto'
import { type Clock, invalid } from '../../common/index.js'
import type { RaftNode } from '../../raft/index.js'
import type { ControlApi } from '../contract.js'
import type { Kind, Store } from '../store/index.js'
import { AttachmentControl } from './attachments.js'
import { ClusterControl } from './clusters.js'
import { objectNotFound } from './errors.js'
import { listObjects } from './list.js'
import { NetworkControl } from './networks.js'
import { NodeControl } from './nodes.js'
import { isHidden, kindOf, lookUp, specOf, wrap } from './objects.js'
import { PayloadControl } from './payloads.js'
import { ServiceControl } from './services.js'
import { serviceStatus } from './statuses.js'
import { watchStore } from './watch.js'

export interface ControlModules {
  readonly store: Store
  readonly clock: Clock
  readonly raft: Pick<RaftNode, 'readBarrier' | 'canRemove' | 'status'>
  /** Log lines of tasks, whichever manager holds their nodes' sessions. */
  readonly logs: (request: ServiceLogsRequest, signal: AbortSignal) => AsyncIterable<ServiceLogsResponse>
}

/** The cluster's API on the manager that leads. Reads are linearizable: they wait for what was committed before them. */
export class LeaderControl implements ControlApi {
  readonly #services: ServiceControl
  readonly #networks: NetworkControl
  readonly #secrets: PayloadControl
  readonly #configs: PayloadControl
  readonly #nodes: NodeControl
  readonly #clusters: ClusterControl
  readonly #attachments: AttachmentControl

  constructor(private readonly modules: ControlModules) {
    const { store, clock, raft } = modules
    this.#services = new ServiceControl(store, clock)
    this.#networks = new NetworkControl(store)
    this.#secrets = new PayloadControl(store, 'secret')
    this.#configs = new PayloadControl(store, 'config')
    this.#nodes = new NodeControl(store, clock, raft)
    this.#clusters = new ClusterControl(store, clock)
    this.#attachments = new AttachmentControl(store, clock)
  }

  async list(request: ListRequest): Promise<ListResponse> {
    const kind = kindOf(request.kind)
    await this.modules.raft.readBarrier()
    const objects = listObjects(this.modules.store.view(), kind, request.filters)
    return ListResponse.create({ objects: objects.map((o) => wrap(kind, o)) })
  }

  async get(request: GetRequest): Promise<GetResponse> {
    const kind = kindOf(request.kind)
    await this.modules.raft.readBarrier()
    const view = this.modules.store.view()
    // The cluster's own name for "the only one".
    const only = kind === 'cluster' && request.reference === '' ? view.cluster() : null
    return GetResponse.create({ object: wrap(kind, only ?? lookUp(view, kind, request.reference)) })
  }

  async create(request: CreateRequest): Promise<CreateResponse> {
    const any = specOf(request.spec)
    switch (any.kind) {
      case 'service':
        return this.#created('service', await this.#services.create(any.spec))
      case 'network':
        return this.#created('network', await this.#networks.create(any.spec))
      case 'secret':
        return this.#created('secret', await this.#secrets.create(any.spec))
      case 'config':
        return this.#created('config', await this.#configs.create(any.spec))
      default:
        throw invalid('notCreatable', `a ${any.kind} cannot be created by request`)
    }
  }

  async update(request: UpdateRequest): Promise<UpdateResponse> {
    const kind = kindOf(request.kind)
    let warnings: string[] = []
    switch (kind) {
      case 'service':
        warnings = (await this.#services.update(request)).warnings
        break
      case 'network':
        await this.#networks.update(request)
        break
      case 'secret':
        await this.#secrets.update(request)
        break
      case 'config':
        await this.#configs.update(request)
        break
      case 'node':
        await this.#nodes.update(request)
        break
      case 'cluster':
        await this.#clusters.update(request)
        break
      default:
        throw invalid('notUpdatable', `a ${kind} cannot be updated by request`)
    }
    return UpdateResponse.create({ object: this.#stored(kind, request.id), warnings })
  }

  async remove(request: RemoveRequest): Promise<void> {
    const kind = kindOf(request.kind)
    switch (kind) {
      case 'service':
        return this.#services.remove(request.id)
      case 'network':
        return this.#networks.remove(request.id)
      case 'secret':
        return this.#secrets.remove(request.id)
      case 'config':
        return this.#configs.remove(request.id)
      case 'node':
        return this.#nodes.remove(request.id, request.force)
      case 'task':
        return this.#attachments.detach(request.id)
      default:
        throw invalid('notRemovable', `a ${kind} cannot be removed by request`)
    }
  }

  async serviceStatuses(request: ServiceStatusRequest): Promise<ServiceStatusResponse> {
    await this.modules.raft.readBarrier()
    const view = this.modules.store.view()
    const statuses = request.serviceIds.map((id) => {
      const service = view.get('service', id)
      if (!service || isHidden('service', service)) throw objectNotFound('service', id)
      return serviceStatus(view, service)
    })
    return ServiceStatusResponse.create({ statuses })
  }

  attachNetwork(request: AttachNetworkRequest): Promise<AttachNetworkResponse> {
    return this.#attachments.attach(request)
  }

  watch(request: WatchRequest, signal: AbortSignal): AsyncIterable<WatchEvent> {
    return watchStore(this.modules.store, request, signal)
  }

  logs(request: ServiceLogsRequest, signal: AbortSignal): AsyncIterable<ServiceLogsResponse> {
    return this.modules.logs(request, signal)
  }

  #created(kind: Kind, made: { readonly id: string; readonly warnings: readonly string[] }): CreateResponse {
    return CreateResponse.create({ object: this.#stored(kind, made.id), warnings: [...made.warnings] })
  }

  /** As applied, with its version; null when another request has removed it meanwhile. */
  #stored(kind: Kind, id: string): AnyObject | null {
    const object = this.modules.store.view().get(kind, id)
    return object && wrap(kind, object)
  }
}
