import {
  EndpointMode,
  type Network,
  NetworkEndpoint,
  NetworkServiceEntry,
  NetworkUpdate,
  PublishMode,
  type Service,
  type Task,
  TaskState,
} from '#proto'
import { taskName } from '../control/objects.js'
import type { ReadView, StoreEvent } from '../store/index.js'

const plain = (cidr: string): string => cidr.split('/')[0] ?? ''
const isIpv4 = (cidr: string): boolean => !cidr.includes(':')

/** Networks that a node needs for this task: from assignment until it has stopped. */
export function networksOf(task: Task | null): readonly string[] {
  if (!task || task.nodeId === '' || !isLive(task)) return []
  return task.networks.flatMap((n) => (n.network ? [n.network.id] : []))
}

function isLive(task: Task): boolean {
  const state = task.status?.state ?? TaskState.TASK_NEW
  const from = task.spec?.attachment ? TaskState.TASK_PENDING : TaskState.TASK_ASSIGNED
  return state >= from && state <= TaskState.TASK_RUNNING
}

/** Its endpoint on each network, by network id. */
function endpointsOf(task: Task | null): Map<string, NetworkEndpoint> {
  const found = new Map<string, NetworkEndpoint>()
  if (!task || task.nodeId === '' || !isLive(task)) return found
  const attachment = task.spec?.attachment ?? null
  const wanted = task.desiredState <= TaskState.TASK_RUNNING || task.desiredState === TaskState.TASK_COMPLETE
  const running = attachment !== null || task.status?.state === TaskState.TASK_RUNNING
  for (const n of task.networks) {
    const address = n.addresses.find(isIpv4)
    if (!n.network || address === undefined) continue
    found.set(
      n.network.id,
      NetworkEndpoint.create({
        id: attachment?.containerId || task.id,
        serviceId: task.serviceId,
        nodeId: task.nodeId,
        address: plain(address),
        name: taskName(task),
        aliases: n.aliases,
        ready: running && wanted,
      }),
    )
  }
  return found
}

/** Its entry on each network: by VIP, or with dnsrr by the networks it names. */
function entriesOf(service: Service | null): Map<string, NetworkServiceEntry> {
  const found = new Map<string, NetworkServiceEntry>()
  if (!service || service.pendingDelete) return found
  const mode = service.endpoint?.spec?.mode ?? service.spec?.endpoint?.mode ?? EndpointMode.VIP
  const entry = (networkId: string, virtualIp: string, ports: NetworkServiceEntry['ports']): void => {
    const aliases = service.spec?.task?.networks.find((n) => n.target === networkId)?.aliases ?? []
    const name = service.spec?.annotations?.name ?? ''
    found.set(networkId, NetworkServiceEntry.create({ serviceId: service.id, name, aliases, mode, virtualIp, ports }))
  }
  for (const n of service.spec?.task?.networks ?? []) if (mode === EndpointMode.DNSRR) entry(n.target, '', [])
  const published = (service.endpoint?.ports ?? []).filter((p) => p.publishMode === PublishMode.INGRESS)
  for (const v of service.endpoint?.virtualIps ?? []) {
    const named = service.spec?.task?.networks.some((n) => n.target === v.networkId) ?? false
    // The one network that a service does not name is the mesh's.
    entry(v.networkId, plain(v.address), named ? [] : published)
  }
  return found
}

class NetworkRecord {
  readonly endpoints = new Map<string, NetworkEndpoint>()
  readonly services = new Map<string, NetworkServiceEntry>()
  changedEndpoints = new Set<string>()
  changedServices = new Set<string>()
  networkChanged = false
  version = 0

  constructor(public network: Network) {}
}

/**
 * All networks' endpoints and services as this manager's replica has them. Each commit costs what it changes; every
 * flush makes one update for each changed network, the same for all nodes that follow it. Versions are raft indexes, so
 * that they mean the same on every manager.
 */
export class NetworkState {
  readonly #networks = new Map<string, NetworkRecord>()
  #dirty = new Set<string>()

  /** Everything anew: at the start, and after a snapshot. */
  reset(view: ReadView, version: number): void {
    this.#networks.clear()
    for (const network of view.list('network')) this.#networks.set(network.id, new NetworkRecord(network))
    for (const service of view.list('service')) this.#service(null, service)
    for (const task of view.list('task')) this.#task(null, task)
    for (const record of this.#networks.values()) {
      this.#settle(record)
      record.version = version
    }
    this.#dirty.clear()
  }

