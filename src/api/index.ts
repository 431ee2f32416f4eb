export * from './contract.js'
export { type Api, createApi } from './server.js'
export { notAttachable } from './swarm-networks.js'
