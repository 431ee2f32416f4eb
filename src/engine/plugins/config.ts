import { invalid } from '../../common/index.js'

// A plugin's configuration and settings, in the words of the Engine API (swagger: Plugin). All of it is pure.

export interface PluginMount {
  readonly Name: string
  readonly Description: string
  readonly Settable: readonly string[] | null
  readonly Source: string | null
  readonly Destination: string
  readonly Type: string
  readonly Options: readonly string[] | null
}

export interface PluginDevice {
  readonly Name: string
  readonly Description: string
  readonly Settable: readonly string[] | null
  readonly Path: string | null
}

export interface PluginEnv {
  readonly Name: string
  readonly Description: string
  readonly Settable: readonly string[] | null
  readonly Value: string | null
}

export interface PluginConfig {
  readonly DockerVersion?: string
  readonly Description: string
  readonly Documentation: string
  readonly Interface: { readonly Types: readonly string[]; readonly Socket: string; readonly ProtocolScheme?: string }
  readonly Entrypoint: readonly string[]
  readonly WorkDir: string
  readonly User: { readonly UID?: number; readonly GID?: number }
  readonly Network: { readonly Type: string }
  readonly Linux: {
    readonly Capabilities: readonly string[] | null
    readonly AllowAllDevices: boolean
    readonly Devices: readonly PluginDevice[] | null
  }
  readonly PropagatedMount: string
  readonly IpcHost: boolean
  readonly PidHost: boolean
  readonly Mounts: readonly PluginMount[] | null
  readonly Env: readonly PluginEnv[] | null
  readonly Args: {
    readonly Name: string
    readonly Description: string
    readonly Settable: readonly string[] | null
    readonly Value: readonly string[] | null
  }
  readonly rootfs?: { readonly type: string; readonly diff_ids: readonly string[] }
}

export interface PluginSettings {
  readonly Mounts: readonly PluginMount[]
  readonly Env: readonly string[]
  readonly Args: readonly string[]
  readonly Devices: readonly PluginDevice[]
}

export interface PluginPrivilege {
  readonly Name: string
  readonly Description: string
  readonly Value: readonly string[]
}

type Fields = Record<string, unknown>
const isFields = (x: unknown): x is Fields => x !== null && typeof x === 'object' && !Array.isArray(x)

/** Names of the configuration's members in either case: files that people write use docker's lower-case ones. */
function pick(from: Fields, name: string): unknown {
  if (name in from) return from[name]
  const lower = name.toLowerCase()
  return Object.entries(from).find(([k]) => k.toLowerCase() === lower)?.[1]
}

