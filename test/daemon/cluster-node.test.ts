import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { ClusterSpec, Node, NodeState, NodeStatus, SessionInfo } from '#proto'
import type { SwarmInitRequest } from '../../src/api/index.js'
import { nullLogger, seededRng, systemClock, unavailable } from '../../src/common/index.js'
import { ClusterNode, type ClusterNodeModules } from '../../src/daemon/cluster-node.js'
import { NodeStateStore } from '../../src/daemon/node-state.js'
import { createRoot, newSigningRequest, signLeaf } from '../../src/manager/ca/certificates.js'
import { readIdentity } from '../../src/manager/ca/identity.js'
import type { Manager, NodeIdentity } from '../../src/manager/index.js'
import type { AgentModules } from '../../src/worker/index.js'

const REQUEST: SwarmInitRequest = {
  listenAddress: '127.0.0.1:2377',
  advertiseAddress: '127.0.0.1',
  dataPathAddress: '',
  dataPathPort: 4789,
  defaultAddressPool: [],
  subnetSize: 24,
  forceNewCluster: false,
  availability: 0,
  spec: ClusterSpec.create(),
}

const DAY_MS = 24 * 3_600_000

/** For node n1, from `nowMs` on for 90 days. */
async function issued(
  root: Awaited<ReturnType<typeof createRoot>>,
  nowMs: number,
  role: NodeIdentity['role'] = 'worker',
): Promise<NodeIdentity> {
  const { csr, key } = await newSigningRequest()
  const about = { nodeId: 'n1', clusterId: 'c1', role, nowMs, expiryMs: 90 * DAY_MS }
  return readIdentity({ key, cert: await signLeaf(root, csr, about), ca: root.cert })
}

const session = (state: NodeState): SessionInfo =>
  SessionInfo.create({ node: Node.create({ status: NodeStatus.create({ state }) }) })

/** A manager whose start waits for others until it is stopped. */
class WaitingManager {
  readonly isStarted = false
  stops = 0
  #giveUp = (_: Error): void => {}
  #begins = (): void => {}
  readonly begun = new Promise<void>((resolve) => {
    this.#begins = resolve
  })

  onRemoved(): void {}
  onFailed(): void {}
  status(): never {
    throw unavailable('starting', 'starting')
  }
  start(): Promise<void> {
    this.#begins()
    return new Promise((_, reject) => {
      this.#giveUp = reject
    })
  }
  async stop(): Promise<void> {
    this.stops++
    this.#giveUp(unavailable('stopping', 'this manager stops'))
  }
}

/** A node that makes a swarm and gets no further than its manager's start. */
async function waitingNode(t: ExecutionContext) {
  const dir = mkdtempSync(join(tmpdir(), 'shoal-cluster-node-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  const manager = new WaitingManager()
  const node = new ClusterNode({ dir, scratchDir: dir, defaultAdvertiseAddr: '', tickMs: 100 }, {
    clock: systemClock,
    rng: seededRng(1),
    logger: nullLogger,
    ca: { createRoot: async () => ({}), issueFirst: async () => ({ nodeId: 'n1', role: 'manager' }) },
    disconnect: async () => {},
    networks: { clusterLeft: async () => {} },
    createManager: () => manager as unknown as Manager,
  } as unknown as ClusterNodeModules)
  const init = node.init(REQUEST)
  // Looked at later, or never.
  init.catch(() => {})
  await manager.begun
  return { node, manager, init }
}

test('a node whose manager is starting controls nothing yet, and can be asked for its state', async (t) => {
  const { node } = await waitingNode(t)
  t.like(node.state(), { nodeId: 'n1', controlAvailable: false, localNodeState: 'pending', remoteManagers: [] })
})

test('a daemon that stops does not wait for a manager that waits for others', async (t) => {
  const { node, manager, init } = await waitingNode(t)
  await node.stop()
  t.is(manager.stops, 1)
  await t.throwsAsync(init, { message: 'this manager stops' })
})

test('a swarm is made when the cluster has its first node as ready, not when that is connected', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'shoal-cluster-node-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  let onSession: AgentModules['onSession'] = () => {}
  let starts = (): void => {}
  const hasAgent = new Promise<void>((resolve) => {
    starts = resolve
  })
  const root = await createRoot(systemClock.now())
  const identity = { ...(await issued(root, systemClock.now())), role: 'manager' }
  const node = new ClusterNode({ dir, scratchDir: dir, defaultAdvertiseAddr: '', tickMs: 100 }, {
    clock: systemClock,
    rng: seededRng(1),
    logger: nullLogger,
    ca: { createRoot: async () => ({}), issueFirst: async () => identity },
    networks: { clusterJoined: async () => {} },
    createManager: () => ({ onRemoved() {}, onFailed() {}, start: async () => {}, status: () => ({ members: [] }) }),
    createAgent(_: unknown, m: AgentModules) {
      onSession = m.onSession
      return { connected: true, start: async () => starts() }
    },
  } as unknown as ClusterNodeModules)
  let made = ''
  const init = node.init(REQUEST).then((id) => {
    made = id
  })
  await hasAgent
  const says = (state: NodeState): void => onSession(session(state))
  says(NodeState.NODE_UNKNOWN)
  await systemClock.sleep(30)
  t.is(made, '')
  says(NodeState.NODE_READY)
  await init
  t.is(made, 'n1')
})

test('a node whose certificate ran out says so, and comes back under its old id with a token', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'shoal-cluster-node-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  const root = await createRoot(systemClock.now())
  const later = systemClock.now() + 100 * DAY_MS
  const place = { listenAddress: '0.0.0.0:2377', advertiseAddress: '127.0.0.1:2377', dataPathAddress: '127.0.0.1' }
  const state = { ...place, remoteManagers: [{ nodeId: 'm1', address: '10.0.0.1:2377' }], autolock: false }
  await new NodeStateStore(dir).save(state, await issued(root, systemClock.now()))

  const asked: unknown[] = []
  const node = new ClusterNode({ dir, scratchDir: dir, defaultAdvertiseAddr: '', tickMs: 100 }, {
    clock: { ...systemClock, now: () => later },
    rng: seededRng(1),
    logger: nullLogger,
    networks: { clusterJoined: async () => {} },
    createAgent: (_: unknown, { onSession }: AgentModules) => {
      const start = async (): Promise<void> => onSession(session(NodeState.NODE_READY))
      return { connected: true, start, stop: async () => {}, reconnect: () => {} }
    },
    ca: {
      join: async (how: { nodeId: string }) => {
        asked.push(how.nodeId)
        return issued(root, later)
      },
    },
  } as unknown as ClusterNodeModules)
  t.teardown(() => node.stop())
  await node.start()
  t.is(node.state().localNodeState, 'error')
  t.regex(node.state().error, /^the certificate of this node ran out on 20.*docker swarm join --token/)

  await node.join({
    ...{ listenAddress: '0.0.0.0:2377', advertiseAddress: '', dataPathAddress: '' },
    ...{ remoteAddresses: ['10.0.0.2'], token: 'SWMTKN-1', availability: 0 },
  })
  t.deepEqual(asked, ['n1'])
  t.like(node.state(), { nodeId: 'n1', localNodeState: 'active', error: '' })
  const kept = await new NodeStateStore(dir).load()
  t.true(kept!.identity.expiresAtMs > later)
  t.is(kept!.state.remoteManagers[0]!.address, '10.0.0.2:2377')
})

