import { readFileSync } from 'node:fs'
import { Agent, type IncomingMessage, request } from 'node:http'
import { connect } from 'node:net'
import { dirname } from 'node:path'
import { parse } from 'yaml'
import { type Rng, seededRng } from '../../src/common/index.js'
import {
  chance,
  fromSchema,
  hostileBytes,
  hostileTar,
  imageName,
  type Known,
  pick,
  type Schema,
  word,
} from './fuzz-values.js'
import { call, clock, type Lab, type LabHost, ok, until, webImage } from './support.js'
import { difference, traces } from './traces.js'

interface Parameter {
  readonly in: 'path' | 'query' | 'header' | 'body'
  readonly name: string
  readonly type?: string
  readonly schema?: Schema
}
interface Operation {
  readonly method: string
  readonly path: string
  readonly parameters: readonly Parameter[]
}

export interface FuzzTally {
  readonly requests: number
  /** Status, or "closed", → how often. */
  readonly answers: Readonly<Record<string, number>>
  readonly operations: number
  /** What the API must not do, with the request that made it. */
  readonly faults: readonly string[]
  /** Resident memory of the daemon in MB, after each tidying. */
  readonly memoryMb: readonly number[]
}

/** A request without an answer for so long hangs. */
const HANG_MS = 60_000
/** A stream is left after so long: it may go on for ever. */
const LISTEN_MS = 150
const ANSWER_BYTES_MAX = 1 << 20
const CLIENTS = 4
const FAULTS_MAX = 40

/** Streams that end with the container, the client or never. */
const STREAMS =
  /^(GET \/events|GET .*\/logs|GET .*\/stats|POST .*\/(attach|wait)|GET .*\/attach\/ws|POST \/exec\/.*\/start)/
/** What only the machine's own programs would say: an answer must not show it. */
const INTERNAL =
  /TypeError|RangeError|ReferenceError|Cannot (read|set) prop|is not a function|is not iterable|Cannot convert|undefined|\[object Object\]|node:internal|\.js:\d+|ERR_[A-Z_]+|Invalid (array|string) length|Maximum call stack|protobuf|assert/
/** Operations that would end the run: the host leaves its swarm, or a second one begins. */
const LEFT_OUT = /^POST \/swarm\/(leave|join|init|unlock)$/

function operations(description: string): { all: Operation[]; definitions: Record<string, Schema> } {
  const doc = parse(readFileSync(description, 'utf8'), { maxAliasCount: -1, merge: true }) as {
    paths: Record<string, Record<string, { parameters?: Parameter[] }>>
    definitions: Record<string, Schema>
  }
  const all = Object.entries(doc.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, o]) => ({
      method: method.toUpperCase(),
      path,
      parameters: o.parameters ?? [],
    })),
  )
  return { all: all.filter((o) => !LEFT_OUT.test(`${o.method} ${o.path}`)), definitions: doc.definitions }
}

/**
 * Requests over every operation of the API description, most of them wrong somewhere, against a host of a lab that is a
 * swarm of one. Tidies after each `every` requests, and then looks at what is left, and at the daemon's memory.
 */
