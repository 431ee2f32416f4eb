import { nullLogger, type Rng, seededRng } from '../../src/common/index.js'
import type { RaftId } from '../../src/raft/core/index.js'
import type { RaftNodeOptions } from '../../src/raft/index.js'
import { Member } from '../../src/raft/node.js'
import { SimulatedDisk } from './disk.js'
import { Registers, setRegister } from './machine.js'
import { SimulatedNetwork } from './network.js'
import { ELECTION_MS, ELECTION_TICKS, TICK_MS } from './plan.js'
import { LocalClock, type Owner, VirtualTime } from './virtual-time.js'

/** One member, its disk and its dice, which a test may load. */
export class Place implements Owner {
  life = 0
  pausedUntil = 0
  readonly clock = new LocalClock()
  readonly disk: SimulatedDisk
  member!: Member
  /** What the member draws: its election timeouts and waits. */
  dice: () => number
  /** Of the last start. */
  failure: unknown = null
  removed = false

  constructor(
    readonly name: string,
    private readonly world: { readonly time: VirtualTime; readonly network: SimulatedNetwork; readonly rng: Rng },
  ) {
    this.disk = new SimulatedDisk(world.time, this, world.rng)
    this.dice = () => world.rng.random()
  }

  get id(): RaftId {
    return this.member.raftId
  }

  get role(): string | null {
    return this.member.inspect()?.core.status().softState.role ?? null
  }

  start(bootstrap: RaftNodeOptions['bootstrap']): void {
    const { time, network, rng } = this.world
    this.member = new Member(
      {
        ...{ tickMs: TICK_MS, heartbeatTick: 1, electionTick: ELECTION_TICKS, snapshotInterval: 1000 },
        ...{ entriesForSlowFollowers: 500, dir: '/raft', nodeId: this.name, advertiseAddress: `${this.name}:1` },
        ...{ bootstrap, kek: null },
      },
      {
        clock: time.clockOf(this),
        rng: { ...rng, random: () => this.dice() },
        logger: nullLogger,
        stateMachine: new Registers(() => {}),
        transport: network.transport(this),
      },
      {
        disk: this.disk.mount(),
        defer: (fn) => void time.schedule(this, 0, fn),
        randomBytes: (n) => Uint8Array.from({ length: n }, () => Math.floor(rng.random() * 256)),
      },
    )
    this.removed = false
    this.member.onRemoved(() => {
      this.removed = true
    })
    this.member.start().catch((e: unknown) => {
      this.failure = e
    })
  }

  /** The process ends between two events. */
  kill(): void {
    this.life++
    this.disk.crash(false)
  }
}

/** Members on virtual time, without faults but those that a test brings about. */
export class Cluster {
  readonly time = new VirtualTime()
  readonly network: SimulatedNetwork
  readonly places: Place[] = []
  readonly rng: Rng

  private constructor(seed: number) {
    this.rng = seededRng(seed)
    this.network = new SimulatedNetwork(this.time, this.rng)
  }

  /** `count` voters, of which the first leads. */
  static async of(count: number, seed: number): Promise<Cluster> {
    const c = new Cluster(seed)
    const first = c.#place()
    first.start({ kind: 'create' })
    await c.until('the founder leads', () => first.member.leading)
    for (let i = 1; i < count; i++) {
      const next = c.#place()
      let answer: RaftNodeOptions['bootstrap'] = null
      void first.member.addMember(next.name, `${next.name}:1`, next.name).then(({ raftId }) => {
        answer = { kind: 'join', raftId, ...first.member.membership() }
      })
      await c.until(`${next.name} is taken in`, () => answer !== null)
      next.start(answer)
      await c.until(`${next.name} votes`, () => c.places.every((p) => voters(p) === i + 1))
    }
    // The commit index of the last change reaches the disks of idle members.
    await c.pass(5 * TICK_MS)
    return c
  }

  #place(): Place {
    const p = new Place(`m${this.places.length + 1}`, this)
    this.places.push(p)
    return p
  }

  async until(what: string, done: () => boolean, deadlineMs = 60 * ELECTION_MS): Promise<void> {
    const end = this.time.now + deadlineMs
    while (!done()) {
      if ((await this.time.step(end)) === undefined)
        throw new Error(`waited ${deadlineMs} virtual ms in vain until ${what}`)
      for (const p of this.places) if (p.failure) throw p.failure
    }
  }

  async pass(ms: number): Promise<void> {
    const end = this.time.now + ms
    while ((await this.time.step(end)) !== undefined) {}
  }

  /** Virtual ms until one of `among` leads and has taken a write. */
  async untilWritten(among: readonly Place[]): Promise<number> {
    const begun = this.time.now
    let written = false
    for (let n = 0; !written; n++) {
      await this.until('one leads', () => among.some((p) => p.member.leading))
      let ended = false
      const leader = among.find((p) => p.member.leading)!
      void leader.member.propose([setRegister('k', `v${begun}-${n}`)]).then((o) => {
        written = o.result === 'applied'
        ended = true
      })
      await this.until('the write ends', () => ended)
    }
    return this.time.now - begun
  }
}

const voters = (p: Place): number => {
  const { members } = p.member.status()
  return members.filter((m) => !m.learner).length
}
