import type { RaftMember } from '#proto'
import { intBetween, nullLogger, type Rng, ShoalError, seededRng } from '../../src/common/index.js'
import type { Logger } from '../../src/common/log.js'
import type { Message, MessageType, RaftId } from '../../src/raft/core/index.js'
import type { RaftNodeOptions } from '../../src/raft/index.js'
import { Member } from '../../src/raft/node.js'
import { Checker, Histories, hold, Violation } from './checker.js'
import { SimulatedDisk } from './disk.js'
import { mix, Registers, setRegister } from './machine.js'
import { SimulatedNetwork } from './network.js'
import {
  ELECTION_MS,
  ELECTION_TICKS,
  FAULT_KINDS,
  type FaultKind,
  type SimulationOptions,
  type SimulationResult,
  TICK_MS,
} from './plan.js'
import { LocalClock, type Owner, VirtualTime } from './virtual-time.js'

/** One machine: its disk outlives the member processes on it. */
class Machine implements Owner {
  life = 0
  pausedUntil = 0
  readonly clock = new LocalClock()
  member: Member | null = null
  registers: Registers | null = null
  readonly disk: SimulatedDisk
  state: 'off' | 'starting' | 'up' = 'off'
  raftId: RaftId = 0
  /** Unlock keys that its disk may have, the likeliest first: several while changes run or after a crash in one. */
  keys: { readonly kek: Buffer | null }[] = [{ kek: null }]
  keysTried = 0
  flipped: string | null = null
  /** Disks so far: a wiped one is another. */
  disks = 1
  retired = false

  constructor(
    readonly name: string,
    world: { time: VirtualTime; rng: Rng },
  ) {
    this.disk = new SimulatedDisk(world.time, this, world.rng)
  }
}

export async function simulate(options: SimulationOptions): Promise<SimulationResult> {
  const world = new World(options)
  return world.run()
}

class World {
  readonly time = new VirtualTime()
  readonly rng: Rng
  readonly network: SimulatedNetwork
  readonly checker = new Checker()
  readonly histories = new Histories()
  readonly machines: Machine[] = []
  readonly enabled: ReadonlySet<FaultKind>
  readonly logger: Logger
  #hash = 0
  #error: unknown = null
  #operations = 0
  #unknown = 0
  #reads = 0
  #restores = 0
  #damage = 0
  #healing = false
  /** Raft ids whose removal was asked for: an answer that it failed does not mean that it never happens. */
  readonly #removing = new Set<RaftId>()
  readonly #members: number

  constructor(private readonly options: SimulationOptions) {
    this.rng = seededRng(options.seed)
    this.network = new SimulatedNetwork(this.time, this.rng)
    this.#members = options.members ?? (this.rng.random() < 0.6 ? 3 : 5)
    const drawn = FAULT_KINDS.filter(() => this.rng.random() < 0.5)
    this.enabled = new Set(options.faults ?? drawn)
    this.#plant()
    this.logger = options.trace ? this.#traceLogger('') : nullLogger
    this.network.onSend = (m) => {
      const machine = this.machines.find((x) => x.raftId === m.from && x.member !== null)
      this.#note(`${m.type} ${m.from} ${m.to} ${m.term} ${m.index} ${m.entries.length}`)
      if (machine) this.#guard(() => this.checker.sent(m, machine.member!))
    }
  }

