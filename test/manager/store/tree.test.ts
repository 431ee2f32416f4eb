import test from 'ava'
import { intBetween, seededRng } from '../../../src/common/index.js'
import { Tree } from '../../../src/manager/store/tree.js'

const entries = <V>(tree: Tree<number, V>, from: number | null = null): [number, V][] => {
  const all: [number, V][] = []
  tree.scan(from, (k, v) => {
    all.push([k, v])
    return true
  })
  return all
}

test('property: a tree holds what a sorted map holds, and older trees stay as they were', (t) => {
  for (let seed = 1; seed <= 10; seed++) {
    const rng = seededRng(seed)
    const model = new Map<number, number>()
    let tree = Tree.empty<number, number>()
    let edit = {}
    const kept: { tree: Tree<number, number>; was: [number, number][] }[] = []
    for (let i = 0; i < 3000; i++) {
      const k = intBetween(rng, 0, 400)
      const shrinking = i % 1000 > 600
      if (rng.random() < (shrinking ? 0.8 : 0.3)) {
        tree = tree.delete(k, edit)
        model.delete(k)
      } else {
        tree = tree.set(k, i, edit)
        model.set(k, i)
      }
      if (i % 97 === 0) {
        kept.push({ tree, was: entries(tree) })
        edit = {}
      }
    }
    const want = [...model].sort((a, b) => a[0] - b[0])
    t.deepEqual(entries(tree), want)
    t.deepEqual(
      entries(tree, 200),
      want.filter(([k]) => k >= 200),
    )
    t.is(tree.size, model.size)
    for (const [k, v] of model) t.is(tree.get(k), v)
    for (const { tree: old, was } of kept) t.deepEqual(entries(old), was)
  }
})
