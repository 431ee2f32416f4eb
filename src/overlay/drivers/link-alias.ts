import type { OverlayContext } from '../context.js'

/** Marks links as ours: what carries it and belongs to nobody is removed at the next start. */
export const linkAlias = (ctx: OverlayContext, what: string): string => `${ctx.options.instance}:${what}`
