import { writeFileSync } from 'node:fs'
import {
  type Cli,
  type Command,
  collect,
  confirm,
  Exit,
  filterFlag,
  filters,
  pairs,
  size,
  sizeOrUnlimited,
  whole,
} from '../command.js'
import { ulimit } from '../container/body.js'
import { humanSize } from '../format/units.js'
import { showProgress } from '../progress.js'
import { registryConfigHeader } from '../registry-auth.js'

interface BuildFlags {
  readonly addHost?: string[]
  readonly buildArg?: string[]
  readonly cacheFrom?: string[]
  readonly cgroupParent?: string
  readonly compress?: boolean
  readonly cpuPeriod?: number
  readonly cpuQuota?: number
  readonly cpuShares?: number
  readonly cpusetCpus?: string
  readonly cpusetMems?: string
  readonly file?: string
  readonly forceRm?: boolean
  readonly iidfile?: string
  readonly isolation?: string
  readonly label?: string[]
  readonly memory?: number
  readonly memorySwap?: number
  readonly network: string
  readonly cache: boolean
  readonly platform?: string
  readonly pull?: boolean
  readonly quiet?: boolean
  readonly rm: boolean
  readonly securityOpt?: string[]
  readonly shmSize?: number
  readonly squash?: boolean
  readonly tag?: string[]
  readonly target?: string
  readonly ulimit?: string[]
}

export function registerBuild(parent: Command, cli: Cli): void {
  parent
    .command('build')
    .description('Build an image from a Dockerfile')
    .argument('<path>')
    .takes('PATH | URL | -')
    .option('--add-host <host>', 'add a custom host-to-IP mapping (host:ip)', collect)
    .option('--build-arg <name=value>', 'set build-time variables', collect)
    .option('--cache-from <image>', 'images to consider as cache sources', collect)
    .option('--cgroup-parent <cgroup>', 'set the parent cgroup for the RUN instructions during build')
    .option('--compress', 'compress the build context using gzip')
    .option('--cpu-period <microseconds>', 'limit the CPU CFS period', whole)
    .option('--cpu-quota <microseconds>', 'limit the CPU CFS quota', whole)
    .option('-c, --cpu-shares <weight>', 'CPU shares (relative weight)', whole)
    .option('--cpuset-cpus <cpus>', 'CPUs in which to allow execution (0-3, 0,1)')
    .option('--cpuset-mems <nodes>', 'MEMs in which to allow execution (0-3, 0,1)')
    .option('-f, --file <file>', 'name of the Dockerfile (default: PATH/Dockerfile)')
    .option('--force-rm', 'always remove intermediate containers')
    .option('--iidfile <file>', 'write the image ID to the file')
    .option('--isolation <isolation>', 'container isolation technology')
    .option('--label <label>', 'set metadata for an image', collect)
    .option('-m, --memory <bytes>', 'memory limit', size)
    .option('--memory-swap <bytes>', 'memory and swap; -1 for no limit', sizeOrUnlimited)
    .option('--network <mode>', 'set the networking mode for the RUN instructions during build', 'default')
    .option('--no-cache', 'do not use cache when building the image')
    .option('--platform <platform>', 'set platform if server is multi-platform capable')
    .option('--pull', 'always attempt to pull a newer version of the image')
    .option('-q, --quiet', 'suppress the build output and print image ID on success')
    .option('--rm', 'remove intermediate containers after a successful build', true)
    .option('--security-opt <option>', 'security options', collect)
    .option('--shm-size <bytes>', 'size of /dev/shm', size)
    .option('--squash', 'squash newly built layers into a single new layer')
    .option('-t, --tag <name>', 'name and optionally a tag (NAME[:TAG])', collect)
    .option('--target <stage>', 'set the target build stage to build')
    .option('--ulimit <limit>', 'ulimit options', collect)
    .action((path: string, f: BuildFlags) => build(cli, path, f))
}

