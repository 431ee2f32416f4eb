import { invalid } from '../common/index.js'
import type { PortPublication } from '../overlay/index.js'
import type { ContainerConfig, HostConfig } from './types.js'

const PROTOCOLS = ['tcp', 'udp', 'sctp'] as const
type Protocol = (typeof PROTOCOLS)[number]

const MAX_PORT = 65_535

/** "80", "80/udp", "8000-8010/tcp". @throws invalid `invalidPort`. */
export function parsePortKey(key: string): {
  readonly first: number
  readonly last: number
  readonly protocol: Protocol
} {
  const [range = '', protocol = 'tcp'] = key.toLowerCase().split('/')
  const [first, last] = parseRange(range, key)
  if (!PROTOCOLS.includes(protocol as Protocol))
    throw invalid('invalidPort', `invalid port specification: "${key}": protocol is one of ${PROTOCOLS.join(', ')}`, {
      port: key,
    })
  return { first, last, protocol: protocol as Protocol }
}

function parseRange(text: string, whole: string): [number, number] {
  const m = /^(\d+)(?:-(\d+))?$/.exec(text)
  const first = Number(m?.[1])
  const last = m?.[2] === undefined ? first : Number(m[2])
  if (!m || first > MAX_PORT || last > MAX_PORT || last < first)
    throw invalid('invalidPort', `invalid port specification: "${whole}"`, { port: whole })
  return [first, last]
}

/** What is to be published, from `-p`, `--expose` and `-P`. */
export function publications(config: ContainerConfig, host: HostConfig): PortPublication[] {
  const list: PortPublication[] = []
  const bound = new Set<string>()
  for (const [key, bindings] of Object.entries(host.PortBindings ?? {})) {
    const { first, last, protocol } = parsePortKey(key)
    for (let port = first; port <= last; port++) {
      bound.add(`${port}/${protocol}`)
      for (const binding of bindings?.length ? bindings : [{}]) {
        const [hostFirst, hostLast] = binding.HostPort ? parseRange(binding.HostPort, binding.HostPort) : [0, 0]
        // "8000-8010:80-90" arrives as single ports; a range on the host for one port means "one of these".
        list.push({
          containerPort: port,
          protocol,
          hostIp: binding.HostIp ?? '',
          hostPort: hostFirst,
          ...(hostLast > hostFirst ? { hostPortEnd: hostLast } : {}),
        })
      }
    }
  }
  if (host.PublishAllPorts)
    for (const key of Object.keys(config.ExposedPorts ?? {})) {
      const { first, last, protocol } = parsePortKey(key)
      for (let port = first; port <= last; port++)
        if (!bound.has(`${port}/${protocol}`)) list.push({ containerPort: port, protocol, hostIp: '', hostPort: 0 })
    }
  return list
}
