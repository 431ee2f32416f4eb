import { humanDuration, rfc3339, ZERO_TIME } from '../../common/index.js'
import type { ContainerView } from '../../engine/index.js'
import type { PortPublication } from '../../overlay/index.js'
import { atLeast } from '../streams.js'
import { hostConfigJson } from './host-config.js'

const time = (ms: number): string => (ms > 0 ? rfc3339(ms) : ZERO_TIME)

/** "Up 5 minutes (healthy)", "Exited (0) 2 hours ago": the STATUS column. */
export function statusText(c: ContainerView, nowMs: number): string {
  const s = c.state
  const health =
    s.health && s.health.status !== 'none'
      ? ` (${s.health.status === 'starting' ? 'health: starting' : s.health.status})`
      : ''
  switch (s.status) {
    case 'running':
      return `Up ${humanDuration(nowMs - s.startedAtMs)}${health}`
    case 'paused':
      return `Up ${humanDuration(nowMs - s.startedAtMs)} (Paused)`
    case 'restarting':
      return `Restarting (${s.exitCode}) ${humanDuration(nowMs - s.finishedAtMs)} ago`
    case 'removing':
      return 'Removal In Progress'
    case 'dead':
      return 'Dead'
    case 'created':
      return 'Created'
    default:
      return s.finishedAtMs > 0 ? `Exited (${s.exitCode}) ${humanDuration(nowMs - s.finishedAtMs)} ago` : ''
  }
}

function networks(c: ContainerView): Record<string, object> {
  const out: Record<string, object> = {}
  for (const [name, e] of c.endpoints) {
    const r = e.record
    out[name] = {
      IPAMConfig: e.settings.IPAMConfig ?? null,
      Links: e.settings.Links ?? null,
      Aliases: e.settings.Aliases ?? null,
      MacAddress: r?.macAddress ?? e.settings.MacAddress ?? '',
      DriverOpts: e.settings.DriverOpts ?? null,
      GwPriority: e.settings.GwPriority ?? 0,
      NetworkID: r?.networkId ?? e.settings.NetworkID ?? '',
      EndpointID: r?.endpointId ?? '',
      Gateway: r?.gateway ?? '',
      IPAddress: r?.ipv4Address ?? '',
      IPPrefixLen: r?.ipv4PrefixLength ?? 0,
      IPv6Gateway: r?.ipv6Gateway ?? '',
      GlobalIPv6Address: r?.ipv6Address ?? '',
      GlobalIPv6PrefixLen: r?.ipv6PrefixLength ?? 0,
      DNSNames: r && r.dnsNames.length > 0 ? r.dnsNames : null,
    }
  }
  return out
}

/** NetworkSettings.Ports: every exposed port, with its bindings where published. */
export function portMap(c: ContainerView): Record<string, { HostIp: string; HostPort: string }[] | null> {
  const out: Record<string, { HostIp: string; HostPort: string }[] | null> = {}
  if (c.state.pid === 0) return out
  for (const p of Object.keys(c.config.ExposedPorts ?? {})) out[p.includes('/') ? p : `${p}/tcp`] = null
  for (const p of c.ports) {
    const key = `${p.containerPort}/${p.protocol}`
    out[key] = [...(out[key] ?? []), { HostIp: p.hostIp || '0.0.0.0', HostPort: String(p.hostPort) }]
  }
  return out
}

function portSummary(c: ContainerView): object[] {
  const rows: object[] = []
  const published = new Set(c.ports.map((p: PortPublication) => `${p.containerPort}/${p.protocol}`))
  for (const p of c.ports)
    rows.push({ IP: p.hostIp || '0.0.0.0', PrivatePort: p.containerPort, PublicPort: p.hostPort, Type: p.protocol })
  if (c.state.pid > 0) {
    for (const key of Object.keys(c.config.ExposedPorts ?? {})) {
      const [port, proto = 'tcp'] = key.split('/')
      if (!published.has(`${port}/${proto}`)) rows.push({ PrivatePort: Number(port), Type: proto })
    }
  }
  return rows
}

const mountsJson = (c: ContainerView): object[] =>
  c.mounts.map((p) => ({
    Type: p.type,
    ...(p.type === 'volume' ? { Name: p.name } : {}),
    Source: p.source,
    Destination: p.destination,
    ...(p.driver ? { Driver: p.driver } : {}),
    Mode: p.mode,
    RW: p.rw,
    Propagation: p.propagation,
  }))

interface Summary extends Record<string, unknown> {
  readonly Id: string
  readonly Names: readonly string[]
}

