export * from './kit.js'
