import type { ContainerRuntime } from '../runtime/index.js'
import type { AccountFiles } from './account-files.js'
import type { EngineModules, EngineOptions } from './contract.js'
import type { EventHub } from './events.js'
import type { HostFacts } from './host.js'
import type { RecordStore } from './record.js'
import type { Registry } from './registry.js'
import type { SeccompFilters } from './seccomp.js'
import type { Sweeper } from './sweeper.js'

/** mount(2) and umount2(2), by the addon. */
export interface HostMounts {
  mount(request: {
    readonly source: string
    readonly target: string
    readonly type: string
    readonly flags: number
    readonly data: string
  }): Promise<void>
  umount(target: string, flags: number): Promise<void>
}

/** What every part of the engine works with; made once in engine.ts. */
export interface EngineContext extends EngineModules {
  readonly options: EngineOptions
  readonly runtime: ContainerRuntime
  readonly store: RecordStore
  readonly registry: Registry
  readonly hub: EventHub
  readonly facts: HostFacts
  readonly seccomp: SeccompFilters
  readonly accounts: AccountFiles
  readonly mounts: HostMounts
  readonly sweeper: Sweeper
  /** True once stop() began: exits are recorded but nothing is restarted. */
  readonly isStopping: () => boolean
}
