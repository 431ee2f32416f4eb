export { createExecutor, type ExecutorModules, type ExecutorOptions } from './executor.js'
