export { createBuilder } from './builder.js'
export * from './contract.js'
