// npm run bench -- NAME [args]: one benchmark of bench/NAME.mjs; prints its figures.
import { spawnSync } from 'node:child_process'
import { globSync } from './glob.mjs'

const [name, ...args] = process.argv.slice(2)
const all = globSync('bench', /^bench\/(?!lib\.|layers\.)[^/]+\.mjs$/)
const of = (f) => f.slice('bench/'.length, -'.mjs'.length)
const file = all.find((f) => of(f) === name)
if (!file) {
  console.error(`${name ? `no benchmark "${name}"` : 'name a benchmark'}: ${all.map(of).join(', ')}`)
  process.exit(1)
}
process.exit(spawnSync(process.execPath, [file, ...args], { stdio: 'inherit' }).status ?? 1)
