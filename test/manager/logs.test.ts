import test from 'ava'
import { LogChunk, LogLine, LogRequest, ServiceLogsRequest } from '#proto'
import { createService, type FakeAgent, ManagerLab, serviceSpec, until } from './lab.js'

const line = (taskId: string, text: string): LogLine =>
  LogLine.create({ taskId, stream: 1, data: Buffer.from(`${text}\n`) })

/** Answers each subscription with two lines of each task asked for. */
function speak(agent: FakeAgent, follow = false): void {
  agent.onLog = (request) => {
    if (request.close) return
    const lines = request.taskIds.flatMap((id) => [line(id, 'one'), line(id, 'two')])
    agent.send({ log: LogChunk.create({ subscription: request.subscription, lines, end: !follow }) })
  }
}

test('logs come from every node with a task, through whichever manager holds its session; a dead node is a warning', async (t) => {
  t.timeout(90_000)
  const lab = await ManagerLab.create(3)
  try {
    const agents = [
      await lab.worker(lab.managers[0]),
      await lab.worker(lab.managers[1]),
      await lab.worker(lab.managers[2]),
    ]
    const service = await createService(lab.managers[1]!, serviceSpec('web', 3))
    await until('each runs one', () => agents.every((a) => a.running().length === 1))
    for (const a of agents) speak(a)
    const options = LogRequest.create({ stdout: true, stderr: true, tail: -1 })
    const request = ServiceLogsRequest.create({ serviceIds: [service.id], options })
    for (const m of lab.managers) {
      const lines: string[] = []
      for await (const part of m.manager.control.logs(request, new AbortController().signal)) {
        t.is(part.warning, '')
        for (const l of part.lines) lines.push(`${l.taskId} ${Buffer.from(l.data).toString().trim()}`)
      }
      t.deepEqual(
        lines.sort(),
        agents.flatMap((a) => [...a.tasks.keys()].flatMap((id) => [`${id} one`, `${id} two`])).sort(),
      )
    }
    agents[0]!.close()
    const asked = await until('the dead node is noticed', async () => {
      let lines = 0
      const warnings: string[] = []
      const end = new AbortController()
      for await (const part of lab.managers[1]!.manager.control.logs(request, end.signal)) {
        lines += part.lines.length
        if (part.warning) warnings.push(part.warning)
      }
      return warnings.length === 1 ? { lines, warnings } : null
    })
    t.is(asked.lines, 4)
    t.regex(asked.warnings[0]!, /^logs of node host-/)
  } finally {
    await lab.close()
  }
})

test('a followed service brings lines of tasks that come later, and closes its subscriptions at the end', async (t) => {
  t.timeout(60_000)
  const lab = await ManagerLab.create(1)
  try {
    const m = lab.managers[0]!
    const agent = await lab.worker()
    const asked: string[][] = []
    const closed: number[] = []
    agent.onLog = (request) => {
      if (request.close) closed.push(request.subscription)
      else {
        asked.push(request.taskIds)
        const lines = request.taskIds.map((id) => line(id, 'hello'))
        agent.send({ log: LogChunk.create({ subscription: request.subscription, lines }) })
      }
    }
    const service = await createService(m, serviceSpec('web', 1))
    await until('it runs', () => agent.running().length === 1)
    const first = agent.running()[0]!
    const end = new AbortController()
    const heard = new Set<string>()
    const options = LogRequest.create({ stdout: true, follow: true, tail: 10 })
    const reading = (async () => {
      for await (const p of m.manager.control.logs(
        ServiceLogsRequest.create({ serviceIds: [service.id], options }),
        end.signal,
      ))
        for (const l of p.lines) heard.add(l.taskId)
    })()
    await until('the first is heard', () => heard.has(first.id))
    agent.report([{ taskId: first.id, state: 704 }])
    const second = await until('its replacement runs', () => agent.running().find((x) => x.id !== first.id))
    await until('the second is heard', () => heard.has(second.id))
    end.abort()
    await reading
    await until('both subscriptions are closed', () => closed.length === 2)
    t.is(asked.length, 2)
  } finally {
    await lab.close()
  }
})
