import type { EngineEvent } from '../../engine/index.js'
import type { Filters } from '../query.js'

/** An element of GET /events; `status`, `id` and `from` are its first form, sent beside the second up to API 1.51. */
export function eventJson(e: EngineEvent): object {
  const image = e.attributes.image
  return {
    ...(e.type === 'container' || e.type === 'image'
      ? { status: e.action, id: e.actorId, ...(e.type === 'container' && image ? { from: image } : {}) }
      : {}),
    Type: e.type,
    Action: e.action,
    Actor: { ID: e.actorId, Attributes: e.attributes },
    scope: e.scope,
    time: Math.floor(e.timeMs / 1000),
    timeNano: Number(BigInt(Math.floor(e.timeMs)) * 1_000_000n + BigInt(Math.floor((e.timeMs % 1) * 1e6))),
  }
}

/** Filters that take the beginning of an id or a name. */
const BY_NAME = ['config', 'container', 'daemon', 'network', 'node', 'plugin', 'secret', 'service', 'volume'] as const

const withoutTag = (name: string): string => name.replace(/@.*$/, '').replace(/:[^:/]*$/, '')

/** Every filter that is given must match, by any of its values. */
export function eventMatches(f: Filters, e: EngineEvent): boolean {
  if (!f.exact('type', e.type) || !f.exact('scope', e.scope)) return false
  // "health_status" stands for all that begin so.
  if (f.has('event') && !f.values('event').some((v) => e.action === v || e.action.startsWith(`${v}:`))) return false
  for (const key of BY_NAME)
    if (f.has(key)) {
      const names = [e.actorId, e.attributes.name ?? '']
      // An event of another kind is not about one of these, whatever its name.
      if (e.type !== key || !f.values(key).some((v) => names.some((n) => n.startsWith(v)))) return false
    }
  if (f.has('image')) {
    const name = (e.type === 'image' ? e.attributes.name : e.attributes.image) ?? ''
    const names = [e.actorId, name, withoutTag(e.actorId), withoutTag(name)]
    if (!f.values('image').some((v) => names.includes(v))) return false
  }
  return f.labels('label', e.attributes)
}
