import { readFileSync } from 'node:fs'
import type { Api } from '../api.js'
import { type Cli, type Command, collect, duration, Exit } from '../command.js'

interface SwarmJson {
  Version: { Index: number }
  Spec: { CAConfig?: Record<string, unknown> }
  TLSInfo: { TrustRoot: string; CertIssuerPublicKey: string }
  RootRotationInProgress: boolean
}

interface NodeJson {
  Description: { TLSInfo?: { TrustRoot?: string; CertIssuerPublicKey?: string } }
}

interface CaFlags {
  caCert?: string
  caKey?: string
  certExpiry?: number
  detach?: boolean
  externalCa?: string[]
  quiet?: boolean
  rotate?: boolean
}

const POLL_MS = 200

/** swarm ca: shows the root certificate, or replaces it. */
export function registerCa(parent: Command, cli: Cli): void {
  parent
    .command('ca')
    .description('Display and rotate the root CA')
    .option('--ca-cert <file>', 'path to the PEM-formatted root CA certificate to use for the new cluster')
    .option('--ca-key <file>', 'path to the PEM-formatted root CA key to use for the new cluster')
    .option('--cert-expiry <duration>', 'validity period for node certificates', duration)
    .option('-d, --detach', 'exit immediately instead of waiting for the root rotation to converge')
    .option('--external-ca <spec>', 'specifications of one or more certificate signing endpoints', collect)
    .option('-q, --quiet', 'suppress progress output')
    .option('--rotate', 'rotate the swarm CA')
    .action(async (f: CaFlags) => {
      const api = await cli.api()
      const swarm = await api.get<SwarmJson>('/swarm')
      if (!f.rotate) {
        const asked = Object.entries(f).find(([k, v]) => v !== undefined && k !== 'quiet')
        if (asked)
          throw new Exit(
            1,
            `\`--${asked[0].replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}\` flag requires the \`--rotate\` flag to update the CA`,
          )
        return cli.out(`${swarm.TLSInfo.TrustRoot.trimEnd()}\n`)
      }
      const config: Record<string, unknown> = { ...swarm.Spec.CAConfig }
      if (f.certExpiry !== undefined) config.NodeCertExpiry = f.certExpiry
      if (f.externalCa) config.ExternalCAs = f.externalCa.map(externalCa)
      // Without a certificate of one's own the managers make one: a higher number asks for it.
      if (f.caCert) {
        config.SigningCACert = readFileSync(f.caCert, 'utf8')
        config.SigningCAKey = f.caKey ? readFileSync(f.caKey, 'utf8') : ''
      } else {
        config.SigningCACert = ''
        config.SigningCAKey = ''
        config.ForceRotate = Number(config.ForceRotate ?? 0) + 1
      }
      await api.post('/swarm/update', {
        query: { version: swarm.Version.Index },
        body: { ...swarm.Spec, CAConfig: config },
      })
      if (f.detach) return
      cli.out(`${(await rotated(api, cli, f.quiet ?? false)).trimEnd()}\n`)
    })
}

export function externalCa(text: string): {
  Protocol: string
  URL: string
  CACert: string
  Options: Record<string, string>
} {
  const parts = Object.fromEntries(
    text.split(',').map((p) => [p.slice(0, p.indexOf('=')).toLowerCase(), p.slice(p.indexOf('=') + 1)]),
  )
  const { protocol, url, cacert, ...Options } = parts as Record<string, string>
  if (!protocol || !url)
    throw new Exit(
      125,
      `invalid argument "${text}" for "--external-ca" flag: the external-ca option needs protocol= and url= parameters`,
    )
  if (protocol.toLowerCase() !== 'cfssl')
    throw new Exit(
      125,
      `invalid argument "${text}" for "--external-ca" flag: unrecognized external CA protocol ${protocol}`,
    )
  return { Protocol: 'cfssl', URL: url, CACert: cacert ? readFileSync(cacert, 'utf8') : '', Options }
}

/** Until every node has a certificate of the new root; returns that root. */
async function rotated(api: Api, cli: Cli, quiet: boolean): Promise<string> {
  let shown = ''
  for (;;) {
    const s = await api.get<SwarmJson>('/swarm')
    const nodes = await api.get<NodeJson[]>('/nodes')
    const issued = nodes.filter(
      (n) => n.Description.TLSInfo?.CertIssuerPublicKey === s.TLSInfo.CertIssuerPublicKey,
    ).length
    const trusting = nodes.filter((n) => n.Description.TLSInfo?.TrustRoot === s.TLSInfo.TrustRoot).length
    const text = `  rotated TLS certificates:  ${issued}/${nodes.length} nodes\n  rotated CA certificates:   ${s.RootRotationInProgress ? 0 : trusting}/${nodes.length} nodes\n`
    if (!quiet && text !== shown) cli.err(text)
    shown = text
    if (!s.RootRotationInProgress) return s.TLSInfo.TrustRoot
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
}
