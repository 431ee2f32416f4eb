import { isIP, isIPv4 } from 'node:net'
import { networkInterfaces } from 'node:os'
import { invalid } from '../common/index.js'

export interface HostPort {
  readonly host: string
  readonly port: number
}

/** "host:port", "host", ":port", "[v6]:port"; the host may be an interface's name. */
export function splitHostPort(value: string, defaultPort: number, what: string): HostPort {
  const m = /^(?:\[([^\]]*)\]|([^:]*))(?::(\d+))?$/.exec(value)
  if (!m) throw invalid('badAddress', `${what} "${value}": use ADDRESS[:PORT] or INTERFACE[:PORT]`)
  const port = m[3] === undefined ? defaultPort : Number(m[3])
  if (port < 1 || port > 65535) throw invalid('badAddress', `${what} "${value}": the port must be between 1 and 65535`)
  return { host: m[1] ?? m[2] ?? '', port }
}

export const joinHostPort = (a: HostPort): string =>
  a.host.includes(':') ? `[${a.host}]:${a.port}` : `${a.host}:${a.port}`

/** The address of an interface named in place of an address; addresses are passed through. */
function resolveInterface(host: string, what: string): string {
  if (host === '' || isIP(host) !== 0) return host
  const addresses = (networkInterfaces()[host] ?? []).filter((a) => !a.internal || host === 'lo')
  const v4 = addresses.filter((a) => a.family === 'IPv4')
  if (v4.length > 1)
    throw invalid(
      'severalAddresses',
      `interface ${host} has more than one IPv4 address (${v4.map((a) => a.address).join(' and ')}): name one with ${what}`,
    )
  const found = v4[0] ?? addresses[0]
  if (!found) throw invalid('noSuchAddress', `${what} "${host}": neither an IP address nor an interface with one`)
  return found.address
}

export function resolveListenAddress(value: string): string {
  const a = splitHostPort(value, 2377, 'listen address')
  return joinHostPort({ host: resolveInterface(a.host || '0.0.0.0', '--listen-addr'), port: a.port })
}

/**
 * What other nodes dial: the given one, the configured default, the listen address where it is a particular one, or
 * this host's only address.
 */
export function resolveAdvertiseAddress(given: string, listen: string, configuredDefault: string): string {
  const listening = splitHostPort(listen, 2377, 'listen address')
  const wanted = given || configuredDefault
  if (wanted !== '') {
    const a = splitHostPort(wanted, listening.port, 'advertise address')
    const host = resolveInterface(a.host, '--advertise-addr')
    if (host === '0.0.0.0' || host === '::' || host === '')
      throw invalid(
        'badAddress',
        'advertise address must be a non-zero IP address or network interface (with optional port number)',
      )
    return joinHostPort({ host, port: a.port })
  }
  if (listening.host !== '0.0.0.0' && listening.host !== '::') return joinHostPort(listening)
  const own = Object.entries(networkInterfaces()).flatMap(([name, all]) =>
    /^(docker|shoal|br-|veth)/.test(name)
      ? []
      : (all ?? []).filter((a) => !a.internal && isIPv4(a.address)).map((a) => ({ name, address: a.address })),
  )
  if (own.length === 0)
    throw invalid('noAddress', "could not find the system's IP address - specify it with --advertise-addr")
  if (own.length > 1) {
    const several = new Set(own.map((o) => o.name)).size > 1
    throw invalid(
      'severalAddresses',
      several
        ? `could not choose an IP address to advertise since this system has multiple addresses on different interfaces (${own.map((o) => `${o.address} on ${o.name}`).join(' and ')}) - specify one with --advertise-addr`
        : `could not choose an IP address to advertise since this system has multiple addresses on interface ${own[0]!.name} (${own.map((o) => o.address).join(' and ')}) - specify one with --advertise-addr`,
    )
  }
  return joinHostPort({ host: own[0]!.address, port: listening.port })
}

/** Source and target of this node's VXLAN packets. */
export function resolveDataPathAddress(given: string, advertise: string): string {
  if (given === '') return splitHostPort(advertise, 2377, 'advertise address').host
  const host = given.includes(':') ? '' : resolveInterface(given, '--data-path-addr')
  if (!isIPv4(host) || host === '0.0.0.0')
    throw invalid(
      'badAddress',
      `--data-path-addr "${given}": the data path address must be a non-zero IP address or network interface; IPv4 is needed`,
    )
  return host
}
