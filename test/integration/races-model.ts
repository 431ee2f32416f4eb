/** One step of a call: the state after it, or null where the call could not have taken it in this state. */
type Step<S> = (state: S, me: number) => S | null

/** A condition that held at some time in a call, or the ways in which the daemon may have come to its answer. */
export type Way<S> = ((state: S) => boolean) | readonly (readonly Step<S>[])[]

export interface Answered<S> {
  readonly what: string
  readonly begin: number
  readonly end: number
  readonly way: Way<S>
}

interface Config<S> {
  readonly state: S
  /** Call → the variant that it took and how many steps of it are done. */
  readonly at: ReadonlyMap<number, readonly [variant: number, done: number]>
}

const CONFIGS_MAX = 30_000

/** What a search says: the states that may stand at the end, the first call that no order explains, or too many orders. */
export type Verdict<S> =
  | { readonly kind: 'states'; readonly states: readonly S[] }
  | { readonly kind: 'impossible'; readonly what: string; readonly states: readonly S[] }
  | { readonly kind: 'undecided' }

/**
 * All states that can stand after the calls: every step lies between the beginning and the end of its call, and steps of
 * calls that overlap may come in any order. States are plain values: two of the same JSON are one.
 */
export function possible<S>(calls: readonly Answered<S>[], initial: readonly S[]): Verdict<S> {
  let configs = unique(initial.map((state) => ({ state, at: new Map() })))
  const marks = calls
    .flatMap((c, i) => [
      { time: c.begin, isEnd: 0, i },
      { time: c.end, isEnd: 1, i },
    ])
    .sort((a, b) => a.time - b.time || a.isEnd - b.isEnd)
  const open = new Set<number>()
  for (const m of marks) {
    if (!m.isEnd) {
      open.add(m.i)
      configs = unique([...configs.values()].map((c) => look(calls, c, [m.i])))
      continue
    }
    const ended = endCall(calls, configs, open, m.i)
    if (ended === null) return { kind: 'undecided' }
    if (ended.size === 0)
      return { kind: 'impossible', what: calls[m.i]?.what ?? '', states: [...configs.values()].map((c) => c.state) }
    configs = ended
    open.delete(m.i)
  }
  return { kind: 'states', states: [...configs.values()].map((c) => c.state) }
}

/** The configurations in which one call has taken all of its steps, and others as many as that needed. */
function endCall<S>(
  calls: readonly Answered<S>[],
  from: ReadonlyMap<string, Config<S>>,
  open: ReadonlySet<number>,
  ending: number,
): Map<string, Config<S>> | null {
  const ended: Config<S>[] = []
  const seen = new Map(from)
  const queue = [...from.values()]
  for (let c = queue.pop(); c; c = queue.pop()) {
    if (seen.size > CONFIGS_MAX) return null
    if (isDone(calls, c, ending)) {
      const at = new Map(c.at)
      at.delete(ending)
      ended.push({ state: c.state, at })
      // One that may have done nothing may as well have done something.
      if (c.at.has(ending)) continue
    }
    for (const i of open)
      for (const step of steps(calls, c, i)) {
        const next = look(calls, step, open)
        const key = keyOf(next)
        if (seen.has(key)) continue
        seen.set(key, next)
        queue.push(next)
      }
  }
  return unique(ended)
}

const ways = <S>(call: Answered<S> | undefined): readonly (readonly Step<S>[])[] =>
  call === undefined || typeof call.way === 'function' ? [] : call.way

/** A condition is met as soon as it holds: waiting for a later time would gain nothing. */
function look<S>(calls: readonly Answered<S>[], c: Config<S>, open: Iterable<number>): Config<S> {
  const met = [...open].filter((i) => {
    const way = calls[i]?.way
    return typeof way === 'function' && !c.at.has(i) && way(c.state)
  })
  if (met.length === 0) return c
  const at = new Map(c.at)
  for (const i of met) at.set(i, MET)
  return { state: c.state, at }
}
const MET = [0, 0] as const

function isDone<S>(calls: readonly Answered<S>[], c: Config<S>, i: number): boolean {
  const at = c.at.get(i)
  if (at === MET) return true
  const variants = ways(calls[i])
  return at ? variants[at[0]]?.length === at[1] : variants.some((v) => v.length === 0)
}

function steps<S>(calls: readonly Answered<S>[], c: Config<S>, i: number): Config<S>[] {
  const at = c.at.get(i)
  const found: Config<S>[] = []
  for (const [v, variant] of ways(calls[i]).entries()) {
    if (at && at[0] !== v) continue
    const done = at?.[1] ?? 0
    const state = variant[done]?.(c.state, i)
    if (state) found.push({ state, at: new Map(c.at).set(i, [v, done + 1]) })
  }
  return found
}

const keyOf = <S>(c: Config<S>): string => JSON.stringify([c.state, [...c.at].sort((a, b) => a[0] - b[0])])
const unique = <S>(configs: readonly Config<S>[]): Map<string, Config<S>> => new Map(configs.map((c) => [keyOf(c), c]))

