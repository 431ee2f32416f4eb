import { invalid } from '../common/index.js'
import { parseCidr } from './ipam/ip.js'

export interface OverlayOptions {
  /** Durable: records of local networks, the cluster's last known network state. */
  readonly root: string
  /** Lives as long as the machine is up: namespaces are bound to files below it, sandboxes are recorded there. */
  readonly runDir: string
  /**
   * Names this daemon's objects in its network namespace: nftables tables, bridges, link aliases. 1-6 letters and
   * digits; must differ between daemons that share one namespace.
   */
  readonly instance: string
  /** Address and prefix length of the default bridge ("172.17.0.1/16"); null: cut from the pools. */
  readonly bip: string | null
  /** An existing bridge to use for the default network; "": one of our own; "none": there is no default network. */
  readonly bridge: string
  /** The part of the default network's subnet that addresses are chosen from; null: all. */
  readonly fixedCidr: string | null
  /** Where endpoints of the default network are routed to; null: the bridge's own address. */
  readonly defaultGateway: string | null
  /** The default network has IPv6 too. */
  readonly ipv6: boolean
  /** Its IPv6 subnet; null: cut from the pools. */
  readonly fixedCidr6: string | null
  readonly defaultGateway6: string | null
  /** Blocks that subnets of local networks are cut from, in order; `size` is the subnets' prefix length. */
  readonly defaultAddressPools: readonly { readonly base: string; readonly size: number }[]
  /** Where no pool is of IPv6, subnets are /64 of a unique local /48 (RFC 4193) made of this text. */
  readonly uniqueLocalSeed: string
  /** Of local bridges; bytes. */
  readonly mtu: number
  /** Containers on the default bridge may talk to each other. */
  readonly icc: boolean
  /** The default network is masqueraded towards the outside. */
  readonly masquerade: boolean
  /** net.ipv4.ip_forward is set at start. */
  readonly forwarding: boolean
  /** The host's own table is written: published ports, masquerading and isolation of local networks. */
  readonly packetRules: boolean
  /** The table has rules for IPv6. */
  readonly packetRules6: boolean
  /** The program that carries what rules cannot lead: IPv6 to containers without it, and ::1. null: none does. */
  readonly relay: string | null
  /** What "host-gateway" means in extra hosts; null: the default bridge's address. */
  readonly hostGateway: string | null
  /** Where ports are published when no address is asked for; "" means all. */
  readonly publishAddress: string
  readonly dns: {
    /** Empty: what the host's resolv.conf names. */
    readonly servers: readonly string[]
    readonly search: readonly string[]
    readonly options: readonly string[]
  }
  readonly hostResolvConf: string
  /** Seconds that answers about containers may be kept; 0-5, so that a moved service is found again soon. */
  readonly dnsTtlSeconds: number
  /** Queries of one sandbox under way to upstream servers; more are refused. */
  readonly dnsForwardLimit: number
  /** Wait for one upstream server, ms. */
  readonly dnsForwardTimeoutMs: number
  /** The link between this host and its sandbox of the routing mesh: a /30 that nothing else uses. */
  readonly ingressLink: string
  /** Nodes' gateways in the mesh are numbered from here by ingress_index; only seen inside mesh sandboxes. */
  readonly ingressGateways: string
}

/** Docker's default pools, in its order. */
export const DEFAULT_ADDRESS_POOLS = [
  ...Array.from({ length: 15 }, (_, i) => ({ base: `172.${17 + i}.0.0/16`, size: 16 })),
  { base: '192.168.0.0/16', size: 20 },
]

const DEFAULTS = {
  instance: 'shoal',
  bip: null,
  defaultAddressPools: DEFAULT_ADDRESS_POOLS,
  mtu: 1500,
  bridge: '',
  fixedCidr: null,
  defaultGateway: null,
  ipv6: false,
  fixedCidr6: null,
  defaultGateway6: null,
  uniqueLocalSeed: '',
  icc: true,
  masquerade: true,
  forwarding: true,
  packetRules: true,
  packetRules6: true,
  relay: null,
  hostGateway: null,
  publishAddress: '',
  dns: { servers: [], search: [], options: [] },
  hostResolvConf: '/etc/resolv.conf',
  dnsTtlSeconds: 2,
  dnsForwardLimit: 128,
  dnsForwardTimeoutMs: 2000,
  ingressLink: '169.254.254.0/30',
  ingressGateways: '198.18.0.0/15',
} satisfies Partial<OverlayOptions>

export type OverlayOptionsInput = Pick<OverlayOptions, 'root' | 'runDir'> & Partial<OverlayOptions>

/** Fills in defaults and refuses what cannot work, with the setting's name. */
export function overlayOptions(input: OverlayOptionsInput): OverlayOptions {
  const given = Object.fromEntries(Object.entries(input).filter(([, v]) => v !== undefined))
  const o: OverlayOptions = { ...DEFAULTS, ...(given as OverlayOptionsInput) }
  const refuse = (setting: string, value: unknown, wanted: string): never => {
    throw invalid('networkOption', `network setting ${setting} is ${JSON.stringify(value)}: give ${wanted}`, {
      setting,
    })
  }
  if (o.fixedCidr6 !== null && parseCidr(o.fixedCidr6)?.bits !== 128)
    refuse('fixed-cidr-v6', o.fixedCidr6, 'a block of IPv6 addresses, like 2001:db8:1::/64')
  if (!/^[a-z][a-z0-9]{0,5}$/.test(o.instance)) refuse('instance', o.instance, '1-6 lower-case letters and digits')
  if (o.bip !== null && !parseCidr(o.bip)) refuse('bip', o.bip, 'an address with prefix length, like 172.17.0.1/16')
  if (!Number.isInteger(o.mtu) || o.mtu < 68 || o.mtu > 65535) refuse('mtu', o.mtu, '68 to 65535 bytes')
  for (const pool of o.defaultAddressPools) {
    const block = parseCidr(pool.base)
    if (!block || !Number.isInteger(pool.size) || pool.size < block.prefix || pool.size > block.bits - 2)
      refuse('default-address-pool', pool, 'base=CIDR,size=N with the base prefix <= N <= 30, or 126 of IPv6')
  }
  if (parseCidr(o.ingressLink)?.prefix !== 30) refuse('ingressLink', o.ingressLink, 'a /30 block')
  if (o.dnsTtlSeconds < 0 || o.dnsTtlSeconds > 5) refuse('dnsTtlSeconds', o.dnsTtlSeconds, '0 to 5 seconds')
  return o
}
