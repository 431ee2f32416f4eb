export { createAgent } from './agent.js'
export type { AgentStream, Dial } from './stream.js'
