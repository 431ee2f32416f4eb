export * from './autolock.js'
export * from './unlock-key.js'
