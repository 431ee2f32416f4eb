import type { Task } from '#proto'
import { Explanation, FILTERS } from './filters.js'
import type { NodeMirror } from './node-mirror.js'

const [READY, ...OTHERS] = FILTERS

/** A node with the numbers it is ranked by. */
interface Ranked {
  readonly node: NodeMirror
  readonly isFailing: boolean
  ofService: number
  total: number
}

/** Failing ones last, then fewest tasks of this service, then fewest tasks in all. Reservations do not rank. */
const isBefore = (a: Ranked, b: Ranked): boolean =>
  a.isFailing !== b.isFailing
    ? b.isFailing
    : a.ofService !== b.ofService
      ? a.ofService < b.ofService
      : a.total < b.total

/** A binary heap of nodes, best one first. */
class Ranking {
  constructor(private readonly heap: Ranked[]) {
    for (let i = (heap.length >> 1) - 1; i >= 0; i--) this.#sink(i)
  }

  get best(): Ranked | undefined {
    return this.heap[0]
  }

  /** The best one has become worse. */
  lowerBest(): void {
    this.#sink(0)
  }

  dropBest(): void {
    const last = this.heap.pop()!
    if (this.heap.length === 0) return
    this.heap[0] = last
    this.#sink(0)
  }

  #sink(from: number): void {
    const { heap } = this
    const moved = heap[from]!
    let i = from
    for (;;) {
      let child = 2 * i + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++
      if (!isBefore(heap[child]!, moved)) break
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

export interface Placed {
  readonly task: Task
  readonly node: NodeMirror
}

/**
 * Chooses nodes for tasks of one service and spec version, so that they spread over preferences, then nodes. Filters are asked only of
 * the nodes that come up: a node refused once is refused for the whole group, since placing can only make it fuller.
 * `place` must note the task on the mirror at once. Tasks that found no node come back with the reason.
 */
export function placeGroup(options: {
  readonly tasks: readonly Task[]
  readonly nodes: Iterable<NodeMirror>
  readonly nowMs: number
  readonly place: (task: Task, node: NodeMirror) => void
}): { readonly unplaced: readonly Task[]; readonly reason: string } {
  const { tasks, nowMs, place } = options
  const sample = tasks[0]
  if (sample === undefined) return { unplaced: [], reason: '' }
  const explanation = new Explanation()
  const ranked: Ranked[] = []
  for (const node of options.nodes) {
    if (explanation.check(sample, node, [READY!]) !== null) continue
    ranked.push({
      node,
      isFailing: node.isFailing(sample, nowMs),
      ofService: node.tasksOfService(sample.serviceId),
      total: node.totalTasks,
    })
  }
  const preferences = (sample.spec?.placement?.preferences ?? []).map((p) => p.spreadOver)
  const root = grow(ranked, preferences)
  for (let i = 0; i < tasks.length; i++) {
    const task = tasks[i]!
    const node = pick(root, task, explanation)
    if (node === null) return { unplaced: tasks.slice(i), reason: explanation.toString() }
    place(task, node)
  }
  return { unplaced: [], reason: '' }
}

function grow(nodes: Ranked[], preferences: readonly string[]): Branch {
  const tasks = nodes.reduce((sum, n) => sum + n.ofService, 0)
  const [first, ...rest] = preferences
  if (first === undefined) return { tasks, children: null, ranking: new Ranking(nodes), isExhausted: false }
  const byValue = new Map<string, Ranked[]>()
  for (const n of nodes) {
    const value = labelOf(n.node, first)
    const list = byValue.get(value)
    if (list) list.push(n)
    else byValue.set(value, [n])
  }
  const children = [...byValue.keys()].sort().map((value) => grow(byValue.get(value)!, rest))
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
function pick(branch: Branch, task: Task, explanation: Explanation): NodeMirror | null {
  if (branch.isExhausted) return null
  if (branch.ranking !== null) {
    for (let best = branch.ranking.best; best !== undefined; best = branch.ranking.best) {
      if (explanation.check(task, best.node, OTHERS) === null) {
        best.ofService++
        best.total++
        branch.ranking.lowerBest()
        branch.tasks++
        return best.node
      }
      branch.ranking.dropBest()
    }
    branch.isExhausted = true
    return null
  }
  for (;;) {
    let least: Branch | null = null
    for (const child of branch.children!)
      if (!child.isExhausted && (least === null || child.tasks < least.tasks)) least = child
    if (least === null) break
    const node = pick(least, task, explanation)
    if (node === null) continue
    branch.tasks++
    return node
  }
  branch.isExhausted = true
  return null
}