export async function fuzzApi(
  l: Lab,
  h: LabHost,
  options: {
    readonly requests: number
    readonly seed: number
    readonly every: number
    readonly description: string
    readonly log: (line: string) => void
  },
): Promise<FuzzTally> {
  const { all, definitions } = operations(options.description)
  const rng = seededRng(options.seed)
  const agent = new Agent({ keepAlive: true, maxSockets: CLIENTS })
  const answers: Record<string, number> = {}
  const faults: string[] = []
  const memoryMb: number[] = []
  const touched = new Set<string>()
  const daemon = l.daemonPid(h)
  const fault = (text: string): void => {
    if (faults.length < FAULTS_MAX) options.log(`fault: ${text.slice(0, 600)}`)
    faults.push(text)
  }

  const web = await webImage(l, h)
  await call(h.socket, 'POST', '/swarm/init', { body: { ListenAddr: '0.0.0.0:2377', AdvertiseAddr: h.address } })
  // What the first service of a swarm brings stays: a network for published ports.
  await prepare(l, h, web)
  await tidy(h, web)
  const before = traces(h)

  let sent = 0
  while (sent < options.requests) {
    const known = await prepare(l, h, web)
    const until_ = Math.min(options.requests, sent + options.every)
    const client = async (): Promise<void> => {
      while (sent < until_) {
        sent++
        if (chance(rng, 0.12)) await bytes(h, hostileBytes(rng, known), answers, fault)
        else {
          const o = pick(rng, all)
          touched.add(`${o.method} ${o.path}`)
          await one(h, agent, o, { rng, known, definitions }, answers, fault)
        }
      }
    }
    await Promise.all(Array.from({ length: CLIENTS }, client))
    if (l.daemonPid(h) !== daemon || !l.isUp(h)) {
      options.log(`the daemon ended: ${lastWords(h.log)}`)
      fault('the daemon ended')
      break
    }
    const begun = clock.monotonic()
    await call(h.socket, 'GET', '/_ping', { timeoutMs: 10_000 })
    if (clock.monotonic() - begun > 5000) fault(`a ping took ${Math.round(clock.monotonic() - begun)} ms`)
    await tidy(h, web)
    let left: string[] = []
    await until('as before', 30, async () => {
      // The network for published ports may be removed, and then stays away until it is wanted.
      left = difference(before, traces(h)).filter((x) => x.startsWith('left: '))
      return left.length === 0
    }).catch(() => {
      for (const x of left.slice(0, 5)) fault(`after ${sent} requests: ${x}`)
    })
    memoryMb.push(residentMb(daemon))
    options.log(`${sent} requests, ${faults.length} faults, resident ${memoryMb.at(-1)} MB`)
  }
  agent.destroy()
  return { requests: sent, answers, operations: touched.size, faults, memoryMb }
}

/** The last errors in the daemon's log: the reason of its end is one of them. */
const lastWords = (log: string): string =>
  readFileSync(log, 'utf8')
    .split('\n')
    .filter((x) => x !== '' && (!x.startsWith('time=') || x.includes(' level=error ')))
    .slice(-6)
    .join('\n')

const residentMb = (pid: number): number =>
  Math.round(Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024)

/** One of each kind, under names and ids that the requests will use. */
async function prepare(l: Lab, h: LabHost, web: string): Promise<Known> {
  const make = async (path: string, body: object): Promise<string> => {
    const a = await call<{ Id?: string; ID?: string }>(h.socket, 'POST', path, { body })
    return a.Id ?? a.ID ?? ''
  }
  const ids: string[] = []
  for (const [name, isRunning] of [
    ['base', true],
    ['other', true],
    ['ended', false],
  ] as const) {
    const id = await make(`/containers/create?name=${name}`, {
      Image: web,
      Cmd: ['sleep', '1000'],
      OpenStdin: name === 'other',
      HostConfig: { Init: true },
    })
    if (isRunning) await call(h.socket, 'POST', `/containers/${id}/start`)
    ids.push(name, id, id.slice(0, 12))
  }
  const network = await make('/networks/create', { Name: 'fuzz-net' })
  await make('/volumes/create', { Name: 'fuzz-vol' })
  const exec = await make('/containers/base/exec', { Cmd: ['true'], AttachStdout: true })
  const secret = await make('/secrets/create', { Name: 'fuzz-secret', Data: 'eA==' })
  const config = await make('/configs/create', { Name: 'fuzz-config', Data: 'eA==' })
  const service = await make('/services/create', {
    Name: 'fuzz-svc',
    TaskTemplate: { ContainerSpec: { Image: web, StopGracePeriod: 1e9 } },
    Mode: { Replicated: { Replicas: 1 } },
  })
  const nodes = await call<{ ID: string }[]>(h.socket, 'GET', '/nodes')
  const tasks = await call<{ ID: string }[]>(h.socket, 'GET', '/tasks')
  return {
    registry: l.plan.registry,
    directory: `${dirname(h.socket)}/fuzz`,
    ids: {
      containers: ids,
      images: [web],
      networks: [network, 'fuzz-net', 'bridge'],
      volumes: ['fuzz-vol'],
      exec: [exec],
      secrets: [secret, 'fuzz-secret'],
      configs: [config, 'fuzz-config'],
      services: [service, 'fuzz-svc'],
      nodes: [...nodes.map((n) => n.ID), 'self'],
      tasks: tasks.length > 0 ? tasks.map((t) => t.ID) : ['none'],
      plugins: ['nosuch'],
    },
  }
}

