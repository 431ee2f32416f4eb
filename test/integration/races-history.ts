/* What the clients of one round were told, and what may stand after it by that. The rules are told in races.ts. */
import { type Answered, legal, type Names, namesOf, possible } from './races-model.js'

export const KINDS = ['containers', 'networks', 'volumes', 'tags'] as const
export type Kind = (typeof KINDS)[number]

/** Kind → name → id. */
export type Stand = Readonly<Record<Kind, Readonly<Record<string, string>>>>
export const NOTHING: Stand = { containers: {}, networks: {}, volumes: {}, tags: {} }

/** A call's answer; times in milliseconds of one clock. */
export interface Answer {
  readonly begin: number
  readonly end: number
  readonly status: number
  readonly text: string
  // biome-ignore lint/suspicious/noExplicitAny: an answer of any call.
  readonly json: any
}

interface Made {
  /** Its process ends by itself. */
  readonly isShort: boolean
  readonly removesItself: boolean
}

interface StatusCall {
  readonly id: string | null
  readonly name: string | null
  readonly begin: number
  readonly end: number
  readonly status: string
}

export interface Inspected {
  Id: string
  Image: string
  State: { Status: string }
  Mounts: { Name?: string }[]
  NetworkSettings: { Networks: Record<string, { NetworkID: string }> }
}

export class History {
  /** Containers that were made since the last tidying, in order. */
  readonly made = new Map<string, Made>()
  undecided = 0
  #before: Stand = NOTHING
  #statusBefore = new Map<string, string>()
  /** Volumes with a user at the beginning of the round, or that a call of it wanted. */
  readonly #usedVolumes = new Set<string>()
  #answered: Record<Kind, Answered<Names>[]> = { containers: [], networks: [], volumes: [], tags: [] }
  #statuses: StatusCall[] = []
  #pruned: { readonly id: string; readonly begin: number; readonly end: number }[] = []

  get before(): Stand {
    return this.#before
  }

  /** A round is over, and this is what stands: the beginning of the next one. */
  settle(stand: Stand, inspected: readonly Inspected[]): void {
    this.#before = stand
    this.#statusBefore = new Map(inspected.map((c) => [c.Id, c.State.Status]))
    this.#usedVolumes.clear()
    for (const c of inspected) for (const m of c.Mounts) this.#usedVolumes.add(m.Name ?? '')
    this.#answered = { containers: [], networks: [], volumes: [], tags: [] }
    this.#statuses = []
    this.#pruned = []
  }

  note(kind: Kind, a: Answer, what: string, way: Answered<Names>['way']): void {
    const message = a.json?.message ?? ''
    this.#answered[kind].push({ what: `${what} ${a.status} ${message}`, begin: a.begin, end: a.end, way })
  }

  /** The refusals of a call on a container by name or id. */
  noteRefused(a: Answer, ref: string, what: string): void {
    const message = String(a.json?.message)
    if (a.status === 404 && /no such container/i.test(message))
      this.note('containers', a, `${what} ${ref.slice(0, 8)}`, legal.gone(ref))
    else if (a.status === 409) this.note('containers', a, `${what} ${ref.slice(0, 8)}`, legal.there(ref))
  }

  noteStatus(a: Answer, ref: string, status: string): void {
    const isId = /^[0-9a-f]{64}$/.test(ref)
    this.#statuses.push({ id: isId ? ref : null, name: isId ? null : ref, begin: a.begin, end: a.end, status })
  }

  notePruned(a: Answer, id: string): void {
    this.note('containers', a, `pruned ${id.slice(0, 8)}`, legal.removed(id))
    this.#pruned.push({ id, begin: a.begin, end: a.end })
  }

  noteWanted(volume: string): void {
    this.#usedVolumes.add(volume)
  }

  mayHaveUser(volume: string): boolean {
    return this.#usedVolumes.has(volume)
  }

