import { tmpdir } from 'node:os'
import test, { type ExecutionContext } from 'ava'
import { LogLine, LogRequest, NetworkUpdate, type SessionInfo, TaskState } from '#proto'
import type { TlsIdentity } from '../../../src/common/grpc/index.js'
import { type Clock, forbidden, nullLogger, seededRng, systemClock, unavailable } from '../../../src/common/index.js'
import { type Agent, createAgent } from '../../../src/worker/index.js'
import { testAuthority } from '../certificates.js'
import { FakeExecutor, FakeHost } from '../fake-executor.js'
import { task, temporaryDir, until } from '../support.js'
import { ScriptedDispatcher } from './scripted-dispatcher.js'

const authority = testAuthority()
const S = TaskState

async function dispatcher(t: ExecutionContext): Promise<ScriptedDispatcher> {
  const d = await new ScriptedDispatcher().listen(await (await authority)('m', 'manager'))
  t.teardown(() => d.close())
  return d
}

async function agent(
  t: ExecutionContext,
  options: {
    managers: () => readonly string[]
    dir?: string
    executor?: FakeExecutor
    identity?: TlsIdentity
    clock?: Clock
  },
): Promise<{ agent: Agent; executor: FakeExecutor; dir: string; infos: SessionInfo[]; removed: () => number }> {
  const dir = options.dir ?? (await temporaryDir(t))
  const executor = options.executor ?? new FakeExecutor(new FakeHost())
  const identity = options.identity ?? (await (await authority)('node', 'worker'))
  const infos: SessionInfo[] = []
  let removed = 0
  const a = createAgent(
    { dir, scratchDir: tmpdir(), nodeId: 'node' },
    {
      clock: options.clock ?? systemClock,
      rng: seededRng(1),
      logger: nullLogger,
      executor,
      identity: () => identity,
      managers: options.managers,
      onSession: (info) => void infos.push(info),
      onRemoved: () => void removed++,
    },
  )
  await a.start()
  t.teardown(() => a.stop())
  return { agent: a, executor, dir, infos, removed: () => removed }
}

test('an agent registers as its certificate says, beats, and runs what it is assigned', async (t) => {
  const d = await dispatcher(t)
  const { agent: a, executor, infos } = await agent(t, { managers: () => [d.address] })
  await until('registered', () => a.connected)
  t.is(d.session.nodeId, 'node')
  t.is(d.session.messages[0]!.register!.description!.hostname, 'fake')
  t.is(infos[0]!.sessionId, 's1')
  d.assign(true, [{ task: task('t1') }])
  await until('running', () => d.reached('t1', S.TASK_RUNNING))
  t.is(executor.host.containers.get('t1')!.state, 'running')
  d.assign(false, [{ task: task('t1', { desired: S.TASK_SHUTDOWN }) }])
  await until('shut down', () => d.reached('t1', S.TASK_SHUTDOWN))
  d.assign(false, [], { removedTasks: ['t1'] })
  await until('removed', () => !executor.host.containers.has('t1'))
  await until('a beat', () => d.session.messages.some((m) => m.beat !== null))
})

test('statuses that no manager acknowledged are sent again in the next session', async (t) => {
  const d = await dispatcher(t)
  d.acknowledges = false
  const { agent: a } = await agent(t, { managers: () => [d.address] })
  await until('registered', () => a.connected)
  d.assign(true, [{ task: task('t1') }])
  await until('something was sent', () => d.statuses('t1').length > 0)
  d.acknowledges = true
  d.session.call.end()
  await until('a second session', () => d.sessions.length === 2)
  await until('running is known', () =>
    d.session.messages.some((m) => m.statuses?.updates[0]?.status?.state === S.TASK_RUNNING),
  )
  t.true(d.session.messages[0]!.register !== null, 'register is first')
  t.is(d.session.messages[0]!.register!.sessionId, 's1')
})

test('a gap in the assignments makes a new session, which gets the whole set', async (t) => {
  const d = await dispatcher(t)
  const { agent: a, executor } = await agent(t, { managers: () => [d.address] })
  await until('registered', () => a.connected)
  d.assign(true, [{ task: task('t1') }])
  await until('running', () => d.reached('t1', S.TASK_RUNNING))
  d.assign(false, [{ task: task('t2') }], { appliesTo: 77 })
  await until('a second session', () => d.sessions.length === 2)
  d.assign(true, [{ task: task('t1') }, { task: task('t3') }])
  await until('running', () => d.reached('t3', S.TASK_RUNNING))
  t.false(executor.calls.includes('prepare t2'))
  t.is(executor.host.containers.get('t1')!.starts, 1)
})

test('a network update is applied before tasks assigned after it start', async (t) => {
  const d = await dispatcher(t)
  const { agent: a, executor } = await agent(t, { managers: () => [d.address] })
  await until('registered', () => a.connected)
  let open = (): void => {}
  executor.networkGate = new Promise((resolve) => {
    open = resolve
  })
  d.send({ members: { members: [], dataPathPort: 4789 } })
  d.send({ network: NetworkUpdate.create({ networkId: 'net', full: true, toVersion: 5 }) })
  d.assign(true, [{ task: task('t1') }])
  await until('members', () => executor.calls.includes('members'))
  t.false(executor.calls.includes('prepare t1'))
  open()
  await until('running', () => d.reached('t1', S.TASK_RUNNING))
  t.true(executor.calls.indexOf('network net@5') < executor.calls.indexOf('prepare t1'))
  d.send({ network: NetworkUpdate.create({ networkId: 'net', fromVersion: 9, toVersion: 10 }) })
  await until('the gap ends the session', () => d.sessions.length === 2)
  t.false(executor.calls.includes('network net@10'))
})

