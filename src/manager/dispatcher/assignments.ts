import { Assignment, Assignments, Task, TaskState } from '#proto'
import type { ReadView } from '../store/index.js'

/** The manager's part of a task is done: its node gets it. Attachments of single containers stay with the manager. */
export const isAssigned = (task: Task | null, nodeId: string): task is Task =>
  task !== null &&
  task.nodeId === nodeId &&
  task.spec?.attachment == null &&
  (task.status?.state ?? TaskState.TASK_NEW) >= TaskState.TASK_ASSIGNED

/** Its secrets and configs are still needed on the node. */
const needsPayloads = (task: Task): boolean => (task.status?.state ?? 0) <= TaskState.TASK_RUNNING

interface References {
  readonly secrets: readonly string[]
  readonly configs: readonly string[]
}

const referencesOf = (task: Task): References =>
  needsPayloads(task)
    ? {
        secrets: (task.spec?.container?.secrets ?? []).map((s) => s.secretId),
        configs: (task.spec?.container?.configs ?? []).map((c) => c.configId),
      }
    : { secrets: [], configs: [] }

/** Status is the node's own to know; everything else is news to it. */
function sameForNode(a: Task, b: Task): boolean {
  if (a === b) return true
  if (a.desiredState !== b.desiredState) return false
  if (a.spec === b.spec && a.networks === b.networks && a.endpoint === b.endpoint) return true
  const encode = (t: Task): Uint8Array => Task.encode({ ...t, status: null, meta: null })
  return Buffer.compare(encode(a), encode(b)) === 0
}

/** What one node has been told of tasks, secrets and configs, and what it has to be told next. */
export class AssignmentSet {
  readonly #tasks = new Map<string, Task>()
  readonly #secrets = new Map<string, number>()
  readonly #configs = new Map<string, number>()
  #version = 0
  #changedTasks = new Set<string>()
  #changedSecrets = new Set<string>()
  #changedConfigs = new Set<string>()
  /** Known to the node after the last message. */
  #sentTasks = new Set<string>()
  #sentSecrets = new Set<string>()
  #sentConfigs = new Set<string>()

  constructor(private readonly nodeId: string) {}

  /** The whole set, as of now; forgets what was noted before. */
  full(view: ReadView): Assignments {
    for (const map of [this.#tasks, this.#secrets, this.#configs]) map.clear()
    this.#sentTasks = new Set()
    this.#sentSecrets = new Set()
    this.#sentConfigs = new Set()
    for (const task of view.tasksOfNode(this.nodeId)) this.note(null, task)
    return { ...this.#take(view), full: true, appliesTo: 0 }
  }

  /** A task of this node, or one that was, changed. */
  note(old: Task | null, now: Task | null): void {
    const id = (now ?? old)!.id
    const known = this.#tasks.get(id)
    if (isAssigned(now, this.nodeId)) {
      if (known && sameForNode(known, now)) {
        if (needsPayloads(known) === needsPayloads(now)) {
          this.#tasks.set(id, now)
          return
        }
      } else this.#changedTasks.add(id)
      this.#refer(referencesOf(now), 1)
      if (known) this.#refer(referencesOf(known), -1)
      this.#tasks.set(id, now)
    } else if (known) {
      this.#refer(referencesOf(known), -1)
      this.#tasks.delete(id)
      this.#changedTasks.add(id)
    }
  }

  /** A secret or config itself changed. */
  notePayload(kind: 'secret' | 'config', id: string): void {
    if (kind === 'secret' && this.#secrets.has(id)) this.#changedSecrets.add(id)
    if (kind === 'config' && this.#configs.has(id)) this.#changedConfigs.add(id)
  }

  /** What changed since the last message; null when nothing did. */
  changes(view: ReadView): Assignments | null {
    if (this.#changedTasks.size + this.#changedSecrets.size + this.#changedConfigs.size === 0) return null
    const message = this.#take(view)
    const empty =
      message.upserts.length +
        message.removedTasks.length +
        message.removedSecrets.length +
        message.removedConfigs.length ===
      0
    if (empty) this.#version--
    return empty ? null : message
  }

  #take(view: ReadView): Assignments {
    const message = Assignments.create({ appliesTo: this.#version, resultsIn: ++this.#version })
    const dependencies: Assignment[] = []
    for (const id of this.#changedSecrets) {
      const secret = this.#secrets.has(id) ? view.get('secret', id) : null
      if (secret) {
        dependencies.push(Assignment.create({ secret }))
        this.#sentSecrets.add(id)
      } else if (this.#sentSecrets.delete(id)) message.removedSecrets.push(id)
    }
    for (const id of this.#changedConfigs) {
      const config = this.#configs.has(id) ? view.get('config', id) : null
      if (config) {
        dependencies.push(Assignment.create({ config }))
        this.#sentConfigs.add(id)
      } else if (this.#sentConfigs.delete(id)) message.removedConfigs.push(id)
    }
    const tasks: Assignment[] = []
    for (const id of this.#changedTasks) {
      const task = this.#tasks.get(id)
      if (task) {
        tasks.push(Assignment.create({ task }))
        this.#sentTasks.add(id)
      } else if (this.#sentTasks.delete(id)) message.removedTasks.push(id)
    }
    // What a task needs comes before it.
    message.upserts = [...dependencies, ...tasks]
    this.#changedTasks = new Set()
    this.#changedSecrets = new Set()
    this.#changedConfigs = new Set()
    return message
  }

  #refer(references: References, by: 1 | -1): void {
    count(this.#secrets, this.#changedSecrets, references.secrets, by)
    count(this.#configs, this.#changedConfigs, references.configs, by)
  }
}

/** Counts users; the first and the last one are changes. */
function count(users: Map<string, number>, changed: Set<string>, ids: readonly string[], by: 1 | -1): void {
  for (const id of ids) {
    const n = (users.get(id) ?? 0) + by
    if (n <= 0) users.delete(id)
    else users.set(id, n)
    if (n <= 0 || (n === 1 && by === 1)) changed.add(id)
  }
}
