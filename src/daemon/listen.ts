import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, readlinkSync, unlinkSync } from 'node:fs'
import type { Server } from 'node:http'
import { connect } from 'node:net'
import { dirname } from 'node:path'
import type { Api } from '../api/index.js'
import { conflict, invalid } from '../common/index.js'
import type { Logger } from '../common/log.js'
import { joinHostPort } from './addresses.js'
import { groupId, listenHost, parseHost } from './check.js'
import type { DaemonOptions } from './options.js'

/** Opens one server for each --host. A socket that another daemon answers on is refused; a dead one is replaced. */
export async function listenAll(api: Api, o: DaemonOptions, logger: Logger): Promise<void> {
  for (const host of o.hosts) {
    const where = parseHost(host, o.tls)
    if (where.kind === 'unix') await listenUnix(api.listener(), where.path, o.group, logger)
    else if (where.kind === 'tcp') await listenTcp(api, where, o, logger)
    else await listenInherited(api, where.which, o, logger)
  }
}

/** The first descriptor that systemd hands over (sd_listen_fds(3)). */
const LISTEN_FDS_START = 3

async function listenInherited(api: Api, which: string, o: DaemonOptions, logger: Logger): Promise<void> {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES } = process.env
  const count = LISTEN_PID === String(process.pid) ? Number(LISTEN_FDS) : 0
  if (!(count > 0))
    throw invalid(
      'noInheritedSockets',
      `--host fd://${which}: no sockets were handed over; start shoald by its socket unit, or use unix://PATH`,
    )
  const names = (LISTEN_FDNAMES ?? '').split(':')
  const all = Array.from({ length: count }, (_, i) => ({ fd: LISTEN_FDS_START + i, name: names[i] ?? '' }))
  const chosen = all.filter((s) => which === '' || which === '*' || s.name === which || String(s.fd) === which)
  if (chosen.length === 0)
    throw invalid(
      'noInheritedSockets',
      `--host fd://${which}: there is no such socket among those handed over (${all.map((s) => `${s.fd} ${s.name}`.trim()).join(', ')})`,
    )
  const unix = readFileSync('/proc/net/unix', 'utf8')
  for (const { fd } of chosen) {
    const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/self/fd/${fd}`))?.[1]
    if (!inode) throw invalid('noInheritedSockets', `--host fd://${which}: descriptor ${fd} is no socket`)
    const isUnix = new RegExp(` ${inode}(?: |$)`, 'm').test(unix)
    if (!isUnix && !o.tls) warnPlain(logger, `fd ${fd}`)
    await open(isUnix || !o.tls ? api.listener() : api.listener(tlsFiles(o)), { fd })
    logger.info('API listens', { address: `fd://${fd}`, tls: !isUnix && o.tls })
  }
}

async function listenUnix(server: Server, path: string, group: string, logger: Logger): Promise<void> {
  mkdirSync(dirname(path), { recursive: true })
  if (existsSync(path)) {
    if (await answers(path))
      throw conflict(
        'socketInUse',
        `another daemon answers on unix://${path}; stop it, or choose another socket with --host`,
      )
    unlinkSync(path)
  }
  await open(server, { path })
  chmodSync(path, 0o660)
  const gid = groupId(group)
  if (gid !== null) chownSync(path, 0, gid)
  else if (group !== 'docker') throw invalid('noSuchGroup', `--group "${group}": there is no such group`)
  logger.info('API listens', { address: `unix://${path}` })
}

const warnPlain = (logger: Logger, address: string): void =>
  logger.warn('API listens on TCP without TLS: whoever reaches it is root on this host; use --tlsverify', { address })

function tlsFiles(o: DaemonOptions): { key: string; cert: string; ca: string | null } {
  const read = (flag: string, path: string): string => {
    try {
      return readFileSync(path, 'utf8')
    } catch (e) {
      throw invalid('tlsFile', `--${flag} ${path}: ${(e as Error).message}`)
    }
  }
  return {
    key: read('tlskey', o.tlsKey),
    cert: read('tlscert', o.tlsCert),
    ca: o.tlsVerify ? read('tlscacert', o.tlsCaCert) : null,
  }
}

async function listenTcp(
  api: Api,
  { host, port }: { readonly host: string; readonly port: number },
  o: DaemonOptions,
  logger: Logger,
): Promise<void> {
  const where = { host: listenHost(host, o.tls), port }
  const address = `tcp://${joinHostPort(where)}`
  if (!o.tls) {
    warnPlain(logger, address)
    await open(api.listener(), where)
  } else await open(api.listener(tlsFiles(o)), where)
  logger.info('API listens', { address, tls: o.tls, clientCertificates: o.tlsVerify })
}

function open(
  server: Server,
  where: { path: string } | { host: string; port: number } | { fd: number },
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (e: NodeJS.ErrnoException) => {
      const name =
        'path' in where
          ? `unix://${where.path}`
          : 'fd' in where
            ? `fd://${where.fd}`
            : `tcp://${where.host}:${where.port}`
      reject(
        e.code === 'EADDRINUSE'
          ? conflict('addressInUse', `${name} is in use by another program; choose another address with --host`)
          : e,
      )
    })
    server.listen(where, resolve)
  })
}

const answers = (path: string): Promise<boolean> =>
  new Promise((resolve) => {
    const s = connect(path)
    s.once('connect', () => {
      s.destroy()
      resolve(true)
    })
    s.once('error', () => resolve(false))
  })
