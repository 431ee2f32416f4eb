// Builds everything that has changed: proto, native, TypeScript, and the one-file bundle of the shoal command.
import { spawn } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { bundleCli } from './bundle.mjs'

const top = join(dirname(fileURLToPath(import.meta.url)), '..')
process.chdir(top)

function run(cmd, args) {
  return new Promise((resolve, reject) => {
    const p = spawn(cmd, args, { stdio: ['ignore', 'inherit', 'inherit'] })
    p.on('error', reject)
    p.on('exit', (code, signal) =>
      code === 0 ? resolve() : reject(new Error(`${cmd} ${args.join(' ')}: exit ${code ?? signal}`)),
    )
  })
}

mkdirSync('build', { recursive: true })
try {
  const only = process.argv[2]
  if (!only || only === 'proto') await run(process.execPath, ['scripts/proto.mjs'])
  await Promise.all([
    !only || only === 'native' ? run('make', ['-s', '-C', 'native', '-j2']) : null,
    !only || only === 'ts' ? run(process.execPath, ['node_modules/typescript/bin/tsc', '-b']) : null,
  ])
  if (only === 'cli') await run(process.execPath, ['node_modules/typescript/bin/tsc', '-b', 'src/cli'])
  if (!only || only === 'ts' || only === 'cli') await bundleCli()
  writeFileSync('build/.built', new Date().toISOString())
} catch (e) {
  console.error(e.message)
  process.exit(1)
}
