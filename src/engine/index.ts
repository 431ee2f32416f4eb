import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { createContainerRuntime, defaultSeccompProfile, native } from '../runtime/index.js'
import type { Engine, EngineModules, EngineOptions } from './contract.js'
import { assembleEngine } from './engine.js'
import { readHostFacts } from './host.js'
import { PluginProcesses } from './plugins/process.js'
import { PluginService, type PluginServiceModules } from './plugins/service.js'
import { CAPABILITIES } from './spec/capabilities.js'

export * from './contract.js'
export { parseDetachKeys } from './detach-keys.js'
export { resolveInRoot } from './in-root.js'
export { linkNames, shownLinks } from './links.js'
export { checkLogDriver, LOG_DRIVERS } from './logs/drivers.js'
export { generateName } from './names.js'
export { manyEndpoints } from './network.js'
export { BUILT_IN_RUNTIMES, runtimeProgram } from './other-runtime.js'
export type { PluginPrivilege } from './plugins/config.js'
export { PluginService, type PluginView } from './plugins/service.js'
export * from './types.js'

/** Counts up when the same profile compiles to a program that decides differently: programs on disk are made anew. */
const FILTER_COMPILER = 2

/** Managed plugins on the real shim, in run directories of their own beside the containers'. */
export function createPlugins(
  options: {
    readonly dataRoot: string
    readonly execRoot: string
    readonly nativeDir: string
    readonly cgroupParent: string
    readonly runtime: () => Promise<string | null>
    readonly liveRestore: () => boolean
  },
  modules: Pick<PluginServiceModules, 'clock' | 'logger' | 'distribution' | 'plugins' | 'driversInUse' | 'publish'>,
): PluginService {
  const calls = native()
  const runtime = createContainerRuntime(
    { execRoot: join(options.execRoot, 'plugin-shims'), shimPath: join(options.nativeDir, 'shoal-shim') },
    { clock: modules.clock, logger: modules.logger, native: calls },
  )
  return new PluginService(
    { root: join(options.dataRoot, 'plugins'), liveRestore: options.liveRestore },
    {
      ...modules,
      processes: new PluginProcesses(options, {
        clock: modules.clock,
        logger: modules.logger,
        runtime,
        mounts: calls,
        facts: readHostFacts(),
      }),
    },
  )
}

/** The engine with the real shim and addon. `start` it before use. */
export function createEngine(options: EngineOptions, modules: EngineModules): Engine {
  const calls = native()
  return assembleEngine(options, modules, {
    runtime: createContainerRuntime(
      { execRoot: options.execRoot, shimPath: join(options.nativeDir, 'shoal-shim') },
      { clock: modules.clock, logger: modules.logger.child({ room: 'shims' }), native: calls },
    ),
    mounts: calls,
    compileSeccomp: (profile, capabilities) =>
      calls.seccompCompile(
        JSON.stringify(profile === 'default' ? defaultSeccompProfile(capabilities) : profile),
        capabilities,
      ),
    // The profile with every condition met and with none: a changed rule shows in one of them.
    seccompVersion: createHash('sha256')
      .update(JSON.stringify([FILTER_COMPILER, defaultSeccompProfile(CAPABILITIES), defaultSeccompProfile([])]))
      .digest('hex'),
  })
}
