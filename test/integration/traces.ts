import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { cgroupRoots, mountsBelow, processesIn } from '../../src/lab/kernel.js'
import type { LabHost } from './support.js'

/**
 * What a host's containers leave in the kernel and on its disk, as sorted lines: mounts, links, packet rules, control
 * groups, processes, and folders of containers. Two equal lists mean that nothing was left behind.
 */
export function traces(host: LabHost): string[] {
  const within = (...command: string[]): string =>
    execFileSync('nsenter', [`--net=/run/netns/${host.netns}`, ...command], {
      encoding: 'utf8',
      maxBuffer: 64 * 1024 * 1024,
    })
  const links = JSON.parse(within('ip', '-j', 'link')) as { ifname: string }[]
  return [
    ...mountsBelow(dirname(host.socket)).map((m) => `mount ${m}`),
    ...links.map((l) => `link ${l.ifname}`),
    ...ruleLines(within('/usr/sbin/nft', 'list', 'ruleset')),
    ...cgroupsBelow(`${host.cgroup}/containers`).map((c) => `cgroup ${c}`),
    ...processesIn(`${host.cgroup}/containers`).map((p) => `process ${commandOf(p)}`),
    ...[join(host.dataRoot, 'containers'), join(host.execRoot, 'containers'), join(host.dataRoot, 'image/containers')]
      .filter((d) => existsSync(d))
      .flatMap((d) => readdirSync(d).map((f) => `file ${join(d, f)}`)),
  ].sort()
}

/** Elements, chains and rules without what counts: packets, bytes, time-outs, connections. */
const ruleLines = (ruleset: string): string[] =>
  ruleset
    .replace(/,\n\s*/g, ',\n')
    .split('\n')
    .map((l) =>
      l
        .replace(/counter packets \d+ bytes \d+/g, 'counter')
        .replace(/expires \S+/g, '')
        .trim(),
    )
    .filter((l) => l !== '' && l !== '}')
    .map((l) => `rule ${l}`)

function cgroupsBelow(cgroup: string): string[] {
  const found: string[] = []
  const walk = (dir: string): void => {
    if (!existsSync(dir)) return
    for (const e of readdirSync(dir, { withFileTypes: true }))
      if (e.isDirectory()) {
        found.push(join(dir, e.name))
        walk(join(dir, e.name))
      }
  }
  for (const root of cgroupRoots()) walk(join(root, cgroup))
  return found
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()
  } catch {
    return '(gone)'
  }
}

/** What one list has and the other lacks, for a message. */
export const difference = (before: readonly string[], after: readonly string[]): string[] => [
  ...after.filter((l) => !before.includes(l)).map((l) => `left: ${l}`),
  ...before.filter((l) => !after.includes(l)).map((l) => `gone: ${l}`),
]
