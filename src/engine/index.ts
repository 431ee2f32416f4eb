import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { createContainerRuntime, defaultSeccompProfile, native } from '../runtime/index.js'
import type { Engine, EngineModules, EngineOptions } from './contract.js'
import { assembleEngine } from './engine.js'
import { CAPABILITIES } from './spec/capabilities.js'

export * from './contract.js'
export { parseDetachKeys } from './detach-keys.js'
export { shownLinks } from './links.js'
export { generateName } from './names.js'
export * from './types.js'

/** Counts up when the same profile compiles to a program that decides differently: programs on disk are made anew. */
const FILTER_COMPILER = 2

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
