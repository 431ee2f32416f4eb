export * from './desk.js'
export * from './dispatcher.js'
export * from './reporter.js'