test('with its manager gone an agent goes to one that it was told of, and tasks run on', async (t) => {
  const first = await dispatcher(t)
  const second = await dispatcher(t)
  first.managers = [first.address, second.address]
  const { agent: a, executor } = await agent(t, { managers: () => [first.address] })
  await until('registered', () => a.connected)
  first.assign(true, [{ task: task('t1') }])
  await until('running', () => first.reached('t1', S.TASK_RUNNING))
  await first.close()
  await until('the other manager', () => second.sessions.length > 0 && a.connected)
  t.is(executor.host.containers.get('t1')!.state, 'running')
})

test('with no manager at all a restarted agent goes on with its tasks', async (t) => {
  const d = await dispatcher(t)
  const host = new FakeHost()
  const one = await agent(t, { managers: () => [d.address], executor: new FakeExecutor(host) })
  await until('registered', () => one.agent.connected)
  d.assign(true, [{ task: task('t1') }])
  await until('running', () => d.reached('t1', S.TASK_RUNNING))
  await one.agent.stop()
  const executor = new FakeExecutor(host)
  await agent(t, { managers: () => [], executor, dir: one.dir })
  await until('adopted', () => executor.calls.includes('wait t1'))
  t.is(host.containers.get('t1')!.starts, 1)
})

test('a node that was removed from the cluster is told once and tries no more', async (t) => {
  const d = await dispatcher(t)
  d.refuse = forbidden('nodeRemoved', 'node node was removed from the cluster')
  const { removed } = await agent(t, { managers: () => [d.address] })
  await until('told', () => removed() === 1)
  t.is(removed(), 1)
})

test('a manager that refuses for now is asked again', async (t) => {
  const d = await dispatcher(t)
  d.refuse = unavailable('busy', 'too many registrations')
  const { agent: a, removed } = await agent(t, { managers: () => [d.address] })
  setImmediate(() => {
    d.refuse = null
  })
  await until('registered', () => a.connected)
  t.is(removed(), 0)
})

test('a session that is ended for a new certificate is followed by the next without a longer wait each time', async (t) => {
  const d = await dispatcher(t)
  const waits: number[] = []
  const clock: Clock = {
    ...systemClock,
    sleep(ms, signal) {
      waits.push(ms)
      return systemClock.sleep(ms, signal)
    },
  }
  const { agent: a } = await agent(t, { managers: () => [d.address], clock })
  for (let i = 1; i <= 4; i++) {
    await until('registered', () => d.sessions.length === i && a.connected)
    a.reconnect()
  }
  await until('one more', () => d.sessions.length === 5)
  t.is(waits.length, 4)
  t.true(Math.max(...waits) <= 100, String(waits))
})

test('a leaving node stops and removes its tasks', async (t) => {
  const d = await dispatcher(t)
  const { agent: a, executor } = await agent(t, { managers: () => [d.address] })
  await until('registered', () => a.connected)
  d.assign(true, [{ task: task('t1') }, { task: task('t2') }])
  await until('running', () => d.reached('t1', S.TASK_RUNNING) && d.reached('t2', S.TASK_RUNNING))
  await a.leave()
  t.is(executor.host.containers.size, 0)
})

test('logs come in chunks in order and end; a closed follow stops reading', async (t) => {
  const d = await dispatcher(t)
  const { agent: a, executor } = await agent(t, { managers: () => [d.address] })
  await until('registered', () => a.connected)
  d.assign(true, [{ task: task('t1') }])
  await until('running', () => d.reached('t1', S.TASK_RUNNING))
  let ended = false
  executor.logs = async function* (request, signal) {
    try {
      for (let i = 0; i < 1000; i++) yield LogLine.create({ taskId: 't1', stream: 1, data: Buffer.from(`line ${i}\n`) })
      if (request.follow)
        await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
    } finally {
      ended = true
    }
  }
  const chunks = (subscription: number) =>
    d.session.messages.flatMap((m) => (m.log?.subscription === subscription ? [m.log] : []))
  d.send({ log: LogRequest.create({ subscription: 1, taskIds: ['t1'], stdout: true, tail: -1 }) })
  await until('the end', () => chunks(1).some((c) => c.end))
  const lines = chunks(1).flatMap((c) => c.lines.map((l) => Buffer.from(l.data).toString()))
  t.deepEqual(
    lines,
    Array.from({ length: 1000 }, (_, i) => `line ${i}\n`),
  )
  t.true(chunks(1).length < 50, `${chunks(1).length} messages`)

  ended = false
  d.send({ log: LogRequest.create({ subscription: 2, taskIds: ['t1'], follow: true, stdout: true, tail: -1 }) })
  await until('all lines', () => chunks(2).reduce((n, c) => n + c.lines.length, 0) === 1000)
  t.false(ended)
  d.send({ log: LogRequest.create({ subscription: 2, close: true }) })
  await until('reading stopped', () => ended)
})
