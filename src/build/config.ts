import { posix } from 'node:path'
import { invalid } from '../common/index.js'
import type { ContainerConfig, HealthcheckConfig } from '../engine/index.js'
import type { ImageConfig } from '../runtime/index.js'
import { environment } from './dockerfile/expand.js'
import { goDurationText, goList, goQuote, goQuoteList, goQuoteRune } from './dockerfile/go-text.js'
import type { CommandLine, Instruction, Pair } from './dockerfile/instructions.js'

/** An image's configuration while it is built; lists, not the API's looser forms. */
export interface RunConfig extends ContainerConfig {
  Env: string[]
  Cmd: string[] | null
  Entrypoint: string[] | null
  Shell?: string[] | null
}

/** What later steps know besides the configuration. */
export interface StageState {
  readonly config: RunConfig
  readonly author: string
  /** CMD was said in this stage: an ENTRYPOINT keeps it. */
  readonly hasOwnCommand: boolean
}

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const DEFAULT_SHELL: readonly string[] = ['/bin/sh', '-c']

/** A stage's first configuration: the base image's, with a PATH. */
export function baseConfig(image: ImageConfig['config'] | null): RunConfig {
  const c = image ?? {}
  const env = [...(c.Env ?? [])]
  if (!environment(env).has('PATH')) env.push(`PATH=${DEFAULT_PATH}`)
  return {
    ...(structuredClone(c) as ContainerConfig),
    Env: env,
    Cmd: c.Cmd ? [...c.Cmd] : null,
    Entrypoint: c.Entrypoint ? [...c.Entrypoint] : null,
    OpenStdin: false,
    StdinOnce: false,
  }
}

const shellOf = (config: RunConfig): readonly string[] => (config.Shell?.length ? config.Shell : DEFAULT_SHELL)

export const argv = (line: CommandLine, config: RunConfig): string[] => [
  ...(line.isShell && line.words.length > 0 ? shellOf(config) : []),
  ...line.words,
]

/** The configuration whose command tells what a step did: what the cache looks for and the history shows. */
export const commented = (config: RunConfig, comment: string, form: 'one word' | 'two words'): RunConfig => ({
  ...config,
  Cmd: [...shellOf(config), ...(form === 'one word' ? [`#(nop) ${comment}`] : ['#(nop) ', comment])],
})

/** NAME=VALUE lists: a name that is there gets the value in its place. */
function withPairs(env: readonly string[], pairs: readonly Pair[]): string[] {
  const next = [...env]
  for (const { name, value } of pairs) {
    const at = next.findIndex((e) => e.split('=', 1)[0] === name)
    if (at >= 0) next[at] = `${name}=${value}`
    else next.push(`${name}=${value}`)
  }
  return next
}

const keys = (names: readonly string[]): Record<string, object> => Object.fromEntries(names.map((n) => [n, {}]))
const texts = (pairs: readonly Pair[]): string => pairs.map((p) => ` ${p.name}=${p.value}`).join('')

/** Where WORKDIR leads from where one is. Absolute paths are taken as they are. */
export const nextWorkdir = (before: string, path: string): string =>
  posix.isAbsolute(path) ? path : posix.join('/', before, path).replace(/(?<=.)\/$/, '')

function healthText(h: HealthcheckConfig): string {
  const times = [h.Interval, h.Timeout, h.StartPeriod].map((n) => goQuote(goDurationText(n ?? 0)))
  return `&{${goQuoteList(h.Test)} ${times.join(' ')} ${goQuoteRune(h.Retries ?? 0)}}`
}

/** Steps that run no command, copy no file and make no directory: all they do is here. */
export type Describing = Exclude<Instruction, { kind: 'add' | 'copy' | 'run' | 'workdir' | 'arg' }>

export interface Described {
  readonly state: StageState
  readonly comment: string
  /** For the user, before the step's outcome. */
  readonly note?: string
}

