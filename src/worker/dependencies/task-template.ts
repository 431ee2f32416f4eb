import type { Config, ContainerSpec, Driver, Mount, Node, Secret, Task } from '#proto'
import { invalid } from '../../common/index.js'
import type { Dependencies } from '../contract.js'
import { expandTemplate, type TemplateFunction, type TemplateValue } from './template.js'

/** A payload that grew beyond this while it was expanded is refused: the same bound as for secrets themselves. */
const PAYLOAD_MAX_BYTES = 500 * 1024

/** `<service>.<slot or node id>.<task id>`: the container's name and {{.Task.Name}}. */
export function taskName(task: Task): string {
  const service = task.serviceAnnotations?.name ?? ''
  return `${service}.${task.slot || task.nodeId}.${task.id}`
}

/** What templates see: the fields that docker documents. The slot of a global task is its node's id. */
function valuesOf(task: Task, node: Pick<Node, 'id' | 'description'>): TemplateValue {
  const platform = node.description?.platform
  return {
    Service: {
      ID: task.serviceId,
      Name: task.serviceAnnotations?.name ?? '',
      Labels: task.serviceAnnotations?.labels ?? {},
    },
    Node: {
      ID: node.id,
      Hostname: node.description?.hostname ?? '',
      Platform: { OS: platform?.os ?? '', Architecture: platform?.architecture ?? '' },
    },
    Task: { ID: task.id, Name: taskName(task), Slot: task.slot > 0 ? String(task.slot) : task.nodeId },
  }
}

/**
 * The container's spec with its templates expanded for this task and node: environment, host name, mounts' sources and targets,
 * volumes' labels and driver options. Throws invalid `badTemplate`: the task can never run.
 */
export function expandContainerSpec(task: Task, node: Pick<Node, 'id' | 'description'>): ContainerSpec {
  const spec = task.spec?.container
  if (!spec) throw invalid('noContainer', `task ${task.id} has no container`)
  const values = valuesOf(task, node)
  const expand = (text: string): string => expandTemplate(text, values)
  const record = (r: Record<string, string>): Record<string, string> =>
    Object.fromEntries(Object.entries(r).map(([k, v]) => [k, expand(v)]))
  const driver = (d: Driver | null): Driver | null => d && { ...d, options: record(d.options) }
  const mount = (m: Mount): Mount => ({
    ...m,
    source: expand(m.source),
    target: expand(m.target),
    volumeLabels: record(m.volumeLabels),
    volumeDriver: driver(m.volumeDriver),
  })
  return { ...spec, hostname: expand(spec.hostname), env: spec.env.map(expand), mounts: spec.mounts.map(mount) }
}

/**
 * A secret's or config's bytes as the task's container gets them. With the template driver "golang" they are a template, which
 * also knows `env`, `secret` and `config`: by the environment's name, and by the target's file name in this task's own references.
 */
export function payloadFor(
  object: Secret | Config,
  task: Task,
  node: Pick<Node, 'id' | 'description'>,
  dependencies: Dependencies,
): Uint8Array {
  const spec = object.spec
  const data = spec?.data ?? new Uint8Array()
  const driver = spec?.templating?.name ?? ''
  if (driver === '') return data
  if (driver !== 'golang')
    throw invalid('badTemplate', `template driver "${driver}" of ${spec?.annotations?.name} is not known: use "golang"`)
  const expanded = expandTemplate(
    Buffer.from(data).toString('utf8'),
    valuesOf(task, node),
    payloadFunctions(task, node, dependencies),
  )
  if (Buffer.byteLength(expanded) > PAYLOAD_MAX_BYTES)
    throw invalid('badTemplate', `${spec?.annotations?.name} is longer than ${PAYLOAD_MAX_BYTES} bytes when expanded`)
  return Buffer.from(expanded)
}

function payloadFunctions(
  task: Task,
  node: Pick<Node, 'id' | 'description'>,
  dependencies: Dependencies,
): Readonly<Record<string, TemplateFunction>> {
  const container = expandContainerSpec(task, node)
  const named = (what: string, name: TemplateValue, data: Uint8Array | undefined): string => {
    if (data === undefined) throw invalid('badTemplate', `task ${task.id} has no ${what} with target "${name}"`)
    return Buffer.from(data).toString('utf8')
  }
  return {
    env: (name) => {
      const entry = container.env.find((e) => e.startsWith(`${name}=`))
      return entry?.slice(entry.indexOf('=') + 1)
    },
    secret: (name) => {
      const reference = container.secrets.find((s) => s.target?.name === name)
      return named('secret', name, reference && dependencies.secret(reference.secretId)?.spec?.data)
    },
    config: (name) => {
      const reference = container.configs.find((c) => c.target?.name === name)
      return named('config', name, reference && dependencies.config(reference.configId)?.spec?.data)
    },
  }
}
