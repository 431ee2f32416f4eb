import { spawn } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { FAULTS } from '../raft/faults/faults.js'
import { PLANTS, type Plant } from './plan.js'

/**
 * Bugs put in on purpose, to see that the simulation finds them: one-line changes of the compiled room, and what the
 * simulated world does wrong itself (plan.ts).
 */
export type SimulationPlant =
  | { readonly name: string; readonly plant: Plant }
  | {
      readonly name: string
      /** In build/src/raft. */
      readonly file: string
      /** Occurs exactly once. */
      readonly search: string
      readonly replace: string
    }

/** Of the core's list (test/raft/faults) those that break a promise to others; the rest only cost time or memory. */
const OF_THE_CORE: readonly string[] = [
  'votes twice in a term',
  'votes for a log that is behind',
  'a vote is sent before it is durable',
  'a vote alone is no new hard state',
  'entries of older terms commit by counting',
  'commits one copy too early',
  'a follower commits past the last new entry',
  'an append is accepted without its previous entry',
  'acknowledges before the write',
  'the leader counts itself before its write',
  'a heartbeat commits what the member may lack',
  'a write of an older term counts',
  'a replaced tail counts as written',
  'applies what is not stable',
  'a snapshot does not bring its configuration',
  'a second conf change is taken',
  'a removed leader stays',
  'learners come back as voters',
  'reads without a heartbeat round',
  "reads before the term's first commit",
  'the only voter reads at the commit index that it started with',
  'reads on one answer',
]

const bug = (name: string, file: string, search: string, replace: string): SimulationPlant => ({
  ...{ name, file, search, replace },
})

export const SIMULATION_PLANTS: readonly SimulationPlant[] = [
  ...OF_THE_CORE.map((name) => {
    const fault = FAULTS.find((f) => f.name === name)
    if (fault === undefined) throw new Error(`no fault of the core is called "${name}"`)
    return { ...fault, file: `core/${fault.file}` }
  }),
  bug(
    'promises leave before the write ends',
    'node-storage.js',
    'await this.hooks.log.append(entries, hardState);',
    'this.hooks.log.append(entries, hardState).catch(() => {});',
  ),
  bug(
    'asks for votes before its own is durable',
    'node.js',
    'this.#dispatch(afterOwnVote(ready.messages));',
    'this.#dispatch(ready.messages);',
  ),
  bug(
    'a restart forgets the snapshot',
    'node.js',
    'await stateMachine.restore(log.snapshotIndex, readPieces(log));',
    'for await (const _ of readPieces(log));',
  ),
  bug(
    'lost leadership ends proposals as refused',
    'node-proposals.js',
    "{ result: 'unknown', reason }",
    "{ result: 'refused', reason: 'notLeader' }",
  ),
  bug(
    'reads rest on a lease, with clocks that jump',
    'node.js',
    "readOnlyOption: 'safe'",
    "readOnlyOption: 'leaseBased'",
  ),
  bug(
    'reads do not wait until they are applied',
    'node-reads.js',
    'this.#confirmed.filter((c) => c.index <= index)',
    'this.#confirmed.slice()',
  ),
  bug(
    'a wiped disk gets its old raft id back',
    'node-changes.js',
    'this.#incarnations.get(before.raftId) !== incarnation',
    'false',
  ),
  bug('damaged records are served', 'log/seal.js', "return 'does not match its authentication tag';", ';'),
  bug(
    'an installed snapshot is not taken into the state',
    'node-snapshots.js',
    'await stateMachine.restore(index, pieces);',
    'for await (const _ of pieces);',
  ),
  ...PLANTS.map((plant) => ({ name: `the world: ${plant}`, plant })),
]

/** From build/test/simulation. */
const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')
const ROOM = 'build/src/raft'
const COPIED = [ROOM, 'build/src/common', 'build/test/simulation']
/** One seed takes a second; a room that goes round in a circle takes for ever. */
const SEED_MS = 60_000

export interface Found {
  /** Seeds until it was found, or null: not among those tried. */
  readonly seeds: number | null
  readonly why: string
}

/** A copy of the build in which bugs can be planted. */
export class Nursery {
  readonly #dir = mkdtempSync(join(tmpdir(), 'raft-plants-'))

  constructor() {
    for (const part of COPIED) cpSync(join(root, part), join(this.#dir, part), { recursive: true })
    symlinkSync(realpathSync(join(root, 'build/proto')), join(this.#dir, 'build/proto'))
    symlinkSync(realpathSync(join(root, 'node_modules')), join(this.#dir, 'node_modules'))
    const { imports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { imports: unknown }
    writeFileSync(join(this.#dir, 'package.json'), JSON.stringify({ name: 'planted', type: 'module', imports }))
  }

  /** Seeds from `first` on until one shows the bug; null plants none. */
  async try(plant: SimulationPlant | null, first: number, runs: number, steps: number): Promise<Found> {
    if (plant === null || 'plant' in plant) return this.#run(plant === null ? null : plant.plant, first, runs, steps)
    const file = join(this.#dir, ROOM, plant.file)
    const text = readFileSync(file, 'utf8')
    const count = text.split(plant.search).length - 1
    if (count !== 1) throw new Error(`"${plant.name}": the text to replace occurs ${count} times in ${plant.file}`)
    writeFileSync(
      file,
      text.replace(plant.search, () => plant.replace),
    )
    try {
      return await this.#run(null, first, runs, steps)
    } finally {
      writeFileSync(file, text)
    }
  }

  #run(plant: Plant | null, first: number, runs: number, steps: number): Promise<Found> {
    const args = [join(this.#dir, 'build/test/simulation/cli.js'), '--until-found', '--seed', String(first)]
    args.push('--runs', String(runs), '--steps', String(steps), ...(plant === null ? [] : ['--plant', plant]))
    return new Promise((resolve, reject) => {
      const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] })
      let text = ''
      let seed = first
      let stuck = false
      const timer = setTimeout(() => {
        stuck = true
        child.kill('SIGKILL')
      }, SEED_MS)
      child.stdout.on('data', (chunk: Buffer) => {
        text += chunk.toString()
        for (const begun of chunk.toString().matchAll(/^seed (\d+)$/gm)) {
          seed = Number(begun[1])
          timer.refresh()
        }
      })
      child.stderr.on('data', (chunk: Buffer) => (text += chunk.toString()))
      child.on('error', reject)
      child.on('close', (code) => {
        clearTimeout(timer)
        const m = /^found at seed \d+: (.*)$/m.exec(text)
        const seeds = seed - first + 1
        if (m) resolve({ seeds, why: m[1]! })
        else if (stuck) resolve({ seeds, why: `does not come to rest within ${SEED_MS / 1000} s` })
        else if (code === 0) resolve({ seeds: null, why: `${runs} seeds were clean` })
        // An assertion of the core ends the process, as it should.
        else resolve({ seeds, why: text.trim().split('\n').slice(-1)[0] ?? `exit ${code}` })
      })
    })
  }

  close(): void {
    rmSync(this.#dir, { recursive: true, force: true })
  }
}
