import { spawn } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { FAULTS, type Fault } from './faults.js'

/** From build/test/raft/faults. */
const root = join(dirname(fileURLToPath(import.meta.url)), '../../../..')
const CORE = 'build/src/raft/core'
const NEEDED = [
  CORE,
  'build/src/common',
  'build/proto',
  'build/test/raft/core',
  'build/test/raft/testdata',
  'build/test/support',
]
const DEADLINE_MS = 120_000

export interface Outcome {
  readonly caught: boolean
  /** The first test that failed, or why the run says nothing. */
  readonly by: string
}

/**
 * Runs the core's tests on a copy of the build, with one fault in it or (null) with none. A run that takes too long
 * counts as caught: a core that does not come to rest fails its users too.
 */
export async function runWithFault(fault: Fault | null): Promise<Outcome> {
  const dir = mkdtempSync(join(tmpdir(), 'raft-faults-'))
  try {
    for (const part of NEEDED)
      if (existsSync(join(root, part))) cpSync(join(root, part), join(dir, part), { recursive: true })
    symlinkSync(realpathSync(join(root, 'node_modules')), join(dir, 'node_modules'))
    const { imports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { imports: unknown }
    const ava = { files: ['build/test/raft/core/*.test.js'], workerThreads: false, concurrency: 2, timeout: '100s' }
    writeFileSync(join(dir, 'package.json'), JSON.stringify({ name: 'faulty', type: 'module', imports, ava }))
    mkdirSync(join(dir, 'src'))
    if (fault) plant(dir, fault)
    return await runTests(dir)
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

function plant(dir: string, fault: Fault): void {
  const path = join(dir, CORE, fault.file)
  const text = readFileSync(path, 'utf8')
  const count = text.split(fault.search).length - 1
  if (count !== 1)
    throw new Error(
      `fault "${fault.name}": the text to replace occurs ${count} times in ${fault.file}: ${fault.search}`,
    )
  writeFileSync(
    path,
    text.replace(fault.search, () => fault.replace),
  )
}

function runTests(dir: string): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    // The data files, if present, are found beside the real checkout.
    const shared = process.env.SHOAL_SHARED ?? join(realpathSync(root), '..', 'shared')
    const env: NodeJS.ProcessEnv = { ...process.env, SHOAL_SHARED: shared, FORCE_COLOR: '0' }
    // Own runner, own report: an outer ava must not steer this one, and absent data files must not count as caught.
    for (const key of Object.keys(env))
      if (key === 'CI' || key.startsWith('AVA_') || key === 'NODE_CHANNEL_FD') delete env[key]
    const child = spawn(process.execPath, [join(dir, 'node_modules/ava/entrypoints/cli.mjs'), '--fail-fast', '--tap'], {
      cwd: dir,
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let text = ''
    let late = false
    const timer = setTimeout(() => {
      late = true
      child.kill('SIGKILL')
    }, DEADLINE_MS)
    child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (text += chunk.toString()))
    child.on('error', reject)
    child.on('close', (code) => {
      clearTimeout(timer)
      if (late) resolve({ caught: true, by: `no end within ${DEADLINE_MS / 1000} s` })
      else if (code === 0) resolve({ caught: false, by: 'all tests passed' })
      else {
        const first = /^not ok \d+ - (.*)$/m.exec(text)
        if (first) resolve({ caught: true, by: first[1]! })
        else reject(new Error(`the tests did not run (exit ${code}):\n${text.slice(0, 2000)}`))
      }
    })
  })
}

export const findFault = (name: string): Fault | undefined => FAULTS.find((f) => f.name === name)
