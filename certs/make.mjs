// Certificates for the Engine API over TCP (2376): a CA, a server certificate, and a client's, with one command.
//
//   node certs/make.mjs --out DIR [--host NAME-OR-ADDRESS]... [--client NAME] [--days N] [--password WORD]
//
//   DIR/ca/      ca.pem ca-key.pem                  keep the key away from the hosts
//   DIR/server/  ca.pem cert.pem key.pem            shoald --tlsverify --tlscacert --tlscert --tlskey
//   DIR/NAME/    ca.pem cert.pem key.pem NAME.p12   DOCKER_CERT_PATH of a client; the .p12 is for browsers and the like
//
// A second run with another --client, or with other --hosts and no DIR/server, uses the same CA. Nothing is overwritten.
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import forge from 'node-forge'

const KEY_BITS = 3072
const CA_YEARS = 10
/** Clocks differ: a certificate is good from an hour before it is made. */
const EARLY_MS = 3_600_000

function fail(message) {
  process.stderr.write(`certs: ${message}\n`)
  process.exit(1)
}

function options() {
  let values
  try {
    ;({ values } = parseArgs({
      options: {
        out: { type: 'string' },
        host: { type: 'string', multiple: true, default: [] },
        client: { type: 'string', default: 'client' },
        days: { type: 'string', default: '365' },
        password: { type: 'string', default: '' },
      },
    }))
  } catch (e) {
    fail(e.message)
  }
  if (!values.out) fail('--out DIR is needed: the directory for the bundle')
  const days = Number(values.days)
  if (!Number.isInteger(days) || days < 1 || days > 3650)
    fail(`--days "${values.days}": use a whole number from 1 to 3650`)
  if (!/^[A-Za-z0-9][A-Za-z0-9._@-]*$/.test(values.client) || ['ca', 'server'].includes(values.client))
    fail(`--client "${values.client}": use letters, digits and . _ @ -; not "ca" or "server"`)
  for (const h of values.host)
    if (isIP(h) === 0 && !/^(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$/.test(h))
      fail(`--host "${h}": neither an address nor a host name`)
  return { ...values, days }
}

function keyPair() {
  const { privateKey } = generateKeyPairSync('rsa', {
    modulusLength: KEY_BITS,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
  })
  const key = forge.pki.privateKeyFromPem(privateKey)
  return { key, pem: privateKey, publicKey: forge.pki.setRsaPublicKey(key.n, key.e) }
}

/** `issuer` null: signed by itself. */
function certificate(subject, pair, issuer, until, extensions) {
  const c = forge.pki.createCertificate()
  c.publicKey = pair.publicKey
  // A serial number is positive: the first bit is off.
  c.serialNumber = `0${randomBytes(16).toString('hex').slice(1)}`
  c.validity.notBefore = new Date(Date.now() - EARLY_MS)
  c.validity.notAfter = until
  const name = [{ name: 'commonName', value: subject }]
  c.setSubject(name)
  c.setIssuer(issuer ? issuer.certificate.subject.attributes : name)
  c.setExtensions([...extensions, { name: 'subjectKeyIdentifier' }])
  c.sign(issuer ? issuer.key : pair.key, forge.md.sha256.create())
  return c
}

function put(dir, name, text, mode) {
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  writeFileSync(join(dir, name), text, { mode, flag: 'wx' })
}

const after = (days) => new Date(Date.now() + days * 86_400_000)

function authority(dir) {
  if (existsSync(join(dir, 'ca-key.pem')))
    return {
      certificate: forge.pki.certificateFromPem(readFileSync(join(dir, 'ca.pem'), 'utf8')),
      key: forge.pki.privateKeyFromPem(readFileSync(join(dir, 'ca-key.pem'), 'utf8')),
    }
  const pair = keyPair()
  const c = certificate('Shoal API CA', pair, null, after(CA_YEARS * 365), [
    { name: 'basicConstraints', cA: true, pathLenConstraint: 0, critical: true },
    { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
  ])
  put(dir, 'ca-key.pem', pair.pem, 0o600)
  put(dir, 'ca.pem', forge.pki.certificateToPem(c), 0o644)
  return { certificate: c, key: pair.key }
}

function leaf(dir, subject, ca, days, purpose, names) {
  const pair = keyPair()
  const c = certificate(subject, pair, ca, after(days), [
    { name: 'basicConstraints', cA: false, critical: true },
    { name: 'keyUsage', digitalSignature: true, keyEncipherment: true, critical: true },
    { name: 'extKeyUsage', [purpose]: true },
    ...(names.length > 0
      ? [{ name: 'subjectAltName', altNames: names.map((n) => (isIP(n) ? { type: 7, ip: n } : { type: 2, value: n })) }]
      : []),
  ])
  put(dir, 'key.pem', pair.pem, 0o600)
  put(dir, 'cert.pem', forge.pki.certificateToPem(c), 0o644)
  put(dir, 'ca.pem', forge.pki.certificateToPem(ca.certificate), 0o644)
  return { certificate: c, key: pair.key }
}

const o = options()
const ca = authority(join(o.out, 'ca'))
const server = join(o.out, 'server')
const client = join(o.out, o.client)
if (existsSync(client) && existsSync(server))
  fail(`${client} and ${server} exist already; name another --client, or remove what is to be made again`)
if (!existsSync(server)) {
  const names = [...new Set([...o.host, hostname(), 'localhost', '127.0.0.1', '::1'])]
  leaf(server, names[0], ca, o.days, 'serverAuth', names)
  process.stdout.write(`server certificate for ${names.join(', ')}: ${server}\n`)
} else if (o.host.length > 0)
  fail(`${server} exists already and stays as it is; remove it to make one for ${o.host.join(', ')}`)
if (!existsSync(client)) {
  const made = leaf(client, o.client, ca, o.days, 'clientAuth', [])
  const p12 = forge.pkcs12.toPkcs12Asn1(made.key, [made.certificate, ca.certificate], o.password, {
    algorithm: '3des',
    friendlyName: o.client,
  })
  put(client, `${o.client}.p12`, Buffer.from(forge.asn1.toDer(p12).getBytes(), 'binary'), 0o600)
  process.stdout.write(`client certificate for ${o.client}: ${client}\n`)
}
