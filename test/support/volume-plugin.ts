// A volume plugin, version 1 of the protocol, for tests: `node volume-plugin.js SOCKET DIRECTORY`. It keeps volumes as
// directories, remembers across its own death who uses them, and writes every call as a line of DIRECTORY/calls. The option
// `fail=METHOD` of a volume makes that method fail, `hang=METHOD` never answer, `garble=METHOD` answer what is no JSON.
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { dirname, join } from 'node:path'

interface Volume {
  readonly options: Record<string, string>
  readonly users: string[]
}

const [socket, dir] = process.argv.slice(2) as [string, string]
mkdirSync(dirname(socket), { recursive: true })
mkdirSync(dir, { recursive: true })
rmSync(socket, { force: true })
const file = join(dir, 'volumes.json')
const volumes: Record<string, Volume> = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {}
const save = (): void => writeFileSync(file, JSON.stringify(volumes))
const path = (name: string): string => join(dir, 'data', encodeURIComponent(name))
const shown = (name: string) => ({
  Name: name,
  Mountpoint: volumes[name]!.users.length > 0 ? path(name) : '',
  CreatedAt: '2024-05-06T07:08:09Z',
  Status: { users: volumes[name]!.users.length },
})

interface Call {
  readonly Name: string
  readonly ID: string
  readonly Opts?: Record<string, string> | null
}

function need(name: string): Volume {
  const v = volumes[name]
  if (!v) throw new Error(`the plugin knows no volume ${name}`)
  return v
}

const methods: Record<string, (call: Call) => object> = {
  'Plugin.Activate': () => ({ Implements: ['VolumeDriver'] }),
  'VolumeDriver.Capabilities': () => ({ Capabilities: { Scope: 'global' } }),
  'VolumeDriver.Create': ({ Name, Opts }) => {
    volumes[Name] ??= { options: Opts ?? {}, users: [] }
    mkdirSync(path(Name), { recursive: true })
    save()
    return {}
  },
  'VolumeDriver.Remove': ({ Name }) => {
    if (need(Name).users.length > 0) throw new Error(`volume ${Name} is mounted`)
    delete volumes[Name]
    rmSync(path(Name), { recursive: true, force: true })
    save()
    return {}
  },
  'VolumeDriver.Mount': ({ Name, ID }) => {
    need(Name).users.push(ID)
    save()
    return { Mountpoint: path(Name) }
  },
  'VolumeDriver.Unmount': ({ Name, ID }) => {
    const { users } = need(Name)
    if (!users.includes(ID)) throw new Error(`volume ${Name} is not mounted for ${ID}`)
    users.splice(users.indexOf(ID), 1)
    save()
    return {}
  },
  'VolumeDriver.Path': ({ Name }) => ({ Mountpoint: need(Name).users.length > 0 ? path(Name) : '' }),
  'VolumeDriver.Get': ({ Name }) => {
    need(Name)
    return { Volume: shown(Name) }
  },
  'VolumeDriver.List': () => ({ Volumes: Object.keys(volumes).map(shown) }),
}

createServer((req, res) => {
  let text = ''
  req.setEncoding('utf8').on('data', (part) => {
    text += part
  })
  req.on('end', () => {
    const method = req.url!.slice(1)
    const call = JSON.parse(text || '{}') as Call
    appendFileSync(join(dir, 'calls'), `${method} ${call.Name ?? ''} ${call.ID ?? ''}\n`)
    const options = { ...volumes[call.Name]?.options, ...call.Opts }
    const verb = method.split('.')[1]
    if (options.hang === verb) return
    if (options.garble === verb) {
      res.end('this is <no> JSON')
      return
    }
    res.setHeader('content-type', 'application/vnd.docker.plugins.v1.2+json')
    try {
      if (options.fail === verb) throw new Error(`asked to fail ${verb}`)
      if (!methods[method]) throw new Error(`no method ${method}`)
      res.end(JSON.stringify(methods[method](call)))
    } catch (e) {
      res.statusCode = 500
      res.end(JSON.stringify({ Err: (e as Error).message }))
    }
  })
}).listen(socket, () => process.stdout.write('ready\n'))
