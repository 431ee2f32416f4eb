import type { Cluster, PortProtocol, Service, Task } from '#proto'
import type { Kind, ReadView, Tables } from './contract.js'
import { KINDS, key, TABLES } from './tables.js'
import { type Edit, Tree } from './tree.js'

interface Row<T> {
  readonly object: T
  /** Rises in order of creation; kept through snapshots by their order. */
  readonly sequence: number
}

/** `index:value`, the sequence padded so that text order is order of creation. */
const entryKey = (k: string, sequence: number): string => `${k}\0${sequence.toString(36).padStart(10, '0')}`

const WALK_STEP = 64

/** One kind's objects of one moment. Never changes; `put` and `drop` give another. */
class TableState<K extends Kind> {
  #list: readonly Tables[K][] | null = null

  private constructor(
    readonly kind: K,
    private readonly rows: Tree<string, Row<Tables[K]>>,
    private readonly order: Tree<number, string>,
    private readonly index: Tree<string, string>,
    private readonly next: number,
  ) {}

  static empty<K extends Kind>(kind: K): TableState<K> {
    return new TableState(kind, Tree.empty(), Tree.empty(), Tree.empty(), 1)
  }

  get(id: string): Tables[K] | null {
    return this.rows.get(id)?.object ?? null
  }

  list(): readonly Tables[K][] {
    if (this.#list === null) {
      const list: Tables[K][] = []
      this.order.scan(null, (_, id) => {
        list.push(this.rows.get(id)!.object)
        return true
      })
      this.#list = Object.freeze(list)
    }
    return this.#list
  }

  /** As `list`, but looked up a few at a time: for walking through all of a table while other work goes on. */
  *inOrder(): Generator<Tables[K]> {
    for (let from = 0; ; ) {
      const some: Tables[K][] = []
      this.order.scan(from, (sequence, id) => {
        some.push(this.rows.get(id)!.object)
        from = sequence + 1
        return some.length < WALK_STEP
      })
      yield* some
      if (some.length < WALK_STEP) return
    }
  }

  find(k: string, limit = Number.POSITIVE_INFINITY): Tables[K][] {
    const found: Tables[K][] = []
    const start = `${k}\0`
    this.index.scan(start, (entry, id) => {
      if (!entry.startsWith(start) || found.length >= limit) return false
      found.push(this.rows.get(id)!.object)
      return true
    })
    return found
  }

  byIdPrefix(prefix: string, limit: number): Tables[K][] {
    const found: Tables[K][] = []
    this.rows.scan(prefix, (id, row) => {
      if (!id.startsWith(prefix) || found.length >= limit) return false
      found.push(row.object)
      return true
    })
    return found
  }

  put(object: Tables[K], edit: Edit): TableState<K> {
    const old = this.rows.get(object.id)
    const sequence = old?.sequence ?? this.next
    const keysOf = TABLES[this.kind].keys as (o: Tables[K]) => readonly string[]
    const now = keysOf(object)
    const before = old ? keysOf(old.object) : []
    let index = this.index
    for (const k of before) if (!now.includes(k)) index = index.delete(entryKey(k, sequence), edit)
    for (const k of now) if (!before.includes(k)) index = index.set(entryKey(k, sequence), object.id, edit)
    return new TableState(
      this.kind,
      this.rows.set(object.id, { object, sequence }, edit),
      old ? this.order : this.order.set(sequence, object.id, edit),
      index,
      old ? this.next : this.next + 1,
    )
  }

  drop(id: string, edit: Edit): TableState<K> {
    const old = this.rows.get(id)
    if (!old) return this
    let index = this.index
    for (const k of (TABLES[this.kind].keys as (o: Tables[K]) => readonly string[])(old.object))
      index = index.delete(entryKey(k, old.sequence), edit)
    return new TableState(
      this.kind,
      this.rows.delete(id, edit),
      this.order.delete(old.sequence, edit),
      index,
      this.next,
    )
  }
}

type AllTables = { readonly [K in Kind]: TableState<K> }

/** All tables of one moment, and the version (raft index) that made it. */
export class State implements ReadView {
  private constructor(
    private readonly tables: AllTables,
    readonly version: number,
    /** Sequence of the last proposal applied; see StoreChain. */
    readonly chain: number,
  ) {}

  static empty(): State {
    return new State(Object.fromEntries(KINDS.map((k) => [k, TableState.empty(k)])) as unknown as AllTables, 0, 0)
  }

  at(version: number, chain: number): State {
    return new State(this.tables, version, chain)
  }

  put<K extends Kind>(kind: K, object: Tables[K], edit: Edit): State {
    const table = (this.tables[kind] as unknown as TableState<K>).put(object, edit)
    return new State({ ...this.tables, [kind]: table }, this.version, this.chain)
  }

  drop(kind: Kind, id: string, edit: Edit): State {
    return new State({ ...this.tables, [kind]: this.tables[kind].drop(id, edit) }, this.version, this.chain)
  }

  get<K extends Kind>(kind: K, id: string): Tables[K] | null {
    return this.#table(kind).get(id)
  }

  list<K extends Kind>(kind: K): readonly Tables[K][] {
    return this.#table(kind).list()
  }

  inOrder<K extends Kind>(kind: K): Iterable<Tables[K]> {
    return this.#table(kind).inOrder()
  }

  byName<K extends Exclude<Kind, 'task'>>(kind: K, name: string): Tables[K] | null {
    return this.#table(kind).find(key.name(name), 1)[0] ?? null
  }

  byIdPrefix<K extends Kind>(kind: K, prefix: string, limit: number): readonly Tables[K][] {
    return this.#table(kind).byIdPrefix(prefix, limit)
  }

  tasksOfService(serviceId: string): readonly Task[] {
    return this.tables.task.find(key.service(serviceId))
  }

  tasksOfNode(nodeId: string): readonly Task[] {
    return this.tables.task.find(key.node(nodeId))
  }

  tasksOfSlot(serviceId: string, slot: number): readonly Task[] {
    return this.tables.task.find(key.slot(serviceId, slot))
  }

  servicesUsingNetwork(networkId: string): readonly Service[] {
    return this.tables.service.find(key.network(networkId))
  }

  servicesUsingSecret(secretId: string): readonly Service[] {
    return this.tables.service.find(key.secret(secretId))
  }

  servicesUsingConfig(configId: string): readonly Service[] {
    return this.tables.service.find(key.config(configId))
  }

  tasksUsingNetwork(networkId: string): readonly Task[] {
    return this.tables.task.find(key.network(networkId))
  }

  servicesPublishing(protocol: PortProtocol, publishedPort: number): readonly Service[] {
    return this.tables.service.find(key.port(protocol, publishedPort))
  }

  cluster(): Cluster | null {
    return this.tables.cluster.list()[0] ?? null
  }

  #table<K extends Kind>(kind: K): TableState<K> {
    return this.tables[kind] as unknown as TableState<K>
  }
}
