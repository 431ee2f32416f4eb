import { type RaftId, UNLIMITED } from '../../../src/raft/core/index.js'
import {
  jointCommitted,
  jointVote,
  majorityCommitted,
  majorityVote,
  type VoteResult,
} from '../../../src/raft/core/quorum.js'
import { type Directive, findArg, parseNumber } from './datadriven.js'

const RESULTS: Record<VoteResult, string> = { pending: 'VotePending', lost: 'VoteLost', won: 'VoteWon' }
const showIndex = (index: number): string => (index === UNLIMITED ? '∞' : String(index))

/** The kind `quorum`: commit indexes and vote results, without state between directives. */
export function runQuorum(d: Directive): string {
  const cfg = ids(d, 'cfg')
  const joint = findArg(d, 'cfgj') !== undefined
  const cfgj = findArg(d, 'cfgj')?.values[0] === 'zero' ? [] : ids(d, 'cfgj')
  const voters = [...new Set([...cfg, ...cfgj])]
  const given = findArg(d, d.command === 'vote' ? 'votes' : 'idx')?.values ?? []
  if (given.length !== voters.length)
    return `error: mismatched input (explicit or _) for voters [${voters.join(' ')}]: [${given.join(' ')}]`
  if (d.command === 'committed') {
    const acked = new Map<RaftId, number>()
    voters.forEach((id, i) => {
      if (given[i] !== '_') acked.set(id, parseNumber(given[i]!, d))
    })
    return joint ? committedJoint(cfg, cfgj, acked) : committedMajority(cfg, acked)
  }
  if (d.command === 'vote') {
    const votes = new Map<RaftId, boolean>()
    voters.forEach((id, i) => {
      const v = given[i]!
      if (v !== '_' && v !== 'y' && v !== 'n') throw new Error(`line ${d.line}: vote "${v}" is none of y, n, _`)
      if (v !== '_') votes.set(id, v === 'y')
    })
    return joint ? voteJoint(cfg, cfgj, votes) : `${RESULTS[majorityVote(cfg, votes)]}\n`
  }
  return `unknown command: ${d.command}`
}

const ids = (d: Directive, key: string): RaftId[] =>
  [...new Set((findArg(d, key)?.values ?? []).map((v) => parseNumber(v, d)))].sort((a, b) => a - b)

function committedMajority(cfg: RaftId[], acked: Map<RaftId, number>): string {
  const of = (m: Map<RaftId, number>) => (id: RaftId) => m.get(id) ?? 0
  const index = majorityCommitted(cfg, of(acked))
  let text = describe(cfg, acked)
  const check = (other: number, how: string): void => {
    if (other !== index) text += `${showIndex(other)} <-- ${how}\n`
  }
  check(byCounting(cfg, acked), 'via alternative computation')
  check(jointCommitted(cfg, [], of(acked)), 'via zero-joint quorum')
  check(jointCommitted([], cfg, of(acked)), 'via zero-joint quorum, swapped')
  check(jointCommitted(cfg, cfg, of(acked)), 'via self-joint quorum')
  for (const id of cfg) {
    const own = acked.get(id) ?? 0
    if (index <= own || own === 0) continue
    for (const lower of [own - 1, 0])
      check(majorityCommitted(cfg, of(new Map(acked).set(id, lower))), `overlaying ${id}->${lower}`)
  }
  return `${text}${showIndex(index)}\n`
}

/** The definition itself: the highest index that more than half have. */
function byCounting(cfg: RaftId[], acked: Map<RaftId, number>): number {
  if (cfg.length === 0) return UNLIMITED
  let best = 0
  for (const index of acked.values()) {
    const have = cfg.filter((id) => (acked.get(id) ?? -1) >= index).length
    if (have > cfg.length / 2 && index > best) best = index
  }
  return best
}

function committedJoint(cfg: RaftId[], cfgj: RaftId[], acked: Map<RaftId, number>): string {
  const at = (id: RaftId) => acked.get(id) ?? 0
  const index = jointCommitted(cfg, cfgj, at)
  const swapped = jointCommitted(cfgj, cfg, at)
  const union = [...new Set([...cfg, ...cfgj])].sort((a, b) => a - b)
  let text = describe(union, acked)
  if (swapped !== index) text += `${showIndex(swapped)} <-- via symmetry\n`
  return `${text}${showIndex(index)}\n`
}

function voteJoint(cfg: RaftId[], cfgj: RaftId[], votes: Map<RaftId, boolean>): string {
  const result = jointVote(cfg, cfgj, votes)
  const swapped = jointVote(cfgj, cfg, votes)
  const text = swapped === result ? '' : `${RESULTS[swapped]} <-- via symmetry\n`
  return `${text}${RESULTS[result]}\n`
}

/** A bar a voter, as long as its place in the order of indexes. */
function describe(voters: RaftId[], acked: Map<RaftId, number>): string {
  const n = voters.length
  if (n === 0) return '<empty majority quorum>'
  const at = (id: RaftId) => acked.get(id) ?? 0
  const order = [...voters].sort((a, b) => at(a) - at(b) || a - b)
  let text = `${' '.repeat(n)}    idx\n`
  for (const id of voters) {
    const place = order.findIndex((other) => at(other) === at(id))
    const bar = acked.has(id) ? `${'x'.repeat(place)}>${' '.repeat(n - place)}` : `?${' '.repeat(n)}`
    text += `${bar} ${String(at(id)).padStart(5)}    (id=${id.toString(16)})\n`
  }
  return text
}
