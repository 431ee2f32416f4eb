import type { Task } from '#proto'
import { MountType } from '#proto'
import { matchesConstraints, normalArch } from './constraints.js'
import { hostPortsOf, type NodeMirror } from './node-mirror.js'
import { fits, isNothing, type Reservation, reservationsOf } from './resources.js'

/** One reason to refuse a node. `words` are docker's own: people search for them. */
export interface Filter {
  readonly name: string
  fits(task: Task, node: NodeMirror): boolean
  words(nodes: number): string
}

const on = (reason: string) => (nodes: number) => `${reason} on ${nodes} node${nodes === 1 ? '' : 's'}`

const ready: Filter = {
  name: 'ready',
  fits: (_task, node) => node.isReady,
  words: (nodes) => `${nodes} node${nodes === 1 ? '' : 's'} not available for new tasks`,
}

const resources: Filter = {
  name: 'resources',
  fits: (task, node) => {
    const wants: Reservation = reservationsOf(task)
    return isNothing(wants) || fits(wants, node.available)
  },
  words: on('insufficient resources'),
}

/** Drivers that every engine has, which some do not list. */
const BUILT_IN = new Set(['', 'local', 'overlay', 'bridge', 'host', 'none', 'null', 'json-file', 'default'])

const plugins: Filter = {
  name: 'plugins',
  fits: (task, { node }) => {
    const present = node.description?.plugins ?? []
    // A node that lists no plugins of a kind has not said what it has; it may find out itself.
    const has = (type: string, name: string): boolean =>
      BUILT_IN.has(name) ||
      !present.some((p) => p.type === type) ||
      present.some((p) => p.type === type && (p.name === name || p.name === `${name}:latest`))
    for (const mount of task.spec?.container?.mounts ?? [])
      if (mount.type === MountType.VOLUME && !has('Volume', mount.volumeDriver?.name ?? '')) return false
    for (const { network } of task.networks) if (!has('Network', network?.driverState?.name ?? '')) return false
    return has('Log', task.logDriver?.name ?? '')
  },
  words: on('missing plugin'),
}

const constraints: Filter = {
  name: 'constraints',
  fits: (task, { node }) => {
    const wanted = task.spec?.placement?.constraints
    return !wanted?.length || matchesConstraints(wanted, node)
  },
  words: on('scheduling constraints not satisfied'),
}

const platform: Filter = {
  name: 'platform',
  fits: (task, { node }) => {
    const wanted = task.spec?.placement?.platforms
    if (!wanted?.length) return true
    const have = node.description?.platform
    if (!have) return false
    return wanted.some(
      (p) =>
        (p.os === '' || p.os.toLowerCase() === have.os.toLowerCase()) &&
        (p.architecture === '' || normalArch(p.architecture) === normalArch(have.architecture)),
    )
  },
  words: on('unsupported platform'),
}

const hostPort: Filter = {
  name: 'hostPort',
  fits: (task, node) => {
    for (const port of hostPortsOf(task)) if (node.usesPort(port)) return false
    return true
  },
  words: on('host-mode port already in use'),
}

const maxReplicas: Filter = {
  name: 'maxReplicas',
  fits: (task, node) => {
    const most = task.spec?.placement?.maxReplicas ?? 0
    return most === 0 || node.tasksOfService(task.serviceId) < most
  },
  words: () => 'max replicas per node limit exceed',
}

/** In the order in which they are asked; the first that refuses a node is the reason counted for it. */
export const FILTERS: readonly Filter[] = [ready, resources, plugins, constraints, platform, hostPort, maxReplicas]

/** Refusals counted while nodes were looked at, and the sentence made of them. */
export class Explanation {
  readonly #counts = new Map<Filter, number>()

  /** The first filter that refuses the node, counted; null when it fits. */
  check(task: Task, node: NodeMirror, filters: readonly Filter[] = FILTERS): Filter | null {
    for (const filter of filters) {
      if (filter.fits(task, node)) continue
      this.count(filter)
      return filter
    }
    return null
  }

  count(filter: Filter): void {
    this.#counts.set(filter, (this.#counts.get(filter) ?? 0) + 1)
  }

  /** "no suitable node (insufficient resources on 2 nodes; ...)", the commonest reason first. */
  toString(): string {
    const reasons = [...this.#counts].sort((a, b) => b[1] - a[1] || FILTERS.indexOf(a[0]) - FILTERS.indexOf(b[0]))
    if (reasons.length === 0) return 'no suitable node'
    return `no suitable node (${reasons.map(([filter, nodes]) => filter.words(nodes)).join('; ')})`
  }
}
