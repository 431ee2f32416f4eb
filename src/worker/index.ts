export { type AgentStream, createAgent, type Dial } from './agent/index.js'
export * from './contract.js'
export * from './executor/index.js'
