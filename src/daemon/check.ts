import { existsSync, readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { createSecureContext } from 'node:tls'
import { invalid, ShoalError } from '../common/index.js'
import { BUILT_IN_RUNTIMES, checkLogDriver } from '../engine/index.js'
import { type HostPort, splitHostPort } from './addresses.js'
import type { DaemonOptions } from './options.js'

/** One --host, taken apart. */
export type ListenAddress =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  /** Sockets that systemd hands over; "" or "*": all, else the one of this number or name. */
  | { readonly kind: 'fd'; readonly which: string }

/** Throws invalid. `tls`: 2376 is the port where none is named; without it a port must be. */
export function parseHost(text: string, tls: boolean): ListenAddress {
  const m = /^(?:([a-z]+):\/\/)?(.*)$/.exec(text)!
  const scheme = m[1] ?? (text.startsWith('/') ? 'unix' : 'tcp')
  const rest = m[2]!
  switch (scheme) {
    case 'unix':
      if (!rest.startsWith('/')) throw invalid('badHost', `--host "${text}": the path must be absolute`)
      return { kind: 'unix', path: rest }
    case 'fd':
      return { kind: 'fd', which: rest }
    case 'tcp': {
      if (!tls && !/:\d+$/.test(rest))
        throw invalid(
          'badHost',
          `--host "${text}": without TLS the port must be named (tcp://127.0.0.1:2375); with --tlsverify it is 2376`,
        )
      const { host, port } = splitHostPort(rest, 2376, '--host')
      return { kind: 'tcp', host, port }
    }
    default:
      throw invalid('badHost', `--host "${text}": use unix://PATH, tcp://ADDRESS:PORT or fd://`)
  }
}

/** dockerd's port, where none is named. */
export const metricsAddress = (text: string): HostPort => {
  const { host, port } = splitHostPort(text, 9323, '--metrics-addr')
  return { host: host || '127.0.0.1', port }
}

/** Without a host TLS is for all, plain HTTP for this machine only. */
export const listenHost = (host: string, tls: boolean): string => host || (tls ? '0.0.0.0' : '127.0.0.1')

const CIDR4 = /^(\d{1,3}(?:\.\d{1,3}){3})\/(\d{1,2})$/

/** Everything that is wrong with settings whose types are right; pure but for the files that they name. */
export function mistakesOf(o: DaemonOptions): string[] {
  const mistakes: string[] = []
  const attempt = (check: () => void): void => {
    try {
      check()
    } catch (caught) {
      mistakes.push(ShoalError.from(caught).message)
    }
  }
  for (const host of o.hosts) attempt(() => parseHost(host, o.tls))
  if (o.metricsAddr !== '') attempt(() => metricsAddress(o.metricsAddr))
  for (const label of o.labels) if (!/^[^=\s]+=.*$/s.test(label)) mistakes.push(`label "${label}": use KEY=VALUE`)
  for (const [name, count] of countBy(o.labels.filter((l) => l.includes('=')).map((l) => l.split('=')[0]!)))
    if (count > 1) mistakes.push(`label "${name}" is given ${count} times: conflict labels for ${name}`)
  for (const mirror of o.registryMirrors)
    if (!/^https?:\/\/[^/?#@]+\/?$/.test(mirror))
      mistakes.push(`registry mirror "${mirror}": use http://HOST[:PORT] or https://HOST[:PORT], without path or user`)
  for (const registry of o.insecureRegistries)
    if (!CIDR4.test(registry) && !/^[A-Za-z0-9.\-[\]:]+$/.test(registry))
      mistakes.push(`insecure registry "${registry}": use HOST[:PORT] or a CIDR, without a scheme`)
  for (const address of o.dns) if (isIP(address) === 0) mistakes.push(`dns "${address}" is no IP address`)
  mistakes.push(...bridgeMistakes(o), ...defaultMistakes(o))
  for (const { base, size } of o.defaultAddressPools) {
    const isBlock = (isBlock4(base) && size <= 30) || (isBlock6(base) && size <= 126)
    if (!isBlock || Number(base.split('/')[1]) > size)
      mistakes.push(`default address pool ${base} of size ${size}: use base=10.10.0.0/16,size=24`)
  }
  if (o.mtu !== 0 && (o.mtu < 68 || o.mtu > 65535)) mistakes.push(`mtu ${o.mtu}: use 68 to 65535, or 0 for the host's`)
  attempt(() => checkLogDriver(o.logDriver, o.logOptions))
  if (o.tls) mistakes.push(...tlsMistakes(o))
  if (o.group !== 'docker' && groupId(o.group) === null) mistakes.push(`group "${o.group}": there is no such group`)
  mistakes.push(...o.refused)
  return mistakes
}

/** Files that are missing, do not belong together, or hold what no client would accept any more, such as SHA-1 signatures. */
function tlsMistakes(o: DaemonOptions): string[] {
  const files: (readonly [string, string])[] = [
    ['tlscert', o.tlsCert],
    ['tlskey', o.tlsKey],
    ...(o.tlsVerify ? [['tlscacert', o.tlsCaCert] as const] : []),
  ]
  const missing = files.flatMap(([flag, path]) => {
    if (path === '') return [`${flag} is needed with TLS`]
    return existsSync(path) ? [] : [`${flag} ${path}: there is no such file`]
  })
  const pair = `Could not load X509 key pair (cert: "${o.tlsCert}", key: "${o.tlsKey}")`
  const remedy = 'make a bundle with: node certs/make.mjs --out DIR'
  if (missing.length > 0) return [`${pair}: ${missing.join('; ')}; ${remedy}`]
  try {
    createSecureContext({ cert: readFileSync(o.tlsCert), key: readFileSync(o.tlsKey) })
  } catch (e) {
    return [`${pair}: ${(e as { reason?: string }).reason ?? (e as Error).message}; ${remedy}`]
  }
  if (o.tlsVerify && !readFileSync(o.tlsCaCert, 'latin1').includes('-----BEGIN CERTIFICATE-----'))
    return [`could not read CA certificate "${o.tlsCaCert}": there is no certificate in PEM form in it`]
  return []
}

const isBlock4 = (text: string): boolean => {
  const m = CIDR4.exec(text)
  return m !== null && isIP(m[1]!) === 4 && Number(m[2]) <= 32
}

const isBlock6 = (text: string): boolean => {
  const [ip = '', bits = '', ...rest] = text.split('/')
  return rest.length === 0 && isIP(ip) === 6 && /^\d{1,3}$/.test(bits) && Number(bits) <= 128
}

/** The default network. */
function bridgeMistakes(o: DaemonOptions): string[] {
  const mistakes: string[] = []
  if (o.bip !== '' && (!isBlock4(o.bip) || Number(o.bip.split('/')[1]) > 30))
    mistakes.push(`bip "${o.bip}": use ADDRESS/BITS, e.g. 172.17.0.1/16`)
  if (o.bridge !== '' && o.bip !== '')
    mistakes.push('bridge and bip cannot be given together: an existing bridge has its own address')
  if (o.bridge === 'none' && (o.fixedCidr !== '' || o.defaultGateway !== ''))
    mistakes.push('bridge "none" leaves no default network for fixed-cidr and default-gateway')
  if (o.fixedCidr !== '' && !isBlock4(o.fixedCidr)) mistakes.push(`fixed-cidr "${o.fixedCidr}": use ADDRESS/BITS`)
  if (o.fixedCidrV6 !== '' && (!isBlock6(o.fixedCidrV6) || Number(o.fixedCidrV6.split('/')[1]) > 126))
    mistakes.push(`fixed-cidr-v6 "${o.fixedCidrV6}": use ADDRESS/BITS, e.g. 2001:db8:1::/64`)
  if (o.defaultGatewayV6 !== '' && isIP(o.defaultGatewayV6) !== 6)
    mistakes.push(`default-gateway-v6 "${o.defaultGatewayV6}" is no IPv6 address`)
  if (!o.iptables && !o.icc) mistakes.push('iptables=false and icc=false cannot be given together')
  for (const [name, value] of [
    ['default-gateway', o.defaultGateway],
    ['ip', o.publishAddress],
    ['host-gateway-ip', o.hostGatewayIp],
  ] as const)
    if (value !== '' && isIP(value) === 0) mistakes.push(`${name} "${value}" is no IP address`)
  return mistakes
}

/** What containers get that do not say. */
function defaultMistakes(o: DaemonOptions): string[] {
  const mistakes: string[] = []
  if (!['', 'private', 'shareable'].includes(o.defaultIpcMode))
    mistakes.push(`default IPC mode "${o.defaultIpcMode}" is not supported: use private or shareable`)
  if (!['', 'private', 'host'].includes(o.defaultCgroupnsMode))
    mistakes.push(`default cgroup namespace mode "${o.defaultCgroupnsMode}" is invalid: use private or host`)
  for (const name of Object.keys(o.runtimes))
    if (BUILT_IN_RUNTIMES.includes(name)) mistakes.push(`runtime name '${name}' is reserved`)
  if (!BUILT_IN_RUNTIMES.includes(o.defaultRuntime) && !(o.defaultRuntime in o.runtimes))
    mistakes.push(
      `default runtime "${o.defaultRuntime}" is not known; add it with --add-runtime ${o.defaultRuntime}=PATH`,
    )
  for (const option of o.execOptions)
    if (option !== 'native.cgroupdriver=cgroupfs')
      mistakes.push(`exec-opt "${option}" is not supported: cgroups are made by native.cgroupdriver=cgroupfs`)
  if (o.storageDriver !== 'overlay2' && o.storageDriver !== 'overlay')
    mistakes.push(`storage driver "${o.storageDriver}" is not supported; use overlay2`)
  for (const [name, value, least, most] of [
    ['max-concurrent-downloads', o.maxConcurrentDownloads, 1, 64],
    ['max-concurrent-uploads', o.maxConcurrentUploads, 1, 64],
    ['max-download-attempts', o.maxDownloadAttempts, 1, 100],
    ['oom-score-adjust', o.oomScoreAdjust, -1000, 1000],
  ] as const)
    if (value < least || value > most) mistakes.push(`${name} ${value}: use ${least} to ${most}`)
  if (o.seccompProfile !== '' && o.seccompProfile !== 'unconfined')
    try {
      JSON.parse(readFileSync(o.seccompProfile, 'utf8'))
    } catch (e) {
      mistakes.push(`seccomp-profile ${o.seccompProfile}: ${(e as Error).message}`)
    }
  return mistakes
}

function countBy(names: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>()
  for (const n of names) counts.set(n, (counts.get(n) ?? 0) + 1)
  return counts
}

/** Numeric ids are taken as they are; null when the name is unknown. */
export function groupId(name: string): number | null {
  if (/^\d+$/.test(name)) return Number(name)
  const line = readFileSync('/etc/group', 'utf8')
    .split('\n')
    .find((l) => l.startsWith(`${name}:`))
  return line ? Number(line.split(':')[2]) : null
}
