import { conflict } from '../common/index.js'
import type { Container } from './container.js'
import { containerEvent } from './container-events.js'
import type { EngineContext } from './context.js'
import { whileRunning } from './exec.js'
import { deviceNumber } from './host.js'
import { limits } from './spec/resources.js'
import type { HostConfig } from './types.js'
import { checkResources, checkRestartPolicy } from './validate.js'

/** What `docker update` may change; 0 and "" mean "leave it". */
const RESOURCE_FIELDS = [
  'BlkioWeight',
  'BlkioWeightDevice',
  'BlkioDeviceReadBps',
  'BlkioDeviceWriteBps',
  'BlkioDeviceReadIOps',
  'BlkioDeviceWriteIOps',
  'CpuShares',
  'CpuPeriod',
  'CpuQuota',
  'CpuRealtimePeriod',
  'CpuRealtimeRuntime',
  'CpusetCpus',
  'CpusetMems',
  'NanoCpus',
  'Memory',
  'MemoryReservation',
  'MemorySwap',
] as const satisfies readonly (keyof HostConfig)[]

/** Limits of a live container at once, and of a stopped one at its next start; the restart policy in either case. */
export async function updateContainer(
  ctx: EngineContext,
  container: Container,
  changes: HostConfig,
): Promise<{ readonly warnings: readonly string[] }> {
  return container.locked(async () => {
    const { record } = container
    if (record.status === 'removing' || record.status === 'dead')
      throw cannotUpdate(container, 'container is marked for removal and cannot be "update"')
    const wanted: Record<string, unknown> = {}
    for (const field of RESOURCE_FIELDS) {
      const value = changes[field]
      if (value === undefined || value === null || value === 0 || value === '') continue
      if (Array.isArray(value) && value.length === 0) continue
      wanted[field] = value
    }
    if (changes.PidsLimit != null) wanted.PidsLimit = Math.max(0, changes.PidsLimit)
    const merged: HostConfig = { ...record.hostConfig, ...wanted }
    if (wanted.NanoCpus && (record.hostConfig.CpuQuota || record.hostConfig.CpuPeriod))
      throw cannotUpdate(
        container,
        `Conflicting options: Nano CPUs cannot be updated as CPU ${record.hostConfig.CpuPeriod ? 'Period' : 'Quota'} has already been set`,
      )
    if ((wanted.CpuQuota || wanted.CpuPeriod) && record.hostConfig.NanoCpus)
      throw cannotUpdate(
        container,
        `Conflicting options: CPU ${wanted.CpuPeriod ? 'Period' : 'Quota'} cannot be updated as NanoCPUs has already been set`,
      )
    const memory = wanted.Memory as number | undefined
    if (
      memory &&
      !wanted.MemorySwap &&
      record.hostConfig.MemorySwap &&
      record.hostConfig.MemorySwap > 0 &&
      memory > record.hostConfig.MemorySwap
    )
      throw cannotUpdate(
        container,
        'Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time',
      )
    if (changes.RestartPolicy?.Name) {
      merged.RestartPolicy = {
        Name: changes.RestartPolicy.Name,
        MaximumRetryCount: changes.RestartPolicy.MaximumRetryCount ?? 0,
      }
      if (merged.AutoRemove && merged.RestartPolicy.Name !== 'no')
        throw cannotUpdate(
          container,
          'Restart policy cannot be updated because AutoRemove is enabled for the container',
        )
      checkRestartPolicy(merged)
    }
    const warnings = checkResources(merged)
    if (container.live && Object.keys(wanted).length > 0)
      await whileRunning(
        container,
        container.live.update(limits({ ...wanted, ...swapWith(wanted, merged), ...pidsOf(wanted) }, deviceNumber)),
      )
    record.hostConfig = merged
    await ctx.store.put(record)
    containerEvent(ctx, container, 'update')
    return { warnings }
  })
}

/** A limit that is taken away must be written too: -1 is how the runtime is told so. */
const pidsOf = (wanted: HostConfig): HostConfig => (wanted.PidsLimit === 0 ? { PidsLimit: -1 } : {})

const cannotUpdate = (container: Container, reason: string): Error =>
  conflict('cannotUpdate', `Cannot update container ${container.id}: ${reason}`, { id: container.id })

/** The kernel of cgroup v1 refuses a memory limit above the sum: both are always written together. */
const swapWith = (wanted: Record<string, unknown>, merged: HostConfig): HostConfig =>
  wanted.Memory || wanted.MemorySwap
    ? {
        ...(merged.Memory ? { Memory: merged.Memory } : {}),
        ...(merged.MemorySwap ? { MemorySwap: merged.MemorySwap } : {}),
      }
    : {}
