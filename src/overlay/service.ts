import { existsSync } from 'node:fs'
import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { invalid, notFound } from '../common/index.js'
import type { OverlayContext, OverlayModules } from './context.js'
import type { EndpointRecord, NetworkRecord, NetworkService } from './contract.js'
import { bridgeName } from './drivers/bridge-options.js'
import { linkAlias } from './drivers/link-alias.js'
import { warnOfForeignDrop } from './firewall/foreign-drop.js'
import { HostFirewall } from './firewall/host-firewall.js'
import { PortReservations } from './firewall/port-reservations.js'
import { IngressMesh } from './ingress/mesh.js'
import { KeyedLock } from './keyed-lock.js'
import { LocalNetworks } from './local-networks.js'
import { loadNetNative } from './native.js'
import { type OverlayOptionsInput, overlayOptions } from './options.js'
import { PluginCalls } from './plugins/calls.js'
import { PluginDebts } from './plugins/debts.js'
import { NodeDiscovery } from './plugins/node-discovery.js'
import { Sandboxes } from './sandboxes.js'
import { ClusterNetworks } from './swarm/cluster-networks.js'
import { isUnbornVxlan } from './swarm/overlay-sandbox.js'

/**
 * All networking of one host. Everything happens in the network namespace that this process runs in, and in namespaces
 * bound below `runDir`.
 */
export function createNetworkService(input: OverlayOptionsInput, modules: OverlayModules): NetworkService {
  const ctx: OverlayContext = {
    options: overlayOptions(input),
    native: loadNetNative(),
    clock: modules.clock,
    rng: modules.rng,
    log: modules.logger.child({ room: 'overlay' }),
    locks: new KeyedLock(),
    kernelIpv6: existsSync('/proc/sys/net/ipv6'),
  }
  const firewall = new HostFirewall(ctx)
  const reservations = new PortReservations(ctx.native)
  // Each side knows the other through a narrow interface: local networks leave the cluster's subnets alone, and the
  // cluster makes its way out as a local network.
  const calls = new PluginCalls(modules.plugins ?? null)
  const debts = new PluginDebts(ctx, calls)
  const local: LocalNetworks = new LocalNetworks(ctx, {
    firewall,
    calls,
    debts,
    clusterSubnets: () => cluster.list().flatMap((n) => n.ipam.pools.map((p) => p.subnet)),
  })
  const cluster = new ClusterNetworks(ctx, local, new IngressMesh(ctx, reservations))
  const sandboxes = new Sandboxes(ctx, local, cluster, firewall, reservations, debts)

  const discovery = new NodeDiscovery(ctx, calls, () => local.networkPlugins())
  let ownAddress = ''

  const networks = (): NetworkRecord[] => [...local.list(), ...cluster.list()]

  /** Removes what a crash left in the kernel: links and namespaces that carry our mark and belong to nobody. */
  async function sweep(): Promise<void> {
    const own = sandboxes.belongings()
    const clusters = cluster.belongings()
    const bridges = local.list().flatMap((n) => (n.driver === 'bridge' && !n.configOnly ? [bridgeName(n)] : []))
    const netns = new Set([...own.netns, ...clusters.netns])
    const wanted = new Set([...own.links, ...clusters.links, ...bridges])
    for (const l of await ctx.native.netLinks(null)) {
      const ours = l.alias.startsWith(linkAlias(ctx, '')) || isUnbornVxlan(ctx, l.name, l.kind)
      if (!ours || wanted.has(l.name)) continue
      ctx.log.info('removing a leftover link', { link: l.name, alias: l.alias })
      await ctx.native.netLink(null, [{ op: 'linkDel', name: l.name, tolerate: ['ENODEV'] }])
    }
    const dir = join(ctx.options.runDir, 'netns')
    for (const file of await readdir(dir)) {
      const path = join(dir, file)
      if (netns.has(path)) continue
      ctx.log.info('removing a leftover network namespace', { path })
      await ctx.native.netnsDelete(path)
    }
  }

  return {
    async start(keep) {
      await mkdir(ctx.options.root, { recursive: true, mode: 0o700 })
      await mkdir(ctx.options.runDir, { recursive: true, mode: 0o711 })
      if (ctx.options.forwarding) await ctx.native.netSysctl(null, { 'net.ipv4.ip_forward': '1' })
      await debts.load()
      await local.start()
      await cluster.load(sandboxes)
      await sandboxes.start(keep)
      await cluster.resume()
      await sweep()
      await warnOfForeignDrop(ctx)
      // Plugins are not waited for: nothing of this host depends on one that does not answer.
      debts.open(new Set([...networks().map((n) => n.id), ...sandboxes.endpointIds()]))
      void local.replay((id) => sandboxes.endpoints(id).flatMap(addressesIn))
    },
    async stop() {
      calls.stop()
      await ctx.locks.idle()
      await debts.stop()
      await sandboxes.stop()
      await cluster.stop(sandboxes.belongings().netns.size > 0)
    },
    async createNetwork(spec, sameName = false) {
      const network = await local.create(spec, { sameName })
      discovery.tell()
      return network
    },
    removeNetwork: (id) => local.remove(id, () => sandboxes.endpoints(id).length),
    networks,
    findNetwork(reference) {
      const all = networks()
      const exact = all.find((n) => n.id === reference)
      if (exact) return exact
      const named = all.filter((n) => n.name === reference)
      if (named.length > 1)
        throw invalid(
          'ambiguousNetwork',
          `network ${reference} is ambiguous (${named.length} matches found on name): use an id`,
        )
      if (named[0]) return named[0]
      const some = reference === '' ? [] : all.filter((n) => n.id.startsWith(reference))
      if (some.length > 1)
        throw invalid('ambiguousNetwork', `network ${reference} is ambiguous: ${some.length} ids start with it`)
      if (!some[0]) throw notFound('noSuchNetwork', `network ${reference} not found`, { network: reference })
      return some[0]
    },
    endpoints: (id) => sandboxes.endpoints(id),
    createSandbox: (spec) => sandboxes.create(spec),
    sandbox: (id) => sandboxes.find(id),
    join: (id, network, request) => sandboxes.join(id, network, request),
    leave: (id, network) => sandboxes.leave(id, network),
    publish: (id, ports) => sandboxes.publish(id, ports),
    setLinks: (id, links) => sandboxes.setLinks(id, links),
    deleteSandbox: (id) => sandboxes.delete(id),
    stats: (id) => sandboxes.stats(id),
    rename: (id, name) => sandboxes.rename(id, name),
    async clusterJoined(self) {
      ownAddress = self.dataPathAddress
      await cluster.clusterJoined(self)
    },
    async clusterLeft() {
      await cluster.clusterLeft()
      discovery.set(new Map())
    },
    async applyMembers(members) {
      await cluster.applyMembers(members)
      discovery.set(new Map(members.members.map((m) => [m.dataPathAddress, m.dataPathAddress === ownAddress])))
    },
    applyNetworkUpdate: (update) => cluster.applyNetworkUpdate(update),
    ensureSwarmNetwork: (network) => cluster.ensureSwarmNetwork(network),
  }
}

const addressesIn = (e: EndpointRecord): string[] => [e.ipv4Address, e.ipv6Address].filter((a) => a !== '')
