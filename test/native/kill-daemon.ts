// A daemon's half of one container's life, to be killed from outside. Started by kill-shim.ts.
import { launchOf, walkAsDaemon } from './kill-shim.js'

const [execRoot, base, image, id, n, report] = process.argv.slice(2) as [string, string, string, string, string, string]
// A pending wait does not keep Node alive.
const alive = setInterval(() => {}, 1000)
await walkAsDaemon(execRoot, launchOf(base, id, image), Number(n), report)
clearInterval(alive)
