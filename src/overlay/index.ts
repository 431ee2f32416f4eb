export type { OverlayModules } from './context.js'
export * from './contract.js'
export { DEFAULT_ADDRESS_POOLS, type OverlayOptions, type OverlayOptionsInput } from './options.js'
export { createNetworkService } from './service.js'
