/*
 * Clients that race for a handful of names, in rounds; after each round all is quiet, and what stands is compared with what
 * was answered. Which outcomes are legal:
 *
 * - A call takes effect in steps between its request and its answer: it takes or finds a name, then changes what it found.
 *   Steps of calls that overlap may come in any order (races-model.ts tries them all), so that each answer must fit one
 *   order, and the states at the end of all those orders are what may stand.
 * - A creation takes its name, then shows the object. One that is refused for the name needs somebody who holds it just
 *   then; of two that succeed the first one's object was removed or renamed in between.
 * - A removal finds, marks and takes away: others are refused (409) or too late (404) from the mark on, and of removals that
 *   overlap all may succeed.
 * - Volumes and tags: made by whoever needs them, gone only by a removal; 409 and 403 need a user at some time in the round.
 * - A container's status is that of any call that succeeded and was not over before another one of a known target began. One
 *   whose process ends by itself may be `exited` at any time.
 * - Streams and waits that begin may be open until their container is gone, and no longer.
 */
import { readFileSync } from 'node:fs'
import { type Rng, seededRng } from '../../src/common/index.js'
import { isFlat } from './api-fuzz.js'
import { chance, pick } from './fuzz-values.js'
import { type Answer, History, type Inspected, KINDS, type Stand } from './races-history.js'
import { legal } from './races-model.js'
import { HANG_MS, send } from './races-request.js'
import { call, clock, type Lab, type LabHost, until, webImage } from './support.js'
import { difference, traces } from './traces.js'

const CLIENTS = 10
const CALLS_EACH = 5
const ROUNDS_BETWEEN_TIDYING = 8
const NAMES = ['race-a', 'race-b', 'race-c']
const NETWORKS = ['race-net-1', 'race-net-2']
const VOLUMES = ['race-vol-1', 'race-vol-2']
const TAG = 'races/t:1'
const BASE = 'races/base:1'

export interface RaceTally {
  readonly rounds: number
  readonly calls: number
  /** Operation and status → how often. */
  readonly answers: Readonly<Record<string, number>>
  readonly undecided: number
  readonly faults: readonly string[]
  readonly memoryMb: readonly number[]
}

/** Statuses of the API's description; what dockerd answers besides, after the bar. */
const STATUSES: Readonly<Record<string, string>> = {
  create: '201 400 404 409',
  rm: '204 404 409',
  start: '204 304 404 | 409',
  stop: '204 304 404 | 409',
  kill: '204 404 409',
  restart: '204 404 | 409',
  pause: '204 404 | 409',
  unpause: '204 404 | 409',
  rename: '204 404 409 | 400',
  update: '200 404 | 409',
  inspect: '200 404',
  top: '200 404 | 409',
  stats: '200 404 | 409',
  logs: '200 404 | 409',
  changes: '200 404 | 409',
  archive: '200 404 | 409',
  exec: '201 404 409',
  'exec start': '200 404 409',
  attach: '101 200 404 | 409',
  wait: '200 404',
  prune: '200 | 409',
  'network create': '201 403 | 409',
  'network rm': '204 403 404',
  connect: '200 403 404 | 409',
  disconnect: '200 403 404 | 409',
  'volume create': '201',
  'volume rm': '204 404 409',
  tag: '201 404 409',
  rmi: '200 404 409',
  pull: '200 404',
  commit: '201 404 | 409',
  list: '200',
}

export function raceClients(
  l: Lab,
  h: LabHost,
  options: { readonly ms: number; readonly seed: number; readonly log: (line: string) => void },
): Promise<RaceTally> {
  return new Races(l, h, options).run()
}

class Races {
  readonly #rng: Rng
  readonly #answers: Record<string, number> = {}
  readonly #faults: string[] = []
  readonly #memoryMb: number[] = []
  readonly #streams = new Set<string>()
  #web = ''
  #webId = ''
  #calls = 0
  #round = 0
  readonly #told = new History()

  constructor(
    readonly l: Lab,
    readonly h: LabHost,
    readonly options: { readonly ms: number; readonly seed: number; readonly log: (line: string) => void },
  ) {
    this.#rng = seededRng(options.seed)
  }

