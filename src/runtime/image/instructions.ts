import { invalid } from '../../common/index.js'
import type { ImageConfig } from '../contract.js'

type Config = NonNullable<ImageConfig['config']>
type Mutable = { -readonly [K in keyof Config]: Config[K] }

const bad = (line: string, why: string): Error =>
  invalid('badChange', `${why} in the change "${line}"`, { change: line })

const SHELL = ['/bin/sh', '-c']

/** JSON form, or null when it is the shell form. */
function jsonForm(rest: string): string[] | null {
  if (!rest.startsWith('[')) return null
  try {
    const list: unknown = JSON.parse(rest)
    return Array.isArray(list) && list.every((x) => typeof x === 'string') ? list : null
  } catch {
    // Docker takes what is no JSON as a shell command.
    return null
  }
}

/** The variable that begins at `at`, as in a Dockerfile: $NAME, ${NAME}, ${NAME:-otherwise}, ${NAME:+instead}. `end`: its last character. */
function variable(line: string, text: string, at: number, env: readonly string[]): { value: string; end: number } {
  const m = /^\$(?:(\d|[A-Za-z_]\w*)|\{(\w+)(?::([-+])([^}]*))?\})/.exec(text.slice(at))
  if (!m && text[at + 1] === '{') throw bad(line, `"${text.slice(at)}" is no substitution of a variable`)
  if (!m) return { value: '$', end: at }
  const [whole, plain, braced, operator, word = ''] = m
  const name = plain ?? braced!
  const value = env.find((e) => e.startsWith(`${name}=`))?.slice(name.length + 1) ?? ''
  const chosen = operator === '-' ? value || word : operator === '+' ? value && word : value
  return { value: chosen, end: at + whole.length - 1 }
}

/** Words with variables replaced, quotes and backslashes taken off, as in a Dockerfile's ENV and LABEL. */
function words(line: string, rest: string, env: readonly string[]): string[] {
  const out: string[] = []
  let word: string | null = null
  let quote: string | null = null
  for (let i = 0; i < rest.length; i++) {
    const c = rest[i]!
    if (quote) {
      if (c === quote) quote = null
      else if (c === '$' && quote === '"') {
        const { value, end } = variable(line, rest, i, env)
        word += value
        i = end
      } else if (c === '\\' && quote === '"' && i + 1 < rest.length && '"\\$'.includes(rest[i + 1]!)) word += rest[++i]!
      else word += c
    } else if (c === '"' || c === "'") {
      quote = c
      word ??= ''
    } else if (c === '\\' && i + 1 < rest.length) word = (word ?? '') + rest[++i]!
    else if (/\s/.test(c)) {
      if (word !== null) out.push(word)
      word = null
    } else if (c === '$') {
      const { value, end } = variable(line, rest, i, env)
      word = (word ?? '') + value
      i = end
    } else word = (word ?? '') + c
  }
  if (quote) throw bad(line, 'a quote is not closed')
  if (word !== null) out.push(word)
  return out
}