  /** True when something changed that nodes must be told. */
  note(event: StoreEvent): boolean {
    if (event.kind === 'task') this.#task(event.old, event.action === 'remove' ? null : event.object)
    else if (event.kind === 'service') this.#service(event.old, event.action === 'remove' ? null : event.object)
    else if (event.kind === 'network') this.#network(event)
    return this.#dirty.size > 0
  }

  ids(): Iterable<string> {
    return this.#networks.keys()
  }

  /** The mesh's networks, which every node follows: a new one may be there while the old one waits for its last tasks. */
  meshes(): readonly string[] {
    return [...this.#networks].flatMap(([id, record]) => (record.network.spec?.ingress ? [id] : []))
  }

  /** Updates since the last flush, by network. */
  flush(version: number): Map<string, NetworkUpdate> {
    const updates = new Map<string, NetworkUpdate>()
    for (const id of this.#dirty) {
      const record = this.#networks.get(id)
      if (!record) continue
      const update = NetworkUpdate.create({ networkId: id, fromVersion: record.version, toVersion: version })
      if (record.networkChanged) update.network = record.network
      for (const e of record.changedEndpoints) {
        const endpoint = record.endpoints.get(e)
        if (endpoint) update.endpoints.push(endpoint)
        else update.removedEndpoints.push(e)
      }
      for (const s of record.changedServices) {
        const service = record.services.get(s)
        if (service) update.services.push(service)
        else update.removedServices.push(s)
      }
      this.#settle(record)
      record.version = version
      updates.set(id, update)
    }
    this.#dirty = new Set()
    return updates
  }

  /** Only right after a flush. Null: there is no such network (any more), or none that was given its addresses yet. */
  full(networkId: string): NetworkUpdate | null {
    const record = this.#networks.get(networkId)
    if (!record || record.network.driverState === null) return null
    return NetworkUpdate.create({
      networkId,
      toVersion: record.version,
      full: true,
      network: record.network,
      endpoints: [...record.endpoints.values()],
      services: [...record.services.values()],
    })
  }

  #settle(record: NetworkRecord): void {
    record.changedEndpoints = new Set()
    record.changedServices = new Set()
    record.networkChanged = false
  }

  #network(event: StoreEvent & { kind: 'network' }): void {
    if (event.action === 'remove') {
      this.#networks.delete(event.object.id)
      return
    }
    const record = this.#networks.get(event.object.id)
    if (record) {
      record.network = event.object
      record.networkChanged = true
    } else this.#networks.set(event.object.id, new NetworkRecord(event.object))
    this.#dirty.add(event.object.id)
  }

  #task(old: Task | null, now: Task | null): void {
    const before = endpointsOf(old)
    const after = endpointsOf(now)
    for (const [networkId, endpoint] of after) {
      const was = this.#networks.get(networkId)?.endpoints.get(endpoint.id)
      if (was && sameEndpoint(was, endpoint)) continue
      this.#touch(networkId, (r) => {
        r.endpoints.set(endpoint.id, endpoint)
        r.changedEndpoints.add(endpoint.id)
      })
    }
    for (const [networkId, endpoint] of before) {
      if (after.has(networkId)) continue
      this.#touch(networkId, (r) => {
        if (r.endpoints.delete(endpoint.id)) r.changedEndpoints.add(endpoint.id)
      })
    }
  }

  #service(old: Service | null, now: Service | null): void {
    const before = entriesOf(old)
    const after = entriesOf(now)
    for (const [networkId, entry] of after) {
      const was = before.get(networkId)
      if (was && Buffer.compare(NetworkServiceEntry.encode(was), NetworkServiceEntry.encode(entry)) === 0) continue
      this.#touch(networkId, (r) => {
        r.services.set(entry.serviceId, entry)
        r.changedServices.add(entry.serviceId)
      })
    }
    for (const [networkId, entry] of before) {
      if (after.has(networkId)) continue
      this.#touch(networkId, (r) => {
        if (r.services.delete(entry.serviceId)) r.changedServices.add(entry.serviceId)
      })
    }
  }

  #touch(networkId: string, change: (record: NetworkRecord) => void): void {
    const record = this.#networks.get(networkId)
    // A node-local network by name, or one removed in the same commit.
    if (!record) return
    change(record)
    this.#dirty.add(networkId)
  }
}

const sameEndpoint = (a: NetworkEndpoint, b: NetworkEndpoint): boolean =>
  a.ready === b.ready &&
  a.address === b.address &&
  a.nodeId === b.nodeId &&
  a.name === b.name &&
  a.serviceId === b.serviceId &&
  a.aliases.join('\0') === b.aliases.join('\0')
