import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { ClusterSpec, Node, NodeState, NodeStatus, SessionInfo } from '#proto'
import type { SwarmInitRequest } from '../../src/api/index.js'
import { nullLogger, seededRng, systemClock, unavailable } from '../../src/common/index.js'
import { ClusterNode, type ClusterNodeModules } from '../../src/daemon/cluster-node.js'
import type { Manager } from '../../src/manager/index.js'
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

test('a node whose manager is starting controls nothing yet, and can be asked for its state', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'shoal-cluster-node-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  let starts = (): void => {}
  const isStarting = new Promise<void>((resolve) => {
    starts = resolve
  })
  const manager = {
    onRemoved: () => {},
    onFailed: () => {},
    isStarted: false,
    status: () => {
      throw unavailable('starting', 'starting')
    },
    start: () => {
      starts()
      return new Promise<void>(() => {})
    },
  } as unknown as Manager
  const node = new ClusterNode({ dir, scratchDir: dir, defaultAdvertiseAddr: '', tickMs: 100 }, {
    clock: systemClock,
    rng: seededRng(1),
    logger: nullLogger,
    ca: { createRoot: async () => ({}), issueFirst: async () => ({ nodeId: 'n1', role: 'manager' }) },
    createManager: () => manager,
  } as unknown as ClusterNodeModules)
  void node.init(REQUEST)
  await isStarting
  t.like(node.state(), { nodeId: 'n1', controlAvailable: false, localNodeState: 'pending', remoteManagers: [] })
})

test('a swarm is made when the cluster has its first node as ready, not when that is connected', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'shoal-cluster-node-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  let onSession: AgentModules['onSession'] = () => {}
  let starts = (): void => {}
  const hasAgent = new Promise<void>((resolve) => {
    starts = resolve
  })
  const identity = { nodeId: 'n1', role: 'manager', cert: '', key: '', ca: '', expiresAtMs: Date.now() + 1e9 }
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
  const says = (state: NodeState): void =>
    onSession(SessionInfo.create({ node: Node.create({ status: NodeStatus.create({ state }) }) }))
  says(NodeState.NODE_UNKNOWN)
  await systemClock.sleep(30)
  t.is(made, '')
  says(NodeState.NODE_READY)
  await init
  t.is(made, 'n1')
})