async function build(cli: Cli, path: string, f: BuildFlags): Promise<void> {
  const { openContext } = await import('./build-context.js')
  const context = await openContext(path, { file: f.file ?? '', compress: f.compress ?? false, stdin: process.stdin })
  const api = await cli.api()
  context.body?.on('end', () => {
    if (!f.quiet) cli.out(`Sending build context to Shoal daemon  ${humanSize(context.count.bytes, 4)}\n`)
  })
  const stream = await api.stream('POST', '/build', {
    query: query(f, context.remote, context.dockerfile),
    headers: { ...registryConfigHeader(), 'Content-Type': 'application/x-tar' },
    ...(context.body ? { stream: context.body } : {}),
  })
  let id = ''
  const said: string[] = []
  // With -q the engine says nothing but the id, and everything where it fails.
  const out = f.quiet ? { ...cli, out: (text: string) => void said.push(text) } : cli
  try {
    await showProgress(out, stream, {
      quiet: false,
      onAux: (aux) => {
        id = (aux as { ID?: string }).ID ?? id
      },
    })
  } catch (caught) {
    if (f.quiet) cli.err(said.join(''))
    throw caught
  }
  if (f.quiet) {
    id = said.join('').trim()
    cli.out(`${id}\n`)
  }
  if (!f.iidfile) return
  if (id === '') throw new Exit(1, 'server did not provide an image ID. Cannot write it to a file')
  writeFileSync(f.iidfile, id, { mode: 0o666 })
}

function query(f: BuildFlags, remote: string, dockerfile: string) {
  return {
    version: '1',
    remote,
    dockerfile,
    t: f.tag,
    q: f.quiet,
    nocache: !f.cache,
    rm: f.rm ? '1' : '0',
    forcerm: f.forceRm,
    pull: f.pull,
    squash: f.squash,
    platform: f.platform,
    target: f.target,
    networkmode: f.network,
    extrahosts: f.addHost,
    securityopt: f.securityOpt,
    isolation: f.isolation,
    memory: f.memory,
    memswap: f.memorySwap,
    cpushares: f.cpuShares,
    cpuperiod: f.cpuPeriod,
    cpuquota: f.cpuQuota,
    cpusetcpus: f.cpusetCpus,
    cpusetmems: f.cpusetMems,
    cgroupparent: f.cgroupParent,
    shmsize: f.shmSize,
    ulimits: JSON.stringify((f.ulimit ?? []).map(ulimit)),
    buildargs: JSON.stringify(buildArgs(f.buildArg)),
    labels: JSON.stringify(pairs(f.label)),
    cachefrom: JSON.stringify(f.cacheFrom ?? []),
  }
}

/** NAME alone takes the caller's value, or is told without one. */
const buildArgs = (all: readonly string[] = []): Record<string, string | null> =>
  Object.fromEntries(
    all.map((a) => {
      const at = a.indexOf('=')
      return at < 0 ? [a, process.env[a] ?? null] : [a.slice(0, at), a.slice(at + 1)]
    }),
  )

export function registerBuilder(parent: Command, cli: Cli): void {
  registerBuild(parent, cli)
  parent
    .command('prune')
    .description('Remove build cache')
    .option('-a, --all', 'remove all unused build cache, not just dangling ones')
    .option('--filter <filter>', 'provide filter values (e.g. "until=24h")', filterFlag)
    .option('-f, --force', 'do not prompt for confirmation')
    .option('--keep-storage <bytes>', 'amount of disk space to keep for cache', size)
    .action(async (f: { all?: boolean; filter?: string[]; force?: boolean; keepStorage?: number }) => {
      await confirm(
        cli,
        f.force,
        f.all ? 'WARNING! This will remove all build cache.' : 'WARNING! This will remove all dangling build cache.',
      )
      const done = await (await cli.api()).post<{ CachesDeleted: string[] | null; SpaceReclaimed: number }>(
        '/build/prune',
        { query: { all: f.all ?? false, filters: filters(f.filter), 'keep-storage': f.keepStorage } },
      )
      if (done.CachesDeleted?.length) cli.out(`Deleted build cache objects:\n${done.CachesDeleted.join('\n')}\n\n`)
      cli.out(`Total reclaimed space: ${humanSize(done.SpaceReclaimed)}\n`)
    })
}
