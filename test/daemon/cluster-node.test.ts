import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { ClusterSpec } from '#proto'
import { nullLogger, seededRng, systemClock, unavailable } from '../../src/common/index.js'
import { ClusterNode, type ClusterNodeModules } from '../../src/daemon/cluster-node.js'
import type { Manager } from '../../src/manager/index.js'

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
  const init = node.init({
    listenAddress: '127.0.0.1:2377',
    advertiseAddress: '127.0.0.1',
    dataPathAddress: '',
    dataPathPort: 4789,
    defaultAddressPool: [],
    subnetSize: 24,
    forceNewCluster: false,
    availability: 0,
    spec: ClusterSpec.create(),
  })
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
