import test from 'ava'
import { checkHistory, type Operation } from './history.js'

const write = (value: string, base: number, begun: number, ended: number, outcome = 'acknowledged'): Operation =>
  ({ kind: 'write', key: 'k', value, base, begun, ended, outcome }) as Operation
const read = (value: string, version: number, begun: number, ended: number): Operation => ({
  ...{ kind: 'read', key: 'k', value, version, begun, ended },
})
const last = new Map([['k', 'b']])
/** Two writes, one after the other. */
const good = [read('0', 5, 0, 1), write('a', 5, 2, 3), read('a', 7, 4, 5), write('b', 7, 6, 9), read('b', 8, 10, 11)]

test('a history that one register can have is fine', (t) => {
  t.deepEqual(checkHistory(good, last), { lost: [], stale: [], torn: [] })
  const during = [...good, read('a', 7, 7, 12), write('c', 5, 5, 8, 'refused'), write('d', 7, 1, 99, 'maybe')]
  t.deepEqual(checkHistory(during, last), { lost: [], stale: [], torn: [] })
})

test('an acknowledged write that nobody sees again is lost', (t) => {
  t.is(checkHistory([...good, write('c', 8, 12, 13)], last).lost.length, 1)
})

test('a read of an older version than was seen before it began is stale', (t) => {
  t.is(checkHistory([...good, read('a', 7, 12, 13)], last).stale.length, 1)
  t.is(checkHistory([...good, read('0', 5, 3.5, 13)], last).stale.length, 1, 'a had been acknowledged')
})

test('two values of a version, two writes on one, and a refused write that happened are torn', (t) => {
  t.is(checkHistory([...good, read('x', 7, 4, 5)], last).torn.length, 1)
  t.is(checkHistory([...good, write('c', 7, 6, 9), read('c', 9, 10, 11)], last).torn.length, 1)
  t.is(checkHistory([...good, write('c', 8, 6, 9, 'refused'), read('c', 9, 12, 13)], last).torn.length, 1)
})
