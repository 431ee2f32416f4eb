export * from './contract.js'
export * from './executor/index.js'
