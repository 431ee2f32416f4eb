export { type AgentStream, createAgent, type Dial } from './agent/index.js'
export * from './contract.js'