/** What a config.json says, with everything that it leaves out filled in. Members of a wrong type are all named at once. */
export function parsePluginConfig(bytes: Uint8Array): PluginConfig {
  let doc: unknown
  try {
    doc = JSON.parse(Buffer.from(bytes).toString('utf8'))
  } catch (e) {
    throw invalid('badPluginConfig', `the plugin's config.json is no JSON: ${(e as Error).message}`)
  }
  if (!isFields(doc)) throw invalid('badPluginConfig', "the plugin's config.json is no JSON object")
  const mistakes: string[] = []
  const text = (from: Fields, name: string): string => {
    const v = pick(from, name) ?? ''
    if (typeof v !== 'string') mistakes.push(`${name} must be a string`)
    return String(v)
  }
  const texts = (from: Fields, name: string): string[] | null => {
    const v = pick(from, name) ?? null
    if (v === null) return null
    if (Array.isArray(v) && v.every((x) => typeof x === 'string')) return v
    mistakes.push(`${name} must be a list of strings`)
    return null
  }
  const flag = (from: Fields, name: string): boolean => pick(from, name) === true
  const fields = (from: Fields, name: string): Fields => {
    const v = pick(from, name) ?? {}
    if (!isFields(v)) mistakes.push(`${name} must be an object`)
    return isFields(v) ? v : {}
  }
  const list = (from: Fields, name: string): Fields[] => {
    const v = pick(from, name) ?? []
    if (Array.isArray(v) && v.every(isFields)) return v
    mistakes.push(`${name} must be a list of objects`)
    return []
  }
  const nullable = (from: Fields, name: string): string | null => {
    const v = pick(from, name)
    return typeof v === 'string' ? v : null
  }
  const common = (x: Fields) => ({
    Name: text(x, 'Name'),
    Description: text(x, 'Description'),
    Settable: texts(x, 'Settable'),
  })
  const api = fields(doc, 'Interface')
  const linux = fields(doc, 'Linux')
  const args = fields(doc, 'Args')
  const user = fields(doc, 'User')
  const rootfs = fields(doc, 'rootfs')
  const config: PluginConfig = {
    Description: text(doc, 'Description'),
    Documentation: text(doc, 'Documentation'),
    Interface: {
      Types: (texts(api, 'Types') ?? []).map(String),
      Socket: text(api, 'Socket'),
      ...(text(api, 'ProtocolScheme') ? { ProtocolScheme: text(api, 'ProtocolScheme') } : {}),
    },
    Entrypoint: texts(doc, 'Entrypoint') ?? [],
    WorkDir: text(doc, 'WorkDir'),
    User: {
      ...(typeof pick(user, 'UID') === 'number' ? { UID: pick(user, 'UID') as number } : {}),
      ...(typeof pick(user, 'GID') === 'number' ? { GID: pick(user, 'GID') as number } : {}),
    },
    Network: { Type: text(fields(doc, 'Network'), 'Type') },
    Linux: {
      Capabilities: texts(linux, 'Capabilities'),
      AllowAllDevices: flag(linux, 'AllowAllDevices'),
      Devices: list(linux, 'Devices').map((d) => ({ ...common(d), Path: nullable(d, 'Path') })),
    },
    PropagatedMount: text(doc, 'PropagatedMount'),
    IpcHost: flag(doc, 'IpcHost'),
    PidHost: flag(doc, 'PidHost'),
    Mounts: list(doc, 'Mounts').map((m) => ({
      ...common(m),
      Source: nullable(m, 'Source'),
      Destination: text(m, 'Destination'),
      Type: text(m, 'Type'),
      Options: texts(m, 'Options'),
    })),
    Env: list(doc, 'Env').map((e) => ({ ...common(e), Value: nullable(e, 'Value') })),
    Args: { ...common(args), Value: texts(args, 'Value') },
    ...(Object.keys(rootfs).length > 0
      ? { rootfs: { type: text(rootfs, 'type'), diff_ids: texts(rootfs, 'diff_ids') ?? [] } }
      : {}),
  }
  refuse(mistakes)
  return config
}

/** What keeps it from being run. A plugin may be made and kept without: dockerd looks when it is enabled. */
export function checkRunnable(config: PluginConfig): void {
  const mistakes: string[] = []
  if (config.Entrypoint.length === 0) mistakes.push('Entrypoint must name a program')
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]*$/.test(config.Interface.Socket))
    mistakes.push(`Interface.Socket: "${config.Interface.Socket}" must be a file's name`)
  if (!['', 'moby.plugins.http/v1'].includes(config.Interface.ProtocolScheme ?? ''))
    mistakes.push(`Interface.ProtocolScheme: "${config.Interface.ProtocolScheme}" is not known`)
  if (!['', 'none', 'null', 'bridge', 'host'].includes(config.Network.Type))
    mistakes.push(`Network.Type: "${config.Network.Type}" must be host, bridge or none`)
  for (const [name, path] of [
    ['PropagatedMount', config.PropagatedMount],
    ...(config.Mounts ?? []).map((m) => [`Mounts ${m.Name}: Destination`, m.Destination] as const),
  ] as const)
    if (path !== '' && !path.startsWith('/')) mistakes.push(`${name}: "${path}" must be absolute`)
  for (const m of config.Mounts ?? [])
    if (!['bind', 'tmpfs'].includes(m.Type)) mistakes.push(`Mounts ${m.Name}: Type "${m.Type}" must be bind or tmpfs`)
  refuse(mistakes)
}

function refuse(mistakes: readonly string[]): void {
  if (mistakes.length > 0)
    throw invalid('badPluginConfig', `the plugin's config.json has mistakes: ${mistakes.join('; ')}`, { mistakes })
}

export const defaultSettings = (config: PluginConfig): PluginSettings => ({
  Mounts: config.Mounts ?? [],
  Env: (config.Env ?? []).filter((e) => e.Value !== null).map((e) => `${e.Name}=${e.Value}`),
  Args: config.Args.Value ?? [],
  Devices: config.Linux.Devices ?? [],
})

