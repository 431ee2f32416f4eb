import type { Api } from '../api.js'
import { type Cli, Exit } from '../command.js'
import type { TaskJson } from '../task-rows.js'
import type { ServiceJson } from './index.js'

const POLL_MS = 200
const VERIFY_MS = 5000

/**
 * Waits, as the stock command does, until all wanted tasks of the newest specification run and have run for five
 * seconds; a job until it is complete. A paused or rolled-back update ends with its message and status 1.
 */
export async function converged(api: Api, cli: Cli, id: string, quiet: boolean): Promise<void> {
  let shown = ''
  const say = (line: string): void => {
    if (!quiet && line !== shown) cli.out(`${line}\n`)
    shown = line
  }
  let stableSince: number | null = null
  for (;;) {
    const s = await api.get<ServiceJson>(`/services/${id}`)
    const state = s.UpdateStatus?.State
    if (state === 'paused' || state === 'rollback_paused')
      throw new Exit(1, `service ${state === 'paused' ? 'update' : 'rollback'} paused: ${s.UpdateStatus!.Message}`)
    const tasks = await api.get<TaskJson[]>('/tasks', { filters: { service: [id], '_up-to-date': ['true'] } })
    const { done, wanted, of } = progress(s, tasks)
    say(`overall progress: ${done} out of ${wanted} ${of}`)
    const updating = state === 'updating' || state === 'rollback_started'
    if (done >= wanted && !updating) {
      if (s.Spec.Mode.ReplicatedJob || s.Spec.Mode.GlobalJob) {
        say('verify: job complete')
        return
      }
      stableSince ??= performance.now()
      if (performance.now() - stableSince >= VERIFY_MS) {
        say(`verify: Service ${id} converged`)
        if (state === 'rollback_completed') throw new Exit(1, `service rolled back: ${s.UpdateStatus!.Message}`)
        return
      }
    } else stableSince = null
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
}

function progress(s: ServiceJson, tasks: readonly TaskJson[]): { done: number; wanted: number; of: string } {
  const m = s.Spec.Mode
  if (m.ReplicatedJob || m.GlobalJob) {
    const done = tasks.filter((t) => t.Status.State === 'complete').length
    return {
      done,
      wanted: m.ReplicatedJob
        ? m.ReplicatedJob.TotalCompletions
        : Math.max(new Set(tasks.map((t) => t.NodeID)).size, 1),
      of: 'complete',
    }
  }
  const wanted = tasks.filter((t) => t.DesiredState === 'running' || t.DesiredState === 'ready')
  const running = wanted.filter((t) => t.DesiredState === 'running' && t.Status.State === 'running').length
  return { done: running, wanted: m.Replicated ? m.Replicated.Replicas : Math.max(wanted.length, 1), of: 'tasks' }
}
