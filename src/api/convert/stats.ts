import { rfc3339, ZERO_TIME } from '../../common/index.js'
import type { ContainerView, StatsSample } from '../../engine/index.js'

const cpu = (s: StatsSample | null): object =>
  s
    ? {
        cpu_usage: {
          total_usage: s.cpuTotalNs,
          percpu_usage: s.cpuPerCoreNs,
          usage_in_kernelmode: s.cpuKernelNs,
          usage_in_usermode: s.cpuUserNs,
        },
        system_cpu_usage: s.systemCpuNs,
        online_cpus: s.onlineCpus,
        throttling_data: {
          periods: s.throttling.periods,
          throttled_periods: s.throttling.throttledPeriods,
          throttled_time: s.throttling.throttledNs,
        },
      }
    : {
        cpu_usage: { total_usage: 0, usage_in_kernelmode: 0, usage_in_usermode: 0 },
        throttling_data: { periods: 0, throttled_periods: 0, throttled_time: 0 },
      }

/** One object of GET /containers/{id}/stats; a container that does not run has zeroes, as dockerd answers. */
export function statsJson(c: ContainerView, now: StatsSample | null, before: StatsSample | null): object {
  const blkio = now?.blkio ?? []
  return {
    read: now ? rfc3339(now.readMs) : ZERO_TIME,
    preread: before ? rfc3339(before.readMs) : ZERO_TIME,
    pids_stats: now ? { current: now.pidsCurrent, ...(now.pidsLimit > 0 ? { limit: now.pidsLimit } : {}) } : {},
    blkio_stats: {
      io_service_bytes_recursive:
        blkio.length > 0 ? blkio.map((b) => ({ major: b.major, minor: b.minor, op: b.op, value: b.bytes })) : null,
      io_serviced_recursive:
        blkio.length > 0 ? blkio.map((b) => ({ major: b.major, minor: b.minor, op: b.op, value: b.ops })) : null,
      io_queue_recursive: null,
      io_service_time_recursive: null,
      io_wait_time_recursive: null,
      io_merged_recursive: null,
      io_time_recursive: null,
      sectors_recursive: null,
    },
    num_procs: 0,
    storage_stats: {},
    cpu_stats: cpu(now),
    precpu_stats: cpu(before),
    memory_stats: now
      ? {
          usage: now.memoryUsageBytes,
          max_usage: now.memoryMaxUsageBytes,
          limit: now.memoryLimitBytes,
          stats: now.memoryStats,
        }
      : {},
    name: `/${c.name}`,
    id: c.id,
    ...(now && now.networks.length > 0 ? { networks: networksJson(now) } : {}),
  }
}

const networksJson = (now: StatsSample): object =>
  Object.fromEntries(
    now.networks.map((n) => [
      n.name,
      {
        rx_bytes: n.rxBytes,
        rx_packets: n.rxPackets,
        rx_errors: n.rxErrors,
        rx_dropped: n.rxDropped,
        tx_bytes: n.txBytes,
        tx_packets: n.txPackets,
        tx_errors: n.txErrors,
        tx_dropped: n.txDropped,
      },
    ]),
  )
