/** Names one writer's turn: nodes made in it may still be changed in place, all others are copied. */
export type Edit = object

/** Most entries in a node; it splits in two above that. */
const WIDTH = 32

type Key = string | number

class Leaf<K extends Key, V> {
  constructor(
    readonly edit: Edit,
    readonly keys: K[],
    readonly values: V[],
  ) {}
}

class Branch<K extends Key, V> {
  /** keys[i] is no greater than the smallest key of children[i], and greater than all keys of children[i - 1]. */
  constructor(
    readonly edit: Edit,
    readonly keys: K[],
    readonly children: Node<K, V>[],
  ) {}
}

type Node<K extends Key, V> = Leaf<K, V> | Branch<K, V>

/** First position whose key is >= key. */
function lowerBound<K extends Key>(keys: readonly K[], key: K): number {
  let lo = 0
  let hi = keys.length
  while (lo < hi) {
    const mid = (lo + hi) >>> 1
    if (keys[mid]! < key) lo = mid + 1
    else hi = mid
  }
  return lo
}

/** Child that would hold the key. */
function childFor<K extends Key>(keys: readonly K[], key: K): number {
  const i = lowerBound(keys, key)
  return i < keys.length && keys[i] === key ? i : Math.max(0, i - 1)
}

/**
 * An ordered map that never changes: `set` and `delete` give a new one that shares what is equal. A writer that passes the
 * same `edit` again may change nodes it made itself, so it must not hand out a tree and go on with that token.
 */
export class Tree<K extends Key, V> {
  private constructor(
    private readonly root: Node<K, V>,
    readonly size: number,
  ) {}

  static empty<K extends Key, V>(): Tree<K, V> {
    return new Tree<K, V>(new Leaf<K, V>({}, [], []), 0)
  }

  get(key: K): V | undefined {
    let node = this.root
    while (node instanceof Branch) node = node.children[childFor(node.keys, key)]!
    const i = lowerBound(node.keys, key)
    return i < node.keys.length && node.keys[i] === key ? node.values[i] : undefined
  }

  set(key: K, value: V, edit: Edit): Tree<K, V> {
    const grown = { added: false }
    const [node, right] = insert(this.root, key, value, edit, grown)
    const root = right ? new Branch<K, V>(edit, [smallest(node), smallest(right)], [node, right]) : node
    return new Tree(root, this.size + (grown.added ? 1 : 0))
  }

  delete(key: K, edit: Edit): Tree<K, V> {
    if (this.get(key) === undefined) return this
    let root = remove(this.root, key, edit)
    while (root instanceof Branch && root.children.length === 1) root = root.children[0]!
    return new Tree(root, this.size - 1)
  }

  /** In order of keys from `start` on, until `visit` answers false. */
  scan(start: K | null, visit: (key: K, value: V) => boolean): void {
    scan(this.root, start, visit)
  }
}

const smallest = <K extends Key, V>(node: Node<K, V>): K => node.keys[0]!

function insert<K extends Key, V>(
  node: Node<K, V>,
  key: K,
  value: V,
  edit: Edit,
  grown: { added: boolean },
): [Node<K, V>, Node<K, V> | null] {
  if (node instanceof Leaf) {
    const mine = node.edit === edit ? node : new Leaf(edit, node.keys.slice(), node.values.slice())
    const i = lowerBound(mine.keys, key)
    if (i < mine.keys.length && mine.keys[i] === key) {
      mine.values[i] = value
      return [mine, null]
    }
    grown.added = true
    mine.keys.splice(i, 0, key)
    mine.values.splice(i, 0, value)
    if (mine.keys.length <= WIDTH) return [mine, null]
    // Appending is the usual order of creation: leave the left node full then.
    const cut = i === mine.keys.length - 1 ? WIDTH : WIDTH >>> 1
    return [mine, new Leaf(edit, mine.keys.splice(cut), mine.values.splice(cut))]
  }
  const mine = node.edit === edit ? node : new Branch(edit, node.keys.slice(), node.children.slice())
  const i = childFor(mine.keys, key)
  const [child, right] = insert(mine.children[i]!, key, value, edit, grown)
  mine.children[i] = child
  mine.keys[i] = smallest(child)
  if (right) {
    mine.keys.splice(i + 1, 0, smallest(right))
    mine.children.splice(i + 1, 0, right)
  }
  if (mine.keys.length <= WIDTH) return [mine, null]
  const cut = i >= mine.keys.length - 2 ? WIDTH : WIDTH >>> 1
  return [mine, new Branch(edit, mine.keys.splice(cut), mine.children.splice(cut))]
}

/** The key is present. */
function remove<K extends Key, V>(node: Node<K, V>, key: K, edit: Edit): Node<K, V> {
  if (node instanceof Leaf) {
    const mine = node.edit === edit ? node : new Leaf(edit, node.keys.slice(), node.values.slice())
    const i = lowerBound(mine.keys, key)
    mine.keys.splice(i, 1)
    mine.values.splice(i, 1)
    return mine
  }
  const mine = node.edit === edit ? node : new Branch(edit, node.keys.slice(), node.children.slice())
  const i = childFor(mine.keys, key)
  const child = remove(mine.children[i]!, key, edit)
  if (child.keys.length === 0 && mine.children.length > 1) {
    mine.keys.splice(i, 1)
    mine.children.splice(i, 1)
    return mine
  }
  mine.children[i] = child
  if (child.keys.length > 0) mine.keys[i] = smallest(child)
  join(mine, i > 0 ? i - 1 : 0, edit)
  return mine
}

/** Two small neighbours become one, so that a tree that shrank does not stay wide and hollow. */
function join<K extends Key, V>(parent: Branch<K, V>, i: number, edit: Edit): void {
  const a = parent.children[i]
  const b = parent.children[i + 1]
  if (!a || !b || a.keys.length + b.keys.length > WIDTH >>> 1) return
  if (a instanceof Leaf && b instanceof Leaf)
    parent.children[i] = new Leaf(edit, [...a.keys, ...b.keys], [...a.values, ...b.values])
  else if (a instanceof Branch && b instanceof Branch)
    parent.children[i] = new Branch(edit, [...a.keys, ...b.keys], [...a.children, ...b.children])
  parent.keys.splice(i + 1, 1)
  parent.children.splice(i + 1, 1)
}

function scan<K extends Key, V>(node: Node<K, V>, start: K | null, visit: (key: K, value: V) => boolean): boolean {
  if (node instanceof Leaf) {
    for (let i = start === null ? 0 : lowerBound(node.keys, start); i < node.keys.length; i++)
      if (!visit(node.keys[i]!, node.values[i]!)) return false
    return true
  }
  let i = start === null ? 0 : childFor(node.keys, start)
  if (!scan(node.children[i]!, start, visit)) return false
  for (i++; i < node.children.length; i++) if (!scan(node.children[i]!, null, visit)) return false
  return true
}
