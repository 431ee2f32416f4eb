export * from './equal.js'
export * from './task.js'
export * from './time.js'
export * from './work-loop.js'
