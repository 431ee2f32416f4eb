export { DependencyStore } from './dependency-store.js'
export { expandContainerSpec, payloadFor, taskName } from './task-template.js'
export { expandTemplate } from './template.js'