/** All that requests and `prepare` made goes; the image and the node stay. */
async function tidy(h: LabHost, web: string): Promise<void> {
  const gone = (path: string): Promise<unknown> => call(h.socket, 'DELETE', path).catch(() => {})
  const list = async <T>(path: string): Promise<T[]> => (await call<T[] | null>(h.socket, 'GET', path)) ?? []
  for (const kind of ['services', 'secrets', 'configs'])
    for (const x of await list<{ ID: string }>(`/${kind}`)) await gone(`/${kind}/${x.ID}`)
  for (const n of await list<{ ID: string; Version: { Index: number }; Spec: object }>('/nodes'))
    await call(h.socket, 'POST', `/nodes/${n.ID}/update?version=${n.Version.Index}`, {
      body: { Role: 'manager', Availability: 'active', Labels: {} },
    }).catch(() => {})
  await until('no container is left', 60, async () => {
    const all = await list<{ Id: string; State: string }>('/containers/json?all=1')
    for (const c of all) {
      if (c.State === 'paused') await call(h.socket, 'POST', `/containers/${c.Id}/unpause`).catch(() => {})
      await gone(`/containers/${c.Id}?force=1&v=1`)
    }
    return all.length === 0
  })
  for (const n of await list<{ Id: string; Name: string }>('/networks'))
    if (!['bridge', 'host', 'none', 'ingress', 'docker_gwbridge'].includes(n.Name)) await gone(`/networks/${n.Id}`)
  const volumes = await call<{ Volumes: { Name: string }[] | null }>(h.socket, 'GET', '/volumes')
  for (const v of volumes.Volumes ?? []) await gone(`/volumes/${encodeURIComponent(v.Name)}?force=1`)
  for (const i of await list<{ Id: string; RepoTags: string[] | null }>('/images/json?all=1')) {
    if (!i.RepoTags?.includes(web)) await gone(`/images/${i.Id}?force=1`)
    else for (const tag of i.RepoTags.filter((t) => t !== web)) await gone(`/images/${tag}`)
  }
  const images = await list<{ RepoTags: string[] | null }>('/images/json')
  if (!images.some((i) => i.RepoTags?.includes(web))) await ok(h, 'pull', '-q', web)
}

const segment = (text: string): string => encodeURIComponent(Buffer.from(text).toString())

