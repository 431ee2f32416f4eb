export const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** Later entries replace earlier ones of the same name, in the earlier one's place; an entry without "=" removes it. */
export function mergeEnvironment(base: readonly string[], over: readonly string[]): string[] {
  const merged = [...base]
  const nameOf = (entry: string): string => entry.split('=', 1)[0]!
  for (const entry of over) {
    const name = nameOf(entry)
    const at = merged.findIndex((e) => nameOf(e) === name)
    if (!entry.includes('=')) {
      if (at >= 0) merged.splice(at, 1)
    } else if (at >= 0) merged[at] = entry
    else merged.push(entry)
  }
  return merged
}

/** A process's environment: docker's defaults under the container's own. */
export function processEnvironment(options: {
  readonly hostname: string
  readonly tty: boolean
  /** Variables of legacy links: under the container's own, over docker's. */
  readonly links: readonly string[]
  readonly env: readonly string[]
  readonly home: string
}): string[] {
  const base = [`PATH=${DEFAULT_PATH}`, `HOSTNAME=${options.hostname}`]
  if (options.tty) base.push('TERM=xterm')
  const env = mergeEnvironment([...base, ...options.links], options.env)
  return env.some((e) => /^HOME=./.test(e)) ? env : mergeEnvironment(env, [`HOME=${options.home}`])
}