/** What the user is asked to grant, in docker's words. */
export function privilegesOf(config: PluginConfig): PluginPrivilege[] {
  const all: PluginPrivilege[] = []
  const add = (Name: string, Description: string, Value: readonly string[]): void => {
    all.push({ Name, Description, Value })
  }
  if (!['', 'null', 'none', 'bridge'].includes(config.Network.Type))
    add('network', 'permissions to access a network', [config.Network.Type])
  if (config.IpcHost) add('host ipc namespace', 'allow access to host ipc namespace', ['true'])
  if (config.PidHost) add('host pid namespace', 'allow access to host pid namespace', ['true'])
  for (const m of config.Mounts ?? []) if (m.Source !== null) add('mount', 'host path to mount', [m.Source])
  for (const d of config.Linux.Devices ?? []) if (d.Path !== null) add('device', 'host device to access', [d.Path])
  if (config.Linux.AllowAllDevices) add('allow-all-devices', "allow 'rwm' access to all devices", ['true'])
  if (config.Linux.Capabilities && config.Linux.Capabilities.length > 0)
    add('capabilities', 'list of additional capabilities required', config.Linux.Capabilities)
  return all
}

/** Neither less nor more than what is asked for. */
export function checkPrivileges(wanted: readonly PluginPrivilege[], granted: readonly PluginPrivilege[]): void {
  const keys = (list: readonly PluginPrivilege[]): string =>
    JSON.stringify(list.map((p) => [p.Name, [...(p.Value ?? [])].sort()]).sort())
  if (keys(wanted) !== keys(granted))
    throw invalid(
      'incorrectPrivileges',
      `incorrect privileges: the plugin asks for ${wanted.map((p) => `${p.Name}: [${p.Value.join(' ')}]`).join(', ') || 'none'}; grant exactly these`,
    )
}

/** `name[.field]=value` of `plugin set`: an environment variable, args, a mount's source or a device's path. */
export function applySettings(
  config: PluginConfig,
  settings: PluginSettings,
  changes: readonly string[],
): PluginSettings {
  let { Mounts, Env, Args, Devices } = settings
  for (const change of changes) {
    const m = /^([^=.]+)(?:\.([a-z]+))?=([\s\S]*)$/.exec(change)
    if (!m) throw invalid('badSetting', `"${change}": use NAME=VALUE, NAME.source=PATH or NAME.path=PATH`)
    const [, name, field, value] = m as unknown as [string, string, string | undefined, string]
    const allow = (settable: readonly string[] | null, only: string): void => {
      if ((field ?? only) !== only)
        throw invalid('badSetting', `"${name}.${field}" is no field that can be set; use ${name}.${only}`)
      if (!settable?.includes(only))
        throw invalid('notSettable', `"${name}" is not settable: the plugin does not allow it`)
    }
    const env = config.Env?.find((e) => e.Name === name)
    const mount = Mounts.find((x) => x.Name === name)
    const device = Devices.find((x) => x.Name === name)
    if (env) {
      allow(env.Settable, 'value')
      Env = [...Env.filter((e) => !e.startsWith(`${name}=`)), `${name}=${value}`]
    } else if (mount) {
      allow(mount.Settable, 'source')
      if (mount.Source === null) throw invalid('notSettable', `Plugin config has no mount source: ${name}`)
      Mounts = Mounts.map((x) => (x === mount ? { ...x, Source: value } : x))
    } else if (device) {
      allow(device.Settable, 'path')
      if (device.Path === null) throw invalid('notSettable', `Plugin config has no device path: ${name}`)
      Devices = Devices.map((x) => (x === device ? { ...x, Path: value } : x))
    } else if (config.Args.Name !== '' && config.Args.Name === name) {
      allow(config.Args.Settable, 'value')
      Args = value.split(/\s+/).filter(Boolean)
    } else
      throw invalid(
        'badSetting',
        `setting "${name}" not found in the plugin configuration; there are ${
          [
            ...(config.Env ?? []).map((e) => e.Name),
            ...Mounts.map((x) => x.Name),
            ...Devices.map((x) => x.Name),
            ...(config.Args.Name ? [config.Args.Name] : []),
          ].join(', ') || 'none'
        }`,
      )
  }
  return { Mounts, Env, Args, Devices }
}
