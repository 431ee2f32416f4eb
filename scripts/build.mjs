// Builds everything that has changed: proto, native, TypeScript, and the one-file bundle of the shoal command.
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

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

async function bundleCli() {
  const entry = 'build/src/cli/main.js'
  if (!existsSync(entry)) return
  const esbuild = await import('esbuild')
  // Parts of an older bundle would stay beside the new ones.
  rmSync('build/cli', { recursive: true, force: true })
  await esbuild.build({
    entryPoints: [entry],
    outdir: 'build/cli',
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    outExtension: { '.js': '.mjs' },
    external: ['*.node'],
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: 'none',
    // ssh:// hosts are refused before docker-modem would need it; debug output of the modem is not used.
    plugins: [
      {
        name: 'lean-modem',
        setup(build) {
          build.onResolve({ filter: /^(ssh2|\.\/ssh|debug)$/ }, (a) =>
            a.path !== './ssh' || a.importer.includes('docker-modem') ? { path: a.path, namespace: 'stub' } : undefined,
          )
          // It prints every request for its debug output, shown or not: a third of a short command's time.
          build.onResolve({ filter: /^util$/ }, (a) =>
            /docker-modem\/lib\/modem\.js$/.test(a.importer) ? { path: a.path, namespace: 'quiet' } : undefined,
          )
          build.onLoad({ filter: /.*/, namespace: 'quiet' }, () => ({
            contents: "module.exports = { ...require('node:util'), inspect: () => '' }",
            loader: 'js',
          }))
          build.onLoad({ filter: /.*/, namespace: 'stub' }, () => ({
            contents: 'module.exports = () => () => {}',
            loader: 'js',
          }))
        },
      },
    ],
    banner: { js: "import { createRequire as __cr } from 'node:module'; const require = __cr(import.meta.url);" },
    logLevel: 'error',
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
