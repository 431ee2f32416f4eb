import { type Cli, type Command, collect, duration, Exit, readLine, unsigned } from '../command.js'
import { helpText } from '../flags.js'
import { registerBackup } from './backup.js'
import { externalCa, registerCa } from './ca.js'

interface SwarmJson {
  ID: string
  Version: { Index: number }
  Spec: Record<string, Record<string, unknown>>
  JoinTokens: { Worker: string; Manager: string }
}

interface Info {
  Swarm: {
    NodeID: string
    NodeAddr: string
    LocalNodeState: string
    ControlAvailable: boolean
    RemoteManagers: { NodeID: string; Addr: string }[] | null
  }
}

const LISTEN = '0.0.0.0:2377'

function specFlags(c: Command): Command {
  return c
    .option('--autolock', 'managers need a key after a restart')
    .option('--cert-expiry <duration>', 'life of node certificates', duration)
    .option('--dispatcher-heartbeat <duration>', 'heartbeat period', duration)
    .option('--external-ca <spec>', 'protocol=cfssl,url=... (repeatable)', collect)
    .option('--max-snapshots <n>', 'old Raft snapshots to keep', unsigned)
    .option('--snapshot-interval <n>', 'log entries between Raft snapshots', unsigned)
    .option('--task-history-limit <n>', 'dead tasks kept for each slot', unsigned)
}

interface SpecFlags {
  autolock?: boolean
  certExpiry?: number
  dispatcherHeartbeat?: number
  externalCa?: string[]
  maxSnapshots?: number
  snapshotInterval?: number
  taskHistoryLimit?: number
}

/** The given flags over a specification. */
function mergeSpec(spec: SwarmJson['Spec'], f: SpecFlags): object {
  const ca = (f.externalCa ?? []).map(externalCa)
  return {
    ...spec,
    Orchestration: {
      ...spec.Orchestration,
      ...(f.taskHistoryLimit !== undefined ? { TaskHistoryRetentionLimit: f.taskHistoryLimit } : {}),
    },
    Raft: {
      ...spec.Raft,
      ...(f.snapshotInterval !== undefined ? { SnapshotInterval: f.snapshotInterval } : {}),
      ...(f.maxSnapshots !== undefined ? { KeepOldSnapshots: f.maxSnapshots } : {}),
    },
    Dispatcher: {
      ...spec.Dispatcher,
      ...(f.dispatcherHeartbeat !== undefined ? { HeartbeatPeriod: f.dispatcherHeartbeat } : {}),
    },
    CAConfig: {
      ...spec.CAConfig,
      ...(f.certExpiry !== undefined ? { NodeCertExpiry: f.certExpiry } : {}),
      ...(ca.length > 0 ? { ExternalCAs: ca } : {}),
    },
    ...(f.autolock !== undefined ? { EncryptionConfig: { AutoLockManagers: f.autolock } } : {}),
  }
}

async function showKey(cli: Cli): Promise<void> {
  const { UnlockKey } = await (await cli.api()).get<{ UnlockKey: string }>('/swarm/unlockkey')
  cli.out(
    `To unlock a swarm manager after it restarts, run the \`shoal swarm unlock\`\ncommand and provide the following key:\n\n    ${UnlockKey}\n\nRemember to store this key in a password manager, since without it you\nwill not be able to restart the manager.\n`,
  )
}

async function joinCommand(cli: Cli, role: 'worker' | 'manager', token: string): Promise<string> {
  const { Swarm } = await (await cli.api()).get<Info>('/info')
  const own = Swarm.RemoteManagers?.find((r) => r.NodeID === Swarm.NodeID)
  return `To add a ${role} to this swarm, run the following command:\n\n    shoal swarm join --token ${token} ${own?.Addr ?? `${Swarm.NodeAddr}:2377`}\n\n`
}

