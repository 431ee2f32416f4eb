import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { connect, createServer, rootCertificates, type SecureContext } from 'node:tls'
import test from 'ava'
import { secureContextOf, systemAuthorities } from '../../src/runtime/registry/certificates.js'
import { temporaryDirectory } from './image-kit.js'

test("a registry is trusted by the system's authorities as they are now, and by those of its own directory", async (t) => {
  const dir = temporaryDirectory(t)
  execFileSync(process.execPath, ['certs/make.mjs', '--out', dir, '--host', '127.0.0.1'])
  const read = (name: string): Buffer => readFileSync(join(dir, name))
  const server = createServer({ cert: read('server/cert.pem'), key: read('server/key.pem') }, (s) => s.end())
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  const isTrusted = async (secureContext: SecureContext): Promise<boolean> => {
    const socket = connect({ host: '127.0.0.1', port, secureContext, rejectUnauthorized: false })
    await once(socket, 'secureConnect')
    socket.destroy()
    return socket.authorized
  }
  const system = join(dir, 'system.crt')
  const known = `${rootCertificates[0]}\n`
  writeFileSync(system, known)
  t.false(await isTrusted(secureContextOf('r:1', [], system)))
  // Another length, another time: as update-ca-certificates leaves it.
  writeFileSync(system, `${known}${read('ca/ca.pem')}`)
  t.true(await isTrusted(secureContextOf('r:1', [], system)))
  t.false(await isTrusted(secureContextOf('r:1', [], null)))
  mkdirSync(join(dir, 'r:2'))
  copyFileSync(join(dir, 'ca/ca.pem'), join(dir, 'r:2/own.crt'))
  t.true(await isTrusted(secureContextOf('r:2', [join(dir, 'none'), dir], null)))
})

test('the file of authorities is the one that the environment names, else the first of those that distributions use', (t) => {
  const dir = temporaryDirectory(t)
  const [a, b, none] = ['a', 'b', 'none'].map((n) => join(dir, n)) as [string, string, string]
  for (const f of [a, b]) writeFileSync(f, '')
  t.is(systemAuthorities({ SSL_CERT_FILE: a }, [b]), a)
  t.is(systemAuthorities({ SSL_CERT_FILE: none }, [none, b, a]), b)
  t.is(systemAuthorities({}, [none]), null)
})
