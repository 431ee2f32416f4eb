import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Raft, type RaftJoinResponse, type StoreAction } from '#proto'
import {
  callUnary,
  dialGrpc,
  type GrpcServer,
  listenGrpc,
  serviceDefinition,
  type TlsIdentity,
} from '../../../src/common/grpc/index.js'
import { createLogger, isKind, nullLogger, systemClock, systemRng } from '../../../src/common/index.js'
import type { RaftTransportFactory } from '../../../src/raft/index.js'
import {
  createRaftHub,
  createRaftNode,
  type ProposalOutcome,
  type RaftHub,
  type RaftNode,
  type RaftNodeOptions,
  raftHandlers,
} from '../../../src/raft/index.js'
import { TestCa } from './certificates.js'
import { put, Register } from './register.js'

const logger = process.env.RAFT_TEST_LOG ? createLogger('debug') : nullLogger

/** Settings that make elections quick on loopback. */
export const QUICK = {
  tickMs: 20,
  heartbeatTick: 1,
  electionTick: 10,
  snapshotInterval: 10_000,
  entriesForSlowFollowers: 500,
}

/** One manager: its gRPC server outlives the raft member in it, as the daemon's does. */
export class TestManager {
  node!: RaftNode
  machine!: Register
  hub!: RaftHub
  #server!: GrpcServer
  address = ''
  /** Nothing comes in or goes out, as with a pulled cable; the process lives on. */
  cut = false

  constructor(
    readonly lab: Lab,
    readonly nodeId: string,
    public identity: TlsIdentity,
    readonly dir: string,
  ) {}

  async listen(port = 0): Promise<void> {
    this.hub = createRaftHub({ identity: () => this.identity, clock: systemClock, rng: systemRng, logger })
    this.#server = await listenGrpc({
      host: '127.0.0.1',
      port,
      identity: this.identity,
      register: (s) => s.addService(serviceDefinition(Raft), raftHandlers(this.hub)),
    })
    this.address = `127.0.0.1:${this.#server.port}`
  }

  async start(bootstrap: RaftNodeOptions['bootstrap'], settings: Partial<RaftNodeOptions> = {}): Promise<void> {
    this.machine = new Register()
    this.node = createRaftNode(
      {
        ...QUICK,
        kek: null,
        ...settings,
        dir: this.dir,
        nodeId: this.nodeId,
        advertiseAddress: this.address,
        bootstrap,
      },
      {
        clock: systemClock,
        rng: systemRng,
        logger: logger.child({ node: this.nodeId }),
        stateMachine: this.machine,
        transport: this.#cable,
      },
    )
    await this.node.start()
    this.hub.attach(this.node)
  }

  readonly #cable: RaftTransportFactory = (self, inbox) => {
    const real = this.hub.transport(self, {
      ...inbox,
      receive: (messages) => {
        if (!this.cut) inbox.receive(messages)
      },
      receiveSnapshot: (m, described) =>
        this.cut ? Promise.reject(new Error('the cable is pulled')) : inbox.receiveSnapshot(m, described),
    })
    return {
      send: (messages) => {
        if (!this.cut) real.send(messages)
      },
      setMembers: (members, removed) => real.setMembers(members, removed),
      sendSnapshot: (m, snapshot, signal) =>
        this.cut ? Promise.reject(new Error('the cable is pulled')) : real.sendSnapshot(m, snapshot, signal),
      reachable: (id) => (!this.cut || id === self.raftId) && real.reachable(id),
      close: () => real.close(),
    }
  }

  /** As a node does that was promoted: asks the leader over gRPC, then starts with what it was told. */
  async joinAt(address: string, settings: Partial<RaftNodeOptions> = {}): Promise<void> {
    const { raftId, membership } = await this.askToJoin(address, randomUUID())
    await this.start({ kind: 'join', raftId, members: membership!.members, removed: membership!.removed }, settings)
  }

  /** A leader that loses its office meanwhile says so; on a busy machine that happens. */
  async askToJoin(address: string, incarnation: string): Promise<RaftJoinResponse> {
    const end = performance.now() + 20_000
    for (;;) {
      const leader = this.lab.managers.find((m) => m !== this && m.node?.status().leading)
      const client = dialGrpc({ address: leader?.address ?? address, identity: this.identity })
      try {
        return await callUnary(
          client,
          Raft.Join,
          { nodeId: this.nodeId, address: this.address, incarnation },
          { deadlineMs: 10_000 },
        )
      } catch (e) {
        if (!isKind(e, 'unavailable') || performance.now() > end) throw e
        await systemClock.sleep(20)
      } finally {
        client.close()
      }
    }
  }

  /** The host has another address when it is up again. Only while the member is stopped. */
  async move(): Promise<void> {
    await this.#server.close(0)
    await this.listen()
  }

  async stop(): Promise<void> {
    this.hub.attach(null)
    await this.node?.stop()
  }

  async close(): Promise<void> {
    await this.stop()
    await this.#server.close(0)
  }
}