test('a key that is to be sealed lies sealed on the disk, whoever writes it, until it is not to be', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'shoal-node-state-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  const { csr, key } = await newSigningRequest()
  const root = await createRoot(systemClock.now())
  const about = { nodeId: 'n1', clusterId: 'c1', nowMs: systemClock.now(), expiryMs: DAY_MS }
  const cert = await signLeaf(root, csr, { ...about, role: 'manager' })
  const identity = readIdentity({ key, cert, ca: root.cert })
  const place = { listenAddress: '', advertiseAddress: '', dataPathAddress: '', remoteManagers: [], autolock: true }
  const isSealed = async (): Promise<boolean> =>
    (await new NodeStateStore(dir).load())!.identity.key.startsWith('-----BEGIN ENCRYPTED')
  const secret = new Uint8Array(32).fill(7)

  const store = new NodeStateStore(dir)
  await store.sealWith(secret)
  await store.save(place, identity)
  t.true(await isSealed())
  await store.sealWith(null)
  t.false(await isSealed())
  await store.sealWith(secret)
  t.true(await isSealed())

  const later = new NodeStateStore(dir)
  later.opened(key, secret)
  await later.saveIdentity(identity)
  t.true(await isSealed(), 'a renewal does not break the seal')
  await later.sealWith(null)
  t.is((await new NodeStateStore(dir).load())!.identity.key, key)
})

test('the only manager, off until its certificate ran out, certifies itself anew', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'shoal-cluster-node-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  const root = await createRoot(systemClock.now())
  const later = systemClock.now() + 100 * DAY_MS
  const place = { listenAddress: '0.0.0.0:2377', advertiseAddress: '127.0.0.1:2377', dataPathAddress: '127.0.0.1' }
  await new NodeStateStore(dir).save(
    { ...place, remoteManagers: [], autolock: false },
    await issued(root, systemClock.now(), 'manager'),
  )
  let tell = (_: NodeIdentity): void => {}
  const told = new Promise<NodeIdentity>((resolve) => {
    tell = resolve
  })
  const manager = {
    ...{ onRemoved() {}, onFailed() {}, start: async () => {}, stop: async () => {}, status: () => ({ members: [] }) },
    renewAlone: () => issued(root, later, 'manager'),
    setIdentity: (identity: NodeIdentity) => tell(identity),
  }
  const node = new ClusterNode({ dir, scratchDir: dir, defaultAdvertiseAddr: '', tickMs: 100 }, {
    clock: { ...systemClock, now: () => later },
    rng: seededRng(1),
    logger: nullLogger,
    networks: { clusterJoined: async () => {} },
    createManager: () => manager,
    createAgent: () => ({ connected: true, start: async () => {}, stop: async () => {}, reconnect: () => {} }),
  } as unknown as ClusterNodeModules)
  t.teardown(() => node.stop())
  await node.start()
  t.true((await told).expiresAtMs > later)
  t.is(node.state().error, '')
  t.true((await new NodeStateStore(dir).load())!.identity.expiresAtMs > later)
})
