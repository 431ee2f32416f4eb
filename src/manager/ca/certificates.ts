import 'reflect-metadata'
import { createPrivateKey, createPublicKey, randomBytes, webcrypto } from 'node:crypto'
import * as x509 from '@peculiar/x509'
import { invalid, ShoalError } from '../../common/index.js'

type CryptoKey = webcrypto.CryptoKey
type CryptoKeyPair = webcrypto.CryptoKeyPair

x509.cryptoProvider.set(webcrypto as unknown as Parameters<typeof x509.cryptoProvider.set>[0])

const CURVE = { name: 'ECDSA', namedCurve: 'P-256' } as const
const SIGNATURE = { name: 'ECDSA', hash: 'SHA-256' } as const
const HOUR_MS = 3_600_000
const ROOT_LIFE_MS = 20 * 365 * 24 * HOUR_MS
/** Clocks of nodes may differ by this much. */
const BACKDATE_MS = HOUR_MS
const ROOT_NAME = 'CN=swarm-ca'

/** A certificate authority's root: PEM certificate and PKCS#8 PEM key. */
export interface RootKeyPair {
  readonly cert: string
  readonly key: string
}

export interface LeafOptions {
  readonly nodeId: string
  readonly clusterId: string
  readonly role: 'manager' | 'worker'
  readonly nowMs: number
  readonly expiryMs: number
}

const serialNumber = (): string => `00${randomBytes(16).toString('hex')}`
const pem = (cert: x509.X509Certificate): string => `${cert.toString('pem')}\n`
const orgUnit = (role: 'manager' | 'worker'): string => (role === 'manager' ? 'swarm-manager' : 'swarm-worker')

const newKeys = (): Promise<CryptoKeyPair> =>
  webcrypto.subtle.generateKey(CURVE, true, ['sign', 'verify']) as Promise<CryptoKeyPair>

async function keyPem(key: CryptoKey): Promise<string> {
  const der = await webcrypto.subtle.exportKey('pkcs8', key)
  return `${x509.PemConverter.encode(der, 'PRIVATE KEY')}\n`
}

/** Any PEM form of an EC P-256 key. */
async function importKey(key: string): Promise<CryptoKey> {
  const parsed = createPrivateKey(key)
  if (parsed.asymmetricKeyType !== 'ec' || parsed.asymmetricKeyDetails?.namedCurve !== 'prime256v1')
    throw invalid('badCaKey', 'the CA key must be an ECDSA key on the curve P-256')
  const der = parsed.export({ type: 'pkcs8', format: 'der' })
  return webcrypto.subtle.importKey('pkcs8', der, CURVE, false, ['sign']) as Promise<CryptoKey>
}

const caExtensions = async (publicKey: CryptoKey): Promise<x509.Extension[]> => [
  new x509.BasicConstraintsExtension(true, 1, true),
  new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
  await x509.SubjectKeyIdentifierExtension.create(publicKey),
]

export async function createRoot(nowMs: number): Promise<RootKeyPair> {
  const keys = await newKeys()
  const cert = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: ROOT_NAME,
    notBefore: new Date(nowMs - BACKDATE_MS),
    notAfter: new Date(nowMs + ROOT_LIFE_MS),
    signingAlgorithm: SIGNATURE,
    keys,
    extensions: await caExtensions(keys.publicKey),
  })
  return { cert: pem(cert), key: await keyPem(keys.privateKey) }
}

/** Refuses a certificate that is no CA, is not of the key, or is out of its time. */
export function checkRoot(root: RootKeyPair, nowMs: number): void {
  let cert: x509.X509Certificate
  try {
    cert = new x509.X509Certificate(root.cert)
  } catch (e) {
    throw invalid('badCaCert', `the CA certificate cannot be read: ${ShoalError.from(e).message}`)
  }
  if (cert.getExtension(x509.BasicConstraintsExtension)?.ca !== true)
    throw invalid('badCaCert', 'the CA certificate may not sign others (basic constraints)')
  if (nowMs < cert.notBefore.getTime() || nowMs > cert.notAfter.getTime())
    throw invalid('badCaCert', `the CA certificate is valid from ${cert.notBefore} to ${cert.notAfter} only`)
  let spki: Buffer
  try {
    spki = createPublicKey(createPrivateKey(root.key)).export({ type: 'spki', format: 'der' })
  } catch (e) {
    throw invalid('badCaKey', `the CA key cannot be read: ${ShoalError.from(e).message}`)
  }
  if (!spki.equals(Buffer.from(cert.publicKey.rawData)))
    throw invalid('badCaKey', 'the CA certificate and the CA key do not belong together')
}

