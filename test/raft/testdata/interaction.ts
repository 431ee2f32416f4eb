import {
  type ConfChange,
  type ConfChangeTransition,
  describeMessage,
  type Message,
  type MessageType,
  makeMessage,
  NO_BYTES,
  type ReadOnlyOption,
  type Snapshot,
  type StepError,
  UNLIMITED,
} from '../../../src/raft/core/index.js'
import { parseChanges } from './confchange.js'
import {
  booleanArg,
  type Directive,
  findArg,
  numberArg,
  numbersArg,
  parseNumber,
  positionalNumbers,
  stringArg,
} from './datadriven.js'
import { CommandError, Environment, type NodeOptions, STEP_ERRORS } from './environment.js'

type Handler = (env: Environment, d: Directive) => void

/** The kind `interaction`: one cluster a file. */
export function newInteractionRunner(random: () => number): (d: Directive) => string {
  const env = new Environment(random)
  return (d) => {
    let error = ''
    try {
      const handler = HANDLERS[d.command]
      if (!handler) throw new CommandError('unknown command')
      handler(env, d)
    } catch (caught) {
      if (!(caught instanceof CommandError)) throw caught
      error = caught.message
    }
    const output = env.output.take()
    return output + error || 'ok'
  }
}

function check(error: StepError | null): void {
  if (error) throw new CommandError(STEP_ERRORS[error])
}

function firstId(d: Directive): number {
  const arg = d.args[0]
  if (!arg) throw new Error(`line ${d.line}: ${d.command} needs a node`)
  return parseNumber(arg.key, d)
}

/** Several ids: each under a header, indented. */
function perNode(env: Environment, d: Directive, header: string, act: (id: number) => void): void {
  const ids = positionalNumbers(d)
  for (const id of ids) {
    if (ids.length === 1) {
      act(id)
    } else {
      env.output.write(`> ${id} ${header}\n`)
      env.output.indented(() => act(id))
    }
  }
}

const HANDLERS: Record<string, Handler> = {
  'add-nodes': addNodes,
  campaign: (env, d) => check(env.node(firstId(d)).core.campaign()),
  propose: (env, d) => check(env.node(firstId(d)).core.propose(new TextEncoder().encode(d.args[1]?.key ?? ''))),
  'propose-conf-change': proposeConfChange,
  'process-ready': (env, d) => perNode(env, d, 'handling Ready', (id) => env.processReady(id)),
  'process-append-thread': (env, d) => perNode(env, d, 'processing append thread', (id) => env.processAppendThread(id)),
  'process-apply-thread': (env, d) => perNode(env, d, 'processing apply thread', (id) => env.processApplyThread(id)),
  'deliver-msgs': deliverMessages,
  stabilize,
  'tick-heartbeat': (env, d) => ticks(env, firstId(d), 'heartbeatTick'),
  'tick-election': (env, d) => ticks(env, firstId(d), 'electionTick'),
  'set-randomized-election-timeout': (env, d) => {
    env.node(firstId(d)).core.raft.randomizedElectionTimeout = required(d, 'timeout')
  },
  'transfer-leadership': (env, d) => env.node(required(d, 'from')).core.transferLeader(required(d, 'to')),
  'forget-leader': (env, d) => check(env.node(firstId(d)).core.forgetLeader()),
  'report-unreachable': (env, d) => {
    const [at, target] = positionalNumbers(d)
    env.node(at!).core.reportUnreachable(target!)
  },
  compact: (env, d) => {
    const [id, index] = positionalNumbers(d)
    if (!env.node(id!).storage.compact(index!))
      throw new CommandError('requested index is unavailable due to compaction')
    env.writeLog(id!)
  },
  'send-snapshot': sendSnapshot,
  'raft-log': (env, d) => env.writeLog(firstId(d)),
  'raft-state': (env) => env.writeState(),
  status: (env, d) => env.writeStatus(firstId(d)),
  'log-level': (env, d) => setLevel(env, d.args[0]?.key ?? ''),
}

function required(d: Directive, key: string): number {
  const value = numberArg(d, key)
  if (value === undefined) throw new Error(`line ${d.line}: ${d.command} needs ${key}=`)
  return value
}

function setLevel(env: Environment, name: string): void {
  const error = env.output.setLevelByName(name)
  if (error) throw new CommandError(error)
}

function ticks(env: Environment, id: number, kind: 'heartbeatTick' | 'electionTick'): void {
  const { core, config } = env.node(id)
  for (let i = 0; i < config[kind]; i++) core.tick()
}

