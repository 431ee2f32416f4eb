import {
  type ContainerSpec,
  EndpointMode,
  type EndpointSpec,
  type HealthConfig,
  type Placement,
  type PortConfig,
  PublishMode,
  type Resources,
  type ServiceSpec,
  type TaskSpec,
  type UpdateConfig,
} from '#proto'
import { badSpec } from './errors.js'
import { isImageReference } from './image-reference.js'
import { checkName } from './validate-common.js'

const MIN_NANO_CPUS = 1_000_000
const MIN_MEMORY_BYTES = 4 * 1024 * 1024
const MIN_HEALTH_NANOS = 1_000_000

/** All that can be said of a service's spec without looking at the cluster. Texts are Swarm's: scripts look for them. */
export function checkServiceSpec(spec: ServiceSpec): void {
  checkName(spec.annotations)
  checkTaskSpec(spec.task)
  checkMode(spec)
  checkUpdate(spec.update, 'update')
  checkUpdate(spec.rollback, 'rollback')
  checkEndpoint(spec.endpoint)
}

function checkMode(spec: ServiceSpec): void {
  const mode = spec.mode
  if (!mode || !(mode.replicated || mode.global || mode.replicatedJob || mode.globalJob))
    throw badSpec('must specify service mode')
  if (mode.replicated && mode.replicated.replicas < 0) throw badSpec('Number of replicas must be non-negative')
  const job = mode.replicatedJob !== null || mode.globalJob !== null
  if (!job) return
  if (spec.update) throw badSpec('job-mode services may not have an update config')
  if (spec.rollback) throw badSpec('job-mode services may not have a rollback config')
}

export function checkTaskSpec(task: TaskSpec | null): void {
  if (!task) throw badSpec('TaskSpec: missing')
  if (task.attachment) throw badSpec('TaskSpec: a service cannot be a network attachment')
  checkResources(task.resources?.limits ?? null)
  checkResources(task.resources?.reservations ?? null)
  if (task.resources?.limits?.generic.length) throw badSpec('generic resources can be reserved but not limited')
  if (task.restart && (task.restart.delay ?? 0) < 0) throw badSpec('TaskSpec: restart-delay cannot be negative')
  if (task.restart && (task.restart.window ?? 0) < 0) throw badSpec('TaskSpec: restart-window cannot be negative')
  checkPlacement(task.placement)
  if (!task.container) throw badSpec('TaskSpec: missing runtime')
  checkContainer(task.container)
}

function checkResources(r: Resources | null): void {
  if (!r) return
  if (r.nanoCpus !== 0 && r.nanoCpus < MIN_NANO_CPUS)
    throw badSpec(`invalid cpu value ${r.nanoCpus / 1e9}: Must be at least ${MIN_NANO_CPUS / 1e9}`)
  if (r.memoryBytes !== 0 && r.memoryBytes < MIN_MEMORY_BYTES)
    throw badSpec(`invalid memory value ${r.memoryBytes}: Must be at least 4MiB`)
  if (r.pids < 0) throw badSpec(`invalid pids limit ${r.pids}: must not be negative`)
  for (const g of r.generic) {
    if (g.kind === '') throw badSpec('generic resource without a kind')
    if (g.value === '' && g.count <= 0) throw badSpec(`invalid generic resource ${g.kind}: count must be at least 1`)
  }
}

function checkPlacement(placement: Placement | null): void {
  for (const c of placement?.constraints ?? []) checkConstraint(c)
  for (const p of placement?.preferences ?? [])
    if (p.spreadOver === '') throw badSpec('placement preference without a label to spread over')
}

function checkConstraint(text: string): void {
  const parts = /^(.*?)(==|!=)(.*)$/s.exec(text)
  if (!parts) throw badSpec('constraint expected one operator from ==, !=', { constraint: text })
  const key = parts[1]!.trim()
  const value = parts[3]!.trim()
  if (/==|!=/.test(value)) throw badSpec('constraint expected one operator from ==, !=', { constraint: text })
  if (!/^[a-z_][a-z0-9\-_.]+$/i.test(key)) throw badSpec(`key '${key}' is invalid`)
  if (!/^[a-z0-9:\-_\s.*()?+[\]\\^$|/]+$/i.test(value)) throw badSpec(`value '${value}' is invalid`)
}