/** Objects of one kind by name: an id, or "~CALL" while a call has taken the name and shows nothing under it yet. */
export interface Names {
  readonly held: Readonly<Record<string, string>>
  /** Call → the id that it found under its name. */
  readonly found: Readonly<Record<string, string>>
}
type NameStep = Step<Names>

export const namesOf = (held: Readonly<Record<string, string>>): Names => ({
  held: sorted(held),
  found: {},
})

const sorted = (x: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(Object.entries(x).sort(([a], [b]) => (a < b ? -1 : 1)))
const isShown = (id: string | undefined): boolean => id !== undefined && !id.startsWith('~')
const lives = (s: Names, id: string | undefined): boolean => id !== undefined && Object.values(s.held).includes(id)
const hold = (s: Names, name: string, id: string): Names => ({ ...s, held: sorted({ ...s.held, [name]: id }) })
const release = (s: Names, is: (id: string, name: string) => boolean): Names => ({
  ...s,
  held: Object.fromEntries(Object.entries(s.held).filter(([n, id]) => !is(id, n))),
})

const take =
  (name: string): NameStep =>
  (s, me) =>
    s.held[name] === undefined ? hold(s, name, `~${me}`) : null
const letGo: NameStep = (s, me) => release(s, (id) => id === `~${me}`)
const find =
  (ref: string): NameStep =>
  (s, me) => {
    const id = isShown(s.held[ref]) ? s.held[ref] : lives(s, ref) ? ref : undefined
    return id === undefined ? null : { ...s, found: { ...s.found, [me]: id } }
  }
/** The last step of a call on what it found. */
const use =
  (is: (s: Names, id: string) => boolean, change: (s: Names, id: string) => Names = (s) => s): NameStep =>
  (s, me) => {
    const id = s.found[me] ?? ''
    if (!is(s, id)) return null
    const { [me]: _, ...found } = s.found
    return change({ ...s, found }, id)
  }
const remove = use(lives, (s, id) => release(s, (x) => x === id))

const isThere = (s: Names, ref: string): boolean => isShown(s.held[ref]) || lives(s, ref)

/** What may have happened, by answer. `ref` is a name or an id. */
export const legal = {
  created: (name: string, id: string): NameStep[][] => [
    [take(name), (s, me) => (s.held[name] === `~${me}` ? hold(s, name, id) : null)],
  ],
  /** Refused for another reason than the name; it may have held it for a while. */
  notCreated: (name: string): NameStep[][] => [[], [take(name), letGo]],
  /** Also a tag or a volume that is there. */
  taken:
    (name: string) =>
    (s: Names): boolean =>
      s.held[name] !== undefined,
  /** Done or refused on what is there. */
  there:
    (ref: string) =>
    (s: Names): boolean =>
      isThere(s, ref),
  shown:
    (name: string, id: string) =>
    (s: Names): boolean =>
      s.held[name] === id,
  gone:
    (ref: string) =>
    (s: Names): boolean =>
      !isThere(s, ref),
  /** One that waits for another removal is content with that, as with dockerd. */
  removed: (ref: string): NameStep[][] => [
    [find(ref), remove],
    [find(ref), use((s, id) => !lives(s, id))],
  ],
  /** One that nobody finds from some time on, while its name is free only when all of it is gone. */
  withdrawn: (ref: string): NameStep[][] => [
    [
      find(ref),
      (s, me) => {
        const id = s.found[me] ?? ''
        const name = Object.keys(s.held).find((n) => s.held[n] === id)
        return name === undefined ? null : hold(s, name, `~${me}`)
      },
      (s, me) => {
        const { [me]: _, ...found } = s.found
        return letGo({ ...s, found }, me)
      },
    ],
    [find(ref), use((s, id) => !lives(s, id))],
  ],
  /** An object that goes by itself, if it goes. */
  mayGo: (id: string): NameStep[][] => [[], [find(id), remove]],
  /** Under both names until it lets the old one go. */
  renamed: (ref: string, to: string): NameStep[][] => [
    [
      find(ref),
      (s, me) => {
        const id = s.found[me] ?? ''
        return lives(s, id) && s.held[to] === undefined ? hold(s, to, id) : null
      },
      use(lives, (s, id) => release(s, (x, n) => x === id && n !== to)),
    ],
  ],
  notRenamed:
    (ref: string, to: string) =>
    (s: Names): boolean =>
      isThere(s, ref) && s.held[to] !== undefined,
  /** A tag or a volume: present or not, and whoever comes last has it. */
  set: (name: string, id: string): NameStep[][] => [[(s) => hold(s, name, id)]],
  ensured: (name: string): NameStep[][] => [[(s) => hold(s, name, name)]],
  maySet: (name: string): NameStep[][] => [[], [(s) => hold(s, name, name)]],
  cleared: (name: string): NameStep[][] => [[(s) => (s.held[name] ? release(s, (_, n) => n === name) : null)]],
}
