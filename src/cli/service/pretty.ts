import { goDuration } from '../../common/clock.js'
import { ago, binarySize } from '../format/units.js'
import type { ServiceJson } from './index.js'

interface Update {
  Parallelism: number
  Delay?: number
  FailureAction?: string
  Monitor?: number
  MaxFailureRatio?: number
  Order?: string
}
interface Resources {
  NanoCPUs?: number
  MemoryBytes?: number
  Pids?: number
}
interface Container {
  Image: string
  Args?: string[]
  Command?: string[]
  Env?: string[]
  Dir?: string
  User?: string
  Init?: boolean
  Mounts?: { Type: string; Source?: string; Target: string; ReadOnly?: boolean }[]
  Configs?: { ConfigName: string; File?: { Name: string } }[]
  Secrets?: { SecretName: string; File?: { Name: string } }[]
  Healthcheck?: { Test?: string[]; Interval?: number; Timeout?: number; Retries?: number; StartPeriod?: number }
}
interface Task {
  ContainerSpec?: Container
  Placement?: {
    Constraints?: string[]
    Preferences?: { Spread?: { SpreadDescriptor: string } }[]
    MaxReplicas?: number
  }
  Resources?: { Limits?: Resources; Reservations?: Resources }
}
interface Full extends Omit<ServiceJson, 'Spec' | 'Endpoint'> {
  Spec: ServiceJson['Spec'] & {
    Labels?: Record<string, string>
    TaskTemplate: Task
    UpdateConfig?: Update
    RollbackConfig?: Update
  }
  Endpoint?: {
    Spec?: { Mode?: string }
    Ports?: { Protocol: string; TargetPort: number; PublishedPort?: number; PublishMode: string }[]
  }
}

const since = (time: string): string => ago(Date.now() - Date.parse(time)).toLowerCase()

/** service inspect --pretty, in docker's lines. */
export function prettyService(service: object): string {
  const s = service as Full
  const task = s.Spec.TaskTemplate
  const out: string[] = ['', `ID:\t\t${s.ID}`, `Name:\t\t${s.Spec.Name}`]
  const labels = Object.entries(s.Spec.Labels ?? {}).sort()
  if (labels.length > 0) out.push('Labels:', ...labels.map(([k, v]) => ` ${k}=${v}`))
  const mode = s.Spec.Mode
  if (mode.Global) out.push('Service Mode:\tGlobal')
  else if (mode.Replicated) out.push('Service Mode:\tReplicated', ` Replicas:\t${mode.Replicated.Replicas}`)
  else if (mode.ReplicatedJob)
    out.push(
      'Service Mode:\tReplicatedJob',
      ` Max Concurrent:\t${mode.ReplicatedJob.MaxConcurrent}`,
      ` Total Completions:\t${mode.ReplicatedJob.TotalCompletions}`,
    )
  else out.push('Service Mode:\tGlobalJob')
  if (s.UpdateStatus?.State)
    out.push(
      'UpdateStatus:',
      ` State:\t\t${s.UpdateStatus.State}`,
      ...(s.UpdateStatus.StartedAt ? [` Started:\t${since(s.UpdateStatus.StartedAt)}`] : []),
      ...(s.UpdateStatus.CompletedAt ? [` Completed:\t${since(s.UpdateStatus.CompletedAt)}`] : []),
      ` Message:\t${s.UpdateStatus.Message}`,
    )
  out.push('Placement:')
  if (task.Placement?.Constraints?.length) out.push(` Constraints:\t[${task.Placement.Constraints.join(' ')}]`)
  if (task.Placement?.Preferences?.length)
    out.push(` Preferences:\t[${task.Placement.Preferences.map((p) => p.Spread?.SpreadDescriptor ?? '').join(' ')}]`)
  if (task.Placement?.MaxReplicas) out.push(` Max Replicas Per Node:\t${task.Placement.MaxReplicas}`)
  out.push(
    ...update('UpdateConfig:', 'Update', s.Spec.UpdateConfig),
    ...update('RollbackConfig:', 'Rollback', s.Spec.RollbackConfig),
  )
  const c = task.ContainerSpec
  if (c) out.push(...container(c))
  if (task.Resources) {
    out.push(
      'Resources:',
      ...resources('Reservations', task.Resources.Reservations),
      ...resources('Limits', task.Resources.Limits),
    )
  }
  if (s.Endpoint?.Spec?.Mode) out.push(`Endpoint Mode:\t${s.Endpoint.Spec.Mode}`)
  if (s.Endpoint?.Ports?.length) {
    out.push('Ports:')
    for (const p of s.Endpoint.Ports)
      out.push(
        ` PublishedPort = ${p.PublishedPort ?? 0}`,
        `  Protocol = ${p.Protocol}`,
        `  TargetPort = ${p.TargetPort}`,
        `  PublishMode = ${p.PublishMode} `,
      )
  }
  const h = c?.Healthcheck
  if (h)
    out.push(
      ' Healthcheck:',
      `  Interval = ${goDuration(h.Interval ?? 0)}`,
      `  Retries = ${h.Retries ?? 0}`,
      `  StartPeriod =\t${goDuration(h.StartPeriod ?? 0)}`,
      `  Timeout =\t${goDuration(h.Timeout ?? 0)}`,
      ...(h.Test?.length ? ['  Tests:', `${h.Test.map((t) => `\t Test = ${t}`).join('\n')} `] : []),
    )
  return `${out.join('\n')}\n\n`
}

