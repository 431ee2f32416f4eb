import test from 'ava'
import { Emitter, ShoalError, systemClock } from '../../src/common/index.js'
import { LeaderLink } from '../../src/manager/leader-link.js'
import type { RaftNodeStatus } from '../../src/raft/index.js'
import { ManagerLab } from './lab.js'

test('a read on its way to a leader that is no more is asked of the next one; a write is not', async (t) => {
  t.timeout(60_000)
  const lab = await ManagerLab.create(2)
  try {
    const [first, second] = lab.managers as [(typeof lab.managers)[0], (typeof lab.managers)[0]]
    let address = first.address
    const bell = new Emitter<RaftNodeStatus>()
    const status = (): RaftNodeStatus => ({ ...first.manager.status(), leading: false, leader: 1 })
    const raft = { leaderAddress: () => address, onStatus: bell.on.bind(bell), status }
    const link = new LeaderLink(raft, () => first.identity, systemClock)
    bell.emit(status())
    const local = (): Promise<string> => Promise.reject(new Error('this one does not lead'))
    const asked: string[] = []
    const move = (): void => {
      address = second.address
      bell.emit(status())
    }
    const answer = await link.read(local, (_, signal) => {
      asked.push(address)
      if (address === second.address) return Promise.resolve('answered')
      queueMicrotask(move)
      // The host is off: nothing comes, not even an end of the connection.
      return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(new Error('given up'))))
    })
    t.is(answer, 'answered')
    t.deepEqual(asked, [first.address, second.address])

    address = first.address
    let writes = 0
    const written = link.call(local, async () => {
      writes++
      move()
      await systemClock.sleep(50)
      return 'done'
    })
    t.is(await written, 'done')
    t.is(writes, 1)

    // The manager stops, or is removed: that is no wish of who asked.
    const asking = link.read(local, (_, signal) => {
      queueMicrotask(() => link.close())
      return new Promise((_resolve, reject) =>
        signal.addEventListener('abort', () => reject(new ShoalError('cancelled', 'grpc1', 'Cancelled on client'))),
      )
    })
    await t.throwsAsync(asking, { message: 'this manager stops' })
  } finally {
    await lab.close()
  }
})
