import test from 'ava'
import {
  Annotations,
  Network,
  NetworkAttachment,
  NetworkSpec,
  Secret,
  SecretSpec,
  Service,
  ServiceSpec,
  Task,
} from '#proto'
import {
  intBetween,
  newObjectId,
  type Rng,
  type ShoalError,
  seededRng,
  systemClock,
} from '../../../src/common/index.js'
import { type Commit, createStore, type ReadView, type ReplicatedStore } from '../../../src/manager/index.js'
import { MemoryLog } from '../memory-log.js'

const service = (name: string, fields: Partial<Service> = {}): Service =>
  Service.create({
    id: newObjectId(),
    spec: ServiceSpec.create({ annotations: Annotations.create({ name }) }),
    ...fields,
  })

function leader(): { log: MemoryLog; store: ReplicatedStore; follower: ReplicatedStore } {
  const log = new MemoryLog()
  const store = createStore({ clock: systemClock })
  const follower = createStore({ clock: systemClock })
  store.connect(log.proposer(store))
  follower.connect(log.proposer(follower))
  store.setLeading(true)
  return { log, store, follower }
}

const codeOf = async (promise: Promise<unknown>): Promise<string | null> =>
  promise.then(
    () => null,
    (e: ShoalError) => e.code,
  )

test('a write is seen once applied, on every member, with the raft index as its version', async (t) => {
  const { store, follower, log } = leader()
  const web = service('web')
  const before = store.view()
  await store.update((tx) => tx.create('service', web))
  t.is(before.get('service', web.id), null)
  t.is(store.view().get('service', web.id)?.meta?.version?.index, log.index)
  t.deepEqual(follower.view().get('service', web.id), store.view().get('service', web.id))
  t.true(Object.isFrozen(store.view().get('service', web.id)?.spec))
})

test('names are unique without regard to case, and found so', async (t) => {
  const { store } = leader()
  await store.update((tx) => tx.create('service', service('Web')))
  t.is(await codeOf(store.update((tx) => tx.create('service', service('wEB')))), 'nameInUse')
  t.is(store.view().byName('service', 'WEB')?.spec?.annotations?.name, 'Web')
})

test('an update with an old version is refused, also while the newer one is still in flight', async (t) => {
  const { store, log } = leader()
  const web = service('web')
  await store.update((tx) => tx.create('service', web))
  const read = store.view().get('service', web.id)!
  log.hold()
  const first = store.update((tx) => tx.update('service', { ...read, pendingDelete: true }))
  const second = codeOf(store.update((tx) => tx.update('service', read)))
  // Reading inside the transaction sees what is in flight.
  const third = store.update((tx) => {
    const now = tx.get('service', web.id)!
    t.true(now.pendingDelete)
    tx.update('service', { ...now, pendingDelete: false })
  })
  log.release()
  t.is(await second, 'outOfSequence')
  await Promise.all([first, third])
  t.false(store.view().get('service', web.id)?.pendingDelete)
  t.is(await codeOf(store.update((tx) => tx.update('service', read))), 'outOfSequence')
  t.is(await codeOf(store.update((tx) => tx.update('service', service('nobody')))), 'serviceNotFound')
})

test('a refusal is told when what it was refused for can be read', async (t) => {
  const { store, log } = leader()
  const web = service('web')
  await store.update((tx) => tx.create('service', web))
  const read = store.view().get('service', web.id)!
  log.hold()
  const first = store.update((tx) => tx.update('service', { ...read, pendingDelete: true }))
  const again = store
    .update((tx) => tx.update('service', read))
    .catch(() => store.update((tx) => tx.update('service', store.view().get('service', web.id)!)))
  log.release()
  await Promise.all([first, again])
  t.true(store.view().get('service', web.id)?.pendingDelete)
})

