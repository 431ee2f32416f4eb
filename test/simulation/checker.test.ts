import test from 'ava'
import type { Message } from '../../src/raft/core/index.js'
import type { Member } from '../../src/raft/node.js'
import { Checker, Violation } from './checker.js'

/** As much of a member as the checker asks for: a disk whose log ends somewhere. */
const withLogTo = (lastIndex: number, term = 1, vote = 0): Member => {
  const log = { lastIndex: () => lastIndex, term: () => 1, hardState: { term, vote, commit: 0 } }
  return { inspect: () => ({ log }) } as unknown as Member
}
const acknowledges = (index: number): Message =>
  ({ type: 'MsgAppResp', from: 1, term: 1, index, reject: false }) as Message

test('what a member acknowledged has to be on its disk', (t) => {
  t.throws(() => new Checker().sent(acknowledges(129), withLogTo(128)), { instanceOf: Violation })
  t.notThrows(() => new Checker().sent(acknowledges(129), withLogTo(129)))
  t.notThrows(() => new Checker().sent(acknowledges(129), withLogTo(128, 2)), 'a newer leader replaced it in one write')
})

test('a candidate has its own vote on its disk before it asks for others', (t) => {
  const asks = { type: 'MsgVote', from: 1, to: 2, term: 4 } as Message
  for (const [term, vote] of [
    [3, 1],
    [4, 0],
    [4, 2],
  ] as const)
    t.throws(() => new Checker().sent(asks, withLogTo(9, term, vote)), { instanceOf: Violation, message: /own vote/ })
  t.notThrows(() => new Checker().sent(asks, withLogTo(9, 4, 1)))
  t.notThrows(() => new Checker().sent(asks, withLogTo(9, 5, 0)), 'it is on in a later term')
})

test('an acknowledgement counts although its sender ended before anyone looked at it', (t) => {
  const checker = new Checker()
  checker.sent(acknowledges(129), withLogTo(129))
  t.throws(() => checker.restarted(1, withLogTo(128)), { instanceOf: Violation, message: /entries survive/ })
  t.notThrows(() => checker.restarted(1, withLogTo(129)))
})