/** Managers on loopback, each with a directory of its own under one temporary one. */
export class Lab {
  readonly managers: TestManager[] = []

  private constructor(
    readonly ca: TestCa,
    readonly dir: string,
  ) {}

  static async create(): Promise<Lab> {
    return new Lab(await TestCa.create('test-cluster'), await mkdtemp(join(tmpdir(), 'raft-node-')))
  }

  async manager(name = `node${this.managers.length + 1}`): Promise<TestManager> {
    const m = new TestManager(this, name, await this.ca.issue(name), join(this.dir, name))
    await m.listen()
    this.managers.push(m)
    return m
  }

  /** `count` managers of which all are voters. */
  async cluster(count: number, settings: Partial<RaftNodeOptions> = {}): Promise<TestManager[]> {
    const first = await this.manager()
    await first.start({ kind: 'create' }, settings)
    await leading(first)
    for (let i = 1; i < count; i++) {
      const next = await this.manager()
      await next.joinAt(first.address, settings)
      await until(`${next.nodeId} is a voter`, () => voters(first).includes(next.nodeId))
    }
    await until('all know all', () => this.managers.every((m) => voters(m).length === count))
    return this.managers.slice(0, count)
  }

  async leader(among: readonly TestManager[] = this.managers): Promise<TestManager> {
    await until('one leads', () => among.some((m) => m.node.status().leading))
    return among.find((m) => m.node.status().leading)!
  }

  async close(): Promise<void> {
    await Promise.all(this.managers.map((m) => m.close()))
    await rm(this.dir, { recursive: true, force: true })
  }
}

export const voters = (m: TestManager): string[] =>
  m.node
    .status()
    .members.filter((x) => !x.learner)
    .map((x) => x.nodeId)

export const leading = (m: TestManager): Promise<void> => until(`${m.nodeId} leads`, () => m.node.status().leading)

/** Waits for an event whose coming is asked for often; a deadline makes a hang a failure that says what was missing. */
export async function until(what: string, check: () => boolean, deadlineMs = 20_000): Promise<void> {
  const end = performance.now() + deadlineMs
  while (!check()) {
    if (performance.now() > end) throw new Error(`waited ${deadlineMs} ms in vain until ${what}`)
    await systemClock.sleep(5)
  }
}

/** Proposes at `m`, or at who leads now if it says that it does not: on a busy machine leaders change. Nothing happened then. */
export const write = (m: TestManager, name: string): Promise<ProposalOutcome> => writeAll(m, [put(name)])

export async function writeAll(m: TestManager, actions: readonly StoreAction[]): Promise<ProposalOutcome> {
  for (let at = m; ; at = await m.lab.leader()) {
    const outcome = await at.node.propose(actions, { deadlineMs: 10_000 })
    if (outcome.result !== 'refused' || outcome.reason !== 'notLeader') return outcome
  }
}

export const has = (m: TestManager, names: readonly string[]): boolean => names.every((n) => m.machine.at.has(n))
