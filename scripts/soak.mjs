// npm run soak -- NAME [args]: a test's full counts. Each soak is a program build/test/**/NAME.soak.js.
import { spawnSync } from 'node:child_process'
import { globSync } from './glob.mjs'

const [name, ...args] = process.argv.slice(2)
const all = globSync('build/test', /\.soak\.js$/)
const of = (f) => f.slice(f.lastIndexOf('/') + 1, -'.soak.js'.length)
const file = all.find((f) => of(f) === name)
if (!file) {
  console.error(`${name ? `no soak "${name}"` : 'name a soak'}: ${all.map(of).join(', ') || 'none is built'}`)
  process.exit(1)
}
process.exit(spawnSync(process.execPath, [file, ...args], { stdio: 'inherit' }).status ?? 1)
