import type { GenericResource, Node, Resources, Task } from '#proto'

/** Discrete resources have a count, named ones a set of names; a kind is one or the other. */
interface Generic {
  count: number
  readonly names: Set<string>
}

/** What is left of a node, changed in place as tasks come and go. */
export interface ResourcePool {
  nanoCpus: number
  memoryBytes: number
  readonly generic: Map<string, Generic>
}

/** What a task takes: amounts by kind as reserved, and the very names it was given once it is placed. */
export interface Reservation {
  readonly nanoCpus: number
  readonly memoryBytes: number
  readonly generic: readonly GenericResource[]
}

const NOTHING: Reservation = { nanoCpus: 0, memoryBytes: 0, generic: [] }

export const isNothing = (r: Reservation): boolean => r.nanoCpus === 0 && r.memoryBytes === 0 && r.generic.length === 0

export function totalsOf(node: Node): ResourcePool {
  const resources: Resources | null = node.description?.resources ?? null
  const pool: ResourcePool = {
    nanoCpus: resources?.nanoCpus ?? 0,
    memoryBytes: resources?.memoryBytes ?? 0,
    generic: new Map(),
  }
  for (const r of resources?.generic ?? []) give(pool, r)
  return pool
}

export function reservationsOf(task: Task): Reservation {
  const reserved = task.spec?.resources?.reservations
  if (!reserved && task.assignedGenericResources.length === 0) return NOTHING
  return {
    nanoCpus: reserved?.nanoCpus ?? 0,
    memoryBytes: reserved?.memoryBytes ?? 0,
    generic: task.assignedGenericResources.length > 0 ? task.assignedGenericResources : (reserved?.generic ?? []),
  }
}

export function fits(wants: Reservation, pool: ResourcePool): boolean {
  if (wants.nanoCpus > pool.nanoCpus || wants.memoryBytes > pool.memoryBytes) return false
  const named = new Map<string, number>()
  for (const r of wants.generic) {
    const have = pool.generic.get(r.kind)
    if (have === undefined) return false
    if (r.value !== '') {
      if (!have.names.has(r.value)) return false
      named.set(r.kind, (named.get(r.kind) ?? 0) + 1)
    } else if (r.count > have.count + have.names.size) return false
  }
  for (const [kind, count] of named) if (count > pool.generic.get(kind)!.names.size) return false
  return true
}

export function subtractResources(pool: ResourcePool, taken: Reservation): void {
  pool.nanoCpus -= taken.nanoCpus
  pool.memoryBytes -= taken.memoryBytes
  for (const r of taken.generic) {
    const have = pool.generic.get(r.kind)
    if (have === undefined) continue
    if (r.value !== '') have.names.delete(r.value)
    else have.count -= r.count
  }
}

export function addResources(pool: ResourcePool, freed: Reservation): void {
  pool.nanoCpus += freed.nanoCpus
  pool.memoryBytes += freed.memoryBytes
  for (const r of freed.generic) give(pool, r)
}

/** Picks what a placed task gets: counts of a discrete kind, names (in order) of a named one. `fits` must hold. */
export function claimGeneric(wants: Reservation, pool: ResourcePool): GenericResource[] {
  const claimed: GenericResource[] = []
  for (const r of wants.generic) {
    const have = pool.generic.get(r.kind)
    if (r.value !== '' || have === undefined || have.names.size === 0) {
      claimed.push(r)
      continue
    }
    for (const value of [...have.names].sort().slice(0, r.count)) claimed.push({ kind: r.kind, value, count: 0 })
  }
  return claimed
}

function give(pool: ResourcePool, r: GenericResource): void {
  let have = pool.generic.get(r.kind)
  if (have === undefined) {
    have = { count: 0, names: new Set() }
    pool.generic.set(r.kind, have)
  }
  if (r.value !== '') have.names.add(r.value)
  else have.count += r.count
}
