import { constants } from 'node:os'
import { invalid } from '../common/index.js'

const SIGRTMIN = 34
const SIGRTMAX = 64
const NUMBERS = constants.signals as Readonly<Record<string, number>>

/** "SIGTERM", "term", "15", "RTMIN+3" → number. @throws invalid `invalidSignal`. */
export function parseSignal(text: string): number {
  const bad = (): Error => invalid('invalidSignal', `Invalid signal: ${text}`, { signal: text })
  if (/^\d+$/.test(text)) {
    const number = Number(text)
    if (number < 1 || number > SIGRTMAX) throw bad()
    return number
  }
  const name = text.toUpperCase().replace(/^SIG/, '')
  const realtime = /^RT(MIN|MAX)(?:([+-])(\d+))?$/.exec(name)
  if (realtime) {
    const base = realtime[1] === 'MIN' ? SIGRTMIN : SIGRTMAX
    const number = base + (realtime[3] ? Number(`${realtime[2]}${realtime[3]}`) : 0)
    if (number < SIGRTMIN || number > SIGRTMAX) throw bad()
    return number
  }
  const number = NUMBERS[`SIG${name}`]
  if (!number) throw bad()
  return number
}

export const SIGKILL = 9
export const SIGTERM = 15