function checkContainer(c: ContainerSpec): void {
  if (c.image === '') throw badSpec('ContainerSpec: image reference must be provided')
  if (!isImageReference(c.image)) throw badSpec(`ContainerSpec: "${c.image}" is not a valid repository/tag`)
  const targets = new Set<string>()
  for (const m of c.mounts) {
    if (m.target === '') throw badSpec('ContainerSpec: mount without a target')
    if (targets.has(m.target)) throw badSpec(`ContainerSpec: duplicate mount point: ${m.target}`)
    targets.add(m.target)
  }
  if (c.stopGracePeriod !== null && c.stopGracePeriod < 0)
    throw badSpec('ContainerSpec: stop-grace-period cannot be negative')
  checkHealth(c.healthcheck)
  checkFileTargets(
    'secret',
    c.secrets.map((s) => ({ id: s.secretId, name: s.secretName, target: s.target?.name })),
  )
  checkFileTargets(
    'config',
    c.configs.map((s) => ({ id: s.configId, name: s.configName, target: s.target?.name })),
  )
}

function checkHealth(h: HealthConfig | null): void {
  if (!h) return
  const times = { Interval: h.interval, Timeout: h.timeout, StartPeriod: h.startPeriod, StartInterval: h.startInterval }
  for (const [name, value] of Object.entries(times)) {
    if (value < 0) throw badSpec(`ContainerSpec: ${name} in HealthConfig cannot be negative`)
    if (value !== 0 && value < MIN_HEALTH_NANOS)
      throw badSpec(`ContainerSpec: ${name} in HealthConfig cannot be less than 1ms`)
  }
  if (h.retries < 0) throw badSpec('ContainerSpec: Retries in HealthConfig cannot be negative')
}

/** Same target twice is refused; a config without one is for the runtime. */
function checkFileTargets(
  kind: 'secret' | 'config',
  references: readonly { id: string; name: string; target: string | undefined }[],
): void {
  const byTarget = new Map<string, string>()
  for (const r of references) {
    if (r.id === '' || r.name === '') throw badSpec(`malformed ${kind} reference`)
    if (r.target === undefined) {
      if (kind === 'secret') throw badSpec(`malformed secret reference, no target provided`)
      continue
    }
    if (r.target === '') throw badSpec(`malformed file ${kind} reference, invalid target file name provided`)
    const other = byTarget.get(r.target)
    if (other !== undefined)
      throw badSpec(`${kind} references '${other}' and '${r.name}' have a conflicting target: '${r.target}'`)
    byTarget.set(r.target, r.name)
  }
}

function checkUpdate(config: UpdateConfig | null, what: 'update' | 'rollback'): void {
  if (!config) return
  if (config.delay < 0) throw badSpec(`TaskSpec: ${what}-delay cannot be negative`)
  if ((config.monitor ?? 0) < 0) throw badSpec(`TaskSpec: ${what}-monitor cannot be negative`)
  if (config.maxFailureRatio < 0 || config.maxFailureRatio > 1)
    throw badSpec(`TaskSpec: ${what}-maxfailureratio cannot be less than 0 or bigger than 1`)
}

function checkEndpoint(endpoint: EndpointSpec | null): void {
  if (!endpoint) return
  const ingress = endpoint.ports.some((p) => p.publishMode === PublishMode.INGRESS)
  if (endpoint.mode === EndpointMode.DNSRR && ingress)
    throw badSpec("EndpointSpec: port published with ingress mode can't be used with dnsrr mode")
  const seen = new Set<string>()
  for (const p of endpoint.ports) {
    checkPort(p)
    if (p.publishedPort === 0) continue
    const place = `${p.protocol}/${p.publishedPort}/${p.publishMode}`
    if (seen.has(place)) throw badSpec('EndpointSpec: duplicate published ports provided')
    seen.add(place)
  }
}

function checkPort(p: PortConfig): void {
  if (p.targetPort < 1 || p.targetPort > 65535) throw badSpec(`EndpointSpec: invalid target port ${p.targetPort}`)
  if (p.publishedPort > 65535) throw badSpec(`EndpointSpec: invalid published port ${p.publishedPort}`)
}
