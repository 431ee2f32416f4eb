import { createInterface } from 'node:readline'
import { PassThrough } from 'node:stream'
import type { Api } from '../api.js'
import type { Cli, Command } from '../command.js'
import { timestamp } from '../container/session.js'
import { demux } from '../streams.js'
import type { TaskJson } from '../task-rows.js'
import type { ServiceJson } from './index.js'

const TASK = 'com.docker.swarm.task.id'
const NODE = 'com.docker.swarm.node.id'

/** service logs: the lines of all tasks, each with the task and node that wrote it. */
export function registerServiceLogs(parent: Command, cli: Cli): void {
  parent
    .command('logs')
    .description('Fetch the logs of a service or task')
    .argument('<service>')
    .option('--details', 'extra attributes')
    .option('-f, --follow', 'go on with what comes')
    .option('--no-resolve', 'ids in place of names')
    .option('--no-task-ids', 'without task ids')
    .option('--no-trunc', 'whole ids')
    .option('--raw', 'lines as they were written')
    .option('--since <time>', 'from a time, or a duration ago')
    .option('-n, --tail <lines>', 'lines from the end', 'all')
    .option('-t, --timestamps', 'with times')
    .action(
      async (
        name: string,
        f: {
          details?: boolean
          follow?: boolean
          resolve: boolean
          taskIds: boolean
          trunc: boolean
          raw?: boolean
          since?: string
          tail: string
          timestamps?: boolean
        },
      ) => {
        const api = await cli.api()
        const found = await api
          .get<ServiceJson>(`/services/${encodeURIComponent(name)}`)
          .catch((e: { status?: number }) => {
            if (e.status !== 404) throw e
            return null
          })
        const task = found ? null : await api.get<TaskJson>(`/tasks/${encodeURIComponent(name)}`)
        const stream = await api.stream('GET', found ? `/services/${found.ID}/logs` : `/tasks/${task!.ID}/logs`, {
          query: {
            stdout: true,
            stderr: true,
            follow: f.follow ?? false,
            since: timestamp(f.since),
            tail: f.tail,
            timestamps: f.timestamps ?? false,
            details: true,
          },
        })
        const nodes = new Map(
          (await api.get<{ ID: string; Description: { Hostname: string } }[]>('/nodes')).map((n) => [
            n.ID,
            n.Description.Hostname,
          ]),
        )
        const tasks = new Map<string, string>()
        // The widest name that this service's tasks can have now: docker lines the bars up.
        let width = found ? await nameWidth(api, found, f.resolve) : 0
        const label = async (attributes: Record<string, string>): Promise<string> => {
          const id = attributes[TASK] ?? ''
          if (!tasks.has(id)) {
            const t = await api.get<TaskJson>(`/tasks/${id}`).catch(() => null)
            const service = found?.Spec.Name ?? (t ? await serviceName(api, t.ServiceID) : '')
            tasks.set(id, t && f.resolve ? `${service}.${t.Slot ? t.Slot : t.NodeID}` : id)
          }
          const node = attributes[NODE] ?? ''
          const name = tasks.get(id)!
          width = Math.max(width, name.length)
          const task = f.taskIds && f.resolve ? `.${f.trunc ? id.slice(0, 12) : id}` : ''
          const text = `${name}${task}@${f.resolve ? (nodes.get(node) ?? node) : node}`
          return `${text}${' '.repeat(width - name.length)}`
        }
        const print = (from: PassThrough, out: (text: string) => void): Promise<void> =>
          (async () => {
            for await (const line of createInterface({ input: from, crlfDelay: Number.POSITIVE_INFINITY })) {
              // With details a line is "[TIME ]ATTRIBUTES TEXT"; attributes are URL-encoded pairs.
              const parts = line.split(' ')
              const time = f.timestamps ? `${parts.shift()} ` : ''
              const attributes = Object.fromEntries(
                (parts.shift() ?? '').split(',').map((p) => p.split('=').map(decodeURIComponent) as [string, string]),
              )
              const text = parts.join(' ')
              const extra = Object.entries(attributes)
                .filter(([k]) => !k.startsWith('com.docker.swarm.'))
                .map(([k, v]) => `${k}=${v}`)
                .join(',')
              out(
                f.raw
                  ? `${text}\n`
                  : `${time}${await label(attributes)}    | ${f.details && extra ? `${extra} ` : ''}${text}\n`,
              )
            }
          })()
        const [stdout, stderr] = [new PassThrough(), new PassThrough()]
        const split = demux(stream, stdout, stderr).finally(() => {
          stdout.end()
          stderr.end()
        })
        await Promise.all([split, print(stdout, cli.out), print(stderr, cli.err)])
      },
    )
}

async function nameWidth(api: Api, s: ServiceJson, resolve: boolean): Promise<number> {
  if (!resolve) return 0
  const slots = s.Spec.Mode.Replicated?.Replicas ?? s.Spec.Mode.ReplicatedJob?.TotalCompletions
  if (slots !== undefined) return `${s.Spec.Name}.${slots}`.length
  const nodes = await api.get<{ ID: string }[]>('/nodes')
  return Math.max(0, ...nodes.map((n) => `${s.Spec.Name}.${n.ID}`.length))
}

async function serviceName(api: Api, id: string): Promise<string> {
  try {
    return (await api.get<ServiceJson>(`/services/${id}`)).Spec.Name
  } catch (e) {
    if ((e as { status?: number }).status !== 404) throw e
    return id // The service is gone; its task may still be read.
  }
}
