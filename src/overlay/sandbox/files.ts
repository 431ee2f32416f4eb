/** Texts of the three files that a container gets from its network. Pure. */

export interface ResolvConf {
  readonly servers: readonly string[]
  readonly search: readonly string[]
  readonly options: readonly string[]
}

export function parseResolvConf(text: string): ResolvConf {
  const servers: string[] = []
  let search: string[] = []
  const options: string[] = []
  for (const line of text.split('\n')) {
    const [word, ...rest] = line
      .replace(/[#;].*$/, '')
      .trim()
      .split(/\s+/)
    if (word === 'nameserver' && rest[0]) servers.push(rest[0])
    else if (word === 'search' || word === 'domain') search = rest
    else if (word === 'options') options.push(...rest)
  }
  return { servers, search, options }
}

export function renderResolvConf(c: ResolvConf): string {
  const lines = c.search.length > 0 ? [`search ${c.search.join(' ')}`] : []
  lines.push(...c.servers.map((s) => `nameserver ${s}`))
  if (c.options.length > 0) lines.push(`options ${c.options.join(' ')}`)
  return `${lines.join('\n')}\n`
}

/** Reaches nothing from inside another network namespace. */
export const isLoopback = (server: string): boolean => server.startsWith('127.') || server === '::1'

/** "name:address" or "name=address"; null without a separator. Addresses may hold colons. */
export function parseExtraHost(text: string): { readonly name: string; readonly address: string } | null {
  const at = text.search(/[:=]/)
  if (at < 1 || at === text.length - 1) return null
  return { name: text.slice(0, at), address: text.slice(at + 1).replace(/^\[(.*)\]$/, '$1') }
}

export interface HostsEntry {
  readonly address: string
  readonly names: readonly string[]
}

const LOCAL_HOSTS: readonly HostsEntry[] = [
  { address: '127.0.0.1', names: ['localhost'] },
  { address: '::1', names: ['localhost', 'ip6-localhost', 'ip6-loopback'] },
  { address: 'fe00::', names: ['ip6-localnet'] },
  { address: 'ff00::', names: ['ip6-mcastprefix'] },
  { address: 'ff02::1', names: ['ip6-allnodes'] },
  { address: 'ff02::2', names: ['ip6-allrouters'] },
]

const hostsLine = (e: HostsEntry): string => `${e.address}\t${e.names.join(' ')}`

export const renderHosts = (entries: readonly HostsEntry[]): string =>
  `${[...LOCAL_HOSTS, ...entries].map(hostsLine).join('\n')}\n`

/** The text with exactly these lines taken out and put in; what the container's own programs wrote stays. */
export function editHosts(text: string, remove: readonly HostsEntry[], add: readonly HostsEntry[]): string {
  const gone = new Set([...remove, ...add].map(hostsLine))
  const kept = text.split('\n').filter((l) => l !== '' && !gone.has(l))
  return `${[...kept, ...add.map(hostsLine)].join('\n')}\n`
}

/** How a container's own address is named. */
export function ownNames(hostname: string, domainname: string): string[] {
  const full = domainname === '' ? hostname : `${hostname}.${domainname}`
  const bare = full.split('.', 1)[0]!
  return bare === full ? [full] : [full, bare]
}
