import type { Network, NetworkEndpoint, NetworkServiceEntry, NetworkUpdate } from '#proto'
import { EndpointMode } from '#proto'
import type { BalancedService } from '../balancer/container-table.js'
import type { LocalNetworkSpec, NetworkRecord } from '../contract.js'
import type { NameTableBuilder } from '../dns/names.js'
import { contains, parseCidr, parseIp } from '../ipam/ip.js'

/** All that this node knows of one cluster network. Plain data, kept on disk as it is. */
export interface NetworkState {
  readonly network: Network
  /** 0: no manager has told about it yet; the network came with a task. */
  readonly version: number
  readonly endpoints: Readonly<Record<string, NetworkEndpoint>>
  readonly services: Readonly<Record<string, NetworkServiceEntry>>
}

export type UpdateResult =
  | {
      readonly ok: true
      readonly state: NetworkState
      /** Addresses that had an endpoint before and have none now. */
      readonly died: readonly string[]
      /** Addresses that have an endpoint now and had none before. */
      readonly revived: readonly string[]
    }
  | { readonly ok: false; readonly reason: 'versionGap' | 'networkMissing' }

const byId = <T>(list: readonly T[], id: (x: T) => string): Record<string, T> =>
  Object.fromEntries(list.map((x) => [id(x), x]))

const addressesOf = (s: NetworkState | null): Set<string> =>
  new Set(Object.values(s?.endpoints ?? {}).map((e) => e.address))

/** The state after an update; pure. Incremental updates need the version they start from. */
export function applyUpdate(old: NetworkState | null, u: NetworkUpdate): UpdateResult {
  const network = u.network ?? old?.network
  if (!network) return { ok: false, reason: 'networkMissing' }
  if (!u.full && (!old || old.version !== u.fromVersion)) return { ok: false, reason: 'versionGap' }
  const endpoints = { ...(u.full ? {} : old!.endpoints) }
  const services = { ...(u.full ? {} : old!.services) }
  for (const id of u.removedEndpoints) delete endpoints[id]
  for (const id of u.removedServices) delete services[id]
  Object.assign(
    endpoints,
    byId(u.endpoints, (e) => e.id),
  )
  Object.assign(
    services,
    byId(u.services, (s) => s.serviceId),
  )
  const state: NetworkState = { network, version: u.toVersion, endpoints, services }
  const before = addressesOf(old)
  const now = addressesOf(state)
  return {
    ok: true,
    state,
    died: [...before].filter((a) => !now.has(a)),
    revived: [...now].filter((a) => !before.has(a)),
  }
}

/** Addresses of a service's endpoints that take traffic, in a stable order. */
export function readyAddresses(s: NetworkState, serviceId: string): string[] {
  return Object.values(s.endpoints)
    .filter((e) => e.serviceId === serviceId && e.ready && e.address !== '')
    .map((e) => e.address)
    .sort()
}

/** Services with a virtual address. */
export const balancedServices = (s: NetworkState): BalancedService[] =>
  Object.values(s.services)
    .filter((v) => v.mode === EndpointMode.VIP && v.virtualIp !== '')
    .map((v) => ({ virtualIp: v.virtualIp, backends: readyAddresses(s, v.serviceId) }))

/** Names that resolve on the network: services, tasks.SERVICE, and single endpoints. */
export function addNames(s: NetworkState, into: NameTableBuilder): void {
  for (const v of Object.values(s.services)) {
    const ready = readyAddresses(s, v.serviceId)
    const byVip = v.mode === EndpointMode.VIP && v.virtualIp !== ''
    for (const name of [v.name, ...v.aliases]) {
      into.declare(name)
      for (const a of byVip ? [v.virtualIp] : ready) into.add(name, a)
    }
    into.declare(`tasks.${v.name}`)
    for (const a of ready) into.add(`tasks.${v.name}`, a)
    if (byVip) into.reverse(v.virtualIp, v.name)
  }
  const ofServices = new Set(Object.values(s.services).flatMap((v) => [v.name, ...v.aliases]))
  for (const e of Object.values(s.endpoints)) {
    if (!e.ready || e.address === '') continue
    for (const name of [e.name, ...e.aliases]) if (name !== '' && !ofServices.has(name)) into.add(name, e.address)
    if (e.name !== '') into.reverse(e.address, e.name)
  }
}

/** IPv4 subnets as allocated, with the VNI of each. */
export interface Segment {
  readonly index: number
  readonly subnet: string
  readonly gateway: string
  readonly vni: number
}

export function segmentsOf(n: Network): Segment[] {
  const configs = n.ipam?.configs.length ? n.ipam.configs : (n.spec?.ipam?.configs ?? [])
  return configs.flatMap((c, index) =>
    parseCidr(c.subnet)
      ? [{ index, subnet: c.subnet, gateway: c.gateway.split('/')[0] || firstOf(c.subnet), vni: n.vnis[index] ?? 0 }]
      : [],
  )
}

const firstOf = (subnet: string): string => {
  const parts = subnet.split('/')[0]!.split('.').map(Number)
  return [...parts.slice(0, 3), parts[3]! + 1].join('.')
}

/** null: the address is in none of the network's subnets. */
export function segmentOf(segments: readonly Segment[], address: string): Segment | null {
  const n = parseIp(address)
  if (n === null) return null
  return segments.find((s) => contains(parseCidr(s.subnet)!, n)) ?? null
}

export const isEncrypted = (n: Network): boolean => n.spec?.driverConfig?.options.encrypted !== undefined

export function recordOf(s: Pick<NetworkState, 'network'>): NetworkRecord {
  const n = s.network
  const t = n.meta?.createdAt
  return {
    id: n.id,
    name: n.spec?.annotations?.name ?? n.id,
    driver: n.spec?.driverConfig?.name || 'overlay',
    scope: 'swarm',
    createdMs: t ? t.seconds * 1000 + t.nanos / 1e6 : 0,
    ingress: n.spec?.ingress ?? false,
    internal: n.spec?.internal ?? false,
    attachable: n.spec?.attachable ?? false,
    ipv6: n.spec?.ipv6Enabled ?? false,
    ipam: {
      driver: n.ipam?.driver?.name || 'default',
      options: n.ipam?.driver?.options ?? {},
      pools: segmentsOf(n).map((g) => ({ subnet: g.subnet, gateway: g.gateway })),
    },
    options: { ...n.spec?.driverConfig?.options, ...n.driverState?.options },
    labels: n.spec?.annotations?.labels ?? {},
    configOnly: false,
    configFrom: n.spec?.configFrom || null,
    driverState: n.driverState?.options ?? {},
  }
}

/** Every node has such a network for itself: its containers reach those of their own host, or what the parent leads to. */
export const isNodeLocal = (n: NetworkRecord): boolean => n.driver !== 'overlay'

export const localSpecOf = (n: NetworkRecord): LocalNetworkSpec => ({
  name: n.name,
  driver: n.driver,
  internal: n.internal,
  attachable: n.attachable,
  ipv6: n.ipv6,
  ipam: n.ipam,
  options: n.options,
  labels: n.labels,
  configOnly: false,
  configFrom: n.configFrom,
})
