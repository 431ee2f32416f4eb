export { type AgentStream, createAgent, type Dial } from './agent/index.js'
export * from './contract.js'
export { expandContainerSpec, payloadFor, taskName } from './dependencies/index.js'
export * from './executor/index.js'
