import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { ClusterSpec } from '#proto'
import { nullLogger, seededRng, systemClock, unavailable } from '../../src/common/index.js'
import { ClusterNode, type ClusterNodeModules } from '../../src/daemon/cluster-node.js'
import type { Manager } from '../../src/manager/index.js'

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
  void node.init({
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
  await isStarting
  t.like(node.state(), { nodeId: 'n1', controlAvailable: false, localNodeState: 'pending', remoteManagers: [] })
})
