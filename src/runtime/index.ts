export * from './container/index.js'
export * from './contract.js'
export * from './native.js'
export * from './seccomp-profile.js'
