import type { Task } from '#proto'
import { Explanation, FILTERS } from './filters.js'
import type { NodeMirror, ServiceCounts } from './node-mirror.js'

const [READY, ...OTHERS] = FILTERS

/**
 * A node's rank as one number, so that ranking a thousand nodes for each of ten thousand services stays cheap: failing ones last,
 * then fewest tasks of this service, then fewest tasks in all. Reservations do not rank. Exact below 2^53.
 */
const FAILING = 2 ** 51
const OF_SERVICE = 2 ** 25
const PLACED = OF_SERVICE + 1

/** The nodes of one group's placement, by position. */
interface Field {
  readonly nodes: readonly NodeMirror[]
  readonly ranks: Float64Array
  readonly ofService: Int32Array
}

/** A binary heap of positions in the field, best node first. */
class Ranking {
  #length: number

  constructor(
    private readonly ranks: Float64Array,
    private readonly heap: Int32Array,
  ) {
    this.#length = heap.length
    for (let i = (heap.length >> 1) - 1; i >= 0; i--) this.#sink(i)
  }

  /** Position of the best node; -1 when none is left. */
  get best(): number {
    return this.#length === 0 ? -1 : this.heap[0]!
  }

  /** The best one has become worse. */
  lowerBest(): void {
    this.#sink(0)
  }

  dropBest(): void {
    this.heap[0] = this.heap[--this.#length]!
    if (this.#length > 0) this.#sink(0)
  }

  #sink(from: number): void {
    const { heap, ranks } = this
    const length = this.#length
    const moved = heap[from]!
    const rank = ranks[moved]!
    let i = from
    for (;;) {
      let child = 2 * i + 1
      if (child >= length) break
      if (child + 1 < length && ranks[heap[child + 1]!]! < ranks[heap[child]!]!) child++
      if (ranks[heap[child]!]! >= rank) break
      heap[i] = heap[child]!
      i = child
    }
    heap[i] = moved
  }
}

/** Nodes with the same label values so far; inner branches divide them by the next preference. */
interface Branch {
  tasks: number
  readonly children: Branch[] | null
  readonly ranking: Ranking | null
  isExhausted: boolean
}

/**
 * Chooses nodes for tasks of one service and spec version, so that they spread over preferences, then nodes. Filters are asked only of
 * the nodes that come up: a node refused once is refused for the whole group, since placing can only make it fuller.
 * `place` must note the task on the mirror at once. Tasks that found no node come back with the reason.
 */
export function placeGroup(options: {
  readonly tasks: readonly Task[]
  readonly nodes: Iterable<NodeMirror>
  readonly counts: ServiceCounts
  readonly nowMs: number
  readonly place: (task: Task, node: NodeMirror) => void
}): { readonly unplaced: readonly Task[]; readonly reason: string } {
  const { tasks, nowMs, place } = options
  const sample = tasks[0]
  if (sample === undefined) return { unplaced: [], reason: '' }
  const explanation = new Explanation()
  const nodes: NodeMirror[] = []
  for (const node of options.nodes) {
    if (node.isReady) nodes.push(node)
    else explanation.count(READY!)
  }
  const field: Field = {
    nodes,
    ranks: new Float64Array(nodes.length),
    ofService: new Int32Array(nodes.length),
  }
  for (let i = 0; i < nodes.length; i++) {
    const node = nodes[i]!
    node.position = i
    field.ranks[i] = (node.isFailing(sample, nowMs) ? FAILING : 0) + node.totalTasks
  }
  for (const [node, count] of options.counts.of(sample.serviceId)) {
    if (nodes[node.position] !== node) continue
    field.ofService[node.position] = count
    field.ranks[node.position] = field.ranks[node.position]! + count * OF_SERVICE
  }
  const preferences = (sample.spec?.placement?.preferences ?? []).map((p) => p.spreadOver)
  const root = grow(field, Int32Array.from(nodes.keys()), preferences)
  for (let i = 0; i < tasks.length; i++) {
    const task = tasks[i]!
    const node = pick(root, task, field, explanation)
    if (node === null) return { unplaced: tasks.slice(i), reason: explanation.toString() }
    place(task, node)
  }
  return { unplaced: [], reason: '' }
}

function grow(field: Field, positions: Int32Array, preferences: readonly string[]): Branch {
  let tasks = 0
  for (const i of positions) tasks += field.ofService[i]!
  const [first, ...rest] = preferences
  if (first === undefined)
    return { tasks, children: null, ranking: new Ranking(field.ranks, positions), isExhausted: false }
  const byValue = new Map<string, number[]>()
  for (const i of positions) {
    const value = labelOf(field.nodes[i]!, first)
    const list = byValue.get(value)
    if (list) list.push(i)
    else byValue.set(value, [i])
  }
  const children = [...byValue.keys()].sort().map((value) => grow(field, Int32Array.from(byValue.get(value)!), rest))
  return { tasks, children, ranking: null, isExhausted: false }
}

/** Nodes without the label are one more branch. */
function labelOf({ node }: NodeMirror, descriptor: string): string {
  const word = descriptor.toLowerCase()
  if (word.startsWith('node.labels.')) return node.spec?.annotations?.labels[descriptor.slice(12)] ?? ''
  if (word.startsWith('engine.labels.')) return node.description?.engineLabels[descriptor.slice(14)] ?? ''
  return ''
}

/** The best node of the branch with the fewest tasks that still has one; null when none fits. */
function pick(branch: Branch, task: Task, field: Field, explanation: Explanation): NodeMirror | null {
  if (branch.isExhausted) return null
  const { ranking } = branch
  if (ranking !== null) {
    for (let best = ranking.best; best >= 0; best = ranking.best) {
      const node = field.nodes[best]!
      if (explanation.check(task, node, OTHERS) === null) {
        field.ranks[best] = field.ranks[best]! + PLACED
        ranking.lowerBest()
        branch.tasks++
        return node
      }
      ranking.dropBest()
    }
    branch.isExhausted = true
    return null
  }
  for (;;) {
    let least: Branch | null = null
    for (const child of branch.children!)
      if (!child.isExhausted && (least === null || child.tasks < least.tasks)) least = child
    if (least === null) break
    const node = pick(least, task, field, explanation)
    if (node === null) continue
    branch.tasks++
    return node
  }
  branch.isExhausted = true
  return null
}
