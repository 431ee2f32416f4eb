import type { ClusterMember } from '#proto'
import { macOf } from '../ipam/ip.js'
import type { LinkOperation } from '../native.js'
import { type NetworkState, type Segment, segmentOf } from './network-state.js'

/**
 * Where the frames of a network's remote endpoints go. Key: segment index, "neigh" or "fdb", address or MAC; all of
 * one device each. Nothing is learned and nothing floods, so what is not here does not exist.
 */
export type ForwardingPlan = ReadonlyMap<string, PlanEntry>

export interface PlanEntry {
  readonly kind: 'neigh' | 'fdb' | 'route'
  readonly dev: string
  /** Address (neigh, route) or MAC (fdb). */
  readonly key: string
  /** MAC (neigh), the node's data path address (fdb), or next hop (route). */
  readonly value: string
}

const keyOf = (e: Omit<PlanEntry, 'value'>): string => `${e.dev} ${e.kind} ${e.key}`

export const planOf = (entries: readonly PlanEntry[]): ForwardingPlan => new Map(entries.map((e) => [keyOf(e), e]))

/**
 * Entries for every endpoint on another node: the VXLAN device answers ARP for it, and its frames go to its node. An
 * address that a sandbox of this node has is local whatever the managers say: they may not know yet. Pure.
 */
export function forwardingPlan(
  state: NetworkState,
  segments: readonly Segment[],
  members: readonly ClusterMember[],
  selfNodeId: string,
  localAddresses: ReadonlySet<string>,
): ForwardingPlan {
  const vteps = new Map(members.map((m) => [m.nodeId, m.dataPathAddress]))
  const entries: PlanEntry[] = []
  for (const e of Object.values(state.endpoints)) {
    if (e.nodeId === selfNodeId || localAddresses.has(e.address)) continue
    const vtep = vteps.get(e.nodeId)
    const segment = segmentOf(segments, e.address)
    if (!vtep || !segment) continue
    const dev = `vxlan${segment.index}`
    const mac = macOf(e.address)
    entries.push({ kind: 'fdb', dev, key: mac, value: vtep }, { kind: 'neigh', dev, key: e.address, value: mac })
  }
  return planOf(entries)
}

const replace = (e: PlanEntry): LinkOperation =>
  e.kind === 'fdb'
    ? { op: 'fdbReplace', dev: e.dev, mac: e.key, dst: e.value }
    : e.kind === 'neigh'
      ? { op: 'neighReplace', dev: e.dev, address: e.key, mac: e.value }
      : { op: 'routeReplace', to: `${e.key}/32`, via: e.value, dev: e.dev, onlink: true }

const remove = (e: PlanEntry): LinkOperation =>
  e.kind === 'fdb'
    ? { op: 'fdbDel', dev: e.dev, mac: e.key, dst: e.value, tolerate: ['ENOENT'] }
    : e.kind === 'neigh'
      ? { op: 'neighDel', dev: e.dev, address: e.key, tolerate: ['ENOENT'] }
      : { op: 'routeDel', to: `${e.key}/32`, dev: e.dev, tolerate: ['ESRCH'] }

/**
 * What takes the kernel from one plan to the other, in two steps: `first` before clients are told, `after` once they
 * know. An endpoint that moved is only replaced, so it is never without an entry.
 */
export function planChanges(
  from: ForwardingPlan,
  to: ForwardingPlan,
): { readonly first: LinkOperation[]; readonly after: LinkOperation[] } {
  return {
    first: [...to.values()].filter((e) => from.get(keyOf(e))?.value !== e.value).map(replace),
    after: [...from.values()].filter((e) => !to.has(keyOf(e))).map(remove),
  }
}