/** One request made from the description. */
async function one(
  h: LabHost,
  agent: Agent,
  o: Operation,
  at: { readonly rng: Rng; readonly known: Known; readonly definitions: Record<string, Schema> },
  answers: Record<string, number>,
  fault: (text: string) => void,
): Promise<void> {
  const { rng, known } = at
  const noun = o.path.split('/')[1] ?? ''
  const isImage = noun === 'images' || noun === 'distribution' || noun === 'plugins'
  const path = o.path.replace(/\{\w+\}/g, () => {
    if (isImage) return imageName(rng, known).split('/').map(segment).join('/')
    return segment(chance(rng, 0.75) ? pick(rng, known.ids[noun] ?? ['x']) : word(rng, known)) || 'x'
  })
  const query = new URLSearchParams()
  for (const p of o.parameters) {
    if (p.in !== 'query' || !chance(rng, p.name === 'path' || p.name === 'version' ? 0.9 : 0.5)) continue
    const values: Record<string, () => string> = {
      fromImage: () => imageName(rng, known),
      remote: () => imageName(rng, known),
      fromSrc: () => pick(rng, ['-', '', 'http://127.0.0.1:1/x', 'ftp://x', '/etc/passwd']),
      term: () => pick(rng, ['127.0.0.1:1/x', '', `${known.registry}/web`]),
      boolean: () => pick(rng, ['1', '0', 'true', 'x', '']),
      integer: () => pick(rng, ['0', '1', '-1', '12', 'x', '99999999999999999999', '1.5', '']),
      path: () =>
        pick(rng, [
          '/',
          '/etc',
          '/etc/passwd',
          '/nosuch',
          '../..',
          '/proc/self/root',
          '',
          'bin/../../..',
          '/bin/busybox',
          '/tmp',
        ]),
      // A negative one waits for ever, as it should.
      t: () => pick(rng, ['0', '1', 'x', '1.5']),
      condition: () => pick(rng, ['not-running', 'next-exit', 'removed', 'x']),
    }
    query.append(p.name, (values[p.name] ?? values[p.type ?? ''] ?? (() => word(rng, known)))())
    if (chance(rng, 0.05)) query.append(p.name, word(rng, known))
  }
  if (chance(rng, 0.05)) query.append(word(rng, known), word(rng, known))
  const headers: Record<string, string> = {}
  const body = o.parameters.find((p) => p.in === 'body')
  let data: Buffer | null = null
  if (body) {
    const isTar = body.schema?.type === 'string' && body.name !== 'body'
    data = isTar
      ? hostileTar(rng)
      : Buffer.from(JSON.stringify(fromSchema(rng, body.schema, { known, definitions: at.definitions })))
    headers['Content-Type'] = isTar ? 'application/x-tar' : 'application/json'
    if (chance(rng, 0.02))
      headers['Content-Type'] = pick(rng, ['text/plain', 'application/json; charset=x', 'x', 'application/json'])
  }
  if (chance(rng, 0.03)) headers['X-Registry-Auth'] = pick(rng, ['', '!!', 'e30=', 'bnVsbA==', 'eyJ1c2VybmFtZSI6MX0='])
  if (/attach|exec\/.*start/.test(path) && chance(rng, 0.5))
    Object.assign(headers, { Connection: 'Upgrade', Upgrade: 'tcp' })
  const version = chance(rng, 0.6)
    ? ''
    : `/v${pick(rng, ['1.24', '1.30', '1.41', '1.43', '1.47', '1.50', '1.51', '1.23', '2.0', '0.1', '1.999'])}`
  const line = `${o.method} ${version}${path}${query.size > 0 ? `?${query}` : ''}`
  const shown = `${line} ${data ? data.toString('utf8').slice(0, 400) : ''}`
  const a = await send(h, agent, {
    method: o.method,
    path: line.slice(o.method.length + 1),
    headers,
    data,
    isStream: STREAMS.test(`${o.method} ${path}`),
  })
  answers[a.status || a.how] = (answers[a.status || a.how] ?? 0) + 1
  if (a.how === 'hang') fault(`no answer in ${HANG_MS} ms: ${shown}`)
  else if (a.how === 'closed' && a.status === 0) fault(`closed without an answer: ${shown}`)
  if (a.status < 400) return
  // A line of text before API 1.24, and at any version where an attach is refused.
  const isLine = /^\/v(0\.1|1\.23)$/.test(version) || /attach$/.test(path)
  let message: unknown = a.text
  try {
    message = (JSON.parse(a.text) as { message: unknown }).message
  } catch {
    if (o.method !== 'HEAD' && !(isLine && a.text.endsWith('\n')))
      fault(`${a.status} without a JSON body (${a.text.slice(0, 100)}): ${shown}`)
    if (o.method === 'HEAD') return
  }
  if (typeof message !== 'string' || message === '') fault(`${a.status} without a message: ${shown}`)
  else if (INTERNAL.test(message) && !INTERNAL.test(shown)) fault(`${a.status} "${message.slice(0, 300)}": ${shown}`)
  else if (a.status === 500 && !KNOWN_500.test(message)) fault(`500 "${message.slice(0, 300)}": ${shown}`)
}

/** Failures that dockerd answers with 500 too: the kernel or a runtime would not do what was asked. */
const KNOWN_500 =
  /failed to create (task|shim)|OCI runtime|error while (mounting|creating)|failed to mount|update out of sequence|dial tcp|connection refused|connect ECONNREFUSED|exited while|^Get "http|cannot (mount|set|write)/i

