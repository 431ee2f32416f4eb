import { readdir, readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Assignment, Assignments, Secret, SecretSpec, type Task, TaskState, type TaskStatus } from '#proto'
import { nullLogger, ShoalError, systemClock } from '../../../src/common/index.js'
import { nextStep, TaskSet } from '../../../src/worker/tasks/index.js'
import { FakeExecutor, FakeHost } from '../fake-executor.js'
import { task, temporaryDir, until } from '../support.js'

interface Setup {
  readonly set: TaskSet
  readonly executor: FakeExecutor
  readonly states: (id: string) => readonly TaskState[]
  readonly last: (id: string) => TaskStatus | undefined
  readonly dir: string
}

async function setup(
  t: ExecutionContext,
  options: { dir?: string; host?: FakeHost; executor?: FakeExecutor } = {},
): Promise<Setup> {
  const dir = options.dir ?? (await temporaryDir(t))
  const executor = options.executor ?? new FakeExecutor(options.host ?? new FakeHost())
  const reports: [string, TaskStatus][] = []
  const set = new TaskSet(
    { dir, scratchDir: tmpdir() },
    {
      clock: systemClock,
      logger: nullLogger,
      executor,
      onStatus: (id, status) => void reports.push([id, status]),
    },
  )
  await set.start()
  t.teardown(() => set.stop())
  return {
    set,
    executor,
    dir,
    states: (id) => reports.filter(([x]) => x === id).map(([, s]) => s.state),
    last: (id) => reports.findLast(([x]) => x === id)?.[1],
  }
}

const full = (...tasks: Task[]): Assignments =>
  Assignments.create({ full: true, resultsIn: 1, upserts: tasks.map((x) => Assignment.create({ task: x })) })

const S = TaskState

test('an assigned task goes through every state to running, and to complete when its container ends with 0', async (t) => {
  const { set, executor, states, last } = await setup(t)
  await set.apply(full(task('t1')))
  await until('running', () => states('t1').includes(S.TASK_RUNNING))
  t.is(last('t1')!.container!.pid, 42)
  await until('waited for', () => executor.calls.includes('wait t1'))
  executor.host.exit('t1', 0)
  await until('complete', () => states('t1').includes(S.TASK_COMPLETE))
  t.deepEqual(states('t1'), [
    S.TASK_ACCEPTED,
    S.TASK_PREPARING,
    S.TASK_READY,
    // That it was starting for a moment is not told.
    S.TASK_RUNNING,
    S.TASK_COMPLETE,
  ])
})

test("a container that ends with another code makes the task failed, with docker's words", async (t) => {
  const { set, executor, states, last } = await setup(t)
  await set.apply(full(task('t1')))
  await until('waited for', () => executor.calls.includes('wait t1'))
  executor.host.exit('t1', 3)
  await until('failed', () => states('t1').includes(S.TASK_FAILED))
  t.is(last('t1')!.err, 'task: non-zero exit (3)')
  t.is(last('t1')!.container!.exitCode, 3)
})

test('a task that cannot be prepared is rejected, one that cannot be started has failed', async (t) => {
  const { set, executor, states, last } = await setup(t)
  executor.scripts.set('none', {
    prepare: async () => {
      throw new ShoalError('notFound', 'noSuchImage', 'No such image: none', { rejected: true })
    },
  })
  executor.scripts.set('broken', {
    start: async () => {
      throw new Error('cannot start')
    },
  })
  executor.scripts.set('unreached', {
    prepare: async () => {
      throw new ShoalError('unavailable', 'registry', 'the registry does not answer')
    },
  })
  await set.apply(
    full(task('t1', { image: 'none' }), task('t2', { image: 'broken' }), task('t3', { image: 'unreached' })),
  )
  await until('rejected', () => states('t3').includes(S.TASK_REJECTED))
  await until('both ended', () => states('t1').includes(S.TASK_REJECTED) && states('t2').includes(S.TASK_FAILED))
  t.is(last('t1')!.err, 'No such image: none')
  t.is(last('t2')!.err, 'cannot start')
})