  mayGoByItself(id: string, begin: number): void {
    if (this.made.get(id)?.removesItself)
      this.#answered.containers.push({
        what: `${id.slice(0, 8)} removes itself`,
        begin,
        end: Number.POSITIVE_INFINITY,
        way: legal.mayGo(id),
      })
  }

  /** What of that which stands no order of the calls explains. */
  disagreements(stand: Stand, inspected: readonly Inspected[]): string[] {
    const wrong: string[] = []
    for (const kind of KINDS) {
      const verdict = possible(this.#answered[kind], [namesOf(this.#before[kind])])
      if (verdict.kind === 'undecided') this.undecided++
      else if (verdict.kind === 'impossible')
        wrong.push(
          `${kind}: no order explains "${verdict.what}"\n${this.#told(kind)}\n  states ${shorten(verdict.states)}`,
        )
      else if (!verdict.states.some((s) => sameNames(s.held, stand[kind])))
        wrong.push(
          `${kind}: ${JSON.stringify(stand[kind])} stands\n${this.#told(kind)}\n  may stand ${shorten(verdict.states)}`,
        )
    }
    for (const p of this.#pruned)
      if (!this.made.get(p.id)?.isShort && !this.#mayStandStill(p.id, p))
        wrong.push(`pruned ${p.id.slice(0, 8)}, which runs\n${this.#told('containers')}`)
    const networkIds = new Set(Object.values(stand.networks))
    for (const c of inspected) {
      const id = c.Id.slice(0, 8)
      const may = this.#possibleStatuses(c.Id, this.#statuses)
      if (!may.has(c.State.Status))
        wrong.push(
          `${id} is ${c.State.Status}, not ${[...may].join(' or ')}: ${JSON.stringify(c.State)}\n${this.#told('containers')}`,
        )
      for (const m of c.Mounts)
        if (m.Name && !stand.volumes[m.Name]) wrong.push(`volume ${m.Name} of ${id} is gone\n${this.#told('volumes')}`)
      for (const [n, e] of Object.entries(c.NetworkSettings.Networks))
        if (n.startsWith('race-') && c.State.Status === 'running' && !networkIds.has(e.NetworkID))
          wrong.push(`network ${n} of ${id}, which runs, is gone`)
    }
    return wrong
  }

  /** Whether a container may have been created or exited while a call lasted. */
  #mayStandStill(id: string, a: { readonly begin: number; readonly end: number }): boolean {
    const earlier = this.#statuses.filter((s) => s.begin < a.end)
    return (
      ['created', 'exited'].some((s) => this.#possibleStatuses(id, earlier).has(s)) ||
      this.#statuses.some((s) => (s.id === id || s.name) && s.end > a.begin)
    )
  }

  #possibleStatuses(id: string, calls: readonly StatusCall[]): Set<string> {
    const before = this.#statusBefore.get(id)
    const writers = [
      ...(before ? [{ id, name: null, begin: -1, end: -1, status: before }] : []),
      ...calls.filter((s) => s.id === id || s.name !== null),
    ]
    const last = writers.filter((w) => !writers.some((s) => s.id === id && s.begin > w.end))
    const found = new Set(last.map((w) => w.status))
    if (this.made.get(id)?.isShort) found.add('exited')
    return found
  }

  #told(kind: Kind): string {
    const all = [...this.#answered[kind]].sort((a, b) => a.begin - b.begin)
    const first = all[0]?.begin ?? 0
    return [
      `  at first ${JSON.stringify(this.#before[kind])}`,
      `  ${[...this.#statusBefore].map(([id, status]) => `${id.slice(0, 8)} ${status}`).join(', ')}`,
      ...all.map((c) => `  ${Math.round(c.begin - first)}-${Math.round(c.end - first)} ${c.what}`),
    ].join('\n')
  }
}

const sameNames = (a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>): boolean =>
  Object.keys(a).length === Object.keys(b).length && Object.entries(a).every(([n, id]) => b[n] === id)

const shorten = (states: readonly Names[]): string =>
  [...new Set(states.map((s) => JSON.stringify(s.held)))].slice(0, 6).join(' or ')
