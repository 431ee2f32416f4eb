import { Meta, type Timestamp, Version } from '#proto'
import { conflict, notFound } from '../../common/index.js'
import type { Kind, Tables, Transaction } from './contract.js'
import type { State } from './state.js'
import { type Change, freeze, TABLES } from './tables.js'

/** Reads of a state that moves with the transaction's own writes. */
export class StagedTransaction implements Transaction {
  readonly #edit = {}
  readonly changes: Change[] = []

  constructor(
    private state: State,
    /** Stands for the version until the change is applied: greater than any raft index, different in each transaction. */
    private readonly provisional: number,
    private readonly now: Timestamp,
  ) {}

  /** Ends the transaction: the state with its writes. */
  staged(): State {
    return this.state
  }

  create<K extends Kind>(kind: K, object: Tables[K]): void {
    if (this.state.get(kind, object.id))
      throw conflict('exists', `${kind} ${object.id} exists already`, { kind, id: object.id })
    this.#nameIsFree(kind, object)
    this.#put('create', kind, object, this.now)
  }

  update<K extends Kind>(kind: K, object: Tables[K]): void {
    const stored = this.state.get(kind, object.id)
    if (!stored) throw notFound(`${kind}NotFound`, `${kind} ${object.id} not found`, { kind, id: object.id })
    if (stored.meta?.version?.index !== object.meta?.version?.index)
      throw conflict('outOfSequence', 'update out of sequence', {
        kind,
        id: object.id,
        stored: stored.meta?.version?.index,
        given: object.meta?.version?.index,
      })
    this.#nameIsFree(kind, object)
    this.#put('update', kind, object, stored.meta?.createdAt ?? this.now)
  }

  remove(kind: Kind, id: string): void {
    const stored = this.state.get(kind, id)
    if (!stored) throw notFound(`${kind}NotFound`, `${kind} ${id} not found`, { kind, id })
    this.changes.push({ action: 'remove', kind, object: stored })
    this.state = this.state.drop(kind, id, this.#edit)
  }

  #put<K extends Kind>(action: 'create' | 'update', kind: K, object: Tables[K], createdAt: Timestamp): void {
    const meta = Meta.create({ version: Version.create({ index: this.provisional }), createdAt, updatedAt: this.now })
    const stored = freeze({ ...object, meta })
    this.changes.push({ action, kind, object: stored })
    this.state = this.state.put(kind, stored, this.#edit)
  }

  #nameIsFree<K extends Kind>(kind: K, object: Tables[K]): void {
    const name = (TABLES[kind].uniqueName as (o: Tables[K]) => string | null)(object)
    if (name === null) return
    const holder = this.state.byName(kind as Exclude<Kind, 'task'>, name)
    if (holder && holder.id !== object.id)
      throw conflict('nameInUse', `name conflicts with an existing object: ${kind} ${name} already exists`, {
        kind,
        name,
        id: holder.id,
      })
  }

  get: Transaction['get'] = (kind, id) => this.state.get(kind, id)
  list: Transaction['list'] = (kind) => this.state.list(kind)
  byName: Transaction['byName'] = (kind, name) => this.state.byName(kind, name)
  byIdPrefix: Transaction['byIdPrefix'] = (kind, prefix, limit) => this.state.byIdPrefix(kind, prefix, limit)
  tasksOfService: Transaction['tasksOfService'] = (id) => this.state.tasksOfService(id)
  tasksOfNode: Transaction['tasksOfNode'] = (id) => this.state.tasksOfNode(id)
  tasksOfSlot: Transaction['tasksOfSlot'] = (id, slot) => this.state.tasksOfSlot(id, slot)
  servicesUsingNetwork: Transaction['servicesUsingNetwork'] = (id) => this.state.servicesUsingNetwork(id)
  servicesUsingSecret: Transaction['servicesUsingSecret'] = (id) => this.state.servicesUsingSecret(id)
  servicesUsingConfig: Transaction['servicesUsingConfig'] = (id) => this.state.servicesUsingConfig(id)
  tasksUsingNetwork: Transaction['tasksUsingNetwork'] = (id) => this.state.tasksUsingNetwork(id)
  servicesPublishing: Transaction['servicesPublishing'] = (protocol, port) =>
    this.state.servicesPublishing(protocol, port)
  cluster: Transaction['cluster'] = () => this.state.cluster()
}
