import { readFile } from 'node:fs/promises'
import { totalmem } from 'node:os'
import { join } from 'node:path'
import { type CgroupMount, cgroupMounts } from '../../runtime/index.js'
import type { Container } from '../container.js'
import type { EngineContext } from '../context.js'
import type { StatsSample } from '../contract.js'
import { parseBlkio, parseFlat, parseIoStat, parseProcStat, ticksToNs } from './parse.js'

/** A file's text, "" when the controller or the container is not there (any more). */
const text = async (path: string): Promise<string> => {
  try {
    return await readFile(path, 'utf8')
  } catch (caught) {
    if (['ENOENT', 'ENODEV', 'EOPNOTSUPP'].includes((caught as NodeJS.ErrnoException).code ?? '')) return ''
    throw caught
  }
}

/** "max" and v1's huge numbers mean no limit: 0 here. */
const limit = (value: string): number => {
  const n = Number(value.trim())
  return Number.isFinite(n) && n < 2 ** 60 ? n : 0
}

type CgroupFigures = Omit<StatsSample, 'readMs' | 'systemCpuNs' | 'onlineCpus' | 'networks'>

/** One sample of a container's counters; all zero when it does not run, as docker has it. */
export async function readStats(ctx: EngineContext, container: Container): Promise<StatsSample> {
  const readMs = ctx.clock.now()
  const host = parseProcStat(await text('/proc/stat'))
  const { live } = container
  if (!live) return { readMs, systemCpuNs: host.systemNs, onlineCpus: host.onlineCpus, networks: [], ...NOTHING }
  const [figures, networks] = await Promise.all([
    cgroupFigures(live.cgroup),
    container.record.networkMode === 'host' ? [] : ctx.networks.stats(container.id),
  ])
  return { readMs, systemCpuNs: host.systemNs, onlineCpus: host.onlineCpus, networks, ...figures }
}

const NOTHING: CgroupFigures = {
  cpuTotalNs: 0,
  cpuUserNs: 0,
  cpuKernelNs: 0,
  cpuPerCoreNs: [],
  throttling: { periods: 0, throttledPeriods: 0, throttledNs: 0 },
  memoryUsageBytes: 0,
  memoryMaxUsageBytes: 0,
  memoryLimitBytes: 0,
  memoryStats: {},
  pidsCurrent: 0,
  pidsLimit: 0,
  blkio: [],
}

export async function cgroupFigures(cgroup: string): Promise<CgroupFigures> {
  const mounts = await cgroupMounts()
  const v1 = mounts.filter((m) => m.version === 1)
  if (v1.some((m) => m.controllers.includes('memory') || m.controllers.includes('cpuacct'))) return version1(v1, cgroup)
  const unified = mounts.find((m) => m.version === 2)
  return unified ? version2(join(unified.path, cgroup)) : NOTHING
}

async function version1(mounts: readonly CgroupMount[], cgroup: string): Promise<CgroupFigures> {
  const read = async (controller: string, file: string): Promise<string> => {
    const mount = mounts.find((m) => m.controllers.includes(controller))
    return mount ? text(join(mount.path, cgroup, file)) : ''
  }
  const [usage, perCore, acct, cpuStat, memUsage, memMax, memLimit, memStat, pids, pidsMax, bytes, ops] =
    await Promise.all([
      read('cpuacct', 'cpuacct.usage'),
      read('cpuacct', 'cpuacct.usage_percpu'),
      read('cpuacct', 'cpuacct.stat'),
      read('cpu', 'cpu.stat'),
      read('memory', 'memory.usage_in_bytes'),
      read('memory', 'memory.max_usage_in_bytes'),
      read('memory', 'memory.limit_in_bytes'),
      read('memory', 'memory.stat'),
      read('pids', 'pids.current'),
      read('pids', 'pids.max'),
      read('blkio', 'blkio.throttle.io_service_bytes'),
      read('blkio', 'blkio.throttle.io_serviced'),
    ])
  const split = parseFlat(acct)
  const cpu = parseFlat(cpuStat)
  return {
    cpuTotalNs: Number(usage),
    cpuUserNs: ticksToNs(split.user ?? 0),
    cpuKernelNs: ticksToNs(split.system ?? 0),
    cpuPerCoreNs: perCore.trim().split(/\s+/).filter(Boolean).map(Number),
    throttling: {
      periods: cpu.nr_periods ?? 0,
      throttledPeriods: cpu.nr_throttled ?? 0,
      throttledNs: cpu.throttled_time ?? 0,
    },
    memoryUsageBytes: Number(memUsage),
    memoryMaxUsageBytes: Number(memMax),
    memoryLimitBytes: limit(memLimit) || totalmem(),
    memoryStats: parseFlat(memStat),
    pidsCurrent: Number(pids),
    pidsLimit: limit(pidsMax),
    blkio: parseBlkio(bytes, ops),
  }
}

async function version2(dir: string): Promise<CgroupFigures> {
  const [cpuStat, current, peak, max, memStat, pids, pidsMax, io] = await Promise.all(
    [
      'cpu.stat',
      'memory.current',
      'memory.peak',
      'memory.max',
      'memory.stat',
      'pids.current',
      'pids.max',
      'io.stat',
    ].map((file) => text(join(dir, file))),
  )
  const cpu = parseFlat(cpuStat!)
  return {
    cpuTotalNs: (cpu.usage_usec ?? 0) * 1000,
    cpuUserNs: (cpu.user_usec ?? 0) * 1000,
    cpuKernelNs: (cpu.system_usec ?? 0) * 1000,
    cpuPerCoreNs: [],
    throttling: {
      periods: cpu.nr_periods ?? 0,
      throttledPeriods: cpu.nr_throttled ?? 0,
      throttledNs: (cpu.throttled_usec ?? 0) * 1000,
    },
    memoryUsageBytes: Number(current),
    memoryMaxUsageBytes: Number(peak),
    memoryLimitBytes: limit(max!) || totalmem(),
    memoryStats: parseFlat(memStat!),
    pidsCurrent: Number(pids),
    pidsLimit: limit(pidsMax!),
    blkio: parseIoStat(io!),
  }
}
