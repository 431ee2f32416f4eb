export * from './contract.js'
export * from './options.js'
export { createStore, type ReplicatedStore } from './store.js'