test('what was applied can be updated with its version while others are in flight', async (t) => {
  const { store, log } = leader()
  const a = service('a')
  const first = store.update((tx) => tx.create('service', a))
  await first
  log.hold()
  const rest = store.update((tx) => tx.create('service', service('b')))
  const read = store.view().get('service', a.id)!
  const third = store.update((tx) => tx.update('service', { ...read, pendingDelete: true }))
  log.release()
  await Promise.all([rest, third])
  t.true(store.view().get('service', a.id)?.pendingDelete)
})

test('a refused write takes those built on it with it, and leaves no trace on any member', async (t) => {
  const { store, follower, log } = leader()
  log.hold()
  log.fateOfNext('refuse')
  const a = service('a')
  const first = codeOf(store.update((tx) => tx.create('service', a)))
  const second = codeOf(
    store.update((tx) => tx.update('service', { ...tx.get('service', a.id)!, pendingDelete: true })),
  )
  t.is(await first, 'overloaded')
  t.is(await second, 'overloaded')
  const third = store.update((tx) => tx.create('service', service('a')))
  log.release()
  await third
  t.is(store.view().list('service').length, 1)
  t.deepEqual(follower.view().list('service'), store.view().list('service'))
})

test('a write that ended as unknown and is committed after all refuses the one made without it', async (t) => {
  const { store, follower, log } = leader()
  const a = service('a')
  await store.update((tx) => tx.create('service', a))
  const read = store.view().get('service', a.id)!
  log.hold()
  log.fateOfNext('loseKept')
  t.is(await codeOf(store.update((tx) => tx.update('service', { ...read, pendingDelete: true }))), 'outcomeUnknown')
  const second = codeOf(store.update((tx) => tx.update('service', { ...read, jobStatus: null })))
  log.release()
  t.is(await second, 'refused')
  t.true(store.view().get('service', a.id)?.pendingDelete)
  t.deepEqual(follower.view().list('service'), store.view().list('service'))
  await store.update((tx) => tx.remove('service', a.id))
})

test('a transaction that throws changes nothing; a member that does not lead refuses', async (t) => {
  const { store, follower } = leader()
  await t.throwsAsync(
    store.update((tx) => {
      tx.create('service', service('a'))
      throw new Error('no')
    }),
    { message: 'no' },
  )
  t.is(store.view().list('service').length, 0)
  t.is(await codeOf(follower.update((tx) => tx.create('service', service('b')))), 'notLeader')
})

test('a batch packs many transactions into few entries; one that throws fails alone', async (t) => {
  const { store, log } = leader()
  const commits: Commit[] = []
  store.onCommit((c) => commits.push(c))
  const results = await store.batch(
    Array.from({ length: 1000 }, (_, i) => (tx) => {
      if (i === 500) throw new Error('five hundred')
      tx.create('task', Task.create({ id: newObjectId(), serviceId: 's', slot: i + 1 }))
    }),
  )
  t.is(results.filter((r) => r !== null).length, 1)
  t.is(results[500]?.message, 'five hundred')
  t.is(store.view().tasksOfService('s').length, 999)
  t.true(log.entries <= 5)
  t.is(
    commits.reduce((n, c) => n + c.events.length, 0),
    999,
  )
  t.deepEqual(
    store
      .view()
      .tasksOfService('s')
      .map((x) => x.slot),
    Array.from({ length: 1000 }, (_, i) => i + 1).filter((i) => i !== 501),
  )
})

test('a change that no raft entry can hold is refused before it is proposed', async (t) => {
  const { store } = leader()
  const secret = Secret.create({ id: newObjectId(), spec: SecretSpec.create({ data: new Uint8Array(1_600_000) }) })
  t.is(await codeOf(store.update((tx) => tx.create('secret', secret))), 'transactionTooLarge')
  t.is(store.view().list('secret').length, 0)
})

