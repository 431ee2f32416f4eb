export * from './autolock.js'
export { openNodeKey, sealNodeKey } from './node-key.js'
export * from './unlock-key.js'
