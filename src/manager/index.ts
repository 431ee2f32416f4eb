export * from './contract.js'
export * from './store/contract.js'