test('tasks are found by service, node, slot and network, in order of creation, as they move', async (t) => {
  const { store } = leader()
  const net = Network.create({
    id: 'net1',
    spec: NetworkSpec.create({ annotations: Annotations.create({ name: 'n' }) }),
  })
  const one = Task.create({ id: 'z-first', serviceId: 's1', slot: 1 })
  const two = Task.create({ id: 'a-second', serviceId: 's1', slot: 1, nodeId: 'n1' })
  await store.update((tx) => {
    tx.create('task', one)
    tx.create('task', two)
  })
  const stored = store.view().get('task', one.id)!
  await store.update((tx) =>
    tx.update('task', { ...stored, nodeId: 'n1', networks: [NetworkAttachment.create({ network: net })] }),
  )
  const view = store.view()
  const ids = (tasks: readonly Task[]): string[] => tasks.map((x) => x.id)
  t.deepEqual(ids(view.tasksOfNode('n1')), ['z-first', 'a-second'])
  t.deepEqual(ids(view.tasksOfSlot('s1', 1)), ['z-first', 'a-second'])
  t.deepEqual(ids(view.tasksUsingNetwork('net1')), ['z-first'])
  t.deepEqual(ids(view.byIdPrefix('task', 'a-', 5)), ['a-second'])
  await store.update((tx) => tx.remove('task', 'z-first'))
  t.deepEqual(ids(store.view().tasksOfNode('n1')), ['a-second'])
  t.deepEqual(ids(store.view().tasksUsingNetwork('net1')), [])
})

/** `bytes` in parts of `length`. */
async function* cut(bytes: Uint8Array, length: number): AsyncGenerator<Uint8Array> {
  for (let i = 0; i < bytes.length; i += length) yield bytes.subarray(i, i + length)
}

/** For comparison: what was decoded has Buffers. */
const secretsOf = (view: ReadView) =>
  view.list('secret').map((s) => ({ ...s, spec: { ...s.spec, data: Buffer.from(s.spec!.data).toString('hex') } }))

const secret = (id: string, bytes: number): Secret =>
  Secret.create({ id, spec: SecretSpec.create({ data: new Uint8Array(bytes).fill(bytes % 251) }) })

test('a snapshot cut anywhere restores the same state, order included, and tells watchers', async (t) => {
  const { store } = leader()
  for (let i = 0; i < 200; i++) await store.update((tx) => tx.create('service', service(`s${i}`)))
  for (const bytes of [1_100_000, 70_000, 60_000, 60_001, 3])
    await store.update((tx) => tx.create('secret', secret(`x${bytes}`, bytes)))
  await store.update((tx) => tx.remove('service', tx.list('service')[3]!.id))
  const pieces = [...store.snapshot()]
  t.true(pieces.every((p) => p.length > 0 && p.length <= 1024 * 1024))
  const whole = Buffer.concat(pieces)
  for (const length of [whole.length, 1024 * 1024, 65_536, 4099]) {
    const other = createStore({ clock: systemClock })
    const resets: Commit[] = []
    other.onCommit((c) => resets.push(c))
    await other.restore(store.version, cut(whole, length))
    t.deepEqual(other.view().list('service'), store.view().list('service'), `cut into ${length}`)
    t.deepEqual(secretsOf(other.view()), secretsOf(store.view()), `cut into ${length}`)
    t.is(other.version, store.version)
    t.deepEqual(
      resets.map((c) => c.reset),
      [true],
    )
  }
})

test('a small snapshot may come byte by byte', async (t) => {
  const { store } = leader()
  for (let i = 0; i < 3; i++) await store.update((tx) => tx.create('service', service(`s${i}`)))
  await store.update((tx) => tx.create('secret', secret('x', 300)))
  const other = createStore({ clock: systemClock })
  await other.restore(store.version, cut(Buffer.concat([...store.snapshot()]), 1))
  t.deepEqual(other.view().list('service'), store.view().list('service'))
  t.deepEqual(secretsOf(other.view()), secretsOf(store.view()))
})

