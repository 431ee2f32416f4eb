import type { Api } from '../api.js'
import {
  type Cli,
  type Command,
  Exit,
  filters,
  forEach,
  inspectAll,
  type ListFlags,
  listFlags,
  printList,
} from '../command.js'
import { registryAuthHeader } from '../registry-auth.js'
import { shortImage, TASK_COLUMNS, TASK_SHOWN, type TaskJson, taskRows } from '../task-rows.js'
import { converged } from './converge.js'
import { createFlags, createSpec, scaleSpec, updateFlags, updateSpec } from './flags.js'
import { registerServiceLogs } from './logs.js'
import { prettyService } from './pretty.js'
import { resolveReferences, resolveRemoved } from './references.js'

export interface ServiceJson {
  ID: string
  Version: { Index: number }
  Spec: Record<string, unknown> & {
    Name: string
    TaskTemplate: { ContainerSpec?: { Image: string } }
    Mode: {
      Replicated?: { Replicas: number }
      Global?: object
      ReplicatedJob?: { MaxConcurrent: number; TotalCompletions: number }
      GlobalJob?: object
    }
  }
  Endpoint?: { Ports?: { Protocol: string; TargetPort: number; PublishedPort?: number; PublishMode: string }[] }
  ServiceStatus?: { RunningTasks: number; DesiredTasks: number; CompletedTasks: number }
  UpdateStatus?: { State: string; Message: string; StartedAt?: string; CompletedAt?: string }
}

const COLUMNS = { ID: 'ID', Name: 'NAME', Mode: 'MODE', Replicas: 'REPLICAS', Image: 'IMAGE', Ports: 'PORTS' }

export const getService = (api: Api, name: string): Promise<ServiceJson> =>
  api.get<ServiceJson>(`/services/${encodeURIComponent(name)}`)

const modeOf = (s: ServiceJson): string =>
  s.Spec.Mode.Global
    ? 'global'
    : s.Spec.Mode.GlobalJob
      ? 'global job'
      : s.Spec.Mode.ReplicatedJob
        ? 'replicated job'
        : 'replicated'

function replicasOf(s: ServiceJson): string {
  const st = s.ServiceStatus ?? { RunningTasks: 0, DesiredTasks: 0, CompletedTasks: 0 }
  const job = s.Spec.Mode.ReplicatedJob
  return `${st.RunningTasks}/${st.DesiredTasks}${job ? ` (${st.CompletedTasks}/${job.TotalCompletions} completed)` : ''}`
}

const tagged = (image: string): string =>
  image.includes('@') || image.lastIndexOf(':') > image.lastIndexOf('/') ? image : `${image}:latest`

/** Asks the registry for the digest, so that all nodes run the same image; without an answer the tag goes as it is. */
async function pinned(api: Api, cli: Cli, image: string): Promise<{ image: string; platforms: object[] }> {
  if (image.includes('@')) return { image, platforms: [] }
  const name = tagged(image)
  try {
    const d = await api.get<{
      Descriptor: { digest: string }
      Platforms: { architecture: string; os: string }[] | null
    }>(`/distribution/${name}/json`)
    return {
      image: `${name}@${d.Descriptor.digest}`,
      platforms: (d.Platforms ?? []).map((p) => ({ Architecture: p.architecture, OS: p.os })),
    }
  } catch {
    cli.err(
      `image ${name} could not be accessed on a registry to record\nits digest. Each node will access ${name} independently,\npossibly leading to different nodes running different\nversions of the image.\n\n`,
    )
    return { image: name, platforms: [] }
  }
}

