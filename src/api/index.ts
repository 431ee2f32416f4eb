export type { Authorizer } from './authorization.js'
export * from './contract.js'
export { type Api, createApi } from './server.js'
export { notAttachable } from './swarm-networks.js'