  async run(): Promise<RaceTally> {
    this.#web = await webImage(this.l, this.h)
    this.#webId = (await this.#get<{ Id: string }>(`/images/${this.#web}/json`)).Id
    await call(this.h.socket, 'POST', `/images/${this.#web}/tag?repo=races/base&tag=1`)
    await this.#tidy()
    const before = traces(this.h)
    const deadline = clock.monotonic() + this.options.ms
    while (clock.monotonic() < deadline && this.#faults.length < 20) {
      await this.#raceOnce()
      if (++this.#round % ROUNDS_BETWEEN_TIDYING === 0) await this.#tidyAndLook(before)
    }
    await this.#tidyAndLook(before)
    return {
      rounds: this.#round,
      calls: this.#calls,
      answers: this.#answers,
      undecided: this.#told.undecided,
      faults: this.#faults,
      memoryMb: this.#memoryMb,
    }
  }

  #fault(text: string): void {
    const line = `seed ${this.options.seed}, round ${this.#round}: ${text}`
    this.options.log(`fault: ${line}`)
    this.#faults.push(line)
  }

  #get<T>(path: string): Promise<T> {
    return call<T>(this.h.socket, 'GET', path)
  }

  async #raceOnce(): Promise<void> {
    const begin = clock.monotonic()
    await Promise.all(
      Array.from({ length: CLIENTS }, async () => {
        for (let i = 0; i < CALLS_EACH; i++) await this.#act()
      }),
    )
    for (const id of Object.values(this.#told.before.containers)) this.#told.mayGoByItself(id, begin)
    await this.#agree()
  }

  /** One call, sent and answered. */
  async #send(op: string, method: string, path: string, body?: object | Buffer): Promise<Answer> {
    this.#calls++
    const begin = clock.monotonic()
    const a = await send(this.h.socket, method, path, body)
    const end = clock.monotonic()
    const key = `${op} ${a.status}`
    this.#answers[key] = (this.#answers[key] ?? 0) + 1
    const shown = `${method} ${path}: ${a.status || 'no answer'} ${a.text.slice(0, 300)}`
    let json: { message?: unknown } | null = null
    try {
      json = JSON.parse(a.text)
    } catch {}
    if (!(STATUSES[op] ?? '').split(' ').includes(String(a.status))) this.#fault(shown)
    else if (a.status >= 400 && (typeof json?.message !== 'string' || json.message === '') && op !== 'attach')
      this.#fault(`no message: ${shown}`)
    return { begin, end, ...a, json }
  }

  /** A name, or the id of something that was made lately. */
  #ref(): string {
    const ids = [...this.#told.made.keys()].slice(-4)
    return ids.length > 0 && chance(this.#rng, 0.3) ? pick(this.#rng, ids) : pick(this.#rng, NAMES)
  }

  #act(): Promise<void> {
    const r = this.#rng.random()
    if (r < 0.2) return this.#create()
    if (r < 0.33) return this.#remove()
    if (r < 0.55) return this.#change()
    if (r < 0.6) return this.#rename()
    if (r < 0.72) return this.#look()
    if (r < 0.82) return this.#network()
    if (r < 0.9) return this.#volume()
    if (r < 0.97) return this.#image()
    return this.#prune()
  }

  async #create(): Promise<void> {
    const rng = this.#rng
    const name = pick(rng, NAMES)
    const isShort = chance(rng, 0.25)
    const removesItself = chance(rng, 0.1)
    const volume = chance(rng, 0.3) ? pick(rng, VOLUMES) : null
    const network = chance(rng, 0.3) ? pick(rng, NETWORKS) : null
    const image = chance(rng, 0.3) ? TAG : BASE
    if (volume) this.#told.noteWanted(volume)
    const a = await this.#send('create', 'POST', `/containers/create?name=${name}`, {
      Image: image,
      Cmd: [
        'sh',
        '-c',
        isShort ? 'echo x; usleep 200000' : 'trap "exit 0" TERM; while :; do echo x; usleep 50000; done',
      ],
      HostConfig: {
        AutoRemove: removesItself,
        ...(volume ? { Binds: [`${volume}:/data`] } : {}),
        ...(network ? { NetworkMode: network } : {}),
      },
    })
    const what = `create ${name} of ${image}${volume ? ` with ${volume}` : ''}`
    if (a.status === 201) {
      const id = String(a.json.Id)
      this.#told.made.set(id, { isShort, removesItself })
      this.#told.note('containers', a, `${what} ${id.slice(0, 8)}`, legal.created(name, id))
      this.#told.mayGoByItself(id, a.begin)
      this.#told.noteStatus(a, id, 'created')
      if (volume) this.#told.note('volumes', a, what, legal.ensured(volume))
      if (image === TAG) this.#told.note('tags', a, what, legal.taken(TAG))
    } else {
      this.#told.note('containers', a, what, a.status === 409 ? legal.taken(name) : legal.notCreated(name))
      if (volume) this.#told.note('volumes', a, what, legal.maySet(volume))
      if (a.status === 404 && image === TAG) this.#told.note('tags', a, what, legal.gone(TAG))
    }
    if (a.status === 201 && chance(rng, 0.6)) await this.#changeOf('start', String(a.json.Id))
  }

  async #remove(): Promise<void> {
    const ref = this.#ref()
    const isForced = chance(this.#rng, 0.7)
    const a = await this.#send('rm', 'DELETE', `/containers/${ref}?v=1${isForced ? '&force=1' : ''}`)
    if (a.status === 204) {
      this.#told.note('containers', a, `rm ${isForced ? '-f ' : ''}${ref.slice(0, 8)}`, legal.removed(ref))
      if (isForced) this.#told.noteStatus(a, ref, 'exited')
    } else this.#told.noteRefused(a, ref, 'rm')
  }

  #change(): Promise<void> {
    const op = pick(this.#rng, ['start', 'start', 'start', 'stop', 'kill', 'restart', 'pause', 'unpause', 'update'])
    return this.#changeOf(op, this.#ref())
  }

  async #changeOf(op: string, ref: string): Promise<void> {
    const query = op === 'stop' || op === 'restart' ? `?t=${pick(this.#rng, [0, 1])}` : ''
    const body = op === 'update' ? { Memory: pick(this.#rng, [64, 128]) << 20, MemorySwap: -1 } : undefined
    const a = await this.#send(op, 'POST', `/containers/${ref}/${op}${query}`, body)
    if (a.status >= 400) return this.#told.noteRefused(a, ref, op)
    this.#told.note('containers', a, `${op} ${ref.slice(0, 8)}`, legal.there(ref))
    const after: Record<string, string> = { start: 'running', restart: 'running', unpause: 'running', pause: 'paused' }
    if (a.status !== 304 && op !== 'update') this.#told.noteStatus(a, ref, after[op] ?? 'exited')
  }

  async #rename(): Promise<void> {
    const ref = this.#ref()
    const to = pick(this.#rng, NAMES)
    if (ref === to) return
    const a = await this.#send('rename', 'POST', `/containers/${ref}/rename?name=${to}`)
    const what = `rename ${ref.slice(0, 8)} to ${to}`
    if (a.status === 204) this.#told.note('containers', a, what, legal.renamed(ref, to))
    else if (a.status === 409) this.#told.note('containers', a, what, legal.notRenamed(ref, to))
    else this.#told.noteRefused(a, ref, 'rename')
  }

  async #look(): Promise<void> {
    const ref = this.#ref()
    const op = pick(this.#rng, [
      'inspect',
      'inspect',
      'top',
      'stats',
      'changes',
      'get',
      'put',
      'exec',
      'exec',
      'logs',
      'attach',
      'wait',
    ])
    if (op === 'exec') return this.#exec(ref)
    if (op === 'logs') return this.#follow('logs', 'GET', `/containers/${ref}/logs?follow=1&stdout=1&stderr=1`)
    if (op === 'attach') return this.#follow('attach', 'POST', `/containers/${ref}/attach?stream=1&stdout=1&logs=1`)
    if (op === 'wait') return this.#follow('wait', 'POST', `/containers/${ref}/wait?condition=removed`)
    if (op === 'list') return void (await this.#send('list', 'GET', '/containers/json?all=1&size=1'))
    const path: Record<string, string> = {
      inspect: 'json?size=1',
      stats: 'stats?stream=0',
      get: 'archive?path=/etc',
      put: 'archive?path=/',
    }
    const name = op === 'get' || op === 'put' ? 'archive' : op
    const a = await this.#send(
      name,
      op === 'put' ? 'PUT' : 'GET',
      `/containers/${ref}/${path[op] ?? op}`,
      op === 'put' ? Buffer.alloc(1024) : undefined,
    )
    if (a.status >= 400) return this.#told.noteRefused(a, ref, op)
    if (op === 'inspect' && NAMES.includes(ref))
      this.#told.note(
        'containers',
        a,
        `inspect ${ref} ${String(a.json.Id).slice(0, 8)}`,
        legal.shown(ref, String(a.json.Id)),
      )
    else this.#told.note('containers', a, `${op} ${ref.slice(0, 8)}`, legal.there(ref))
  }

  async #exec(ref: string): Promise<void> {
    const a = await this.#send('exec', 'POST', `/containers/${ref}/exec`, {
      Cmd: ['sh', '-c', 'echo x; usleep 100000'],
      AttachStdout: true,
    })
    if (a.status >= 400) return this.#told.noteRefused(a, ref, 'exec')
    this.#told.note('containers', a, `exec ${ref.slice(0, 8)}`, legal.there(ref))
    // It stands still for as long as its container is paused.
    await this.#follow('exec start', 'POST', `/exec/${a.json.Id}/start`, { Detach: false, Tty: false })
  }

  /** A stream that may last as long as its container: it is not waited for, and must have ended when all is removed. */
  async #follow(op: string, method: string, path: string, body?: object): Promise<void> {
    this.#calls++
    const key = `${op} ${path} #${this.#calls}`
    this.#streams.add(key)
    let onBegin: (status: number) => void = () => {}
    const began = new Promise<number>((resolve) => {
      onBegin = resolve
    })
    void send(this.h.socket, method, path, body, { onBegin, isUpgrade: op === 'attach' }).then((a) => {
      this.#streams.delete(key)
      onBegin(a.status)
    })
    const status = await Promise.race([began, clock.sleep(op === 'wait' ? 100 : HANG_MS).then(() => -1)])
    this.#answers[`${op} ${status}`] = (this.#answers[`${op} ${status}`] ?? 0) + 1
    if (status === -1 && op === 'wait') return
    if (!(STATUSES[op] ?? '').split(' ').includes(String(status))) this.#fault(`${method} ${path}: ${status}`)
  }

  async #network(): Promise<void> {
    const rng = this.#rng
    const name = pick(rng, NETWORKS)
    const op = pick(rng, ['create', 'create', 'rm', 'connect', 'disconnect'])
    if (op === 'create') {
      const a = await this.#send('network create', 'POST', '/networks/create', { Name: name })
      const what = `network create ${name}`
      if (a.status === 201) this.#told.note('networks', a, what, legal.created(name, String(a.json.Id)))
      else if (a.status === 409) this.#told.note('networks', a, what, legal.taken(name))
      return
    }
    if (op === 'rm') {
      const a = await this.#send('network rm', 'DELETE', `/networks/${name}`)
      if (a.status === 204) this.#told.note('networks', a, `network rm ${name}`, legal.withdrawn(name))
      else if (a.status === 404) this.#told.note('networks', a, `network rm ${name}`, legal.gone(name))
      return
    }
    const ref = this.#ref()
    const a = await this.#send(op, 'POST', `/networks/${name}/${op}`, {
      Container: ref,
      ...(op === 'disconnect' ? { Force: chance(rng, 0.5) } : {}),
    })
    const what = `${op} ${ref.slice(0, 8)} ${name}`
    if (a.status === 200) {
      // With force an endpoint goes whose container or network is not there.
      if (op === 'connect') {
        this.#told.note('networks', a, what, legal.there(name))
        this.#told.note('containers', a, what, legal.there(ref))
      }
    } else if (
      a.status === 404 &&
      /network/i.test(String(a.json.message)) &&
      !/container/i.test(String(a.json.message))
    )
      this.#told.note('networks', a, what, legal.gone(name))
    else this.#told.noteRefused(a, ref, op)
  }

  async #volume(): Promise<void> {
    const name = pick(this.#rng, VOLUMES)
    if (chance(this.#rng, 0.5)) {
      const a = await this.#send('volume create', 'POST', '/volumes/create', { Name: name })
      if (a.status === 201) this.#told.note('volumes', a, `volume create ${name}`, legal.ensured(name))
      return
    }
    const a = await this.#send('volume rm', 'DELETE', `/volumes/${name}`)
    if (a.status === 204) this.#told.note('volumes', a, `volume rm ${name}`, legal.cleared(name))
    else if (a.status === 404) this.#told.note('volumes', a, `volume rm ${name}`, legal.gone(name))
    else if (a.status === 409 && !this.#told.mayHaveUser(name)) this.#fault(`volume ${name} has no user: ${a.text}`)
  }

  async #image(): Promise<void> {
    const rng = this.#rng
    const op = pick(rng, ['tag', 'tag', 'rmi', 'rmi', 'pull', 'commit'])
    const pulled = encodeURIComponent(this.#web)
    if (op === 'tag') {
      const a = await this.#send('tag', 'POST', `/images/${BASE}/tag?repo=races/t&tag=1`)
      if (a.status === 201) this.#told.note('tags', a, `tag ${TAG}`, legal.set(TAG, this.#webId))
      else this.#fault(`${BASE} is always there: ${a.text}`)
    } else if (op === 'rmi') {
      const tag = pick(rng, [TAG, this.#web])
      const a = await this.#send('rmi', 'DELETE', `/images/${tag}`)
      if (a.status === 200) this.#told.note('tags', a, `rmi ${tag}`, legal.cleared(tag))
      else if (a.status === 404) this.#told.note('tags', a, `rmi ${tag}`, legal.gone(tag))
      else if (tag !== TAG) this.#fault(`${BASE} is the same image: ${a.text}`)
    } else if (op === 'pull') {
      const a = await this.#send('pull', 'POST', `/images/create?fromImage=${pulled}`)
      if (a.status === 200 && !a.text.includes('"error"'))
        this.#told.note('tags', a, `pull ${this.#web}`, legal.set(this.#web, this.#webId))
      else this.#fault(`pull: ${a.text}`)
    } else {
      const ref = this.#ref()
      const a = await this.#send('commit', 'POST', `/commit?container=${ref}&repo=races/t&tag=1`)
      if (a.status !== 201) return this.#told.noteRefused(a, ref, 'commit')
      this.#told.note('tags', a, `commit ${TAG}`, legal.set(TAG, String(a.json.Id)))
      this.#told.note('containers', a, `commit ${ref.slice(0, 8)}`, legal.there(ref))
    }
  }

  async #prune(): Promise<void> {
    const kind = pick(this.#rng, KINDS)
    const filters = kind === 'volumes' ? `?filters=${encodeURIComponent('{"all":["1"]}')}` : ''
    const a = await this.#send('prune', 'POST', `/${kind === 'tags' ? 'images' : kind}/prune${filters}`)
    if (a.status !== 200) return
    for (const id of (a.json.ContainersDeleted ?? []) as string[]) this.#told.notePruned(a, id)
    for (const n of (a.json.NetworksDeleted ?? []) as string[])
      this.#told.note('networks', a, `pruned ${n}`, legal.withdrawn(n))
    for (const v of (a.json.VolumesDeleted ?? []) as string[])
      this.#told.note('volumes', a, `pruned ${v}`, legal.cleared(v))
  }

  /** What stands is among what may stand. Removals that go on behind an answer get some time. */
  async #agree(): Promise<void> {
    const deadline = clock.monotonic() + 10_000
    for (;;) {
      const { stand, inspected, lost } = await this.#observe()
      const wrong = [...lost, ...this.#told.disagreements(stand, inspected)]
      for (const c of inspected)
        await this.#get(`/images/${c.Image}/json`).catch(() => wrong.push(`image of ${c.Id.slice(0, 8)} is gone`))
      if (wrong.length > 0 && clock.monotonic() < deadline) {
        await clock.sleep(200)
        continue
      }
      for (const w of wrong) this.#fault(w)
      this.#told.settle(stand, inspected)
      return
    }
  }

  async #observe(): Promise<{ stand: Stand; inspected: Inspected[]; lost: string[] }> {
    const list = await this.#get<{ Id: string; Names: string[] }[]>('/containers/json?all=1')
    const networks = await this.#get<{ Id: string; Name: string }[]>('/networks')
    const volumes = (await this.#get<{ Volumes: { Name: string }[] | null }>('/volumes')).Volumes ?? []
    const images = await this.#get<{ Id: string; RepoTags: string[] | null }[]>('/images/json')
    const inspected: Inspected[] = []
    const lost: string[] = []
    for (const c of list) {
      await this.#get<Inspected>(`/containers/${c.Id}/json`).then(
        (i) => inspected.push(i),
        (e: Error) => lost.push(`${c.Id.slice(0, 8)} is listed, but cannot be inspected: ${e.message}`),
      )
    }
    return {
      inspected,
      lost,
      stand: {
        containers: Object.fromEntries(list.map((c) => [c.Names[0]?.slice(1), c.Id])),
        networks: Object.fromEntries(networks.filter((n) => NETWORKS.includes(n.Name)).map((n) => [n.Name, n.Id])),
        volumes: Object.fromEntries(volumes.map((v) => [v.Name, v.Name])),
        tags: Object.fromEntries(
          images.flatMap((i) => (i.RepoTags ?? []).filter((t) => t !== BASE).map((t) => [t, i.Id])),
        ),
      },
    }
  }

  async #tidyAndLook(before: readonly string[]): Promise<void> {
    await this.#tidy()
    let left: string[] = []
    await until('as before', 30, async () => {
      left = [...difference(before, traces(this.h)), ...[...this.#streams].map((s) => `open: ${s}`)]
      return left.length === 0
    }).catch(() => {
      for (const x of left.slice(0, 10)) this.#fault(x)
    })
    this.#streams.clear()
    const status = readFileSync(`/proc/${this.l.daemonPid(this.h)}/status`, 'utf8')
    this.#memoryMb.push(Math.round(Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1]) / 1024))
    this.options.log(
      `${this.#round} rounds, ${this.#calls} calls, ${this.#faults.length} faults, ${this.#memoryMb.at(-1)} MB`,
    )
  }

  /** Everything goes but the image, whose two tags are there again. */
  async #tidy(): Promise<void> {
    const { socket } = this.h
    const gone = (path: string): Promise<unknown> =>
      call(socket, 'DELETE', path).catch((e: Error) => this.#fault(`cannot be removed: ${e.message}`))
    // Some remove themselves just now.
    await until('no container is left', 60, async () => {
      const all = await this.#get<{ Id: string }[]>('/containers/json?all=1')
      for (const c of all) await call(socket, 'DELETE', `/containers/${c.Id}?force=1&v=1`).catch(() => {})
      return all.length === 0
    })
    const { stand } = await this.#observe()
    for (const n of Object.values(stand.networks)) await gone(`/networks/${n}`)
    for (const v of Object.keys(stand.volumes)) await gone(`/volumes/${v}`)
    if (stand.tags[TAG]) await gone(`/images/${TAG}`)
    await call(socket, 'POST', `/images/prune?filters=${encodeURIComponent('{"dangling":["true"]}')}`)
    await call(socket, 'POST', `/images/${BASE}/tag?repo=${encodeURIComponent(this.#web.slice(0, -2))}&tag=1`)
    this.#told.made.clear()
    const { stand: now, inspected } = await this.#observe()
    this.#told.settle(now, inspected)
    for (const [kind, names] of Object.entries(now))
      if (Object.keys(names).length !== (kind === 'tags' ? 1 : 0))
        this.#fault(`${kind} are left: ${JSON.stringify(names)}`)
  }
}

/** The faults of a run, with those that only its end shows. */
export const faultsOf = (t: RaceTally): readonly string[] =>
  isFlat(t.memoryMb) ? t.faults : [...t.faults, `memory grows: ${t.memoryMb.join(' ')} MB`]