test('an unhealthy container is stopped before its task is reported as failed', async (t) => {
  const { set, executor, states, last } = await setup(t)
  executor.scripts.set('sick', {
    wait: async () => {
      throw new ShoalError('internal', 'unhealthy', 'unhealthy container')
    },
  })
  await set.apply(full(task('t1', { image: 'sick' })))
  await until('failed', () => states('t1').includes(S.TASK_FAILED))
  t.is(executor.host.containers.get('t1')!.state, 'exited')
  t.deepEqual(last('t1')!.container, { containerId: 'c-t1', pid: 0, exitCode: 143 })
})

test('a start that goes on is told, with its container once that runs', async (t) => {
  const { set, executor, states, last } = await setup(t)
  const forever = (signal: AbortSignal): Promise<void> =>
    new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }))
  executor.scripts.set('sick', {
    start: async (signal, runs) => {
      await runs()
      await forever(signal)
    },
  })
  executor.scripts.set('slow', { start: forever })
  await set.apply(full(task('t1', { image: 'sick' }), task('t2', { image: 'slow' })))
  await until('both are starting', () => ['t1', 't2'].every((id) => states(id).includes(S.TASK_STARTING)))
  t.is(last('t1')!.container?.containerId, 'c-t1')
  t.is(last('t2')!.container, null)
})

test('a task wanted ready is prepared and started only when wanted running', async (t) => {
  const { set, executor, states } = await setup(t)
  await set.apply(full(task('t1', { desired: S.TASK_READY })))
  await until('ready', () => states('t1').includes(S.TASK_READY))
  t.false(executor.calls.includes('start t1'))
  await set.apply(full(task('t1')))
  await until('running', () => states('t1').includes(S.TASK_RUNNING))
  t.is(executor.calls.filter((c) => c === 'prepare t1').length, 1)
})

test('a task told to stop while it is prepared is interrupted and shut down', async (t) => {
  const { set, executor, states } = await setup(t)
  executor.scripts.set('slow', {
    prepare: (signal) =>
      new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true })),
  })
  await set.apply(full(task('t1', { image: 'slow' })))
  await until('preparing', () => executor.calls.includes('prepare t1'))
  await set.apply(full(task('t1', { image: 'slow', desired: S.TASK_SHUTDOWN })))
  await until('shut down', () => states('t1').includes(S.TASK_SHUTDOWN))
  t.false(states('t1').includes(S.TASK_READY))
})

test('a task that is assigned no more is stopped and removed, its record too', async (t) => {
  const host = new FakeHost()
  const { set, executor, states, dir } = await setup(t, { host })
  await set.apply(full(task('t1'), task('t2')))
  await until('both run', () => states('t1').includes(S.TASK_RUNNING) && states('t2').includes(S.TASK_RUNNING))
  await set.apply(full(task('t2')))
  await until('removed', () => !host.containers.has('t1'))
  t.true(executor.calls.indexOf('shutdown t1') < executor.calls.indexOf('remove t1'))
  await set.stop()
  const next = await setup(t, { dir, host })
  t.deepEqual(next.states('t1'), [])
  t.true(host.containers.has('t2'))
})

test('after a restart of the daemon a running task is adopted and never started again', async (t) => {
  const host = new FakeHost()
  const first = await setup(t, { host })
  await first.set.apply(full(task('t1')))
  await until('waited for', () => first.executor.calls.includes('wait t1'))
  await first.set.stop()
  t.is(host.containers.get('t1')!.state, 'running', 'stopping the daemon leaves containers alone')

  const second = await setup(t, { dir: first.dir, host })
  await until('waited for again', () => second.executor.calls.includes('wait t1'))
  t.deepEqual(second.states('t1'), [S.TASK_RUNNING])
  t.is(host.containers.get('t1')!.starts, 1)
  host.exit('t1', 0)
  await until('complete', () => second.states('t1').includes(S.TASK_COMPLETE))
})