function addNodes(env: Environment, d: Directive): void {
  const count = firstId(d)
  const index = numberArg(d, 'index') ?? 0
  const voters = numbersArg(d, 'voters')
  const learners = numbersArg(d, 'learners')
  const content = stringArg(d, 'content') ?? ''
  const readOnly = stringArg(d, 'read-only')
  const options: NodeOptions = {
    electionTick: 3,
    heartbeatTick: 1,
    applied: index,
    asyncStorageWrites: booleanArg(d, 'async-storage-writes'),
    maxSizePerMsg: UNLIMITED,
    maxCommittedSizePerReady: numberArg(d, 'max-committed-size-per-ready') ?? 0,
    maxUncommittedEntriesSize: 0,
    maxInflightMsgs: numberArg(d, 'inflight') ?? 2 ** 31 - 1,
    maxInflightBytes: 0,
    checkQuorum: booleanArg(d, 'checkquorum'),
    preVote: booleanArg(d, 'prevote'),
    readOnlyOption: readOnlyOption(readOnly),
    disableProposalForwarding: false,
    disableConfChangeValidation: booleanArg(d, 'disable-conf-change-validation'),
    stepDownOnRemoval: booleanArg(d, 'step-down-on-removal'),
  }
  let snapshot: Snapshot | null = null
  if (voters.length > 0 || learners.length > 0 || index > 0 || content !== '') {
    if (index <= 1) throw new CommandError('index must be specified as > 1 due to bootstrap')
    const ascending = (a: number, b: number): number => a - b
    const confState = {
      voters: voters.sort(ascending),
      votersOutgoing: [],
      learners: learners.sort(ascending),
      learnersNext: [],
      autoLeave: false,
    }
    snapshot = { index, term: 1, confState, data: new TextEncoder().encode(content) }
  }
  for (let i = 0; i < count; i++) env.addNode(options, snapshot)
}

function readOnlyOption(name: string | undefined): ReadOnlyOption {
  if (name === undefined || name === 'safe') return 'safe'
  if (name === 'lease-based') return 'leaseBased'
  throw new CommandError(`invalid read-only option "${name}"`)
}

function proposeConfChange(env: Environment, d: Directive): void {
  const transitions: Record<string, ConfChangeTransition> = {
    auto: 'auto',
    implicit: 'jointImplicit',
    explicit: 'jointExplicit',
  }
  const name = stringArg(d, 'transition') ?? 'auto'
  const transition = transitions[name]
  if (!transition) throw new CommandError(`unknown transition ${name}`)
  const v1 = booleanArg(d, 'v1')
  const changes = parseChanges(d.input)
  if (v1 && (changes.length > 1 || transition !== 'auto'))
    throw new CommandError('v1 conf change can only have one operation and no transition')
  const change: ConfChange = { transition, changes, context: NO_BYTES }
  check(env.node(firstId(d)).core.proposeConfChange(change, v1 ? 'confChange' : 'confChangeV2'))
}

function deliverMessages(env: Environment, d: Directive): void {
  const type = (stringArg(d, 'type') as MessageType | undefined) ?? null
  const recipients: { id: number; drop: boolean }[] = []
  for (const arg of d.args) {
    if (arg.values.length === 0 && arg.key !== 'drop') recipients.push({ id: parseNumber(arg.key, d), drop: false })
    else if (arg.key === 'drop')
      for (const value of arg.values) {
        const id = parseNumber(value, d)
        if (recipients.some((r) => r.id === id))
          throw new Error(`line ${d.line}: can't both deliver and drop messages to ${id}`)
        recipients.push({ id, drop: true })
      }
  }
  if (env.deliver(recipients, type) === 0) env.output.write('no messages\n')
}

function stabilize(env: Environment, d: Directive): void {
  const ids = positionalNumbers(d)
  const before = env.output.level
  if (findArg(d, 'log-level')) setLevel(env, stringArg(d, 'log-level')!)
  try {
    env.stabilize(ids.length > 0 ? ids : env.nodes.map((n) => n.core.id))
  } finally {
    env.output.level = before
  }
}

function sendSnapshot(env: Environment, d: Directive): void {
  const [from, to] = positionalNumbers(d)
  const node = env.node(from!)
  const m: Message = makeMessage({
    type: 'MsgSnap',
    term: node.core.status().hardState.term,
    from: from!,
    to: to!,
    snapshot: node.history.at(-1)!,
  })
  env.messages.push(m)
  env.output.write(describeMessage(m))
}