export function registerSwarm(parent: Command, cli: Cli): void {
  specFlags(parent.command('init').description('Initialize a swarm'))
    .option('--advertise-addr <address>', 'address or interface that other nodes dial', '')
    .option('--availability <state>', 'active, pause or drain', 'active')
    .option('--data-path-addr <address>', 'address or interface of container traffic', '')
    .option('--data-path-port <port>', 'UDP port of container traffic', unsigned, 0)
    .option('--default-addr-pool <cidr>', 'pool for overlay networks (repeatable)', collect)
    .option('--default-addr-pool-mask-length <bits>', 'size of their subnets', unsigned, 24)
    .option('--force-new-cluster', 'a new cluster from the state that is here')
    .option('--listen-addr <address>', 'address to listen on', LISTEN)
    .action(async (f: SpecFlags & Record<string, unknown>) => {
      const api = await cli.api()
      const id = await api.post<string>('/swarm/init', {
        body: {
          ListenAddr: f.listenAddr,
          AdvertiseAddr: f.advertiseAddr,
          DataPathAddr: f.dataPathAddr,
          DataPathPort: f.dataPathPort,
          DefaultAddrPool: f.defaultAddrPool ?? [],
          SubnetSize: f.defaultAddrPoolMaskLength,
          ForceNewCluster: f.forceNewCluster ?? false,
          AutoLockManagers: f.autolock === true,
          Availability: f.availability,
          Spec: mergeSpec({}, f),
        },
      })
      cli.out(`Swarm initialized: current node (${id}) is now a manager.\n\n`)
      const { JoinTokens } = await api.get<SwarmJson>('/swarm')
      cli.out(await joinCommand(cli, 'worker', JoinTokens.Worker))
      cli.out("To add a manager to this swarm, run 'shoal swarm join-token manager' and follow the instructions.\n\n")
      if (f.autolock === true) await showKey(cli)
    })

  parent
    .command('join')
    .description('Join a swarm as a node')
    .argument('<host:port>')
    .option('--advertise-addr <address>', 'address or interface that other nodes dial', '')
    .option('--availability <state>', 'active, pause or drain', 'active')
    .option('--data-path-addr <address>', 'address or interface of container traffic', '')
    .option('--listen-addr <address>', 'address to listen on', LISTEN)
    .option('--token <token>', 'join token', '')
    .action(async (remote: string, f: Record<string, string>) => {
      const api = await cli.api()
      await api.post('/swarm/join', {
        body: {
          ListenAddr: f.listenAddr,
          AdvertiseAddr: f.advertiseAddr,
          DataPathAddr: f.dataPathAddr,
          RemoteAddrs: [remote],
          JoinToken: f.token,
          Availability: f.availability,
        },
      })
      const { Swarm } = await api.get<Info>('/info')
      cli.out(
        Swarm.ControlAvailable ? 'This node joined a swarm as a manager.\n' : 'This node joined a swarm as a worker.\n',
      )
    })

  parent
    .command('join-token')
    .description('Show or rotate a join token')
    .argument('<role>', 'worker or manager')
    .option('-q, --quiet', 'only the token')
    .option('--rotate', 'make a new one')
    .action(async (role: string, f: { quiet?: boolean; rotate?: boolean }) => {
      if (role !== 'worker' && role !== 'manager') throw new Exit(1, `unknown role ${role}`)
      const api = await cli.api()
      if (f.rotate) {
        const s = await api.get<SwarmJson>('/swarm')
        await api.post('/swarm/update', {
          query: {
            version: s.Version.Index,
            rotateWorkerToken: role === 'worker',
            rotateManagerToken: role === 'manager',
          },
          body: s.Spec,
        })
        if (!f.quiet) cli.out(`Successfully rotated ${role} join token.\n\n`)
      }
      const { JoinTokens } = await api.get<SwarmJson>('/swarm')
      const token = role === 'worker' ? JoinTokens.Worker : JoinTokens.Manager
      cli.out(f.quiet ? `${token}\n` : await joinCommand(cli, role, token))
    })

  parent
    .command('leave')
    .description('Leave the swarm')
    .option('-f, --force', 'even if this node is a manager')
    .action(async (f: { force?: boolean }) => {
      await (await cli.api()).post('/swarm/leave', { query: { force: f.force ?? false } })
      cli.out('Node left the swarm.\n')
    })

  const update = specFlags(parent.command('update').description('Update the swarm'))
  update.action(async (f: SpecFlags) => {
    if (Object.values(f).every((v) => v === undefined)) return cli.out(helpText(update))
    const api = await cli.api()
    const s = await api.get<SwarmJson>('/swarm')
    await api.post('/swarm/update', { query: { version: s.Version.Index }, body: mergeSpec(s.Spec, f) })
    cli.out('Swarm updated.\n')
    if (f.autolock === true) await showKey(cli)
  })

  parent
    .command('unlock-key')
    .description('Show or rotate the unlock key')
    .option('-q, --quiet', 'only the key')
    .option('--rotate', 'make a new one')
    .action(async (f: { quiet?: boolean; rotate?: boolean }) => {
      const api = await cli.api()
      if (f.rotate) {
        const s = await api.get<SwarmJson>('/swarm')
        await api.post('/swarm/update', {
          query: { version: s.Version.Index, rotateManagerUnlockKey: true },
          body: s.Spec,
        })
        if (!f.quiet) cli.out('Successfully rotated manager unlock key.\n\n')
      }
      const { UnlockKey } = await api.get<{ UnlockKey: string }>('/swarm/unlockkey')
      if (!UnlockKey) throw new Exit(1, 'no unlock key is set')
      if (f.quiet) cli.out(`${UnlockKey}\n`)
      else await showKey(cli)
    })

  parent
    .command('unlock')
    .description('Unlock the swarm')
    .action(async () => {
      const api = await cli.api()
      const state = (await api.get<Info>('/info')).Swarm.LocalNodeState
      if (state === 'inactive') throw new Exit(1, 'Error: This node is not part of a swarm')
      if (state !== 'locked') throw new Exit(1, 'Error: swarm is not locked')
      if (process.stdin.isTTY) cli.err('Enter unlock key: ')
      await api.post('/swarm/unlock', { body: { UnlockKey: (await readLine()).trim() } })
    })
  registerBackup(parent, cli)
  registerCa(parent, cli)
}
