import type { Clock, Rng } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import { Allocator } from '../allocator/index.js'
import { Scheduler } from '../scheduler/index.js'
import type { Store } from '../store/contract.js'
import { Orchestrator } from './orchestrator.js'

export { isDirty, newTask } from './new-task.js'
export { Orchestrator } from './orchestrator.js'
export { planService } from './plan.js'
export { newUpdateMemory } from './updater.js'

/**
 * Everything a leader does about services: planning tasks, lending addresses, choosing nodes. The three meet in the store
 * only. Start it when this manager has become leader and has applied all that was committed before; stop it when it leads
 * no more.
 */
export function startOrchestration(modules: {
  readonly store: Store
  readonly clock: Clock
  readonly rng: Rng
  readonly logger: Logger
}): { stop(): Promise<void> } {
  const part = (room: string) => ({ ...modules, logger: modules.logger.child({ room }) })
  const parts = [
    new Allocator(part('allocator')),
    new Scheduler(part('scheduler')),
    new Orchestrator(part('orchestrator')),
  ]
  for (const p of parts) p.start()
  return {
    async stop() {
      for (const p of [...parts].reverse()) await p.stop()
    },
  }
}
