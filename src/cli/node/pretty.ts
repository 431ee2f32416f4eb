import { binarySize } from '../format/units.js'

interface Node {
  ID: string
  CreatedAt: string
  Spec: { Name?: string; Availability: string; Labels?: Record<string, string> | null }
  Description: {
    Hostname: string
    Platform: { OS: string; Architecture: string }
    Resources?: { NanoCPUs?: number; MemoryBytes?: number }
    Engine: {
      EngineVersion: string
      Labels?: Record<string, string> | null
      Plugins?: { Type: string; Name: string }[] | null
    }
    TLSInfo?: { TrustRoot?: string; CertIssuerSubject?: string; CertIssuerPublicKey?: string }
  }
  Status: { State: string; Message?: string; Addr: string }
  ManagerStatus?: { Leader?: boolean; Reachability: string; Addr: string }
}

const capital = (s: string): string => s.charAt(0).toUpperCase() + s.slice(1)

/** node inspect --pretty, in docker's lines. */
export function prettyNode(node: object): string {
  const n = node as Node
  const d = n.Description
  const labels = (title: string, all: Record<string, string> | null | undefined): string[] => {
    const rows = Object.entries(all ?? {}).sort()
    return rows.length > 0 ? [title, ...rows.map(([k, v]) => ` - ${k}=${v}`)] : []
  }
  const plugins = (kind: string): string =>
    (d.Engine.Plugins ?? [])
      .filter((p) => p.Type === kind)
      .map((p) => p.Name)
      .join(', ')
  const out = [
    `ID:\t\t\t${n.ID}`,
    ...(n.Spec.Name ? [`Name:\t\t\t${n.Spec.Name}`] : []),
    ...labels('Labels:', n.Spec.Labels),
    `Hostname:              \t${d.Hostname}`,
    `Joined at:             \t${n.CreatedAt.replace('T', ' ').replace(/Z$/, ' +0000 utc')}`,
    'Status:',
    ` State:\t\t\t${capital(n.Status.State)}`,
    ...(n.Status.Message ? [` Message:              \t${capital(n.Status.Message)}`] : []),
    ` Availability:         \t${capital(n.Spec.Availability)}`,
    ` Address:\t\t${n.Status.Addr}`,
  ]
  if (n.ManagerStatus)
    out.push(
      'Manager Status:',
      ` Address:\t\t${n.ManagerStatus.Addr}`,
      ` Raft Status:\t\t${capital(n.ManagerStatus.Reachability)}`,
      ` Leader:\t\t${n.ManagerStatus.Leader ? 'Yes' : 'No'}`,
    )
  out.push(
    'Platform:',
    ` Operating System:\t${d.Platform.OS}`,
    ` Architecture:\t\t${d.Platform.Architecture}`,
    'Resources:',
    ` CPUs:\t\t\t${(d.Resources?.NanoCPUs ?? 0) / 1e9}`,
    ` Memory:\t\t${binarySize(d.Resources?.MemoryBytes ?? 0)}`,
    'Plugins:',
  )
  for (const [kind, title] of [
    ['Log', ' Log:\t\t'],
    ['Network', ' Network:\t\t'],
    ['Volume', ' Volume:\t\t'],
  ] as const)
    if (plugins(kind)) out.push(`${title}${plugins(kind)}`)
  out.push(`Engine Version:\t\t${d.Engine.EngineVersion}`, ...labels('Engine Labels:', d.Engine.Labels))
  if (d.TLSInfo?.TrustRoot)
    out.push(
      'TLS Info:',
      ' TrustRoot:',
      d.TLSInfo.TrustRoot,
      ` Issuer Subject:\t${d.TLSInfo.CertIssuerSubject ?? ''}`,
      ` Issuer Public Key:\t${d.TLSInfo.CertIssuerPublicKey ?? ''}`,
    )
  return `${out.join('\n')}\n`
}