/**
 * The new root's key and subject under a certificate of the old root, so that nodes which trust only the old one accept
 * leafs of the new one. Both key identifiers are needed: without them chain building stops at the equal names.
 */
export async function crossSign(old: RootKeyPair, next: string): Promise<string> {
  const issuer = new x509.X509Certificate(old.cert)
  const subject = new x509.X509Certificate(next)
  const publicKey = await subject.publicKey.export()
  const cert = await x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: subject.subjectName,
    issuer: issuer.subjectName,
    notBefore: subject.notBefore,
    notAfter: issuer.notAfter < subject.notAfter ? issuer.notAfter : subject.notAfter,
    signingAlgorithm: SIGNATURE,
    publicKey,
    signingKey: await importKey(old.key),
    extensions: [
      ...(await caExtensions(publicKey)),
      await x509.AuthorityKeyIdentifierExtension.create(await issuer.publicKey.export()),
    ],
  })
  return pem(cert)
}

export interface SigningRequest {
  /** DER. */
  readonly csr: Uint8Array
  readonly key: string
}

export async function newSigningRequest(): Promise<SigningRequest> {
  const keys = await newKeys()
  const csr = await x509.Pkcs10CertificateRequestGenerator.create({
    name: 'CN=shoal-node',
    keys,
    signingAlgorithm: SIGNATURE,
  })
  return { csr: new Uint8Array(csr.rawData), key: await keyPem(keys.privateKey) }
}

/**
 * A node's certificate for the key in the request; nothing else of the request is used. `intermediate` follows the leaf
 * while a root rotates.
 */
export async function signLeaf(
  root: RootKeyPair,
  csr: Uint8Array,
  options: LeafOptions & { readonly intermediate?: string },
): Promise<string> {
  let request: x509.Pkcs10CertificateRequest
  try {
    request = new x509.Pkcs10CertificateRequest(csr as Uint8Array<ArrayBuffer>)
    if (!(await request.verify())) throw new Error('its signature is wrong')
  } catch (e) {
    throw invalid('badSigningRequest', `the certificate signing request is not valid: ${ShoalError.from(e).message}`)
  }
  const algorithm = request.publicKey.algorithm as { name: string; namedCurve?: string }
  if (algorithm.name !== 'ECDSA' || algorithm.namedCurve !== 'P-256')
    throw invalid('badSigningRequest', 'a node key must be an ECDSA key on the curve P-256')
  const issuer = new x509.X509Certificate(root.cert)
  const publicKey = await request.publicKey.export()
  const unit = orgUnit(options.role)
  const names = [options.nodeId, unit, ...(options.role === 'manager' ? ['swarm-ca'] : [])]
  const cert = await x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: new x509.Name([{ O: [options.clusterId] }, { OU: [unit] }, { CN: [options.nodeId] }]).toString(),
    issuer: issuer.subjectName,
    notBefore: new Date(options.nowMs - BACKDATE_MS),
    notAfter: new Date(options.nowMs + options.expiryMs),
    signingAlgorithm: SIGNATURE,
    publicKey,
    signingKey: await importKey(root.key),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(await issuer.publicKey.export()),
      new x509.SubjectAlternativeNameExtension(names.map((value) => ({ type: 'dns' as const, value }))),
    ],
  })
  return pem(cert) + (options.intermediate ?? '')
}

/** Was the (first) certificate made with the root's key? */
export async function isIssuedBy(certificate: string, root: string): Promise<boolean> {
  try {
    const leaf = new x509.X509Certificate(certificate)
    const issuer = new x509.X509Certificate(root)
    return await leaf.verify({ publicKey: issuer.publicKey, signatureOnly: true })
  } catch {
    // A certificate that cannot be read was not issued by it.
    return false
  }
}
