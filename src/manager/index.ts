export * from './contract.js'
export * from './store/index.js'
