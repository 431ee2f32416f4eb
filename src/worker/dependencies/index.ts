export { DependencyStore } from './dependency-store.js'
