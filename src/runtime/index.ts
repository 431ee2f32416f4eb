export * from './native.js'
export * from './seccomp-profile.js'
