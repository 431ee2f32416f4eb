import { type ListFilter, NodeRole, type Task, TaskState } from '#proto'
import { invalid } from '../../common/index.js'
import { isDirty } from '../orchestrator/index.js'
import type { Kind, ReadView, Tables } from '../store/index.js'
import { isHidden, lookUp, taskName } from './objects.js'
import { modeName } from './services.js'

type Test<T> = (object: T, values: readonly string[], view: ReadView) => boolean

interface Annotated {
  readonly id: string
  readonly spec: {
    readonly annotations: { readonly name: string; readonly labels: Record<string, string> } | null
  } | null
}

const lower = (s: string): string => s.toLowerCase()
const nameOf = (o: Annotated): string => o.spec?.annotations?.name ?? ''

/** `key` or `key=value`; `key=` is a label with an empty value. */
function hasLabel(labels: Readonly<Record<string, string>>, wanted: string): boolean {
  const eq = wanted.indexOf('=')
  const key = eq < 0 ? wanted : wanted.slice(0, eq)
  return Object.hasOwn(labels, key) && (eq < 0 || labels[key] === wanted.slice(eq + 1))
}

/** All labels named must be there, unlike other filters, where one of the values is enough (as in Docker). */
const labelled = (labels: Readonly<Record<string, string>> | undefined, values: readonly string[]): boolean =>
  values.every((v) => hasLabel(labels ?? {}, v))

/** Names and ids match from their beginning. */
const begins = (text: string, values: readonly string[]): boolean =>
  values.some((v) => lower(text).startsWith(lower(v)))

const annotated: Record<string, Test<Annotated>> = {
  id: (o, v) => v.some((x) => o.id.startsWith(x)),
  name: (o, v) => begins(nameOf(o), v),
  label: (o, v) => labelled(o.spec?.annotations?.labels, v),
}

const oneOf = <T>(allowed: Readonly<Record<string, T>>, filter: string, value: string): T => {
  const found = Object.hasOwn(allowed, lower(value)) ? allowed[lower(value)] : undefined
  if (found === undefined) throw invalid('badFilter', `Invalid filter '${filter}=${value}'`)
  return found
}

const TASK_STATES = Object.fromEntries(
  Object.entries(TaskState).map(([name, value]) => [lower(name.replace('TASK_', '')), value]),
) as Record<string, TaskState>
const isTrue = (filter: string, value: string): boolean =>
  oneOf({ true: true, '1': true, false: false, '0': false }, filter, value)

/** What the service's spec asks for now: also a task of an older spec that scaling, say, does not replace. */
function isUpToDate(task: Task, view: ReadView): boolean {
  const service = view.get('service', task.serviceId)
  return service !== null && !isDirty(task, service, view.get('node', task.nodeId))
}

const upToDate: Test<Task> = (t, v, view) => v.some((x) => isTrue('_up-to-date', x) === isUpToDate(t, view))

/** Is it the one that any of the references means? */
function resolves(view: ReadView, kind: 'service' | 'node', values: readonly string[], id: string): boolean {
  return values.some((v) => {
    if (v === id) return true
    try {
      return lookUp(view, kind, v).id === id
    } catch {
      // Not there, or ambiguous: matches nothing.
      return false
    }
  })
}

const FILTERS: { readonly [K in Kind]: Readonly<Record<string, Test<Tables[K]>>> } = {
  cluster: annotated as Record<string, Test<Tables['cluster']>>,
  node: {
    id: annotated.id as Test<Tables['node']>,
    name: (n, v) => begins(n.description?.hostname ?? '', v) || (nameOf(n) !== '' && begins(nameOf(n), v)),
    label: (n, v) => labelled(n.description?.engineLabels, v),
    'node.label': (n, v) => labelled(n.spec?.annotations?.labels, v),
    role: (n, v) => v.some((x) => n.role === oneOf({ manager: NodeRole.MANAGER, worker: NodeRole.WORKER }, 'role', x)),
    membership: (_, v) => v.some((x) => oneOf({ accepted: true, pending: false }, 'membership', x)),
  },
  service: {
    ...(annotated as Record<string, Test<Tables['service']>>),
    mode: (s, v) =>
      v.some((x) => {
        oneOf({ replicated: 1, global: 1, 'replicated-job': 1, 'global-job': 1 }, 'mode', x)
        return modeName(s.spec?.mode ?? null) === lower(x)
      }),
    runtime: (s, v) => v.some((x) => (s.spec?.task?.runtime || 'container') === lower(x)),
  },
  task: {
    id: (t, v) => v.some((x) => t.id.startsWith(x)),
    name: (t, v) => v.some((x) => lower(taskName(t)).startsWith(lower(x))),
    label: (t, v) => labelled({ ...t.serviceAnnotations?.labels, ...t.spec?.container?.labels }, v),
    service: (t, v, view) => resolves(view, 'service', v, t.serviceId),
    node: (t, v, view) => resolves(view, 'node', v, t.nodeId),
    'desired-state': (t, v) => v.some((x) => t.desiredState === oneOf(TASK_STATES, 'desired-state', x)),
    '_up-to-date': upToDate,
    'up-to-date': upToDate,
    runtime: (t, v) => v.some((x) => (t.spec?.attachment ? 'attachment' : t.spec?.runtime || 'container') === lower(x)),
  },
  network: {
    ...(annotated as Record<string, Test<Tables['network']>>),
    driver: (n, v) => v.includes(n.spec?.driverConfig?.name || 'overlay'),
    type: (_, v) => v.some((x) => oneOf({ custom: true, builtin: false }, 'type', x)),
    scope: (_, v) => v.includes('swarm'),
  },
  secret: {
    ...(annotated as Record<string, Test<Tables['secret']>>),
    names: (s, v) => v.includes(nameOf(s)),
  },
  config: annotated as Record<string, Test<Tables['config']>>,
  volume: annotated as Record<string, Test<Tables['volume']>>,
}

/** Objects that pass every filter, in order of creation. */
export function listObjects<K extends Kind>(view: ReadView, kind: K, filters: readonly ListFilter[]): Tables[K][] {
  const tests = filters
    .filter((f) => f.values.length > 0)
    .map((f) => {
      const test = Object.hasOwn(FILTERS[kind], f.key) ? FILTERS[kind][f.key] : undefined
      if (!test) throw invalid('badFilter', `Invalid filter '${f.key}'`, { kind, filter: f.key })
      return (o: Tables[K]) => test(o, f.values, view)
    })
  return candidates(view, kind, filters).filter((o) => !isHidden(kind, o) && tests.every((t) => t(o)))
}

/** Tasks of one service or node need no walk over all tasks. */
function candidates<K extends Kind>(view: ReadView, kind: K, filters: readonly ListFilter[]): readonly Tables[K][] {
  if (kind === 'task') {
    const service = filters.find((f) => f.key === 'service' && f.values.length === 1)?.values[0]
    if (service !== undefined) {
      const id = view.get('service', service)?.id ?? view.byName('service', service)?.id
      if (id !== undefined) return view.tasksOfService(id) as readonly Tables[K][]
    }
    const node = filters.find((f) => f.key === 'node' && f.values.length === 1)?.values[0]
    if (node !== undefined && view.get('node', node)) return view.tasksOfNode(node) as readonly Tables[K][]
  }
  return view.list(kind)
}
