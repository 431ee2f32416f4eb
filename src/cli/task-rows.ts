import { humanDuration } from '../common/duration.js'
import type { Api } from './api.js'

export interface TaskJson {
  ID: string
  ServiceID: string
  NodeID?: string
  Slot?: number
  DesiredState: string
  CreatedAt: string
  Spec: { ContainerSpec?: { Image: string } }
  Status: {
    State: string
    Timestamp: string
    Err?: string
    PortStatus?: { Ports?: { Protocol: string; TargetPort: number; PublishedPort?: number; PublishMode: string }[] }
  }
}

export const TASK_COLUMNS = {
  ID: 'ID',
  Name: 'NAME',
  Image: 'IMAGE',
  Node: 'NODE',
  DesiredState: 'DESIRED STATE',
  CurrentState: 'CURRENT STATE',
  Error: 'ERROR',
  Ports: 'PORTS',
}
export const TASK_SHOWN = ['ID', 'Name', 'Image', 'Node', 'DesiredState', 'CurrentState', 'Error', 'Ports']

const capital = (s: string): string => s.charAt(0).toUpperCase() + s.slice(1)
/** References lose their digest, and docker.io's prefix never was in them. */
export const shortImage = (image: string): string => image.replace(/@sha256:[0-9a-f]+$/, '')

/** Rows of service ps, node ps: by service, slot or node, newest first; older tasks of a slot are indented. */
export async function taskRows(
  api: Api,
  tasks: readonly TaskJson[],
  f: { readonly trunc: boolean; readonly resolve: boolean; readonly format?: string },
): Promise<Record<string, unknown>[]> {
  const names = f.resolve ? await resolver(api) : { service: (id: string) => id, node: (id: string) => id }
  const nameOf = (t: TaskJson): string => `${names.service(t.ServiceID)}.${t.Slot ? t.Slot : (t.NodeID ?? '')}`
  const sorted = [...tasks].sort((a, b) => {
    const [x, y] = [names.service(a.ServiceID), names.service(b.ServiceID)]
    if (x !== y) return x < y ? -1 : 1
    if (a.Slot !== b.Slot) return (a.Slot ?? 0) - (b.Slot ?? 0)
    if ((a.NodeID ?? '') !== (b.NodeID ?? '') && !a.Slot) return (a.NodeID ?? '') < (b.NodeID ?? '') ? -1 : 1
    return a.CreatedAt < b.CreatedAt ? 1 : -1
  })
  let before = ''
  // Only a table shows by indentation which task came after which.
  const table = !f.format || f.format.startsWith('table')
  return sorted.map((t) => {
    const name = nameOf(t)
    const again = table && name === before
    before = name
    const error = t.Status.Err ?? ''
    return {
      ID: f.trunc ? t.ID.slice(0, 12) : t.ID,
      Name: again ? ` \\_ ${name}` : name,
      Image: f.trunc ? shortImage(t.Spec.ContainerSpec?.Image ?? '') : (t.Spec.ContainerSpec?.Image ?? ''),
      Node: t.NodeID ? names.node(t.NodeID) : '',
      DesiredState: capital(t.DesiredState),
      CurrentState: `${capital(t.Status.State)} ${humanDuration(Date.now() - Date.parse(t.Status.Timestamp)).toLowerCase()} ago`,
      Error: error === '' ? '' : f.trunc && error.length > 30 ? `"${error.slice(0, 29)}…"` : `"${error}"`,
      Ports: (t.Status.PortStatus?.Ports ?? [])
        .filter((p) => p.PublishedPort)
        .map((p) => `*:${p.PublishedPort}->${p.TargetPort}/${p.Protocol}`)
        .join(','),
    }
  })
}

async function resolver(api: Api): Promise<{ service(id: string): string; node(id: string): string }> {
  const [services, nodes] = await Promise.all([
    api.get<{ ID: string; Spec: { Name: string } }[]>('/services'),
    api.get<{ ID: string; Spec: { Name?: string }; Description: { Hostname: string } }[]>('/nodes'),
  ])
  const s = new Map(services.map((x) => [x.ID, x.Spec.Name]))
  const n = new Map(nodes.map((x) => [x.ID, x.Spec.Name || x.Description.Hostname]))
  return { service: (id) => s.get(id) ?? id, node: (id) => n.get(id) ?? id }
}

/** `self` names this node in node commands. */
export async function nodeReference(api: Api, reference: string): Promise<string> {
  if (reference !== 'self') return reference
  return (await api.get<{ Swarm: { NodeID: string } }>('/info')).Swarm.NodeID
}