export function registerService(parent: Command, cli: Cli): void {
  listFlags(parent.command('ls').alias('list').description('List services')).action(async (f: ListFlags) => {
    const found = await (await cli.api()).get<ServiceJson[]>('/services', { status: true, filters: filters(f.filter) })
    const rows = found
      .sort((a, b) => (a.Spec.Name < b.Spec.Name ? -1 : 1))
      .map((s) => ({
        ID: s.ID.slice(0, 12),
        Name: s.Spec.Name,
        Mode: modeOf(s),
        Replicas: replicasOf(s),
        Image: shortImage(s.Spec.TaskTemplate.ContainerSpec?.Image ?? ''),
        Ports: (s.Endpoint?.Ports ?? [])
          .filter((p) => p.PublishMode === 'ingress')
          .map((p) => `*:${p.PublishedPort}->${p.TargetPort}/${p.Protocol}`)
          .join(', '),
      }))
    printList(cli, rows, { columns: COLUMNS, shown: ['ID', 'Name', 'Mode', 'Replicas', 'Image', 'Ports'], id: 'ID' }, f)
  })

  createFlags(parent.command('create').description('Create a new service'))
    .argument('<image>')
    .argument('[args...]')
    .stopAtFirstArgument('IMAGE [COMMAND] [ARG...]')
    .action(async (image: string, args: string[], f: Record<string, unknown>) => {
      const api = await cli.api()
      const auth = f.withRegistryAuth ? registryAuthHeader(image) : {}
      const spec = createSpec(tagged(image), args, f)
      await resolveReferences(api, spec, f)
      const resolved =
        f.resolveImage === false ? { image: tagged(image), platforms: [] } : await pinned(api, cli, image)
      ;(spec.TaskTemplate as { ContainerSpec: { Image: string } }).ContainerSpec.Image = resolved.image
      if (resolved.platforms.length > 0) {
        const template = spec.TaskTemplate as { Placement?: object }
        template.Placement = { ...template.Placement, Platforms: resolved.platforms }
      }
      const made = await api.post<{ ID: string; Warnings: string[] | null }>('/services/create', {
        body: spec,
        headers: auth,
      })
      for (const w of made.Warnings ?? []) cli.err(`${w}\n`)
      cli.out(`${made.ID}\n`)
      if (!detached(f)) await converged(api, cli, made.ID, f.quiet === true)
    })

  updateFlags(parent.command('update').description('Update a service'))
    .argument('<service>')
    .action(async (name: string, f: Record<string, unknown>) => {
      const api = await cli.api()
      const s = await getService(api, name)
      if (f.rollback) {
        await api.post(`/services/${s.ID}/update`, {
          query: { version: s.Version.Index, rollback: 'previous' },
          body: s.Spec,
        })
      } else {
        const image =
          typeof f.image === 'string' && f.resolveImage !== false ? (await pinned(api, cli, f.image)).image : f.image
        const body = updateSpec(s.Spec, { ...(await resolveRemoved(api, f)), image })
        await resolveReferences(api, body, f)
        const wanted = (f.image as string | undefined) ?? s.Spec.TaskTemplate.ContainerSpec?.Image ?? ''
        const done = await api.post<{ Warnings: string[] | null }>(`/services/${s.ID}/update`, {
          query: { version: s.Version.Index, registryAuthFrom: 'spec' },
          body,
          headers: f.withRegistryAuth ? registryAuthHeader(wanted) : {},
        })
        for (const w of done.Warnings ?? []) cli.err(`${w}\n`)
      }
      cli.out(`${name}\n`)
      if (!detached(f)) await converged(api, cli, s.ID, f.quiet === true)
    })

  parent
    .command('rollback')
    .description("Revert changes to a service's configuration")
    .argument('<service>')
    .option('-d, --detach', 'do not wait until it converged')
    .option('-q, --quiet', 'without progress')
    .action(async (name: string, f: Record<string, unknown>) => {
      const api = await cli.api()
      const s = await getService(api, name)
      await api.post(`/services/${s.ID}/update`, {
        query: { version: s.Version.Index, rollback: 'previous' },
        body: s.Spec,
      })
      cli.out(`${name}\n`)
      if (!detached(f)) await converged(api, cli, s.ID, f.quiet === true)
    })

  parent
    .command('scale')
    .description('Scale replicated services')
    .argument('<service=replicas...>')
    .option('-d, --detach', 'do not wait until they converged')
    .action(async (wanted: string[], f: Record<string, unknown>) => {
      const api = await cli.api()
      const failures: string[] = []
      const ids: string[] = []
      for (const w of wanted) {
        const i = w.lastIndexOf('=')
        if (i <= 0 || !/^\d+$/.test(w.slice(i + 1)))
          throw new Exit(
            1,
            `invalid scale specifier '${w}'.\nSee 'shoal service scale --help'.\n\nUsage:  shoal service scale SERVICE=REPLICAS [SERVICE=REPLICAS...]\n\nScale one or multiple replicated services`,
          )
        try {
          const s = await getService(api, w.slice(0, i))
          const spec = structuredClone(s.Spec) as Record<string, unknown>
          scaleSpec(spec, Number(w.slice(i + 1)))
          await api.post(`/services/${s.ID}/update`, { query: { version: s.Version.Index }, body: spec })
          cli.out(`${w.slice(0, i)} scaled to ${w.slice(i + 1)}\n`)
          ids.push(s.ID)
        } catch (e) {
          failures.push(`${w.slice(0, i)}: ${(e as Error).message}`)
        }
      }
      if (!detached(f)) for (const id of ids) await converged(api, cli, id, false)
      if (failures.length > 0) throw new Exit(1, failures.join('\n'))
    })

  listFlags(parent.command('ps').description('List the tasks of services'))
    .argument('<service...>')
    .option('--no-resolve', 'ids in place of names')
    .option('--no-trunc', 'whole text')
    .action(async (names: string[], f: ListFlags & { resolve: boolean; trunc: boolean }) => {
      const api = await cli.api()
      const ids: string[] = []
      const missing: string[] = []
      for (const n of names) {
        try {
          ids.push((await getService(api, n)).ID)
        } catch (e) {
          if ((e as { status?: number }).status !== 404) throw e
          missing.push(`no such service: ${n}`)
        }
      }
      if (ids.length > 0) {
        const tasks = await api.get<TaskJson[]>('/tasks', { filters: { ...filters(f.filter), service: ids } })
        printList(cli, await taskRows(api, tasks, f), { columns: TASK_COLUMNS, shown: TASK_SHOWN, id: 'ID' }, f)
      }
      if (missing.length > 0) throw new Exit(1, missing.join('\n'))
    })

  parent
    .command('inspect')
    .description('Display detailed information on services')
    .argument('<service...>')
    .option('-f, --format <format>', 'Go template')
    .option('--pretty', 'for people')
    .action(async (names: string[], f: { format?: string; pretty?: boolean }) => {
      const api = await cli.api()
      await inspectAll(
        cli,
        names,
        async (n) => {
          try {
            return await api.get(`/services/${encodeURIComponent(n)}`, { insertDefaults: true })
          } catch (e) {
            if ((e as { status?: number }).status === 404) throw new Exit(1, `Error: no such service: ${n}`)
            throw e
          }
        },
        f.pretty ? prettyService : f.format,
      )
    })

  parent
    .command('rm')
    .alias('remove')
    .description('Remove services')
    .argument('<service...>')
    .action(async (names: string[]) => {
      const api = await cli.api()
      await forEach(cli, names, (n) => api.delete(`/services/${encodeURIComponent(n)}`))
    })
  registerServiceLogs(parent, cli)
}

const detached = (f: Record<string, unknown>): boolean => f.detach === true