/** An element of GET /containers/json. `image`: what the name that it was made from means now, null for nothing. */
export function containerSummary(c: ContainerView, nowMs: number, image: string | null): Summary {
  const command = [c.path, ...c.args].map((a) => (/[\s"']/.test(a) ? `'${a}'` : a)).join(' ')
  return {
    Id: c.id,
    Names: [`/${c.name}`],
    Image: image === c.image ? c.imageReference : c.image,
    ImageID: c.image,
    Command: command,
    Created: Math.floor(c.createdMs / 1000),
    Ports: portSummary(c),
    Labels: c.config.Labels ?? {},
    State: c.state.status,
    Status: statusText(c, nowMs),
    HostConfig: { NetworkMode: c.networkMode },
    NetworkSettings: { Networks: networks(c) },
    Mounts: mountsJson(c),
  }
}

/** Up to API 1.44 the short id stands among the aliases of networks that users made; from then on in DNSNames alone. */
function olderAliases(c: ContainerView): Record<string, object> {
  const builtIn = ['bridge', 'host', 'none', 'default']
  return Object.fromEntries(
    Object.entries(networks(c)).map(([name, e]) => {
      const aliases = (e as { Aliases: string[] | null }).Aliases ?? []
      return [name, builtIn.includes(name) ? e : { ...e, Aliases: [...new Set([...aliases, c.id.slice(0, 12)])] }]
    }),
  )
}

/** Fields of Config that are shown where nothing was given for them. */
const UNSET = {
  Domainname: '',
  AttachStdin: false,
  AttachStdout: false,
  AttachStderr: false,
  Tty: false,
  OpenStdin: false,
  StdinOnce: false,
}

/** GET /containers/{id}/json. */
export function containerInspect(c: ContainerView, apiVersion: string): Record<string, unknown> {
  const s = c.state
  const running = s.status === 'running' || s.status === 'paused'
  const first = [...c.endpoints.entries()].find(([name]) => name === 'bridge')?.[1].record
  return {
    Id: c.id,
    Created: rfc3339(c.createdMs),
    Path: c.path,
    Args: c.args,
    State: {
      Status: s.status,
      Running: running || s.status === 'restarting',
      Paused: s.status === 'paused',
      Restarting: s.status === 'restarting',
      OOMKilled: s.oomKilled,
      Dead: s.status === 'dead',
      Pid: s.pid,
      ExitCode: s.exitCode,
      Error: s.error,
      StartedAt: time(s.startedAtMs),
      FinishedAt: time(s.finishedAtMs),
      ...(s.health
        ? {
            Health: {
              Status: s.health.status,
              FailingStreak: s.health.failingStreak,
              Log: s.health.log.map((l) => ({
                Start: rfc3339(l.startMs),
                End: rfc3339(l.endMs),
                ExitCode: l.exitCode,
                Output: l.output,
              })),
            },
          }
        : {}),
    },
    Image: c.image,
    ResolvConfPath: c.resolvConfPath,
    HostnamePath: c.hostnamePath,
    HostsPath: c.hostsPath,
    LogPath: c.logPath,
    Name: `/${c.name}`,
    RestartCount: c.restartCount,
    Driver: 'overlay2',
    Platform: 'linux',
    MountLabel: '',
    ProcessLabel: '',
    AppArmorProfile: '',
    ExecIDs: c.execIds.length > 0 ? c.execIds : null,
    HostConfig: hostConfigJson(c),
    GraphDriver: {
      Name: 'overlay2',
      Data: {
        ID: c.id,
        LowerDir: c.lower.join(':'),
        // The tree is mounted for the container's processes only, and is reached through them.
        ...(s.pid > 0 ? { MergedDir: `/proc/${s.pid}/root` } : {}),
        UpperDir: c.upper,
        WorkDir: c.work,
      },
    },
    Mounts: mountsJson(c),
    Config: { ...UNSET, ...c.config, Volumes: c.config.Volumes ?? null },
    NetworkSettings: {
      Bridge: '',
      SandboxID: c.sandboxKey ? c.id : '',
      SandboxKey: c.sandboxKey,
      Ports: portMap(c),
      HairpinMode: false,
      LinkLocalIPv6Address: '',
      LinkLocalIPv6PrefixLen: 0,
      SecondaryIPAddresses: null,
      SecondaryIPv6Addresses: null,
      EndpointID: first?.endpointId ?? '',
      Gateway: first?.gateway ?? '',
      GlobalIPv6Address: first?.ipv6Address ?? '',
      GlobalIPv6PrefixLen: first?.ipv6PrefixLength ?? 0,
      IPAddress: first?.ipv4Address ?? '',
      IPPrefixLen: first?.ipv4PrefixLength ?? 0,
      IPv6Gateway: first?.ipv6Gateway ?? '',
      MacAddress: first?.macAddress ?? '',
      Networks: atLeast(apiVersion, '1.45') ? networks(c) : olderAliases(c),
    },
  }
}