/**
 * What such a step makes of the configuration. Its variables are replaced already; `ports` are EXPOSE's, in words.
 *
 * @throws invalid `badPort`, `badSignal`
 */
export function describe(state: StageState, step: Describing, ports: readonly string[] = []): Described {
  const { config } = state
  const changed = (change: Partial<RunConfig>, comment: string): Described => ({
    state: { ...state, config: { ...config, ...change } },
    comment,
  })
  switch (step.kind) {
    case 'env':
      return changed({ Env: withPairs(config.Env, step.pairs) }, `ENV${texts(step.pairs)}`)
    case 'label': {
      const added = Object.fromEntries(step.pairs.map((p) => [p.name, p.value]))
      return changed({ Labels: { ...config.Labels, ...added } }, `LABEL${texts(step.pairs)}`)
    }
    case 'maintainer':
      return { state: { ...state, author: step.value }, comment: `MAINTAINER ${step.value}` }
    case 'onbuild':
      return changed({ OnBuild: [...(config.OnBuild ?? []), step.trigger] }, `ONBUILD ${step.trigger}`)
    case 'cmd': {
      const Cmd = argv(step.line, config)
      const next = changed({ Cmd }, `CMD ${goQuoteList(Cmd)}`)
      return { ...next, state: { ...next.state, hasOwnCommand: state.hasOwnCommand || step.line.words.length > 0 } }
    }
    case 'entrypoint': {
      const words = argv(step.line, config)
      const change = { Entrypoint: words.length > 0 ? words : null, ...(state.hasOwnCommand ? {} : { Cmd: null }) }
      return changed(change, `ENTRYPOINT ${goQuoteList(words)}`)
    }
    case 'expose':
      return changed(
        { ExposedPorts: { ...config.ExposedPorts, ...keys(ports.flatMap(portRange)) } },
        `EXPOSE ${ports.join(' ')}`,
      )
    case 'user':
      return changed({ User: step.value }, `USER ${step.value}`)
    case 'volume':
      if (step.paths.includes('')) throw invalid('badVolume', 'VOLUME specified can not be an empty string')
      return changed({ Volumes: { ...config.Volumes, ...keys(step.paths) } }, `VOLUME ${goList(step.paths)}`)
    case 'stopsignal':
      return changed({ StopSignal: step.value }, `STOPSIGNAL ${step.value}`)
    case 'shell':
      return changed({ Shell: [...step.words] }, `SHELL ${goList(step.words)}`)
    case 'healthcheck': {
      const before = config.Healthcheck?.Test ?? []
      return {
        ...changed({ Healthcheck: step.health }, `HEALTHCHECK ${healthText(step.health)}`),
        ...(before.length > 0 && before[0] !== 'NONE'
          ? { note: `Note: overriding previous HEALTHCHECK: ${goList(before)}\n` }
          : {}),
      }
    }
  }
}

const PORT_MAX = 65535

/** "80", "80/udp", "8000-8010/tcp", or with host's parts, which EXPOSE passes over, as "80/tcp". */
function portRange(text: string): string[] {
  const bad = (): Error => invalid('badPort', `Invalid containerPort: ${text}`, { port: text })
  const [whole = '', protocol = 'tcp', ...more] = text.split('/')
  const own = whole.slice(whole.lastIndexOf(':') + 1)
  if (own === '') throw invalid('badPort', `No port specified: ${text}<empty>`, { port: text })
  const m = /^(\d+)(?:-(\d+))?$/.exec(own)
  const from = Number(m?.[1])
  const to = Number(m?.[2] ?? m?.[1])
  if (!m || from > PORT_MAX || to > PORT_MAX || to < from || more.length > 0) throw bad()
  const kind = (protocol || 'tcp').toLowerCase()
  if (!['tcp', 'udp', 'sctp'].includes(kind)) throw invalid('badPort', `Invalid proto: ${protocol}`, { port: text })
  return Array.from({ length: to - from + 1 }, (_, i) => `${from + i}/${kind}`)
}
