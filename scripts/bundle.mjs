// The shoal command as one file, and the code that V8 makes of it (build/cli).
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Modules of the bundle's libraries that a short command would load for nothing, and what stands in for them. */
const LEAN = [
  // ssh:// hosts are refused before docker-modem would need it; nobody reads its debug output.
  { module: /^(ssh2|\.\/ssh|debug)$/, of: /docker-modem/, contents: 'module.exports = () => () => {}' },
  // It prints every request for its debug output, shown or not: a third of a short command's time.
  {
    module: /^util$/,
    of: /docker-modem\/lib\/modem\.js$/,
    contents: "module.exports = { ...require('node:util'), inspect: () => '' }",
  },
  // TLS and its cryptography are loaded by the first request that needs them.
  {
    module: /^https$/,
    of: /docker-modem\/lib\/http\.js$/,
    contents: "module.exports = { request: (...a) => require('node:https').request(...a) }",
  },
  // The names of contexts' directories; few use any.
  {
    module: /^node:crypto$/,
    of: /cli\/context\/store\.js$/,
    contents: "module.exports = { createHash: (...a) => require('node:crypto').createHash(...a) }",
  },
  { module: /^readable-stream$/, of: /docker-modem/, contents: "module.exports = require('node:stream')" },
  // Commands that are programs of their own: there are none.
  { module: /^node:child_process$/, of: /commander/, contents: 'module.exports = {}' },
]

const lean = {
  name: 'lean',
  setup(build) {
    for (const [i, { module, of, contents }] of LEAN.entries()) {
      build.onResolve({ filter: module }, (a) =>
        of.test(a.importer) ? { path: a.path, namespace: `lean-${i}` } : undefined,
      )
      build.onLoad({ filter: /.*/, namespace: `lean-${i}` }, () => ({ contents, loader: 'js' }))
    }
  },
}

export async function bundleCli() {
  const entry = 'build/src/cli/main.js'
  if (!existsSync(entry)) return
  const esbuild = await import('esbuild')
  // First of all the old code: it must never stand beside a bundle that it was not made of.
  rmSync('build/cli', { recursive: true, force: true })
  await esbuild.build({
    entryPoints: [entry],
    outfile: 'build/cli/shoal.cjs',
    bundle: true,
    format: 'cjs',
    platform: 'node',
    target: 'node20',
    external: ['*.node'],
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: 'none',
    plugins: [lean],
    logLevel: 'error',
  })
  await keepCode()
}

/** Runs a list against an engine that has one container, so that V8 keeps what a short command runs through. */
async function keepCode() {
  const dir = mkdtempSync(join(tmpdir(), 'shoal-bundle-'))
  const container = {
    Id: 'a'.repeat(64),
    Names: ['/name'],
    Image: 'image',
    Command: 'command',
    Created: 1,
    State: 'running',
    Status: 'Up 1 second',
    Ports: [{ IP: '0.0.0.0', PrivatePort: 80, PublicPort: 80, Type: 'tcp' }],
    Labels: {},
    Mounts: [],
    NetworkSettings: { Networks: {} },
  }
  const server = createServer((_, response) =>
    response.setHeader('content-type', 'application/json').end(JSON.stringify([container])),
  )
  try {
    await new Promise((resolve) => server.listen(join(dir, 'socket'), resolve))
    const p = spawn(process.execPath, ['scripts/keep-code.cjs', '-H', `unix://${join(dir, 'socket')}`, 'ps'], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    const code = await new Promise((resolve) => p.on('exit', resolve))
    if (code !== 0) throw new Error(`the bundled command ended with status ${code}`)
  } finally {
    server.close()
    rmSync(dir, { recursive: true, force: true })
  }
}
