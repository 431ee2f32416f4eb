import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { type AttachNetworkRequest, AttachNetworkResponse, Network, NetworkAttachment } from '#proto'
import { forbidden, nullLogger, systemClock, unavailable } from '../../src/common/index.js'
import { AttachedNetworks } from '../../src/daemon/attached-networks.js'
import type { JoinRequest, NetworkService } from '../../src/overlay/index.js'

// The clock's timers keep no process alive.
const alive = setInterval(() => {}, 1000)
test.after.always(() => clearInterval(alive))

function host(t: ExecutionContext, dir = mkdtempSync(join(tmpdir(), 'shoal-attached-'))) {
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  const state = {
    attached: [] as AttachNetworkRequest[],
    detached: [] as string[],
    joined: [] as JoinRequest[],
    refusal: null as Error | null,
    joinError: null as Error | null,
    silentCalls: 0,
    stopping: new AbortController(),
    /** Set: an attach is heard and never answered. */
    onSilentAttach: null as (() => void) | null,
    onDetach: (_id: string): void => {},
  }
  const inner = {
    start: async () => {},
    stop: async () => {},
    findNetwork: (id: string) => ({ id, name: id, scope: id.startsWith('swarm') ? 'swarm' : 'local' }),
    ensureSwarmNetwork: async () => {},
    join: async (_s: string, _n: string, request: JoinRequest) => {
      if (state.joinError) throw state.joinError
      state.joined.push(request)
    },
    leave: async () => {},
    deleteSandbox: async () => {},
  } as unknown as NetworkService
  const networks = AttachedNetworks.wrap(dir, inner, {
    clock: systemClock,
    logger: nullLogger,
    stopping: state.stopping.signal,
    container: (id) => ({ name: `name-${id}`, isTask: id.startsWith('task') }),
    managers: () => ({
      nodeId: 'n1',
      client: {
        network: async () => null,
        attach: async (request) => {
          if (state.refusal) throw state.refusal
          if (state.onSilentAttach) {
            state.onSilentAttach()
            return new Promise<never>(() => {})
          }
          state.attached.push(request)
          return AttachNetworkResponse.create({
            taskId: `attachment${state.attached.length}`,
            attachment: NetworkAttachment.create({
              network: Network.create({ id: 'swarm1' }),
              addresses: ['10.0.1.7/24'],
            }),
          })
        },
        detach: async (id) => {
          if (state.silentCalls-- > 0) throw unavailable('noLeader', 'nobody answers')
          state.detached.push(id)
          state.onDetach(id)
        },
      },
    }),
  })
  const detached = (id: string): Promise<void> =>
    state.detached.includes(id)
      ? Promise.resolve()
      : new Promise((resolve) => {
          state.onDetach = (x) => x === id && resolve()
        })
  return { dir, state, networks, detached }
}

test('only a single container on a network of the cluster is attached, and gets the address that the managers gave', async (t) => {
  const { networks, state, detached } = host(t)
  await networks.join('c1', 'local1', {})
  await networks.join('task1', 'swarm1', { ipv4Address: '10.0.1.3' })
  t.is(state.attached.length, 0)
  await networks.join('c1', 'swarm1', { aliases: ['other'] })
  t.like(state.attached[0], { network: 'swarm1', containerId: 'c1', nodeId: 'n1', aliases: ['name-c1', 'other'] })
  t.like(state.joined.at(-1), { ipv4Address: '10.0.1.7' })
  state.silentCalls = 1
  await networks.deleteSandbox('c1')
  t.deepEqual(state.detached, [], 'the container does not wait for managers')
  await detached('attachment1')
  await networks.stop()
})

test('a join that fails gives its address back; a refusal is in docker words', async (t) => {
  const { networks, state, detached } = host(t)
  state.joinError = new Error('no such link')
  await t.throwsAsync(networks.join('c1', 'swarm1', {}), { message: 'no such link' })
  await detached('attachment1')
  state.refusal = forbidden('notAttachable', 'network swarm1 not manually attachable')
  await t.throwsAsync(networks.join('c1', 'swarm1', {}), {
    message:
      'Could not attach to network swarm1: rpc error: code = PermissionDenied desc = network swarm1 not manually attachable',
  })
  await networks.stop()
})

test('after a crash the attachments of living containers are kept, and all others given back', async (t) => {
  const first = host(t)
  await first.networks.join('c1', 'swarm1', {})
  await first.networks.join('c2', 'swarm1', {})
  t.true(existsSync(join(first.dir, 'attachments.json')))
  const second = host(t, first.dir)
  await second.networks.start(new Set(['c1']))
  await second.detached('attachment2')
  t.deepEqual(second.state.detached, ['attachment2'])
  await second.networks.stop()
  t.deepEqual((JSON.parse(readFileSync(join(first.dir, 'attachments.json'), 'utf8')) as { held: object }).held, {
    'c1 swarm1': 'attachment1',
  })
})

test('a daemon that stops does not wait for a manager that says nothing', async (t) => {
  t.timeout(10_000)
  const { networks, state } = host(t)
  const asked = new Promise<void>((resolve) => {
    state.onSilentAttach = resolve
  })
  const joining = networks.join('c1', 'swarm1', {})
  await asked
  state.stopping.abort(unavailable('stopping', 'this daemon is stopping'))
  t.like(await t.throwsAsync(joining), { code: 'stopping' })
  t.like(await t.throwsAsync(networks.join('c1', 'swarm1', {})), { code: 'stopping' })
  t.deepEqual(state.joined, [])
})
