import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, unlinkSync } from 'node:fs'
import type { Server } from 'node:http'
import { connect } from 'node:net'
import { dirname } from 'node:path'
import type { Api } from '../api/index.js'
import { conflict, invalid } from '../common/index.js'
import type { Logger } from '../common/log.js'
import { splitHostPort } from './addresses.js'
import type { DaemonOptions } from './options.js'

/** Opens one server for each --host. A socket that another daemon answers on is refused; a dead one is replaced. */
export async function listenAll(api: Api, o: DaemonOptions, logger: Logger): Promise<void> {
  for (const host of o.hosts) {
    const url = /^(?:(unix|tcp):\/\/)?(.*)$/.exec(host)!
    const scheme = url[1] ?? (host.startsWith('/') ? 'unix' : 'tcp')
    if (scheme === 'unix') await listenUnix(api.listener(), url[2]!, o.group, logger)
    else await listenTcp(api, url[2]!, o, logger)
  }
}

async function listenUnix(server: Server, path: string, group: string, logger: Logger): Promise<void> {
  if (!path.startsWith('/')) throw invalid('badHost', `--host "unix://${path}": the path must be absolute`)
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

async function listenTcp(api: Api, address: string, o: DaemonOptions, logger: Logger): Promise<void> {
  const { host, port } = splitHostPort(address, o.tls ? 2376 : 2375, '--host')
  if (!o.tls) {
    logger.warn('API listens on TCP without TLS: whoever reaches it is root on this host; use --tlsverify', {
      address: `tcp://${address}`,
    })
    await open(api.listener(), { host: host || '127.0.0.1', port })
  } else {
    const read = (flag: string, path: string): string => {
      if (!path) throw invalid('tlsFile', `--${flag} is needed with --tls; make a bundle with the scripts in certs/`)
      try {
        return readFileSync(path, 'utf8')
      } catch (e) {
        throw invalid('tlsFile', `--${flag} ${path}: ${(e as Error).message}`)
      }
    }
    await open(
      api.listener({
        key: read('tlskey', o.tlsKey),
        cert: read('tlscert', o.tlsCert),
        ca: o.tlsVerify ? read('tlscacert', o.tlsCaCert) : null,
      }),
      { host: host || '0.0.0.0', port },
    )
  }
  logger.info('API listens', {
    address: `tcp://${host || '127.0.0.1'}:${port}`,
    tls: o.tls,
    clientCertificates: o.tlsVerify,
  })
}

function open(server: Server, where: { path: string } | { host: string; port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (e: NodeJS.ErrnoException) => {
      const name = 'path' in where ? `unix://${where.path}` : `tcp://${where.host}:${where.port}`
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

/** Numeric ids are taken as they are; null when the name is unknown. */
function groupId(name: string): number | null {
  if (/^\d+$/.test(name)) return Number(name)
  const line = readFileSync('/etc/group', 'utf8')
    .split('\n')
    .find((l) => l.startsWith(`${name}:`))
  return line ? Number(line.split(':')[2]) : null
}