function update(title: string, order: string, u: Update | undefined): string[] {
  if (!u) return []
  return [
    title,
    ` Parallelism:\t${u.Parallelism}`,
    ...(u.Delay ? [` Delay:\t\t${goDuration(u.Delay)}`] : []),
    ` On failure:\t${u.FailureAction ?? 'pause'}`,
    ...(u.Monitor ? [` Monitoring Period: ${goDuration(u.Monitor)}`] : []),
    ` Max failure ratio: ${u.MaxFailureRatio ?? 0}`,
    ` ${`${order} order:`.padEnd(18)} ${u.Order ?? 'stop-first'}`,
  ]
}

function container(c: Container): string[] {
  const list = (v: readonly string[]): string => v.map((x) => `${x} `).join('')
  return [
    'ContainerSpec:',
    ` Image:\t\t${c.Image}`,
    ...(c.Command?.length ? [` Command:\t${list(c.Command)}`] : []),
    ...(c.Args?.length ? [` Args:\t\t${list(c.Args)}`] : []),
    ...(c.Env?.length ? [` Env:\t\t${list(c.Env)}`] : []),
    ...(c.Dir ? [` Dir:\t\t${c.Dir}`] : []),
    ...(c.Init === undefined || c.Init === null ? [] : [` Init:\t\t${c.Init}`]),
    ...(c.User ? [` User: ${c.User}`] : []),
    ...(c.Mounts?.length
      ? [
          'Mounts:',
          ...c.Mounts.flatMap((m) => [
            ` Target:\t${m.Target}`,
            `  Source:\t${m.Source ?? ''}`,
            `  ReadOnly:\t${m.ReadOnly ?? false}`,
            `  Type:\t\t${m.Type}`,
          ]),
        ]
      : []),
    ...(c.Configs?.length
      ? ['Configs:', ...c.Configs.flatMap((f) => [` Target:\t${f.File?.Name ?? ''}`, `  Source:\t${f.ConfigName}`])]
      : []),
    ...(c.Secrets?.length
      ? ['Secrets:', ...c.Secrets.flatMap((f) => [` Target:\t${f.File?.Name ?? ''}`, `  Source:\t${f.SecretName}`])]
      : []),
  ]
}

function resources(title: string, r: Resources | undefined): string[] {
  if (!r || !(r.NanoCPUs || r.MemoryBytes || r.Pids)) return []
  return [
    ` ${title}:`,
    ...(r.NanoCPUs ? [`  CPU:\t\t${r.NanoCPUs / 1e9}`] : []),
    ...(r.MemoryBytes ? [`  Memory:\t${binarySize(r.MemoryBytes)}`] : []),
    ...(r.Pids ? [`  PIDs:\t\t${r.Pids}`] : []),
  ]
}
