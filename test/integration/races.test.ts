import test from 'ava'
import { faultsOf, raceClients } from './races.js'
import { type Answered, legal, type Names, namesOf, possible } from './races-model.js'
import { type LabHost, lab } from './support.js'

const at = (begin: number, end: number, way: Answered<Names>['way']): Answered<Names> => ({
  what: `${begin}`,
  begin,
  end,
  way,
})
const verdict = (...calls: Answered<Names>[]): string => {
  const v = possible(calls, [namesOf({})])
  return v.kind === 'states' ? v.states.map((s) => JSON.stringify(s.held)).join(' ') : v.kind
}

test('the model tells what may have happened from what cannot', (t) => {
  const [first, second] = [legal.created('a', '1'), legal.created('a', '2')]
  t.is(verdict(at(1, 5, first), at(2, 4, second)), 'impossible')
  t.is(verdict(at(1, 5, first), at(2, 4, legal.taken('a'))), '{"a":"1"}')
  t.is(verdict(at(1, 3, first), at(4, 5, legal.gone('a'))), 'impossible')
  t.is(verdict(at(1, 2, legal.taken('a')), at(3, 5, first)), 'impossible')
  t.is(verdict(at(1, 6, first), at(2, 9, legal.removed('a')), at(3, 8, second)), '{"a":"1"} {"a":"2"}')
  t.is(verdict(at(1, 2, first), at(3, 9, legal.removed('a')), at(4, 8, legal.removed('a'))), '{}')
  t.is(verdict(at(1, 2, first), at(3, 4, legal.removed('a')), at(5, 6, legal.removed('a'))), 'impossible')
  t.is(verdict(at(1, 2, first), at(3, 9, legal.renamed('a', 'b')), at(4, 8, legal.created('b', '3'))), 'impossible')
  t.is(verdict(at(1, 2, first), at(3, 4, legal.renamed('a', 'b')), at(5, 6, second)), '{"a":"2","b":"1"}')
  const renaming = at(3, 9, legal.renamed('a', 'b'))
  t.is(verdict(at(1, 2, first), renaming, at(4, 5, legal.shown('b', '1')), at(6, 7, legal.taken('a'))), '{"b":"1"}')
  const going = at(3, 9, legal.withdrawn('a'))
  t.is(verdict(at(1, 2, first), going, at(4, 5, legal.gone('a')), at(6, 7, legal.taken('a'))), '{}')
  t.is(verdict(at(1, 2, first), going, at(10, 11, legal.taken('a'))), 'impossible')
  t.is(verdict(at(1, 2, legal.notCreated('a')), at(1, 2, legal.taken('a'))), '{}')
})

test.serial('clients that race for a handful of names see one order of things, and leave nothing behind', async (t) => {
  t.timeout(240_000)
  const seed = Number(process.env.SHOAL_SEED ?? Date.now() % 100_000)
  const l = await lab('irace', '10.92.29', 1, 0)
  try {
    const tally = await raceClients(l, l.plan.hosts[0] as LabHost, { ms: 6000, seed, log: (x) => t.log(x) })
    t.deepEqual(faultsOf(tally), [])
    t.is(tally.undecided, 0)
    t.true(tally.calls > 50)
  } finally {
    await l.down()
  }
})