test('a snapshot that is read while writes go on is the state of the moment it was asked for', async (t) => {
  const { store } = leader()
  for (let i = 0; i < 300; i++) await store.update((tx) => tx.create('secret', secret(`x${i}`, 1000)))
  const view = store.view()
  const version = store.version
  const snapshot = store.snapshot()
  const pieces: Uint8Array[] = []
  let writes = 0
  const change = () =>
    store.update((tx) => {
      tx.remove('secret', `x${299 - writes}`)
      tx.create('secret', secret(`new${writes++}`, 1000))
    })
  // Also between the request and the first piece.
  await change()
  for (const piece of snapshot) {
    pieces.push(piece)
    await change()
  }
  t.true(writes > 4, 'it has several pieces')
  const other = createStore({ clock: systemClock })
  await other.restore(version, cut(Buffer.concat(pieces), 65_536))
  t.deepEqual(secretsOf(other.view()), secretsOf(view))
  t.is(other.version, version)
})

test('a snapshot that breaks off, or is none, changes nothing', async (t) => {
  const { store } = leader()
  for (let i = 0; i < 5; i++) await store.update((tx) => tx.create('secret', secret(`x${i}`, 50_000)))
  const whole = Buffer.concat([...store.snapshot()])
  const other = createStore({ clock: systemClock })
  await other.restore(store.version, cut(whole, 1000))
  const before = other.view()
  const resets: Commit[] = []
  other.onCommit((c) => resets.push(c))
  async function* broken(): AsyncGenerator<Uint8Array> {
    yield whole.subarray(0, 120_000)
    throw new Error('the disk broke')
  }
  await t.throwsAsync(other.restore(99, broken()), { message: 'the disk broke' })
  await t.throwsAsync(other.restore(99, cut(whole.subarray(0, -1), 1000)), { code: 'snapshotMalformed' })
  await t.throwsAsync(other.restore(99, cut(Buffer.alloc(20, 0xff), 7)), { code: 'snapshotMalformed' })
  await t.throwsAsync(other.restore(99, cut(Buffer.from([0x08, 1]), 7)), { code: 'snapshotMalformed' })
  t.is(other.view(), before)
  t.deepEqual(resets, [])
})

/** Any sequence of transactions, some of them refused or lost, leaves leader and follower equal to a plain model. */
test('property: members agree with each other and with a map, whatever fails', async (t) => {
  for (let seed = 1; seed <= 25; seed++) {
    const rng: Rng = seededRng(seed)
    const { store, follower, log } = leader()
    const waiting: Promise<unknown>[] = []
    for (let step = 0; step < 150; step++) {
      const dice = rng.random()
      if (dice < 0.05) log.fateOfNext(rng.random() < 0.5 ? 'refuse' : rng.random() < 0.5 ? 'loseKept' : 'loseDropped')
      else if (dice < 0.15) log.hold()
      else if (dice < 0.3) {
        log.release()
        await new Promise((r) => setImmediate(r))
      } else {
        const name = `s${intBetween(rng, 0, 12)}`
        const remove = rng.random() < 0.3
        waiting.push(
          store
            .update((tx) => {
              const found = tx.byName('service', name)
              if (!found) tx.create('service', service(name, { jobStatus: { jobIteration: 1, lastExecution: null } }))
              else if (remove) tx.remove('service', found.id)
              else
                tx.update('service', {
                  ...found,
                  jobStatus: { jobIteration: found.jobStatus!.jobIteration + 1, lastExecution: null },
                })
            })
            .catch(() => {}),
        )
      }
    }
    log.fateOfNext(null)
    log.release()
    await Promise.all(waiting)
    await new Promise((r) => setImmediate(r))
    await store.update((tx) => tx.create('service', service('last')))
    t.deepEqual(follower.view().list('service'), store.view().list('service'), `seed ${seed}`)
    const names = store
      .view()
      .list('service')
      .map((s) => s.spec!.annotations!.name)
    t.is(new Set(names).size, names.length, `seed ${seed}`)
    for (const s of store.view().list('service')) {
      t.is(store.view().byName('service', s.spec!.annotations!.name), s)
      t.is(store.view().get('service', s.id), s)
    }
    // What a new transaction sees is what is applied: nothing of the failed ones stayed in the overlay.
    await store.update((tx) => t.deepEqual(tx.list('service'), store.view().list('service'), `seed ${seed}`))
  }
})
