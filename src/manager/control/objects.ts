import { AnyObject, type AnySpec, ObjectKind } from '#proto'
import { invalid } from '../../common/index.js'
import type { Kind, ReadView, Tables } from '../store/index.js'
import { objectNotFound } from './errors.js'

const KIND_OF: Readonly<Record<number, Kind>> = {
  [ObjectKind.KIND_CLUSTER]: 'cluster',
  [ObjectKind.KIND_NODE]: 'node',
  [ObjectKind.KIND_SERVICE]: 'service',
  [ObjectKind.KIND_TASK]: 'task',
  [ObjectKind.KIND_NETWORK]: 'network',
  [ObjectKind.KIND_SECRET]: 'secret',
  [ObjectKind.KIND_CONFIG]: 'config',
  [ObjectKind.KIND_VOLUME]: 'volume',
}

export function kindOf(wire: ObjectKind): Kind {
  const kind = KIND_OF[wire]
  if (!kind) throw invalid('badKind', `object kind ${wire} is not known to this manager`)
  return kind
}

/** The object as a request may see it: keys and secret data stay here. */
export function wrap<K extends Kind>(kind: K, object: Tables[K]): AnyObject {
  return AnyObject.create({ [kind]: conceal(kind, object) })
}

const EMPTY = new Uint8Array()

function conceal<K extends Kind>(kind: K, object: Tables[K]): Tables[K] {
  if (kind === 'secret') {
    const secret = object as Tables['secret']
    return (secret.spec ? { ...secret, spec: { ...secret.spec, data: EMPTY } } : secret) as Tables[K]
  }
  if (kind === 'cluster') {
    const cluster = object as Tables['cluster']
    const { rootCa, spec } = cluster
    return {
      ...cluster,
      unlockKey: EMPTY,
      rootCa: rootCa && { ...rootCa, key: EMPTY, rotation: rootCa.rotation && { ...rootCa.rotation, key: EMPTY } },
      spec: spec && { ...spec, ca: spec.ca && { ...spec.ca, signingCaKey: EMPTY } },
    } as Tables[K]
  }
  if (kind === 'service') {
    const service = object as Tables['service']
    return { ...service, spec: withoutAuth(service.spec), previousSpec: withoutAuth(service.previousSpec) } as Tables[K]
  }
  if (kind === 'task') {
    const task = object as Tables['task']
    const container = task.spec?.container
    if (!task.spec || !container?.pullOptions) return object
    return { ...task, spec: { ...task.spec, container: { ...container, pullOptions: null } } } as Tables[K]
  }
  return object
}

const withoutAuth = (spec: Tables['service']['spec']): Tables['service']['spec'] =>
  spec?.task?.container?.pullOptions
    ? { ...spec, task: { ...spec.task, container: { ...spec.task.container, pullOptions: null } } }
    : spec

export type Specs = { readonly [K in keyof AnySpec]: NonNullable<AnySpec[K]> }

/** The one spec that is set. */
export function specOf(any: AnySpec | null): { [K in keyof Specs]: { kind: K; spec: Specs[K] } }[keyof Specs] {
  for (const kind of ['cluster', 'node', 'service', 'network', 'secret', 'config', 'volume'] as const) {
    const spec = any?.[kind]
    if (spec) return { kind, spec } as ReturnType<typeof specOf>
  }
  throw invalid('badSpec', 'the request has no spec')
}

/** Told to go and only waiting for its tasks: no longer there for users. */
export const isHidden = (kind: Kind, object: Tables[Kind]): boolean =>
  (kind === 'service' && (object as Tables['service']).pendingDelete) ||
  (kind === 'network' && (object as Tables['network']).pendingDelete)

/** Full id, exact name (without regard to case), unique id prefix, in this order. */
export function lookUp<K extends Kind>(view: ReadView, kind: K, reference: string): Tables[K] {
  const seen = (o: Tables[K]): boolean => !isHidden(kind, o)
  const exact = view.get(kind, reference)
  if (exact && seen(exact)) return exact
  if (reference === '') throw objectNotFound(kind, reference)
  const ambiguous = (n: number) =>
    invalid('ambiguous', `${kind} ${reference} is ambiguous (${n} matches found)`, { kind, reference })
  if (kind === 'node') {
    const same = view.list('node').filter((n) => n.description?.hostname.toLowerCase() === reference.toLowerCase())
    if (same.length > 1) throw ambiguous(same.length)
    if (same[0]) return same[0] as Tables[K]
  } else if (kind === 'task') {
    const found = taskByName(view, reference)
    if (found) return found as Tables[K]
  } else {
    const named = view.byName(kind as Exclude<K, 'task'>, reference)
    if (named && seen(named)) return named
  }
  const prefixed = view.byIdPrefix(kind, reference, 20).filter(seen)
  if (prefixed.length > 1) throw ambiguous(prefixed.length)
  if (prefixed[0]) return prefixed[0]
  throw objectNotFound(kind, reference)
}

/** `web.1` or `web.<node id>`, with `.<task id>` behind it or not (then: the newest). */
function taskByName(view: ReadView, reference: string): Tables['task'] | null {
  const dot = reference.indexOf('.')
  if (dot <= 0) return null
  const service = view.byName('service', reference.slice(0, dot))
  if (!service) return null
  const wanted = reference.toLowerCase()
  return (
    view
      .tasksOfService(service.id)
      .filter((t) => {
        const name = taskName(t).toLowerCase()
        return name === wanted || name.slice(0, name.lastIndexOf('.')) === wanted
      })
      .at(-1) ?? null
  )
}

/** Name of a task: <service>.<slot or node id>.<task id>. */
export const taskName = (task: Tables['task']): string =>
  task.annotations?.name ||
  `${task.serviceAnnotations?.name ?? ''}.${task.slot > 0 ? task.slot : task.nodeId}.${task.id}`
