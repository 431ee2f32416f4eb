import { type Cli, type Command, cpus, Exit, forEach, size, sizeOrUnlimited, whole } from '../command.js'
import { restartPolicy } from './body.js'

interface UpdateFlags {
  blkioWeight?: number
  cpuPeriod?: number
  cpuQuota?: number
  cpuShares?: number
  cpus?: number
  cpusetCpus?: string
  cpusetMems?: string
  memory?: number
  memoryReservation?: number
  memorySwap?: number
  pidsLimit?: number
  restart?: string
}

/** update: only what is given changes. */
export function registerUpdate(parent: Command, cli: Cli): void {
  parent
    .command('update')
    .description('Update configuration of one or more containers')
    .argument('<container...>')
    .option('--blkio-weight <n>', 'block IO weight, between 10 and 1000', whole)
    .option('--cpu-period <us>', 'limit CPU CFS period', whole)
    .option('--cpu-quota <us>', 'limit CPU CFS quota', whole)
    .option('-c, --cpu-shares <n>', 'CPU shares (relative weight)', whole)
    .option('--cpus <n>', 'number of CPUs', cpus)
    .option('--cpuset-cpus <list>', 'CPUs in which to allow execution (0-3, 0,1)')
    .option('--cpuset-mems <list>', 'MEMs in which to allow execution (0-3, 0,1)')
    .option('-m, --memory <bytes>', 'memory limit', size)
    .option('--memory-reservation <bytes>', 'memory soft limit', size)
    .option(
      '--memory-swap <bytes>',
      'swap limit equal to memory plus swap: -1 to enable unlimited swap',
      sizeOrUnlimited,
    )
    .option('--pids-limit <n>', 'tune container pids limit (set -1 for unlimited)', whole)
    .option('--restart <policy>', 'restart policy to apply when a container exits')
    .action(async (ids: string[], f: UpdateFlags) => {
      const given = {
        BlkioWeight: f.blkioWeight,
        CpuPeriod: f.cpuPeriod,
        CpuQuota: f.cpuQuota,
        CpuShares: f.cpuShares,
        NanoCPUs: f.cpus === undefined ? undefined : Math.round(f.cpus * 1e9),
        CpusetCpus: f.cpusetCpus,
        CpusetMems: f.cpusetMems,
        Memory: f.memory,
        MemoryReservation: f.memoryReservation,
        MemorySwap: f.memorySwap,
        PidsLimit: f.pidsLimit,
        RestartPolicy: f.restart === undefined ? undefined : restartPolicy(f.restart),
      }
      const body = Object.fromEntries(Object.entries(given).filter(([, v]) => v !== undefined))
      if (Object.keys(body).length === 0)
        throw new Exit(1, 'you must provide one or more flags when using this command')
      const api = await cli.api()
      await forEach(cli, ids, async (id) => {
        const done = await api.post<{ Warnings?: string[] | null } | null>(
          `/containers/${encodeURIComponent(id)}/update`,
          { body },
        )
        for (const w of done?.Warnings ?? []) cli.err(`${w}\n`)
      })
    })
}