  #plant(): void {
    const { plant } = this.options
    const sometimes = (m: Message, type: MessageType, change: Partial<Message>): Message =>
      m.type === type && this.rng.random() < 0.05 ? { ...m, ...change } : m
    const { network } = this
    if (plant === 'changedEntry')
      network.distort = (m) =>
        sometimes(m, 'MsgApp', {
          entries: m.entries.map((e) => (e.type === 'normal' ? { ...e, data: new Uint8Array(0) } : e)),
        })
    if (plant === 'grantedVote')
      network.distort = (m) =>
        m.type === 'MsgVoteResp' ? { ...m, reject: false } : m.type === 'MsgPreVoteResp' ? { ...m, reject: false } : m
    if (plant === 'acknowledgedAhead')
      network.distort = (m) => sometimes(m, 'MsgAppResp', { index: m.index + 1, reject: false })
    if (plant === 'committedAhead') network.distort = (m) => sometimes(m, 'MsgHeartbeat', { commit: m.commit + 1 })
    network.losePieces = plant === 'lostSnapshotPiece'
  }

  #traceLogger(name: string): Logger {
    const line = (text: string, fields?: object): void =>
      this.options.trace?.(`${this.time.now.toFixed(1)} ${name} ${text} ${fields ? JSON.stringify(fields) : ''}`)
    return {
      debug: line,
      info: line,
      warn: line,
      error: line,
      child: (f) => this.#traceLogger(`${name} ${Object.values(f).join(' ')}`),
    }
  }

  #note(text: string): void {
    this.#hash = mix(this.#hash, `${this.time.now} ${text}`)
    this.options.trace?.(`${this.time.now.toFixed(1)} ${text}`)
  }

  /** A violation inside a callback of the member must reach the run, not be taken for a failure of the member. */
  #guard(check: () => void): void {
    try {
      check()
    } catch (e) {
      this.#error ??= e
    }
  }

  // ------------------------------------------------------------ the run

  async run(): Promise<SimulationResult> {
    const rejected = (e: unknown): void => {
      this.#error ??= e
    }
    process.on('unhandledRejection', rejected)
    process.on('uncaughtException', rejected)
    try {
      await this.#found()
      this.#startClients()
      this.#startFaults()
      await this.#go(() => this.time.steps >= this.options.steps)
      await this.#healAndSettle()
      await this.#finish()
    } finally {
      process.off('unhandledRejection', rejected)
      process.off('uncaughtException', rejected)
    }
    return {
      seed: this.options.seed,
      members: this.#members,
      faults: [...this.enabled],
      steps: this.time.steps,
      virtualMs: Math.round(this.time.now),
      acknowledged: this.histories.acknowledged.size,
      unknown: this.#unknown,
      reads: this.#reads,
      terms: Math.max(0, ...this.machines.map((m) => m.member?.status().term ?? 0)),
      snapshotsInstalled: this.#restores,
      damageFound: this.#damage,
      hash: this.#hash,
    }
  }

  /** Steps until `done`, or until no time is left. */
  async #go(done: () => boolean, deadlineMs = Number.MAX_SAFE_INTEGER): Promise<boolean> {
    const until = deadlineMs === Number.MAX_SAFE_INTEGER ? deadlineMs : this.time.now + deadlineMs
    while (!done()) {
      const owner = await this.time.step(until)
      if (owner === undefined) return done()
      if (owner instanceof Machine && owner.member !== null && owner.state === 'up')
        this.#guard(() => this.checker.look(owner.member!, owner.life))
      if (this.#error !== null) throw this.#error
    }
    return true
  }

  async #found(): Promise<void> {
    const first = this.#machine()
    this.#start(first, { kind: 'create' })
    hold(
      await this.#go(() => first.member?.leading === true, 20 * ELECTION_MS),
      'liveness',
      () => 'the founder does not lead',
    )
    for (let i = 1; i < this.#members; i++) {
      const m = this.#machine()
      this.#join(m)
      hold(
        await this.#go(
          () => first.member?.status().members.filter((x) => !x.learner).length === i + 1,
          60 * ELECTION_MS,
        ),
        'liveness',
        () => `member ${i + 1} does not become a voter`,
      )
    }
  }

  #machine(): Machine {
    const m = new Machine(`m${this.machines.length + 1}`, this)
    m.disk.faults.lies = this.options.plant === 'lyingDisk'
    this.machines.push(m)
    return m
  }

  #settings(): Pick<
    RaftNodeOptions,
    'tickMs' | 'heartbeatTick' | 'electionTick' | 'snapshotInterval' | 'entriesForSlowFollowers'
  > {
    return {
      tickMs: TICK_MS,
      heartbeatTick: 1,
      electionTick: ELECTION_TICKS,
      snapshotInterval: 40,
      entriesForSlowFollowers: 10,
    }
  }

  // ------------------------------------------------------------ members

  #start(machine: Machine, bootstrap: RaftNodeOptions['bootstrap']): void {
    const life = machine.life
    machine.state = 'starting'
    const skewed = this.enabled.has('clockRate') && !this.#healing
    machine.clock.run(this.time.now, skewed ? 0.5 + this.rng.random() * 1.5 : 1)
    const registers = new Registers((index, chain, values) => {
      this.#note(`apply ${machine.raftId} ${index} ${chain}`)
      this.#guard(() => this.checker.applied(machine.raftId, index, chain, values))
    })
    if (this.options.plant === 'skippedEntry') {
      const apply = registers.apply.bind(registers)
      registers.apply = (index, proposals) => apply(index, this.rng.random() < 0.01 ? [] : proposals)
    }
    const restore = registers.restore.bind(registers)
    registers.restore = async (index, pieces) => {
      await restore(index, pieces)
      this.#restores++
      this.#guard(() => this.checker.restored(machine.raftId, index, registers.chain))
    }
    const member = new Member(
      {
        ...this.#settings(),
        dir: '/raft',
        nodeId: machine.name,
        advertiseAddress: `${machine.name}:1`,
        bootstrap,
        kek: machine.keys[0]!.kek,
      },
      {
        clock: this.time.clockOf(machine),
        rng: this.rng,
        logger: this.logger.child({ machine: machine.name }),
        stateMachine: registers,
        transport: this.network.transport(machine),
      },
      {
        disk: machine.disk.mount(),
        defer: (fn) => void this.time.schedule(machine, 0, fn),
        randomBytes: (n) => Uint8Array.from({ length: n }, () => Math.floor(this.rng.random() * 256)),
      },
    )
    machine.member = member
    machine.registers = registers
    member.start().then(
      () => {
        if (machine.life !== life) return
        machine.state = 'up'
        machine.raftId = member.raftId
        machine.keys = machine.keys.slice(0, 1)
        machine.keysTried = 0
        this.#note(`up ${machine.name} ${member.raftId}`)
        if (bootstrap === null) this.#guard(() => this.checker.restarted(member.raftId, member))
        // A process does not end in the middle of a call.
        member.onRemoved(() => {
          this.time.schedule(null, 0, () => {
            if (machine.life === life) this.#wipe(machine)
          })
        })
        member.onFailed((e) => {
          if (machine.life !== life) return
          this.#guard(() =>
            hold(/EIO/.test(e.message), 'only a failing disk stops a member', () => `${machine.name}: ${e.message}`),
          )
          this.#crash(machine, false)
        })
      },
      (e) => {
        if (machine.life === life) this.#notStarted(machine, bootstrap, e)
      },
    )
  }

  #notStarted(machine: Machine, bootstrap: RaftNodeOptions['bootstrap'], caught: unknown): void {
    const e = ShoalError.from(caught)
    this.#note(`not started ${machine.name} ${e.code}`)
    this.logger.info('not started', { machine: machine.name, error: e.message })
    machine.life++
    machine.member = null
    machine.state = 'off'
    if (e.code === 'damaged') {
      if (machine.flipped === null)
        this.#error ??= new Violation(`no damage was done to ${machine.name}, yet: ${e.message}`)
      this.#damage++
      this.#replace(machine)
    } else if (e.code === 'wrongUnlockKey') {
      if (++machine.keysTried === machine.keys.length) this.#error ??= e
      machine.keys.push(machine.keys.shift()!)
      this.time.schedule(null, 100, () => this.#restart(machine))
    } else if (e.code === 'logWriteFailed' || /EIO/.test(e.message))
      this.time.schedule(null, 500, () => (bootstrap === null ? this.#restart(machine) : this.#replace(machine)))
    else if (e.code === 'noRaftState') this.#replace(machine)
    else this.#error ??= e
  }

  #crash(machine: Machine, power: boolean): void {
    if (machine.state === 'off') return
    this.#note(`crash ${machine.name} ${power}`)
    machine.life++
    machine.state = 'off'
    machine.member = null
    machine.pausedUntil = 0
    machine.disk.crash(power)
    const again = this.rng.random() < 0.5 ? 50 : this.rng.random() * 5 * ELECTION_MS
    this.time.schedule(null, again, () => this.#restart(machine))
  }

  #restart(machine: Machine): void {
    if (machine.state !== 'off' || machine.retired) return
    this.#start(machine, null)
  }

  /** Damaged beyond use: it is removed, and comes back as someone new. */
  #replace(machine: Machine): void {
    const old = machine.raftId
    machine.disk.wipe()
    machine.disks++
    machine.keys = [{ kek: null }]
    machine.flipped = null
    machine.state = 'off'
    machine.member = null
    const remove = (): void => {
      const leader = this.#leader()
      const known = leader?.member?.membership()
      if (leader === undefined || known === undefined) return void this.time.schedule(null, ELECTION_MS, remove)
      // The leader removes the old id itself when the same node comes with an empty disk.
      if (this.rng.random() < 0.5 || !known.members.some((m) => m.raftId === old)) return void this.#join(machine)
      let answered = false
      const once = (next: () => void) => (): void => {
        if (!answered) next()
        answered = true
      }
      leader.member!.removeMember(old, { force: true }).then(
        once(() => this.#join(machine)),
        once(() => void this.time.schedule(null, ELECTION_MS, remove)),
      )
      // A leader that dies in between never answers.
      this.time.schedule(null, 30 * ELECTION_MS, once(remove))
    }
    remove()
  }

  #wipe(machine: Machine): void {
    if (machine.retired || machine.state !== 'up') return
    this.#note(`removed ${machine.name}`)
    machine.life++
    machine.state = 'off'
    machine.member = null
    machine.disk.wipe()
    machine.disks++
    machine.keys = [{ kek: null }]
    this.time.schedule(null, ELECTION_MS, () => this.#join(machine))
  }

  #join(machine: Machine): void {
    if (machine.state !== 'off') return
    const leader = this.#leader()
    const retry = (): void => void this.time.schedule(null, ELECTION_MS, () => this.#join(machine))
    if (leader === undefined) {
      retry()
      return
    }
    const member = leader.member!
    machine.state = 'starting'
    const life = machine.life
    member.addMember(machine.name, `${machine.name}:1`, `disk ${machine.disks}`).then(
      (m: RaftMember) => {
        if (machine.life !== life) return
        const { members, removed } = member.membership()
        machine.raftId = m.raftId
        this.#start(machine, { kind: 'join', raftId: m.raftId, members, removed })
      },
      () => {
        machine.state = 'off'
        retry()
      },
    )
    // A leader that dies in between never answers.
    this.time.schedule(null, 30 * ELECTION_MS, () => {
      if (machine.life === life && machine.state === 'starting' && machine.member === null) {
        machine.life++
        machine.state = 'off'
        retry()
      }
    })
  }

  #leader(): Machine | undefined {
    return this.machines.find((m) => m.state === 'up' && m.pausedUntil <= this.time.now && m.member!.leading)
  }

  // ------------------------------------------------------------ clients

  #startClients(): void {
    for (let c = 0; c < 4; c++) this.time.schedule(null, c * 7, () => this.#client(c))
  }

  #client(c: number): void {
    if (this.#healing) return
    const again = (): void => void this.time.schedule(null, 5 + this.rng.random() * 150, () => this.#client(c))
    const key = `k${intBetween(this.rng, 0, 4)}`
    const up = this.machines.filter((m) => m.state === 'up')
    if (up.length === 0) {
      again()
      return
    }
    // Mostly the leader; sometimes whoever believes it is one.
    const leaders = up.filter((m) => m.member!.leading)
    const target =
      leaders.length > 0
        ? leaders[intBetween(this.rng, 0, leaders.length - 1)]!
        : up[intBetween(this.rng, 0, up.length - 1)]!
    if (this.rng.random() < 0.65) this.#write(target, key, again)
    else this.#read(up[intBetween(this.rng, 0, up.length - 1)]!, key, again)
  }

  #write(target: Machine, key: string, done: () => void): void {
    const value = `v${this.#operations++}`
    const floor = this.histories.floor(key)
    const life = target.life
    let ended = 0
    const end = (): void => {
      this.#guard(() => hold(++ended === 1, 'one outcome', () => `${value} ended ${ended} times`))
    }
    target.member!.propose([setRegister(key, value)], { deadlineMs: 3 * ELECTION_MS }).then((outcome) => {
      if (target.life !== life) return
      end()
      this.#note(`write ${value} ${outcome.result}`)
      this.#guard(() => {
        if (outcome.result === 'applied') {
          const index = this.checker.indexOf(value)
          hold(
            index === outcome.index,
            'acknowledged = applied',
            () => `${value} acknowledged at ${outcome.index}, applied at ${index}`,
          )
          this.histories.written(key, value, outcome.index, floor)
          if (this.options.plant === 'forgottenWrite' && this.rng.random() < 0.2) target.registers!.values.delete(value)
        } else if (outcome.result === 'unknown') this.#unknown++
        else hold(this.checker.indexOf(value) === undefined, 'refused = nothing happened', () => value)
      })
    })
    // The client goes on whether the process that it asked lives or not.
    done()
  }

  #read(target: Machine, key: string, done: () => void): void {
    const floor = this.histories.floor(key)
    const life = target.life
    const { registers } = target
    const barrier = this.options.plant === 'readWithoutBarrier' ? Promise.resolve() : target.member!.readBarrier()
    barrier.then(
      () => {
        if (target.life !== life) return
        this.#reads++
        const version = registers!.cells.get(key)?.index ?? 0
        this.#note(`read ${key} ${version}`)
        this.#guard(() => this.histories.read(key, version, floor))
      },
      () => {
        // No leader, or stopped: an answer too.
      },
    )
    done()
  }

  // ------------------------------------------------------------ faults

  #startFaults(): void {
    const { faults } = this.network
    if (this.enabled.has('drop')) faults.dropRate = this.rng.random() * 0.3
    if (this.enabled.has('duplicate')) faults.duplicateRate = this.rng.random() * 0.1
    if (this.enabled.has('late')) {
      faults.lateRate = this.rng.random() * 0.1
      faults.lateMs = 5 * ELECTION_MS * this.rng.random()
    }
    this.time.schedule(null, ELECTION_MS, () => this.#fault())
  }

  #fault(): void {
    if (this.#healing) return
    this.time.schedule(null, this.rng.random() * 0.8 * ELECTION_MS, () => this.#fault())
    const kinds = [...this.enabled]
    if (kinds.length === 0) return
    const kind = kinds[intBetween(this.rng, 0, kinds.length - 1)]!
    const up = this.machines.filter((m) => m.state === 'up')
    if (up.length === 0) return
    const victim = this.rng.random() < 0.4 ? (this.#leader() ?? up[0]!) : up[intBetween(this.rng, 0, up.length - 1)]!
    this.#note(`fault ${kind} ${victim.name}`)
    this.logger.info('fault', { kind, victim: victim.name })
    this.#do(kind, victim, up)
  }

  #do(kind: FaultKind, victim: Machine, up: readonly Machine[]): void {
    const { rng } = this
    const ids = this.machines.map((m) => m.raftId).filter((id) => id !== 0)
    const later = (run: () => void): void => void this.time.schedule(null, rng.random() * 6 * ELECTION_MS, run)
    switch (kind) {
      case 'partition': {
        const side = new Set(rng.random() < 0.5 ? [victim.raftId] : ids.filter(() => rng.random() < 0.5))
        for (const a of ids) for (const b of ids) if (side.has(a) !== side.has(b)) this.network.cut(a, b)
        later(() => this.network.heal())
        break
      }
      case 'oneWay':
        for (const b of ids)
          if (rng.random() < 0.5)
            rng.random() < 0.5 ? this.network.cut(victim.raftId, b) : this.network.cut(b, victim.raftId)
        later(() => this.network.heal())
        break
      case 'bridge': {
        // Two halves that only the victim sees both of.
        const left = new Set(ids.filter((id) => id !== victim.raftId && rng.random() < 0.5))
        for (const a of ids)
          for (const b of ids)
            if (a !== victim.raftId && b !== victim.raftId && left.has(a) !== left.has(b)) this.network.cut(a, b)
        later(() => this.network.heal())
        break
      }
      case 'flapping': {
        const until = this.time.now + rng.random() * 6 * ELECTION_MS
        const others = ids.filter((id) => id !== victim.raftId && rng.random() < 0.7)
        const flap = (): void => {
          if (this.time.now > until || this.#healing) {
            this.network.heal()
            return
          }
          for (const b of others)
            if (this.network.isCut(victim.raftId, b)) this.network.join(victim.raftId, b)
            else this.network.cut(victim.raftId, b).cut(b, victim.raftId)
          this.time.schedule(null, rng.random() * 0.5 * ELECTION_MS, flap)
        }
        flap()
        break
      }
      case 'clockRate':
        victim.clock.run(this.time.now, 0.5 + rng.random() * 1.5)
        break
      case 'clockJump':
        victim.clock.jump((rng.random() * 14 - 4) * ELECTION_MS)
        break
      case 'crash':
      case 'power':
        this.#crash(victim, kind === 'power')
        break
      case 'pause':
        victim.pausedUntil = this.time.now + rng.random() * 10 * ELECTION_MS
        break
      case 'slowDisk':
        victim.disk.faults.slowMs = rng.random() * 20 * TICK_MS
        later(() => {
          victim.disk.faults.slowMs = 0
        })
        break
      case 'ioError':
        victim.disk.faults.errorRate = 0.3
        later(() => {
          victim.disk.faults.errorRate = 0
        })
        break
      case 'fullDisk':
        victim.disk.faults.full = true
        later(() => {
          victim.disk.faults.full = false
        })
        break
      case 'bitFlip':
        // One at a time: a cluster cannot survive the loss of a majority of its disks.
        if (this.machines.some((m) => m.flipped !== null || m.state !== 'up')) break
        // And not at all with two voters, of which each is needed, nor when a removal under way may leave two. Every member has to
        // know the third: one that does not yet cannot go on without the victim.
        if (
          this.machines.some(
            (machine) =>
              (machine.member?.status().members.filter((m) => !m.learner && !this.#removing.has(m.raftId)).length ??
                0) < 3,
          )
        )
          break
        this.#crash(victim, false)
        victim.flipped = victim.disk.flip()
        this.logger.info('bit flipped', { machine: victim.name, place: victim.flipped })
        break
      case 'join':
        if (this.machines.length < this.#members + 3) this.#join(this.#machine())
        break
      case 'remove': {
        const leader = this.#leader()
        if (leader && up.length > 2 && leader.member!.status().members.length > 2) {
          this.#removing.add(victim.raftId)
          leader.member!.removeMember(victim.raftId).catch(() => {})
        }
        break
      }
      case 'transfer':
        this.#leader()
          ?.member?.transferLeadership(rng.random() < 0.5 ? undefined : victim.raftId)
          .catch(() => {})
        break
      case 'rotateKey': {
        const next = rng.random() < 0.7 ? Buffer.alloc(32, intBetween(rng, 1, 255)) : null
        const life = victim.life
        const key = { kek: next }
        victim.keys.push(key)
        victim.member!.rotateKek(next).then(
          () => {
            if (victim.life === life) victim.keys = victim.keys.slice(victim.keys.indexOf(key))
          },
          () => {},
        )
        break
      }
      default:
        // drop, duplicate, late hold for the whole run.
        break
    }
  }

  // ------------------------------------------------------------ the end

  /** 12: with all faults healed there is a leader soon, and all logs become equal. */
  async #healAndSettle(): Promise<void> {
    this.#healing = true
    this.network.heal()
    Object.assign(this.network.faults, { dropRate: 0, duplicateRate: 0, lateRate: 0, lateMs: 0 })
    for (const m of this.machines) {
      m.pausedUntil = 0
      m.clock.run(this.time.now, 1)
      Object.assign(m.disk.faults, { slowMs: 0, errorRate: 0, full: false })
    }
    // Everything that was on its way (late messages, restarts, joins) gets its time first.
    await this.#go(
      nowAndThen(() => this.#quiet()),
      20 * ELECTION_MS,
    )
    hold(await this.#go(() => this.#leader() !== undefined, 10 * ELECTION_MS), 'liveness: a leader', () =>
      this.#describe(),
    )
    const settled = nowAndThen(() => this.#settled())
    hold(await this.#go(settled, 60 * ELECTION_MS), 'liveness: equal logs', () => this.#describe())
    let last: string | null = null
    // A late order to hand leadership over may still come in between, and a member looks only now and then whether its disk
    // has room again (FREE_CHECK_MS).
    for (let tries = 0; tries < 10 && last !== 'applied'; tries++) {
      if (tries > 0) await this.#go(() => false, ELECTION_MS)
      last = null
      hold(await this.#go(() => this.#leader() !== undefined, 10 * ELECTION_MS), 'liveness: a leader', () =>
        this.#describe(),
      )
      this.#leader()!
        .member!.propose([setRegister('k0', `the-last-${tries}`)])
        .then((o) => {
          last = o.result
        })
      hold(await this.#go(() => last !== null, 10 * ELECTION_MS), 'liveness: a write', () => this.#describe())
    }
    hold(last === 'applied', 'liveness: a write', () => `${last}; ${this.#describe()}`)
    hold(await this.#go(settled, 20 * ELECTION_MS), 'liveness: equal logs at the end', () => this.#describe())
  }

  /** All voters are up and have applied the same. */
  #settled(): boolean {
    const leader = this.#leader()
    if (leader === undefined) return false
    const { applied, members } = leader.member!.status()
    return this.machines.every(
      (m) =>
        !members.some((x) => x.raftId === m.raftId) ||
        (m.state === 'up' && m.member!.status().applied === applied && m.registers!.chain === leader.registers!.chain),
    )
  }

  /** Nobody is away or only half in. */
  #quiet(): boolean {
    if (!this.machines.every((m) => m.state === 'up') || !this.#settled()) return false
    const { members } = this.#leader()!.member!.status()
    return members.length === this.machines.length && members.every((m) => !m.learner)
  }

  #describe(): string {
    return JSON.stringify(this.machines.map((m) => [m.name, m.raftId, m.state, m.member?.status()]))
  }

  /** 9 and 10: everything acknowledged is there, and every promise ended. */
  async #finish(): Promise<void> {
    const leader = this.#leader()!
    for (const [value, index] of this.histories.acknowledged) {
      hold(this.checker.indexOf(value) === index, 'acknowledged writes are never lost', () => `${value} at ${index}`)
      hold(
        leader.registers!.values.has(value),
        'acknowledged writes are never lost',
        () => `${value} at ${index} is not at the leader`,
      )
    }
    for (const m of this.machines.filter((x) => x.state === 'up')) {
      const { openProposals } = m.member!.counters()
      hold(openProposals === 0, 'every promise ends', () => `${openProposals} proposals open at ${m.name}`)
    }
    for (const m of this.machines) {
      m.retired = true
      m.life++
    }
  }
}

/** For conditions that cost more than a step. */
function nowAndThen(condition: () => boolean): () => boolean {
  let n = 0
  return () => ++n % 16 === 0 && condition()
}
