import { createHash } from 'node:crypto'
import type { OverlayContext } from '../context.js'

/** Marks links as this daemon's, not another one's on the same host: what carries it and belongs to nobody is removed at the next start. */
export const linkAlias = ({ options: { instance, runDir } }: OverlayContext, what: string): string =>
  `${instance}:${createHash('sha256').update(runDir).digest('hex').slice(0, 8)}:${what}`

/** Of a daemon with whatever data root, this one or an earlier one. */
export const isOfShoal = ({ options: { instance } }: OverlayContext, alias: string): boolean =>
  alias.startsWith(`${instance}:`)
