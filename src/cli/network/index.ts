import {
  type Cli,
  type Command,
  collect,
  confirm,
  Exit,
  filterFlag,
  filters,
  forEach,
  inspectAll,
  type ListFlags,
  labels,
  listFlags,
  pairs,
  printList,
  whole,
} from '../command.js'

interface NetworkJson {
  Id: string
  Name: string
  Driver: string
  Scope: string
  Created: string
  Internal: boolean
  EnableIPv4?: boolean
  EnableIPv6: boolean
  Labels: Record<string, string>
}

interface ConnectFlags {
  alias?: string[]
  driverOpt?: string[]
  gwPriority?: number
  ip?: string
  ip6?: string
  link?: string[]
  linkLocalIp?: string[]
}

const COLUMNS = {
  ID: 'NETWORK ID',
  Name: 'NAME',
  Driver: 'DRIVER',
  Scope: 'SCOPE',
  IPv4: 'IPV4',
  IPv6: 'IPV6',
  Internal: 'INTERNAL',
  Labels: 'LABELS',
  CreatedAt: 'CREATED AT',
}

export function registerNetwork(parent: Command, cli: Cli): void {
  listFlags(parent.command('ls').alias('list').description('List networks'))
    .option('--no-trunc', 'whole ids')
    .action(async (f: ListFlags & { trunc: boolean }) => {
      const found = await (await cli.api()).get<NetworkJson[]>('/networks', { filters: filters(f.filter) })
      const rows = found
        .sort((a, b) => (a.Name < b.Name ? -1 : 1))
        .map((n) => ({
          ID: f.trunc ? n.Id.slice(0, 12) : n.Id,
          Name: n.Name,
          Driver: n.Driver,
          Scope: n.Scope,
          IPv4: String(n.EnableIPv4 ?? true),
          IPv6: String(n.EnableIPv6),
          Internal: String(n.Internal),
          ...labels(n.Labels),
          CreatedAt: n.Created.replace('T', ' ').replace(/\.?0*Z$/, ' +0000 UTC'),
        }))
      printList(cli, rows, { columns: COLUMNS, shown: ['ID', 'Name', 'Driver', 'Scope'], id: 'ID' }, f)
    })

  parent
    .command('create')
    .description('Create a network')
    .argument('<name>')
    .option('--attachable', 'single containers may attach')
    .option('--aux-address <name=ip>', 'reserved address (repeatable)', collect)
    .option('--config-from <network>', 'copy the configuration of a network')
    .option('--config-only', 'only a configuration')
    .option('-d, --driver <driver>', 'bridge, overlay, macvlan', 'bridge')
    .option('--gateway <ip>', 'gateway of a subnet (repeatable)', collect)
    .option('--ingress', "the swarm's routing mesh network")
    .option('--internal', 'no way out')
    .option('--ip-range <cidr>', 'part of a subnet to take addresses from (repeatable)', collect)
    .option('--ipam-driver <driver>', 'address driver', 'default')
    .option('--ipam-opt <key=value>', 'option of the address driver (repeatable)', collect)
    .option('--ipv4', 'enable or disable IPv4 address assignment', true)
    .option('--ipv6', 'enable or disable IPv6 address assignment')
    .option('--label <key=value>', 'label (repeatable)', collect)
    .option('-o, --opt <key=value>', 'option of the driver (repeatable)', collect)
    .option('--scope <scope>', 'local or swarm')
    .option('--subnet <cidr>', 'subnet (repeatable)', collect)
    .action(async (name: string, f: Record<string, unknown>) => {
      const list = (v: unknown): string[] => (v as string[] | undefined) ?? []
      const subnets = list(f.subnet)
      if (subnets.length === 0 && list(f.gateway).length + list(f.ipRange).length > 0)
        throw new Exit(1, 'every ip-range or gateway must have a corresponding subnet')
      const made = await (await cli.api()).post<{ Id: string; Warning: string }>('/networks/create', {
        body: {
          Name: name,
          Driver: f.driver,
          Scope: f.scope ?? '',
          Internal: f.internal ?? false,
          Attachable: f.attachable ?? false,
          Ingress: f.ingress ?? false,
          ConfigOnly: f.configOnly ?? false,
          ...(f.configFrom ? { ConfigFrom: { Network: f.configFrom } } : {}),
          ...(f.ipv4 === false ? { EnableIPv4: false } : {}),
          ...(f.ipv6 === undefined ? {} : { EnableIPv6: f.ipv6 }),
          IPAM: {
            Driver: f.ipamDriver,
            Options: pairs(list(f.ipamOpt)),
            Config: subnets.map((Subnet, i) => ({
              Subnet,
              ...(list(f.gateway)[i] ? { Gateway: list(f.gateway)[i] } : {}),
              ...(list(f.ipRange)[i] ? { IPRange: list(f.ipRange)[i] } : {}),
              ...(i === 0 ? { AuxiliaryAddresses: pairs(list(f.auxAddress)) } : {}),
            })),
          },
          Options: pairs(list(f.opt)),
          Labels: pairs(list(f.label)),
        },
      })
      if (made.Warning) cli.err(`WARNING: ${made.Warning}\n`)
      cli.out(`${made.Id}\n`)
    })

  parent
    .command('rm')
    .alias('remove')
    .description('Remove networks')
    .argument('<network...>')
    .option('-f, --force', 'no error for a missing one')
    .action(async (names: string[], f: { force?: boolean }) => {
      const api = await cli.api()
      await forEach(cli, names, async (n) => {
        try {
          await api.delete(`/networks/${encodeURIComponent(n)}`)
        } catch (e) {
          if (!(f.force && (e as { status?: number }).status === 404)) throw e
          return 'missing'
        }
        return undefined
      })
    })

  parent
    .command('inspect')
    .description('Display detailed information on networks')
    .argument('<network...>')
    .option('-f, --format <format>', 'Go template')
    .option('-v, --verbose', 'with services and tasks')
    .action(async (names: string[], f: { format?: string; verbose?: boolean }) => {
      const api = await cli.api()
      await inspectAll(
        cli,
        names,
        (n) => api.get(`/networks/${encodeURIComponent(n)}`, { verbose: f.verbose ?? false }),
        f.format,
      )
    })

  parent
    .command('connect')
    .description('Connect a container to a network')
    .argument('<network>')
    .argument('<container>')
    .option('--alias <name>', 'add network-scoped alias for the container (repeatable)', collect)
    .option('--driver-opt <key=value>', 'driver options for the network (repeatable)', collect)
    .option('--gw-priority <n>', 'highest gw-priority provides the default gateway', whole)
    .option('--ip <address>', 'IPv4 address')
    .option('--ip6 <address>', 'IPv6 address')
    .option('--link <container>', 'add link to another container (repeatable)', collect)
    .option('--link-local-ip <ip>', 'add a link-local address for the container (repeatable)', collect)
    .action(async (network: string, Container: string, f: ConnectFlags) => {
      const ipam = {
        ...(f.ip ? { IPv4Address: f.ip } : {}),
        ...(f.ip6 ? { IPv6Address: f.ip6 } : {}),
        ...(f.linkLocalIp ? { LinkLocalIPs: f.linkLocalIp } : {}),
      }
      await (await cli.api()).post(`/networks/${encodeURIComponent(network)}/connect`, {
        body: {
          Container,
          EndpointConfig: {
            ...(Object.keys(ipam).length > 0 ? { IPAMConfig: ipam } : {}),
            ...(f.alias ? { Aliases: f.alias } : {}),
            ...(f.link ? { Links: f.link } : {}),
            ...(f.driverOpt ? { DriverOpts: pairs(f.driverOpt) } : {}),
            ...(f.gwPriority === undefined ? {} : { GwPriority: f.gwPriority }),
          },
        },
      })
    })
  parent
    .command('disconnect')
    .description('Disconnect a container from a network')
    .argument('<network>')
    .argument('<container>')
    .option('-f, --force', 'even if it does not run')
    .action(async (network: string, Container: string, f: { force?: boolean }) => {
      await (await cli.api()).post(`/networks/${encodeURIComponent(network)}/disconnect`, {
        body: { Container, Force: f.force ?? false },
      })
    })
  parent
    .command('prune')
    .description('Remove all unused networks')
    .option('--filter <filter>', 'provide filter values (e.g. "until=<timestamp>")', filterFlag)
    .option('-f, --force', 'do not prompt for confirmation')
    .action(async (f: { filter?: string[]; force?: boolean }) => {
      await confirm(cli, f.force, 'WARNING! This will remove all custom networks not used by at least one container.')
      const done = await (await cli.api()).post<{ NetworksDeleted: string[] | null }>('/networks/prune', {
        query: { filters: filters(f.filter) },
      })
      if (done.NetworksDeleted) cli.out(`Deleted Networks:\n${done.NetworksDeleted.join('\n')}\n\n`)
    })
}