/** `K=V K2="v 2"`, or the old form `K value to the end`. */
function pairs(line: string, rest: string, env: readonly string[]): [string, string][] {
  const first = /^\s*([^\s=]+)\s+(.*)$/s.exec(rest)
  if (first && !first[1]!.includes('=') && !/^["']/.test(rest)) return [[first[1]!, whole(line, first[2]!, env)]]
  return words(line, rest, env).map((w) => {
    const at = w.indexOf('=')
    if (at <= 0) throw bad(line, `"${w}" is no NAME=VALUE`)
    return [w.slice(0, at), w.slice(at + 1)]
  })
}

/** One value that goes to the end of the line: variables replaced, the rest as it is. */
function whole(line: string, rest: string, env: readonly string[]): string {
  let text = ''
  for (let i = 0; i < rest.length; i++) {
    if (rest[i] === '\\' && rest[i + 1] === '$') text += rest[++i]!
    else if (rest[i] === '$') {
      const { value, end } = variable(line, rest, i, env)
      text += value
      i = end
    } else text += rest[i]!
  }
  return text
}

const DURATION = /^(?:(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h))+$/
const NANOS: Readonly<Record<string, number>> = { ns: 1, us: 1e3, µs: 1e3, ms: 1e6, s: 1e9, m: 60e9, h: 3600e9 }

function durationNanos(line: string, text: string): number {
  if (!DURATION.test(text)) throw bad(line, `"${text}" is no duration`)
  let sum = 0
  for (const [, n, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g)) sum += Number(n) * NANOS[unit!]!
  return Math.round(sum)
}

function healthcheck(line: string, rest: string): NonNullable<Config['Healthcheck']> {
  const h: NonNullable<Config['Healthcheck']> = {}
  let left = rest
  for (let m = /^--([a-z-]+)=(\S+)\s*/.exec(left); m; m = /^--([a-z-]+)=(\S+)\s*/.exec(left)) {
    left = left.slice(m[0].length)
    const value = m[2]!
    if (m[1] === 'interval') h.Interval = durationNanos(line, value)
    else if (m[1] === 'timeout') h.Timeout = durationNanos(line, value)
    else if (m[1] === 'start-period') h.StartPeriod = durationNanos(line, value)
    else if (m[1] === 'start-interval') h.StartInterval = durationNanos(line, value)
    else if (m[1] === 'retries' && /^\d+$/.test(value)) h.Retries = Number(value)
    else throw bad(line, `unknown or bad option --${m[1]}=${value}`)
  }
  if (/^none$/i.test(left)) return { Test: ['NONE'] }
  const command = /^cmd\s+(.*)$/is.exec(left)?.[1]
  if (!command) throw bad(line, 'HEALTHCHECK needs NONE or CMD and a command')
  const list = jsonForm(command)
  h.Test = list ? ['CMD', ...list] : ['CMD-SHELL', command]
  return h
}

function ports(line: string, rest: string, env: readonly string[]): string[] {
  return words(line, rest, env).flatMap((w) => {
    const m = /^(\d+)(?:-(\d+))?(?:\/(tcp|udp|sctp))?$/i.exec(w)
    const from = Number(m?.[1])
    const to = Number(m?.[2] ?? m?.[1])
    if (!m || from < 1 || to > 65535 || to < from) throw bad(line, `invalid containerPort: ${w}`)
    return Array.from({ length: to - from + 1 }, (_, i) => `${from + i}/${(m[3] ?? 'tcp').toLowerCase()}`)
  })
}

const keys = (names: readonly string[]): Record<string, object> => Object.fromEntries(names.map((n) => [n, {}]))

/** Instructions that describe a container, as `docker import` and `commit` take them. Throws badChange naming the line. */
export function applyChanges(base: Config, changes: readonly string[]): Config {
  const c: Mutable = { ...base }
  for (const raw of changes) {
    const line = raw.trim()
    if (line === '') continue
    const m = /^([A-Za-z]+)(?:\s+(.*))?$/s.exec(line)
    const name = m?.[1]?.toUpperCase() ?? ''
    const rest = (m?.[2] ?? '').trim()
    if (rest === '') throw bad(line, `${name || 'an instruction'} needs an argument`)
    const before = c.Env ?? []
    switch (name) {
      case 'CMD':
        c.Cmd = jsonForm(rest) ?? [...(c.Shell ?? SHELL), rest]
        break
      case 'ENTRYPOINT':
        c.Entrypoint = jsonForm(rest) ?? [...(c.Shell ?? SHELL), rest]
        break
      case 'ENV': {
        const env = [...before]
        for (const [k, v] of pairs(line, rest, before)) {
          const i = env.findIndex((e) => e.startsWith(`${k}=`))
          if (i >= 0) env[i] = `${k}=${v}`
          else env.push(`${k}=${v}`)
        }
        c.Env = env
        break
      }
      case 'LABEL':
        c.Labels = { ...c.Labels, ...Object.fromEntries(pairs(line, rest, before)) }
        break
      case 'EXPOSE':
        c.ExposedPorts = { ...c.ExposedPorts, ...keys(ports(line, rest, before)) }
        break
      case 'VOLUME':
        c.Volumes = { ...c.Volumes, ...keys(jsonForm(rest) ?? words(line, rest, before)) }
        break
      case 'USER':
        c.User = whole(line, rest, before)
        break
      case 'WORKDIR':
        c.WorkingDir = workdir(c.WorkingDir, words(line, rest, before).join(' '))
        break
      case 'STOPSIGNAL':
        c.StopSignal = whole(line, rest, before)
        break
      case 'HEALTHCHECK':
        c.Healthcheck = healthcheck(line, rest)
        break
      case 'ONBUILD':
        if (/^(ONBUILD|FROM|MAINTAINER)\b/i.test(rest))
          throw bad(line, `${rest.split(/\s/)[0]} isn't allowed as an ONBUILD trigger`)
        c.OnBuild = [...(c.OnBuild ?? []), rest]
        break
      default:
        throw bad(line, `${name || `"${line}"`} is not a valid change command`)
    }
  }
  return c
}

/** Relative directories go on from the one before. */
function workdir(before: string | undefined, path: string): string {
  const parts: string[] = []
  for (const p of `${path.startsWith('/') ? '' : `${before ?? ''}/`}${path}`.split('/'))
    if (p === '..') parts.pop()
    else if (p !== '' && p !== '.') parts.push(p)
  return `/${parts.join('/')}`
}
