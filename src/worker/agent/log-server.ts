import { AgentMessage, LogChunk, type LogLine, type LogRequest } from '#proto'
import { ShoalError } from '../../common/index.js'
import type { TaskController } from '../contract.js'
import { LOG_BYTES_MAX, LOG_LINES_MAX, LOG_SUBSCRIPTIONS_MAX } from '../options.js'
import type { AgentStream } from './stream.js'

/**
 * Answers a session's log requests. Lines are pulled from the controllers no faster than the stream takes them: beside one
 * chunk a task nothing is queued, however fast a container writes.
 */
export class LogServer {
  readonly #subscriptions = new Map<number, AbortController>()

  constructor(
    private readonly stream: AgentStream,
    private readonly controller: (taskId: string) => TaskController | null,
  ) {}

  handle(request: LogRequest): void {
    if (request.close) {
      this.#subscriptions.get(request.subscription)?.abort()
      this.#subscriptions.delete(request.subscription)
      return
    }
    if (this.#subscriptions.has(request.subscription)) return
    if (this.#subscriptions.size >= LOG_SUBSCRIPTIONS_MAX) {
      this.#end(request.subscription, `this node serves ${LOG_SUBSCRIPTIONS_MAX} log requests already; end one first`)
      return
    }
    const abort = new AbortController()
    this.#subscriptions.set(request.subscription, abort)
    void this.#serve(request, abort.signal)
  }

  close(): void {
    for (const abort of this.#subscriptions.values()) abort.abort()
    this.#subscriptions.clear()
  }

  async #serve(request: LogRequest, signal: AbortSignal): Promise<void> {
    const results = await Promise.allSettled(request.taskIds.map((id) => this.#serveTask(id, request, signal)))
    if (signal.aborted) return
    this.#subscriptions.delete(request.subscription)
    const errors = results.flatMap((r) => (r.status === 'rejected' ? [ShoalError.from(r.reason).message] : []))
    this.#end(request.subscription, errors.join('; '))
  }

  async #serveTask(taskId: string, request: LogRequest, signal: AbortSignal): Promise<void> {
    const controller = this.controller(taskId)
    if (controller === null) return
    let lines: LogLine[] = []
    let bytes = 0
    const flush = async (): Promise<void> => {
      if (lines.length === 0 || signal.aborted) return
      this.stream.send(AgentMessage.create({ log: LogChunk.create({ subscription: request.subscription, lines }) }))
      lines = []
      bytes = 0
      await this.stream.writable()
    }
    const source = controller.logs(request, signal)[Symbol.asyncIterator]()
    try {
      for (;;) {
        const next = source.next()
        // Lines that are there already share a chunk; before a wait for more, what was read goes out.
        const isWaiting =
          (await Promise.race([next.then(() => false), nextTurn().then(() => true)])) && lines.length > 0
        if (isWaiting) await flush()
        const { done, value } = await next
        if (done || signal.aborted) break
        lines.push(value)
        bytes += value.data.length
        if (lines.length >= LOG_LINES_MAX || bytes >= LOG_BYTES_MAX) await flush()
      }
      await flush()
    } finally {
      await source.return?.()
    }
  }

  #end(subscription: number, error: string): void {
    this.stream.send(AgentMessage.create({ log: LogChunk.create({ subscription, end: true, error }) }))
  }
}

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
