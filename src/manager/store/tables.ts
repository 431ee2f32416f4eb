import {
  Cluster,
  type Codec,
  Config,
  Network,
  Node,
  type PortProtocol,
  Secret,
  Service,
  type ServiceSpec,
  StoreAction,
  StoreActionKind,
  Task,
  type TaskSpec,
  Volume,
} from '#proto'
import type { Kind, Tables } from './contract.js'

/** What the store knows of one kind: its wire form, its unique name, the keys it can be found by. */
export interface Table<T> {
  readonly codec: Codec<T>
  /** Unique without regard to case; null: not unique, or without a name. */
  readonly uniqueName: (object: T) => string | null
  /** Secondary keys, each `index:value`. */
  readonly keys: (object: T) => readonly string[]
}

export const KINDS: readonly Kind[] = ['cluster', 'node', 'service', 'task', 'network', 'secret', 'config', 'volume']

export const key = {
  name: (name: string) => `name:${name.toLowerCase()}`,
  service: (id: string) => `service:${id}`,
  node: (id: string) => `node:${id}`,
  slot: (serviceId: string, slot: number) => `slot:${serviceId}:${slot}`,
  network: (id: string) => `network:${id}`,
  secret: (id: string) => `secret:${id}`,
  config: (id: string) => `config:${id}`,
  port: (protocol: PortProtocol, port: number) => `port:${protocol}:${port}`,
}

const named = (object: { spec: { annotations: { name: string } | null } | null }): string | null =>
  object.spec?.annotations?.name || null

/** A service or network told to go gives its name free at once: it may be created anew while tasks still stop. */
const nameOfService = (service: Service): string | null => (service.pendingDelete ? null : named(service))
const nameOfNetwork = (network: Network): string | null => (network.pendingDelete ? null : named(network))

const byName = (object: { spec: { annotations: { name: string } | null } | null }): readonly string[] => {
  const name = named(object)
  return name === null ? [] : [key.name(name)]
}

/** Networks, secrets and configs that a task made from it refers to. */
function references(spec: TaskSpec | null): string[] {
  if (!spec) return []
  return [
    ...spec.networks.map((n) => key.network(n.target)),
    ...(spec.container?.secrets ?? []).map((s) => key.secret(s.secretId)),
    ...(spec.container?.configs ?? []).map((c) => key.config(c.configId)),
  ]
}

function serviceKeys(service: Service): readonly string[] {
  const spec: ServiceSpec | null = service.spec
  const name = nameOfService(service)
  const keys = new Set(references(spec?.task ?? null))
  if (name !== null) keys.add(key.name(name))
  for (const n of spec?.networks ?? []) keys.add(key.network(n.target))
  for (const v of service.endpoint?.virtualIps ?? []) keys.add(key.network(v.networkId))
  for (const p of [...(spec?.endpoint?.ports ?? []), ...(service.endpoint?.ports ?? [])])
    if (p.publishedPort > 0) keys.add(key.port(p.protocol, p.publishedPort))
  return [...keys]
}

function taskKeys(task: Task): readonly string[] {
  const keys = new Set(references(task.spec))
  for (const n of task.networks) if (n.network) keys.add(key.network(n.network.id))
  if (task.serviceId !== '') {
    keys.add(key.service(task.serviceId))
    keys.add(key.slot(task.serviceId, task.slot))
  }
  if (task.nodeId !== '') keys.add(key.node(task.nodeId))
  return [...keys]
}

export const TABLES: { readonly [K in Kind]: Table<Tables[K]> } = {
  cluster: { codec: Cluster, uniqueName: named, keys: byName },
  // Several hosts may have the same name.
  node: {
    codec: Node,
    uniqueName: () => null,
    keys: (n) => (n.description?.hostname ? [key.name(n.description.hostname)] : []),
  },
  service: { codec: Service, uniqueName: nameOfService, keys: serviceKeys },
  task: { codec: Task, uniqueName: () => null, keys: taskKeys },
  network: {
    codec: Network,
    uniqueName: nameOfNetwork,
    keys: (network) => (network.pendingDelete ? [] : byName(network)),
  },
  secret: { codec: Secret, uniqueName: named, keys: byName },
  config: { codec: Config, uniqueName: named, keys: byName },
  volume: { codec: Volume, uniqueName: named, keys: byName },
}

export type Change =
  | { readonly action: 'create' | 'update'; readonly kind: Kind; readonly object: Tables[Kind] }
  | { readonly action: 'remove'; readonly kind: Kind; readonly object: Tables[Kind] }

const TO_WIRE = {
  create: StoreActionKind.STORE_CREATE,
  update: StoreActionKind.STORE_UPDATE,
  remove: StoreActionKind.STORE_REMOVE,
} as const

/** A removal carries only the id. */
export function toAction(change: Change): StoreAction {
  const object =
    change.action === 'remove'
      ? (TABLES[change.kind].codec as Codec<{ id: string }>).create({ id: change.object.id })
      : change.object
  return StoreAction.create({ kind: TO_WIRE[change.action], [change.kind]: object })
}

/** Null: an action of a kind that this version does not know. */
export function fromAction(action: StoreAction): Change | null {
  for (const kind of KINDS) {
    const object = action[kind]
    if (object === null) continue
    if (action.kind === StoreActionKind.STORE_CREATE) return { action: 'create', kind, object }
    if (action.kind === StoreActionKind.STORE_UPDATE) return { action: 'update', kind, object }
    if (action.kind === StoreActionKind.STORE_REMOVE) return { action: 'remove', kind, object }
  }
  return null
}

/** Frozen parts are taken as frozen throughout, so that what objects share is looked at once. */
export function freeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value) || ArrayBuffer.isView(value)) return value
  Object.freeze(value)
  for (const part of Object.values(value)) freeze(part)
  return value
}
