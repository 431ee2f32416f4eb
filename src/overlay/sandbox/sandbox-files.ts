import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { invalid } from '../../common/index.js'
import type { OverlayContext } from '../context.js'
import type { SandboxLink, SandboxSpec } from '../contract.js'
import { DNS_ADDRESS } from '../dns/server.js'
import {
  editHosts,
  type HostsEntry,
  isLoopback,
  ownNames,
  parseExtraHost,
  parseResolvConf,
  type ResolvConf,
  renderHosts,
  renderResolvConf,
} from './files.js'

/** systemd-resolved keeps the real servers there while resolv.conf names its stub on 127.0.0.53. */
const RESOLVED_CONF = '/run/systemd/resolve/resolv.conf'

/** How long what the host's resolv.conf said is used, ms: a host that moves gets new servers soon. */
const HOST_CONF_MS = 5000

const linkEntries = (links: readonly SandboxLink[]): HostsEntry[] =>
  links.flatMap(({ address, names }) => names.map((name) => ({ address, names: [name] })))

/**
 * Writes hosts, resolv.conf and hostname of one container. Files are written in place, never replaced: the container
 * has them bind-mounted and would keep an old file.
 */
export class SandboxFiles {
  #conf: { readonly readAt: number; readonly value: Promise<ResolvConf> } | null = null

  constructor(private readonly ctx: OverlayContext) {}

  async writeAll(spec: SandboxSpec, withNames: boolean, hostGateway: string): Promise<void> {
    await mkdir(spec.filesDir, { recursive: true })
    const extra = spec.extraHosts.map((text): HostsEntry => {
      const e = parseExtraHost(text)
      if (!e) throw invalid('extraHost', `extra host "${text}": write NAME:ADDRESS`, { extraHost: text })
      if (e.address === 'host-gateway' && hostGateway === '')
        throw invalid('hostGateway', 'unable to derive the IP value for host-gateway: set --host-gateway-ip')
      return { address: e.address === 'host-gateway' ? hostGateway : e.address, names: [e.name] }
    })
    extra.push(...linkEntries(spec.links ?? []))
    const hosts = spec.mode === 'host' ? editHosts(await this.#hostHosts(), [], extra) : renderHosts(extra)
    await Promise.all([
      writeFile(this.#path(spec, 'hostname'), `${spec.hostname}\n`),
      writeFile(this.#path(spec, 'hosts'), hosts),
      this.writeResolvConf(spec, withNames),
    ])
  }

  /** The other container's hosts and resolv.conf: they share one network. */
  async copyFrom(spec: SandboxSpec, other: SandboxSpec): Promise<void> {
    await mkdir(spec.filesDir, { recursive: true })
    for (const file of ['hostname', 'hosts', 'resolv.conf'])
      await writeFile(this.#path(spec, file), await readFile(this.#path(other, file)))
  }

  /** `withNames`: the container asks our name server; else it is pointed straight at the upstream ones. */
  async writeResolvConf(spec: SandboxSpec, withNames: boolean): Promise<void> {
    const host = await this.#readHostConf()
    this.#conf = { readAt: this.ctx.clock.monotonic(), value: Promise.resolve(host) }
    const pick = (own: readonly string[], daemon: readonly string[], last: readonly string[]): readonly string[] =>
      own.length > 0 ? own : daemon.length > 0 ? daemon : last
    const { dns } = this.ctx.options
    const search = pick(spec.dns.search, dns.search, host.search).filter((s) => s !== '.')
    const options = pick(spec.dns.options, dns.options, host.options)
    const reachable = spec.mode === 'host' ? host.servers : host.servers.filter((s) => !isLoopback(s))
    const text = withNames
      ? renderResolvConf({
          servers: [DNS_ADDRESS],
          search,
          options: options.some((o) => o.startsWith('ndots:')) ? options : [...options, 'ndots:0'],
        })
      : renderResolvConf({ servers: pick(spec.dns.servers, dns.servers, reachable), search, options })
    await writeFile(this.#path(spec, 'resolv.conf'), text)
  }

  /** Servers that questions about the outside go to. */
  async upstreams(spec: SandboxSpec): Promise<readonly string[]> {
    const named = this.#namedServers(spec)
    return named.length > 0 ? named : (await this.#hostConf()).servers
  }

  /**
   * A host whose only servers are on its loopback: containers reach those through our name server. A loopback address that
   * was asked for is the container's own.
   */
  async needsForwarder(spec: SandboxSpec): Promise<boolean> {
    if (this.#namedServers(spec).length > 0) return false
    const { servers } = await this.#hostConf()
    return servers.length > 0 && servers.every(isLoopback)
  }

  #namedServers(spec: SandboxSpec): readonly string[] {
    return spec.dns.servers.length > 0 ? spec.dns.servers : this.ctx.options.dns.servers
  }

  /** The container's own addresses. */
  editHosts(spec: SandboxSpec, remove: readonly string[], add: readonly string[]): Promise<void> {
    const entry = (address: string): HostsEntry => ({ address, names: ownNames(spec.hostname, spec.domainname) })
    return this.#exchange(spec, remove.map(entry), add.map(entry))
  }

  exchangeLinks(spec: SandboxSpec, before: readonly SandboxLink[], after: readonly SandboxLink[]): Promise<void> {
    return this.#exchange(spec, linkEntries(before), linkEntries(after))
  }

  async #exchange(spec: SandboxSpec, remove: readonly HostsEntry[], add: readonly HostsEntry[]): Promise<void> {
    const path = this.#path(spec, 'hosts')
    let text: string
    try {
      text = await readFile(path, 'utf8')
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code === 'ENOENT') return // the engine has already removed the container's files
      throw e
    }
    await writeFile(path, editHosts(text, remove, add))
  }

  #hostConf(): Promise<ResolvConf> {
    const now = this.ctx.clock.monotonic()
    if (!this.#conf || now - this.#conf.readAt > HOST_CONF_MS) this.#conf = { readAt: now, value: this.#readHostConf() }
    return this.#conf.value
  }

  async #readHostConf(): Promise<ResolvConf> {
    const read = async (path: string): Promise<ResolvConf> => {
      try {
        return parseResolvConf(await readFile(path, 'utf8'))
      } catch (e) {
        if ((e as NodeJS.ErrnoException).code === 'ENOENT') return { servers: [], search: [], options: [] }
        throw e
      }
    }
    const conf = await read(this.ctx.options.hostResolvConf)
    if (!conf.servers.includes('127.0.0.53')) return conf
    const real = await read(RESOLVED_CONF)
    return real.servers.length > 0 ? { ...conf, servers: real.servers } : conf
  }

  /** The host's own file: a container in host mode has its names. */
  async #hostHosts(): Promise<string> {
    try {
      return await readFile('/etc/hosts', 'utf8')
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code === 'ENOENT') return renderHosts([])
      throw e
    }
  }

  #path(spec: SandboxSpec, file: string): string {
    return join(spec.filesDir, file)
  }
}
