// A network and IPAM plugin, version 1 of the protocol, for tests: `node network-plugin.js SOCKET DIRECTORY`, run in the network
// namespace of the daemon. Its networks are bridges, its endpoints veth pairs; what it lends is in DIRECTORY/state.json and
// outlives it, and every call is a line of JSON in DIRECTORY/calls. DIRECTORY/wishes, if there, is {"fail": METHOD} (it refuses),
// {"hang": METHOD} (it does it and never answers), or {"join": {...}} (more for the answer to Join).
import { appendFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { dirname, join } from 'node:path'
import { loadNetNative } from '../../src/overlay/native.js'

interface State {
  networks: Record<string, { bridge: string }>
  endpoints: Record<string, { inside: string; joined: boolean; programmed: boolean }>
  pools: Record<string, { next: number; lent: string[] }>
}

interface Wishes {
  readonly fail?: string
  readonly hang?: string
  readonly join?: object
}

const [socket, dir] = process.argv.slice(2) as [string, string]
mkdirSync(dirname(socket), { recursive: true })
mkdirSync(dir, { recursive: true })
rmSync(socket, { force: true })
const read = <T>(name: string, otherwise: T): T =>
  existsSync(join(dir, name)) ? (JSON.parse(readFileSync(join(dir, name), 'utf8')) as T) : otherwise
const state = read<State>('state.json', { networks: {}, endpoints: {}, pools: {} })
const native = loadNetNative()

interface Call {
  readonly NetworkID: string
  readonly EndpointID: string
  readonly Pool: string
  readonly PoolID: string
  readonly Address: string
  readonly V6: boolean
}

function need<T>(table: Record<string, T>, id: string, what: string): T {
  const found = table[id]
  if (!found) throw new Error(`the plugin knows no ${what} ${id}`)
  return found
}

const methods: Record<string, (call: Call) => object | Promise<object>> = {
  'Plugin.Activate': () => ({ Implements: ['NetworkDriver', 'IpamDriver'] }),
  'NetworkDriver.GetCapabilities': () => ({ Scope: 'local', ConnectivityScope: 'global' }),
  'NetworkDriver.DiscoverNew': () => ({}),
  'NetworkDriver.DiscoverDelete': () => ({}),
  'NetworkDriver.CreateNetwork': async ({ NetworkID }) => {
    if (state.networks[NetworkID]) throw new Error(`network ${NetworkID} exists`)
    const bridge = `p${NetworkID.slice(0, 8)}`
    await native.netLink(null, [
      { op: 'linkAdd', name: bridge, kind: 'bridge' },
      { op: 'linkSet', name: bridge, up: true },
    ])
    state.networks[NetworkID] = { bridge }
    return {}
  },
  'NetworkDriver.DeleteNetwork': async ({ NetworkID }) => {
    await native.netLink(null, [{ op: 'linkDel', name: need(state.networks, NetworkID, 'network').bridge }])
    delete state.networks[NetworkID]
    return {}
  },
  'NetworkDriver.CreateEndpoint': ({ NetworkID, EndpointID }) => {
    need(state.networks, NetworkID, 'network')
    state.endpoints[EndpointID] = { inside: `i${EndpointID.slice(0, 8)}`, joined: false, programmed: false }
    return { Interface: { MacAddress: `0a:00:${EndpointID.slice(0, 8).replace(/..(?=.)/g, '$&:')}` } }
  },
  'NetworkDriver.DeleteEndpoint': async ({ EndpointID }) => {
    const e = need(state.endpoints, EndpointID, 'endpoint')
    if (e.joined || e.programmed) throw new Error(`endpoint ${EndpointID} is joined or programmed`)
    await native.netLink(null, [{ op: 'linkDel', name: e.inside, tolerate: ['ENODEV'] }])
    delete state.endpoints[EndpointID]
    return {}
  },
  'NetworkDriver.Join': async ({ NetworkID, EndpointID }) => {
    const e = need(state.endpoints, EndpointID, 'endpoint')
    const name = `o${EndpointID.slice(0, 8)}`
    await native.netLink(null, [
      { op: 'linkAdd', name, kind: 'veth', peerName: e.inside },
      { op: 'linkSet', name, up: true, master: need(state.networks, NetworkID, 'network').bridge },
    ])
    e.joined = true
    return { InterfaceName: { SrcName: e.inside, DstPrefix: 'plug' }, ...read<Wishes>('wishes', {}).join }
  },
  'NetworkDriver.Leave': ({ EndpointID }) => {
    need(state.endpoints, EndpointID, 'endpoint').joined = false
    return {}
  },
  'NetworkDriver.ProgramExternalConnectivity': ({ EndpointID }) => {
    need(state.endpoints, EndpointID, 'endpoint').programmed = true
    return {}
  },
  'NetworkDriver.RevokeExternalConnectivity': ({ EndpointID }) => {
    need(state.endpoints, EndpointID, 'endpoint').programmed = false
    return {}
  },
  'IpamDriver.GetCapabilities': () => ({ RequiresRequestReplay: true }),
  'IpamDriver.GetDefaultAddressSpaces': () => ({
    LocalDefaultAddressSpace: 'here',
    GlobalDefaultAddressSpace: 'there',
  }),
  'IpamDriver.RequestPool': ({ Pool, V6 }) => {
    const pool = Pool || (V6 ? 'fd99:1::/64' : '10.99.0.0/24')
    state.pools[`id-${pool}`] ??= { next: 1, lent: [] }
    return { PoolID: `id-${pool}`, Pool: pool, Data: {} }
  },
  'IpamDriver.ReleasePool': ({ PoolID }) => {
    if (need(state.pools, PoolID, 'pool').lent.length > 0) throw new Error(`pool ${PoolID} is in use`)
    delete state.pools[PoolID]
    return {}
  },
  'IpamDriver.RequestAddress': ({ PoolID, Address }) => {
    const pool = need(state.pools, PoolID, 'pool')
    const [base, prefix] = PoolID.slice(3).split('/')
    const address = Address || `${base!.replace(/(0|::)$/, '$1').replace(/\.0$/, '.')}${pool.next++}`
    if (!pool.lent.includes(address)) pool.lent.push(address)
    return { Address: `${address}/${prefix}` }
  },
  'IpamDriver.ReleaseAddress': ({ PoolID, Address }) => {
    const { lent } = need(state.pools, PoolID, 'pool')
    if (!lent.includes(Address)) return { Error: `address ${Address} is not lent` }
    lent.splice(lent.indexOf(Address), 1)
    return {}
  },
}

createServer((req, res) => {
  let body = ''
  req.setEncoding('utf8').on('data', (part) => {
    body += part
  })
  req.on('end', async () => {
    const method = req.url!.slice(1)
    const call = JSON.parse(body || '{}') as Call
    appendFileSync(join(dir, 'calls'), `${JSON.stringify({ method, ...call })}\n`)
    const wishes = read<Wishes>('wishes', {})
    res.setHeader('content-type', 'application/vnd.docker.plugins.v1.1+json')
    try {
      if (wishes.fail === method) throw new Error(`asked to fail ${method}`)
      if (!methods[method]) {
        res.statusCode = 404
        throw new Error(`no method ${method}`)
      }
      const answer = await methods[method](call)
      writeFileSync(join(dir, 'state.new'), JSON.stringify(state))
      renameSync(join(dir, 'state.new'), join(dir, 'state.json')) // who looks sees it whole
      if (wishes.hang !== method) res.end(JSON.stringify(answer))
    } catch (e) {
      if (res.statusCode === 200) res.statusCode = 500
      res.end(JSON.stringify({ Err: (e as Error).message }))
    }
  })
}).listen(socket, () => process.stdout.write('ready\n'))
