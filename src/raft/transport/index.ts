export { createRaftHub, type RaftHub, type RaftHubOptions, raftHandlers } from './hub.js'
