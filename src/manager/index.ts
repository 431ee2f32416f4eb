export * from './ca/index.js'
export * from './contract.js'
export * from './store/index.js'
