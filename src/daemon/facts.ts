import { randomUUID } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import type { SystemFacts } from '../api/index.js'
import { joinHostPort } from './addresses.js'
import { listenHost, parseHost } from './check.js'
import { readIfPresent, writeDurable } from './durable.js'
import type { DaemonOptions } from './options.js'

/** Version and commit of this build: package.json, and git where the checkout is one. */
export function buildFacts(top: string): { version: string; gitCommit: string; buildTime: string } {
  const { version } = JSON.parse(readFileSync(join(top, 'package.json'), 'utf8')) as { version: string }
  let gitCommit = ''
  try {
    const head = readFileSync(join(top, '.git/HEAD'), 'utf8').trim()
    const ref = /^ref: (.*)$/.exec(head)?.[1]
    gitCommit = (ref ? readFileSync(join(top, '.git', ref), 'utf8').trim() : head).slice(0, 12)
  } catch {
    // An installed copy has no .git, a packed ref no file: the version alone names the build.
  }
  const buildTime = new Date(readFileSync(join(top, 'build/.built'), 'utf8').trim() || 0).toISOString()
  return { version, gitCommit, buildTime }
}

export async function systemFacts(
  o: DaemonOptions,
  top: string,
  nowMs: number,
  pools: readonly { readonly base: string; readonly size: number }[],
): Promise<SystemFacts> {
  const build = buildFacts(top)
  return {
    id: await engineId(o.dataRoot),
    name: hostname(),
    ...build,
    dataRoot: o.dataRoot,
    labels: o.labels,
    debug: o.debug,
    experimental: o.experimental,
    liveRestore: o.liveRestore,
    storageDriver: o.storageDriver,
    loggingDriver: o.logDriver,
    cgroupVersion: cgroupVersion(),
    runtimes: { shoal: { path: join(top, 'build/native/shoal-runtime') }, ...o.runtimes },
    corsHeader: o.corsHeader,
    seccompProfile: o.seccompProfile || 'builtin',
    noNewPrivileges: o.noNewPrivileges,
    defaultRuntime: o.defaultRuntime,
    insecureRegistries: o.insecureRegistries,
    registryMirrors: o.registryMirrors,
    defaultAddressPools: pools,
    initBinary: 'docker-init',
    startedMs: nowMs,
    warnings: [...openHosts(o), ...kernelWarnings()],
  }
}

/** Kept for the life of the data root. */
async function engineId(dataRoot: string): Promise<string> {
  const file = join(dataRoot, 'engine-id')
  const known = await readIfPresent(file)
  if (known) return known.trim()
  const id = randomUUID()
  await writeDurable(file, id)
  return id
}

/** v2 only where it has the controllers; a hybrid host counts as v1. */
export function cgroupVersion(): '1' | '2' {
  try {
    return readFileSync('/sys/fs/cgroup/cgroup.controllers', 'utf8').includes('memory') ? '2' : '1'
  } catch {
    return '1'
  }
}

/** Where whoever connects is root. */
function openHosts(o: DaemonOptions): string[] {
  return o.hosts.flatMap((host) => {
    const where = parseHost(host, o.tls)
    if (where.kind !== 'tcp' || o.tlsVerify) return []
    const address = joinHostPort({ host: listenHost(where.host, o.tls), port: where.port })
    const what = o.tls ? `https://${address} without TLS client verification` : `http://${address} without encryption`
    return [
      `WARNING: API is accessible on ${what}.\n         Access to the remote API is equivalent to root access on the host.`,
    ]
  })
}

function kernelWarnings(): string[] {
  const warnings: string[] = []
  if (readFileSync('/proc/sys/net/ipv4/ip_forward', 'utf8').trim() !== '1')
    warnings.push('WARNING: IPv4 forwarding is disabled')
  if (!existsSync('/proc/self/ns/cgroup')) warnings.push('WARNING: No cgroup namespaces')
  if (!existsSync('/proc/self/ns/time')) warnings.push('WARNING: No time namespaces')
  return warnings
}
