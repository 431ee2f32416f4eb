import { goDuration, newHexId, ShoalError, type Timer } from '../common/index.js'
import type { LiveContainer } from '../runtime/index.js'
import type { Container } from './container.js'
import { containerEvent } from './container-events.js'
import type { EngineContext } from './context.js'
import { execProcess } from './exec-process.js'
import {
  afterProbe,
  type HealthPlan,
  type HealthState,
  healthPlan,
  INITIAL_HEALTH,
  nextProbeMs,
  type ProbeResult,
} from './health-state.js'
import type { ContainerState } from './types.js'

/** Output of a probe that is kept, bytes. */
const MAX_OUTPUT_BYTES = 4096

/** Null when the container has no health check. */
export function startHealth(ctx: EngineContext, container: Container, live: LiveContainer): HealthMonitor | null {
  const { config } = container.record
  const plan = healthPlan(config.Healthcheck, config.Shell ?? null)
  return plan && new HealthMonitor(ctx, container, live, plan)
}

/** Runs a container's probes one after another, each an exec, until it is stopped. */
export class HealthMonitor {
  #state: HealthState = INITIAL_HEALTH
  #timer: Timer | null = null
  #isStopped = false
  #isPaused = false

  constructor(
    private readonly ctx: EngineContext,
    private readonly container: Container,
    private readonly live: LiveContainer,
    private readonly plan: HealthPlan,
  ) {
    this.#schedule()
  }

  view(): ContainerState['health'] {
    return this.#state
  }

  stop(): void {
    this.#isStopped = true
    this.#timer?.cancel()
    if (this.#state.status === 'starting' || this.#state.status === 'healthy')
      this.#state = { ...this.#state, status: 'unhealthy' }
  }

  /** A frozen container cannot answer; its probes wait. */
  setPaused(paused: boolean): void {
    this.#isPaused = paused
  }

  #sinceStartMs(): number {
    return this.ctx.clock.now() - this.live.startedAtMs
  }

  #schedule(): void {
    if (this.#isStopped) return
    this.#timer = this.ctx.clock.after(nextProbeMs(this.#state, this.plan, this.#sinceStartMs()), () => {
      if (this.#isPaused) this.#schedule()
      else void this.#probe().finally(() => this.#schedule())
    })
  }

  async #probe(): Promise<void> {
    const startMs = this.ctx.clock.now()
    let outcome: { readonly exitCode: number; readonly output: string }
    try {
      outcome = await this.#run()
    } catch (caught) {
      outcome = { exitCode: -1, output: ShoalError.from(caught).message }
    }
    if (this.#isStopped) return
    const result: ProbeResult = { startMs, endMs: this.ctx.clock.now(), ...outcome }
    const before = this.#state.status
    this.#state = afterProbe(this.#state, result, this.plan, this.#sinceStartMs())
    if (this.#state.status !== before) containerEvent(this.ctx, this.container, `health_status: ${this.#state.status}`)
  }

  async #run(): Promise<{ readonly exitCode: number; readonly output: string }> {
    const { ctx, container, live, plan } = this
    const execId = newHexId()
    const command = plan.command.join(' ')
    containerEvent(ctx, container, `exec_create: ${command}`, { execID: execId })
    const handle = await live.exec({
      id: execId,
      tty: false,
      stdin: false,
      process: await execProcess(ctx, container, {
        cmd: plan.command,
        env: [],
        user: '',
        workingDir: '',
        tty: false,
        privileged: false,
      }),
    })
    const streams = await handle.attach({ stdin: false, stdout: true, stderr: true })
    await handle.start()
    containerEvent(ctx, container, `exec_start: ${command}`, { execID: execId })
    const kept: Uint8Array[] = []
    let bytes = 0
    const reading = (async () => {
      for await (const { data } of streams.output) {
        if (bytes < MAX_OUTPUT_BYTES) kept.push(data)
        bytes += data.length
      }
    })()
    let isLate = false
    const timer = ctx.clock.after(plan.timeoutMs, () => {
      isLate = true
      handle.signal(9).catch(() => {}) // it has just ended by itself
    })
    const exitCode = await handle.exited
    timer.cancel()
    await reading
    containerEvent(ctx, container, 'exec_die', { execID: execId, exitCode: String(exitCode) })
    if (isLate) return { exitCode: -1, output: `Health check exceeded timeout (${goDuration(plan.timeoutMs * 1e6)})` }
    const output = Buffer.concat(kept).subarray(0, MAX_OUTPUT_BYTES).toString('utf8')
    return { exitCode, output: bytes > MAX_OUTPUT_BYTES ? `${output}...` : output }
  }
}
