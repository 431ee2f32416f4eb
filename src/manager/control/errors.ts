import { invalid, notFound, type ShoalError, unavailable } from '../../common/index.js'

/** Docker's sentences that clients and scripts look for; the API passes them on word for word. */
export const NO_LEADER =
  "The swarm does not have a leader. It's possible that too few managers are online. " +
  'Make sure more than half of the managers are online.'

export const noLeader = (): ShoalError => unavailable('noLeader', NO_LEADER)

/** A spec that cannot be: kind invalid, code `badSpec`. */
export const badSpec = (message: string, fields?: Readonly<Record<string, unknown>>): ShoalError =>
  invalid('badSpec', message, fields)

/** The request is well-formed but the state of the cluster forbids it: HTTP 400, as Docker answers a failed precondition. */
export const refused = (code: string, message: string, fields?: Readonly<Record<string, unknown>>): ShoalError =>
  invalid(code, message, fields)

export const objectNotFound = (kind: string, reference: string): ShoalError =>
  notFound(`${kind}NotFound`, `${kind} ${reference} not found`, { kind, reference })