interface Outcome {
  readonly status: number
  readonly how: 'answered' | 'closed' | 'hang' | 'left'
  readonly text: string
}

function send(
  h: LabHost,
  agent: Agent,
  q: {
    readonly method: string
    readonly path: string
    readonly headers: Record<string, string>
    readonly data: Buffer | null
    readonly isStream: boolean
  },
): Promise<Outcome> {
  return new Promise((resolve) => {
    let status = 0
    const parts: Buffer[] = []
    let size = 0
    const done = (how: Outcome['how']): void => {
      hang.cancel()
      leave?.cancel()
      r.destroy()
      resolve({ status, how, text: Buffer.concat(parts).toString('utf8') })
    }
    const hang = clock.after(HANG_MS, () => done('hang'))
    const leave = q.isStream ? clock.after(LISTEN_MS, () => done('left')) : null
    const r = request({
      socketPath: h.socket,
      agent: q.headers.Upgrade ? false : agent,
      method: q.method,
      path: q.path,
      headers: { ...q.headers, ...(q.data ? { 'Content-Length': String(q.data.length) } : {}) },
    })
    r.on('error', () => done('closed'))
    r.on('upgrade', (res: IncomingMessage) => {
      status = res.statusCode ?? 0
      done('left')
    })
    r.on('response', (res) => {
      status = res.statusCode ?? 0
      res.on('data', (b: Buffer) => {
        size += b.length
        if (size > ANSWER_BYTES_MAX) done('left')
        else parts.push(b)
      })
      res.on('error', () => done('closed'))
      res.on('end', () => {
        hang.cancel()
        leave?.cancel()
        resolve({ status, how: 'answered', text: Buffer.concat(parts).toString('utf8') })
      })
    })
    r.end(q.data ?? undefined)
  })
}

/** Bytes that are hardly HTTP: an answer with a status, or the end of the connection, but not silence. */
async function bytes(
  h: LabHost,
  q: { readonly bytes: Buffer; readonly half: boolean },
  answers: Record<string, number>,
  fault: (text: string) => void,
): Promise<void> {
  const out = await new Promise<string | null>((resolve) => {
    const s = connect({ path: h.socket, allowHalfOpen: true })
    let text = ''
    const end = (value: string | null): void => {
      timer.cancel()
      s.destroy()
      resolve(value)
    }
    // Without our end of the connection the server may wait for more: it is left, and must not mind.
    const timer = clock.after(q.half ? HANG_MS : LISTEN_MS, () => end(q.half && text === '' ? null : text))
    s.on('data', (b) => {
      text += b.toString('latin1')
      if (text.length > ANSWER_BYTES_MAX) end(text)
      // An upgraded connection stays open for as long as its container runs.
      else if (/^HTTP\/1\.1 101/.test(text)) end(text)
    })
    s.on('close', () => end(text))
    s.on('end', () => end(text))
    s.on('error', () => end(text))
    s.write(q.bytes)
    if (q.half) s.end()
  })
  const status = out === null ? 'hang' : (/^HTTP\/1\.\d (\d+)/.exec(out)?.[1] ?? 'closed')
  answers[status] = (answers[status] ?? 0) + 1
  const shown = JSON.stringify(q.bytes.subarray(0, 200).toString('latin1'))
  if (out === null) fault(`no answer and no end in ${HANG_MS} ms: ${shown}`)
  else if (status === '500' || (INTERNAL.test(out) && !INTERNAL.test(shown))) fault(`${out.slice(0, 400)}: ${shown}`)
}

/** Whether memory stays where it was: the last third of the samples beside the second third. */
export function isFlat(memoryMb: readonly number[]): boolean {
  if (memoryMb.length < 6) return true
  const third = Math.floor(memoryMb.length / 3)
  const mean = (x: readonly number[]): number => x.reduce((a, b) => a + b, 0) / x.length
  return mean(memoryMb.slice(-third)) < mean(memoryMb.slice(third, 2 * third)) * 1.1 + 10
}
