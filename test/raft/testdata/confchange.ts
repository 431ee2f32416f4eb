import {
  changeMembership,
  enterJoint,
  isRefusal,
  type leaveJoint,
  type Membership,
  simpleChange,
} from '../../../src/raft/core/confchange.js'
import {
  type ConfChangeSingle,
  type ConfChangeType,
  describeConfig,
  describeProgressMap,
  NO_BYTES,
  viewProgress,
} from '../../../src/raft/core/index.js'
import { Inflights } from '../../../src/raft/core/inflights.js'
import { EMPTY_CONFIG } from '../../../src/raft/core/tracker.js'
import { booleanArg, type Directive } from './datadriven.js'

const LETTERS: Record<string, ConfChangeType> = { v: 'addNode', l: 'addLearnerNode', r: 'removeNode', u: 'updateNode' }

/** `v1 l2 r3 u4`. */
export function parseChanges(text: string): ConfChangeSingle[] {
  return text
    .split(/\s+/)
    .filter((token) => token !== '')
    .map((token) => {
      const match = /^([vlru])(\d+)$/.exec(token)
      if (!match) throw new Error(`unknown conf change "${token}": expected v, l, r or u and a number`)
      return { type: LETTERS[match[1]!]!, nodeId: Number(match[2]) }
    })
}

/** The kind `confchange`: one membership a file, changed by each directive. */
export function newConfChangeRunner(): (d: Directive) => string {
  let at: Membership = { config: EMPTY_CONFIG, progress: new Map() }
  let lastIndex = 0
  return (d) => {
    const context = { lastIndex, newInflights: () => new Inflights(10, 0) }
    lastIndex++
    const changes = parseChanges(d.input)
    let next: ReturnType<typeof leaveJoint>
    if (d.command === 'simple') next = simpleChange(at, context, changes)
    else if (d.command === 'enter-joint') next = enterJoint(at, context, changes, booleanArg(d, 'autoleave'))
    else if (d.command === 'leave-joint') {
      if (changes.length > 0) return 'this command takes no input\n'
      next = changeMembership(at, context, { transition: 'auto', changes: [], context: NO_BYTES })
    } else return 'unknown command'
    if (isRefusal(next)) return `${next.error}\n`
    at = next
    const views = new Map([...at.progress].map(([id, pr]) => [id, viewProgress(pr)]))
    return `${describeConfig(at.config)}\n${describeProgressMap(views)}`
  }
}
