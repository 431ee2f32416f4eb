import type { LogLine, LogRequest, NetworkUpdate, NodeDescription, Task } from '#proto'
import { NodeDescription as Description, LogLine as LogLineType } from '#proto'
import { ShoalError } from '../../src/common/index.js'
import type { Dependencies, Executor, TaskController } from '../../src/worker/index.js'

interface Container {
  state: 'created' | 'running' | 'exited'
  exitCode: number
  starts: number
  waiters: (() => void)[]
}

/** The containers of one host: they outlive an executor, as real ones outlive a daemon. */
export class FakeHost {
  readonly containers = new Map<string, Container>()

  exit(taskId: string, exitCode: number): void {
    const c = this.containers.get(taskId)!
    c.state = 'exited'
    c.exitCode = exitCode
    for (const w of c.waiters.splice(0)) w()
  }
}

/** What a test makes go wrong or slow, by image. */
export interface Script {
  readonly prepare?: (signal: AbortSignal) => Promise<void>
  readonly start?: (signal: AbortSignal, runs: () => Promise<void>) => Promise<void>
  readonly wait?: (signal: AbortSignal) => Promise<void>
}

export class FakeExecutor implements Executor {
  /** Calls in order: "prepare t1", "network n1@5", ... */
  readonly calls: string[] = []
  readonly scripts = new Map<string, Script>()
  readonly seenSecrets = new Map<string, string>()
  hostname = 'fake'
  networkGate: Promise<void> = Promise.resolve()
  logs: (request: LogRequest, signal: AbortSignal) => AsyncIterable<LogLine> = async function* () {
    yield LogLineType.create({ data: Buffer.from('hello\n'), stream: 1 })
  }

  constructor(readonly host = new FakeHost()) {}

  async describe(): Promise<NodeDescription> {
    return Description.create({ hostname: this.hostname })
  }

  controller(task: Task, dependencies: Dependencies): TaskController {
    const { host, calls } = this
    const script = this.scripts.get(task.spec?.container?.image ?? '') ?? {}
    let calling = ''
    const exclusively = async <T>(name: string, fn: () => Promise<T>): Promise<T> => {
      if (calling !== '') throw new Error(`${name} called while ${calling} is under way`)
      calling = name
      calls.push(`${name} ${task.id}`)
      try {
        return await fn()
      } finally {
        calling = ''
      }
    }
    return {
      prepare: (signal) =>
        exclusively('prepare', async () => {
          await script.prepare?.(signal)
          for (const s of task.spec?.container?.secrets ?? []) {
            const secret = dependencies.secret(s.secretId)
            if (secret === null)
              throw new ShoalError('notFound', 'secret', `no secret ${s.secretId}`, { rejected: true })
            this.seenSecrets.set(task.id, Buffer.from(secret.spec?.data ?? []).toString())
          }
          if (!host.containers.has(task.id))
            host.containers.set(task.id, { state: 'created', exitCode: 0, starts: 0, waiters: [] })
        }),
      start: (signal, runs) =>
        exclusively('start', async () => {
          await script.start?.(signal, runs)
          const c = host.containers.get(task.id)!
          if (c.state !== 'created') return
          c.state = 'running'
          c.starts++
        }),
      wait: (signal) =>
        exclusively('wait', async () => {
          await script.wait?.(signal)
          const c = host.containers.get(task.id)!
          if (c.state !== 'exited')
            await new Promise<void>((resolve, reject) => {
              c.waiters.push(resolve)
              signal.addEventListener('abort', () => reject(signal.reason), { once: true })
            })
          return { exitCode: c.exitCode, message: '' }
        }),
      shutdown: () =>
        exclusively('shutdown', async () => {
          if (host.containers.get(task.id)?.state === 'running') host.exit(task.id, 143)
        }),
      remove: () =>
        exclusively('remove', async () => {
          host.containers.delete(task.id)
        }),
      update: () => exclusively('update', async () => {}),
      status: async () => {
        const c = host.containers.get(task.id)
        if (c === undefined) return { container: null, ports: [] }
        return {
          container: { containerId: `c-${task.id}`, pid: c.state === 'running' ? 42 : 0, exitCode: c.exitCode },
          ports: [],
        }
      },
      logs: (request, signal) => this.logs(request, signal),
    }
  }

  async knownTasks(): Promise<readonly string[]> {
    return [...this.host.containers.keys()]
  }

  async removeTask(taskId: string): Promise<void> {
    this.calls.push(`removeTask ${taskId}`)
    this.host.containers.delete(taskId)
  }

  async configureNode(): Promise<void> {
    this.calls.push('configureNode')
  }

  async applyMembers(): Promise<void> {
    this.calls.push('members')
  }

  async applyNetworkUpdate(update: NetworkUpdate): Promise<void> {
    await this.networkGate
    this.calls.push(`network ${update.networkId}@${update.toVersion}`)
  }

  async ensureNetwork(): Promise<void> {
    this.calls.push('ensureNetwork')
  }
}
