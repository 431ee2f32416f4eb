import {
  type Cli,
  type Command,
  collect,
  filters,
  forEach,
  inspectAll,
  type ListFlags,
  listFlags,
  pairs,
  printList,
} from '../command.js'
import { nodeReference, TASK_COLUMNS, TASK_SHOWN, type TaskJson, taskRows } from '../task-rows.js'
import { prettyNode } from './pretty.js'

interface TlsInfo {
  TrustRoot?: string
  CertIssuerSubject?: string
  CertIssuerPublicKey?: string
}

interface Info {
  Swarm: { NodeID: string; Cluster?: { TLSInfo?: TlsInfo } | null }
}

interface NodeJson {
  ID: string
  Version: { Index: number }
  Spec: { Role: string; Availability: string; Labels: Record<string, string>; Name?: string }
  Description: { Hostname: string; Engine: { EngineVersion: string }; TLSInfo?: TlsInfo }
  Status: { State: string; Addr: string }
  ManagerStatus?: { Leader?: boolean; Reachability: string; Addr: string }
}

const COLUMNS = {
  ID: 'ID',
  Self: '',
  Hostname: 'HOSTNAME',
  Status: 'STATUS',
  Availability: 'AVAILABILITY',
  ManagerStatus: 'MANAGER STATUS',
  EngineVersion: 'ENGINE VERSION',
  TLSStatus: 'TLS STATUS',
}
/** Whether a node's certificate is of the cluster's present root. */
function tlsStatus(node: TlsInfo | undefined, cluster: TlsInfo | undefined): string {
  if (!node?.TrustRoot || !cluster?.TrustRoot) return 'Unknown'
  return node.TrustRoot === cluster.TrustRoot &&
    node.CertIssuerSubject === cluster.CertIssuerSubject &&
    node.CertIssuerPublicKey === cluster.CertIssuerPublicKey
    ? 'Ready'
    : 'Needs Rotation'
}

const capital = (s: string): string => s.charAt(0).toUpperCase() + s.slice(1)

export function registerNode(parent: Command, cli: Cli): void {
  listFlags(parent.command('ls').alias('list').description('List nodes in the swarm')).action(async (f: ListFlags) => {
    const api = await cli.api()
    const nodes = await api.get<NodeJson[]>('/nodes', { filters: filters(f.filter) })
    const { Swarm } = await api.get<Info>('/info')
    const self = Swarm.NodeID
    const plain = f.quiet || (f.format !== '' && !f.format!.startsWith('table'))
    const rows = nodes
      .sort((a, b) => (a.Description.Hostname < b.Description.Hostname ? -1 : 1))
      .map((n) => ({
        ID: plain ? n.ID : `${n.ID}${n.ID === self ? ' *' : ''}`,
        Self: n.ID === self,
        Hostname: n.Spec.Name || n.Description.Hostname,
        Status: capital(n.Status.State),
        Availability: capital(n.Spec.Availability),
        ManagerStatus: n.ManagerStatus
          ? n.ManagerStatus.Leader
            ? 'Leader'
            : capital(n.ManagerStatus.Reachability)
          : '',
        EngineVersion: n.Description.Engine.EngineVersion,
        TLSStatus: tlsStatus(n.Description.TLSInfo, Swarm.Cluster?.TLSInfo),
      }))
    printList(
      cli,
      rows,
      {
        columns: COLUMNS,
        shown: ['ID', 'Hostname', 'Status', 'Availability', 'ManagerStatus', 'EngineVersion'],
        id: 'ID',
      },
      f,
    )
  })

  parent
    .command('inspect')
    .description('Display detailed information on nodes')
    .argument('<node...>')
    .option('-f, --format <format>', 'Go template')
    .option('--pretty', 'for people')
    .action(async (names: string[], f: { format?: string; pretty?: boolean }) => {
      const api = await cli.api()
      await inspectAll(
        cli,
        names,
        async (n) => api.get(`/nodes/${encodeURIComponent(await nodeReference(api, n))}`),
        f.pretty ? prettyNode : f.format,
      )
    })

  listFlags(parent.command('ps').description('List tasks running on nodes'))
    .argument('[node...]')
    .option('--no-resolve', 'ids in place of names')
    .option('--no-trunc', 'whole text')
    .action(async (names: string[], f: ListFlags & { resolve: boolean; trunc: boolean }) => {
      const api = await cli.api()
      const ids = await Promise.all(
        (names.length > 0 ? names : ['self']).map(
          async (n) => (await api.get<NodeJson>(`/nodes/${encodeURIComponent(await nodeReference(api, n))}`)).ID,
        ),
      )
      const tasks = await api.get<TaskJson[]>('/tasks', { filters: { ...filters(f.filter), node: ids } })
      printList(cli, await taskRows(api, tasks, f), { columns: TASK_COLUMNS, shown: TASK_SHOWN, id: 'ID' }, f)
    })

  const change = async (name: string, edit: (spec: NodeJson['Spec']) => NodeJson['Spec']): Promise<void> => {
    const api = await cli.api()
    const n = await api.get<NodeJson>(`/nodes/${encodeURIComponent(await nodeReference(api, name))}`)
    await api.post(`/nodes/${n.ID}/update`, { query: { version: n.Version.Index }, body: edit(n.Spec) })
  }

  parent
    .command('update')
    .description('Update a node')
    .argument('<node>')
    .option('--availability <state>', 'active, pause or drain')
    .option('--label-add <key=value>', 'add or change a label (repeatable)', collect)
    .option('--label-rm <key>', 'remove a label (repeatable)', collect)
    .option('--role <role>', 'worker or manager')
    .action(
      async (name: string, f: { availability?: string; labelAdd?: string[]; labelRm?: string[]; role?: string }) => {
        await change(name, (spec) => {
          const Labels = { ...spec.Labels, ...pairs(f.labelAdd) }
          for (const l of f.labelRm ?? []) delete Labels[l]
          return {
            ...spec,
            Labels,
            ...(f.availability ? { Availability: f.availability } : {}),
            ...(f.role ? { Role: f.role } : {}),
          }
        })
        cli.out(`${name}\n`)
      },
    )

  for (const [verb, role, done] of [
    ['promote', 'manager', 'promoted to a manager in the swarm.'],
    ['demote', 'worker', 'demoted in the swarm.'],
  ] as const) {
    parent
      .command(verb)
      .description(`${capital(verb)} nodes`)
      .argument('<node...>')
      .action(async (names: string[]) => {
        const api = await cli.api()
        for (const name of names) {
          const n = await api.get<NodeJson>(`/nodes/${encodeURIComponent(await nodeReference(api, name))}`)
          if (n.Spec.Role === role) {
            cli.out(`Node ${n.ID} is already a ${role}.\n`)
            continue
          }
          await change(name, (spec) => ({ ...spec, Role: role }))
          cli.out(`${verb === 'promote' ? 'Node' : 'Manager'} ${name} ${done}\n`)
        }
      })
  }

  parent
    .command('rm')
    .alias('remove')
    .description('Remove nodes from the swarm')
    .argument('<node...>')
    .option('-f, --force', 'even if it is not down')
    .action(async (names: string[], f: { force?: boolean }) => {
      const api = await cli.api()
      await forEach(cli, names, async (n) =>
        api.delete(`/nodes/${encodeURIComponent(await nodeReference(api, n))}`, { force: f.force ?? false }),
      )
    })
}