test('a task whose container ended while the daemon was down is reported with its exit code', async (t) => {
  const host = new FakeHost()
  const first = await setup(t, { host })
  await first.set.apply(full(task('t1')))
  await until('waited for', () => first.executor.calls.includes('wait t1'))
  await first.set.stop()
  host.exit('t1', 7)
  const second = await setup(t, { dir: first.dir, host })
  await until('failed', () => second.states('t1').includes(S.TASK_FAILED))
  t.is(second.last('t1')!.container!.exitCode, 7)
})

test('a task whose container vanished while the daemon was down has failed', async (t) => {
  const host = new FakeHost()
  const first = await setup(t, { host })
  await first.set.apply(full(task('t1')))
  await until('waited for', () => first.executor.calls.includes('wait t1'))
  await first.set.stop()
  host.containers.clear()
  const second = await setup(t, { dir: first.dir, host })
  await until('failed', () => second.states('t1').includes(S.TASK_FAILED))
  t.is(host.containers.size, 0)
})

test('containers of tasks that no record knows are removed at the start', async (t) => {
  const host = new FakeHost()
  host.containers.set('stray', { state: 'running', exitCode: 0, starts: 1, waiters: [] })
  await setup(t, { host })
  await until('removed', () => host.containers.size === 0)
  t.pass()
})

test('a task waits for its secret only until a manager gave the whole set', async (t) => {
  const host = new FakeHost()
  const executor = new FakeExecutor(host)
  const { set, states, last } = await setup(t, { executor })
  await set.apply(Assignments.create({ upserts: [Assignment.create({ task: task('t1', { secrets: ['s1'] }) })] }))
  await until('accepted', () => states('t1').includes(S.TASK_ACCEPTED))
  t.false(executor.calls.includes('prepare t1'))
  const secret = Secret.create({ id: 's1', spec: SecretSpec.create({ data: Buffer.from('sesame') }) })
  await set.apply(Assignments.create({ upserts: [Assignment.create({ secret })] }))
  await until('running', () => states('t1').includes(S.TASK_RUNNING))
  t.is(executor.seenSecrets.get('t1'), 'sesame')
  await set.apply(full(task('t2', { secrets: ['gone'] })))
  await until('rejected', () => states('t2').includes(S.TASK_REJECTED))
  t.is(last('t2')!.err, 'no secret gone')
})

test("neither a secret nor the registry's credentials get on disk", async (t) => {
  const { set, states, dir } = await setup(t)
  const secret = Secret.create({ id: 's1', spec: SecretSpec.create({ data: Buffer.from('open-sesame') }) })
  await set.apply(
    Assignments.create({
      full: true,
      upserts: [Assignment.create({ secret }), Assignment.create({ task: task('t1', { secrets: ['s1'] }) })],
    }),
  )
  await until('running', () => states('t1').includes(S.TASK_RUNNING))
  await set.stop()
  const files = await readdir(dir)
  const all = Buffer.concat(await Promise.all(files.map((f) => readFile(join(dir, f)))))
  t.true(all.includes('nginx'), 'the record itself is there')
  t.false(all.includes('open-sesame'))
  t.false(all.includes('hunter2'))
})

test('from any pair of wanted and observed state the next step never leads back', (t) => {
  const all = Object.values(S)
  for (const desired of all)
    for (const observed of all)
      for (const isAdopted of [true, false])
        for (const hasDependencies of [true, false]) {
          const step = nextStep({ desired, observed, isAdopted, hasDependencies })
          if (observed > S.TASK_RUNNING) t.is(step, 'hold')
          else if (desired >= S.TASK_SHUTDOWN) t.is(step, 'stop')
          if (step === 'start') t.true(observed >= S.TASK_READY && desired >= S.TASK_RUNNING)
          if (step === 'prepare') t.true(observed < S.TASK_READY && hasDependencies)
        }
})
