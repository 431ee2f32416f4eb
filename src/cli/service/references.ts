import type { Api } from '../api.js'
import { Exit, filters } from '../command.js'

type Json = Record<string, unknown>
interface Named {
  ID: string
  Spec: { Name: string }
}

/** "name", or "source=NAME,target=FILE,uid=U,gid=G,mode=0400"; File has the API's names. */
export function parseFileReference(
  text: string,
  kind: 'secret' | 'config',
): { source: string; file: { Name: string; UID: string; GID: string; Mode: number } } {
  const simple = !text.includes('=') && !text.includes(',')
  const out = { source: simple ? text : '', file: { Name: '', UID: '0', GID: '0', Mode: 0o444 } }
  for (const part of simple ? [] : text.split(',')) {
    const key = part.slice(0, part.indexOf('=')).toLowerCase()
    const value = part.slice(part.indexOf('=') + 1)
    if (key === 'source' || key === 'src') out.source = value
    else if (key === 'target') out.file.Name = value
    else if (key === 'uid') out.file.UID = value
    else if (key === 'gid') out.file.GID = value
    else if (key === 'mode' && /^0?[0-7]+$/.test(value)) out.file.Mode = Number.parseInt(value, 8)
    else throw new Exit(125, `invalid argument "${text}" for "--${kind}" flag: invalid field '${part}'`)
  }
  if (out.source === '') throw new Exit(125, `invalid argument "${text}" for "--${kind}" flag: source is required`)
  if (out.file.Name === '') out.file.Name = out.source
  return out
}

/** Names in the flags become the ids that a specification has: networks, secrets, configs. */
export async function resolveReferences(api: Api, spec: Json, f: Json): Promise<void> {
  const template = spec.TaskTemplate as Json
  const networks = template.Networks as { Target: string }[] | undefined
  if (networks && networks.length > 0 && (f.network || f.networkAdd))
    template.Networks = await Promise.all(networks.map(async (n) => ({ ...n, Target: await networkId(api, n.Target) })))
  for (const kind of ['secret', 'config'] as const) {
    const [list, idField, nameField] =
      kind === 'secret' ? ['Secrets', 'SecretID', 'SecretName'] : ['Configs', 'ConfigID', 'ConfigName']
    const add = ((f[kind] ?? f[`${kind}Add`]) as string[] | undefined) ?? []
    const rm = (f[`${kind}Rm`] as string[] | undefined) ?? []
    if (add.length + rm.length === 0) continue
    const fresh = add.map((t) => parseFileReference(t, kind))
    const known = await idsOf(
      api,
      kind,
      fresh.map((r) => r.source),
    )
    const container = { ...(template.ContainerSpec as Json) }
    const kept = ((container[list] as Json[] | null | undefined) ?? []).filter(
      (r) =>
        !rm.includes(String(r[nameField])) && !fresh.some((n) => n.file.Name === (r.File as { Name?: string })?.Name),
    )
    container[list] = [
      ...kept,
      ...fresh.map((r) => ({ File: r.file, [idField]: known.get(r.source), [nameField]: r.source })),
    ]
    template.ContainerSpec = container
  }
}

/** --network-rm names a network; the specification has its id. */
export async function resolveRemoved(api: Api, f: Json): Promise<Json> {
  const rm = f.networkRm as string[] | undefined
  const add = f.networkAdd as { Target: string }[] | undefined
  return {
    ...f,
    ...(rm ? { networkRm: [...rm, ...(await Promise.all(rm.map((n) => networkId(api, n))))] } : {}),
    ...(add
      ? { networkAdd: await Promise.all(add.map(async (n) => ({ ...n, Target: await networkId(api, n.Target) }))) }
      : {}),
  }
}

async function networkId(api: Api, name: string): Promise<string> {
  return (await api.get<{ Id: string }>(`/networks/${encodeURIComponent(name)}`, { scope: 'swarm' })).Id
}

async function idsOf(api: Api, kind: 'secret' | 'config', names: readonly string[]): Promise<Map<string, string>> {
  if (names.length === 0) return new Map()
  const found = await api.get<Named[]>(`/${kind}s`, { filters: filters(names.map((n) => `name=${n}`)) })
  const ids = new Map(found.map((s) => [s.Spec.Name, s.ID]))
  const missing = names.find((n) => !ids.has(n))
  if (missing !== undefined) throw new Exit(1, `${kind} not found: ${missing}`)
  return ids
}
