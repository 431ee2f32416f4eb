import { rm } from 'node:fs/promises'
import test from 'ava'
import { type Clock, nullLogger, systemClock, systemRng } from '../../../src/common/index.js'
import type { RaftTransport } from '../../../src/raft/index.js'
import { type Disk, nodeDisk } from '../../../src/raft/log/index.js'
import { Member } from '../../../src/raft/node.js'
import { scratch } from '../log/fixture.js'
import { QUICK, until } from './lab.js'
import { put, Register } from './register.js'

const alone = (): RaftTransport => ({
  send: () => {},
  setMembers: () => {},
  sendSnapshot: () => Promise.reject(new Error('alone')),
  reachable: () => true,
  close: async () => {},
})

interface Given {
  readonly settings?: Partial<typeof QUICK>
  readonly clock?: Clock
  readonly machine?: Register
  readonly defer?: (fn: () => void) => void
}

function single(dir: string, disk: Disk, create = true, given: Given = {}): { member: Member; machine: Register } {
  const machine = given.machine ?? new Register()
  const member = new Member(
    {
      ...QUICK,
      ...given.settings,
      dir,
      nodeId: 'only',
      advertiseAddress: '127.0.0.1:1',
      kek: null,
      bootstrap: create ? { kind: 'create' } : null,
    },
    { clock: given.clock ?? systemClock, rng: systemRng, logger: nullLogger, stateMachine: machine, transport: alone },
    { disk, defer: given.defer ?? ((fn) => void setImmediate(fn)) },
  )
  return { member, machine }
}

test('a member with too little disk space left leads on but refuses proposals', async (t) => {
  const dir = await scratch()
  const { member } = single(dir, { ...nodeDisk(), freeBytes: async () => 1_000_000 })
  await member.start()
  await until('it leads', () => member.status().leading)
  t.deepEqual(await member.propose([put('x')]), { result: 'refused', reason: 'diskFull' })
  await member.readBarrier()
  await member.stop()
  await rm(dir, { recursive: true })
})

test('a member whose disk fails stops for good, tells so, and ends what was open', async (t) => {
  const dir = await scratch()
  const real = nodeDisk()
  let broken = false
  const disk: Disk = {
    ...real,
    openStore: async (path) => {
      const store = await real.openStore(path)
      return {
        records: () => store.records(),
        discard: (a, b) => store.discard(a, b),
        close: () => store.close(),
        batch: (ops) => (broken ? Promise.reject(new Error('EIO: i/o error')) : store.batch(ops)),
      }
    },
  }
  const { member } = single(dir, disk)
  const failures: string[] = []
  member.onFailed((e) => failures.push(e.code))
  await member.start()
  await until('it leads', () => member.status().leading)
  t.is((await member.propose([put('before')])).result, 'applied')
  broken = true
  const lost = await member.propose([put('after')])
  // Unknown when it was proposed already, refused when the commit index was the first thing not to be written.
  t.not(lost.result, 'applied')
  t.is('reason' in lost && lost.reason, 'stopped')
  await until('the failure is told', () => failures.length > 0)
  t.deepEqual(failures, ['logWriteFailed'])
  t.deepEqual(await member.propose([put('later')]), { result: 'refused', reason: 'stopped' })
  await member.stop()
  broken = false
  const again = single(dir, disk, false)
  await again.member.start()
  await until('it leads again', () => again.member.status().leading)
  t.true(again.machine.at.has('before'))
  await again.member.stop()
  await rm(dir, { recursive: true })
})

test('a member stops also when it was not an entry that could not be written', async (t) => {
  const dir = await scratch()
  const real = nodeDisk()
  let broken = false
  const { member } = single(dir, {
    ...real,
    replaceFile: (path, bytes) =>
      broken ? Promise.reject(new Error('EIO: i/o error')) : real.replaceFile(path, bytes),
  })
  const failures: string[] = []
  member.onFailed((e) => failures.push(e.code))
  await member.start()
  await until('it leads', () => member.status().leading)
  broken = true
  await t.throwsAsync(member.rotateKek(Buffer.alloc(32, 1)), { code: 'logWriteFailed' })
  await until('the failure is told', () => failures.length > 0)
  t.deepEqual(failures, ['logWriteFailed'])
  t.deepEqual(await member.propose([put('later')]), { result: 'refused', reason: 'stopped' })
  await member.stop()
  await rm(dir, { recursive: true })
})

test('the commit index of an idle member reaches its disk, so that nothing acknowledged is cut off later', async (t) => {
  const dir = await scratch()
  const { member } = single(dir, nodeDisk())
  await member.start()
  await until('it leads', () => member.status().leading)
  const outcome = await member.propose([put('x')])
  t.is(outcome.result, 'applied')
  const index = outcome.result === 'applied' ? outcome.index : 0
  await until('it is on disk', () => member.inspect()!.log.hardState.commit >= index)
  const { writes } = member.counters()
  const more = await Promise.all(Array.from({ length: 500 }, (_, i) => member.propose([put(`y${i}`)])))
  t.true(more.every((o) => o.result === 'applied'))
  t.true(member.counters().writes - writes < 50, 'many proposals share one write')
  await member.stop()
  await rm(dir, { recursive: true })
})

/** No election timeout ends while a test runs. */
const NO_ELECTIONS = { tickMs: 60_000 }

test('the only voter leads at once after a restart, with and without a snapshot', async (t) => {
  const dir = await scratch()
  const run = async (create: boolean, snapshotInterval: number, writes: number): Promise<void> => {
    const { member } = single(dir, nodeDisk(), create, { settings: { ...NO_ELECTIONS, snapshotInterval } })
    await member.start()
    await until('it leads', () => member.status().leading)
    for (let i = 0; i < writes; i++) await member.propose([put(`${snapshotInterval}-${i}`)])
    if (snapshotInterval < 1000) await until('a snapshot', () => member.inspect()!.log.snapshotIndex > 0)
    await member.stop()
  }
  await run(true, 1000, 3)
  await run(false, 1001, 3)
  await run(false, 4, 20)
  await run(false, 1002, 3)
  t.pass()
  await rm(dir, { recursive: true })
})

test('a start that applies much gives the event loop back between the entries', async (t) => {
  const dir = await scratch()
  const large = Array.from({ length: 20 }, (_, i) => put(`x${i}`, 100_000))
  const first = single(dir, nodeDisk())
  await first.member.start()
  await until('it leads', () => first.member.status().leading)
  for (const action of large) await first.member.propose([action])
  await first.member.stop()
  // Each entry takes long to apply, by this clock.
  let late = 0
  let turn = 0
  const perTurn = new Map<number, number>()
  const machine = new Register()
  machine.onChange(() => {
    late += 50
    perTurn.set(turn, (perTurn.get(turn) ?? 0) + 1)
  })
  const { member } = single(dir, nodeDisk(), false, {
    machine,
    clock: { ...systemClock, monotonic: () => systemClock.monotonic() + late },
    defer: (fn) =>
      void setImmediate(() => {
        turn++
        fn()
      }),
  })
  await member.start()
  await until('all is applied', () => machine.at.size === large.length)
  t.true(Math.max(...perTurn.values()) <= 2, `entries applied in one turn: ${[...perTurn.values()]}`)
  await member.stop()
  await rm(dir, { recursive: true })
})
