import { invalid } from '../common/index.js'
import type { ShimLog } from '../runtime/index.js'
import type { Container } from './container.js'

const UNITS: Readonly<Record<string, number>> = { '': 1, b: 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3, t: 1024 ** 4 }

/** "10m" → bytes. @throws invalid `invalidSize`. */
export function parseSize(text: string): number {
  const m = /^(\d+(?:\.\d+)?) ?([kmgt]?)(?:i?b)?$/i.exec(text.trim())
  if (!m) throw invalid('invalidSize', `invalid size: '${text}'`, { size: text })
  return Math.floor(Number(m[1]) * UNITS[m[2]!.toLowerCase()]!)
}

/** docker's `local` driver rotates by itself; json-file only when told to. */
const LOCAL_MAX_SIZE_BYTES = 20 * 1024 ** 2
const LOCAL_MAX_FILES = 5
const DEFAULT_BUFFER_BYTES = 1024 ** 2

/** Where and how the shim writes a container's log; null for the driver `none`. */
export function shimLog(container: Container): ShimLog | null {
  const { Type = 'json-file', Config } = container.record.hostConfig.LogConfig ?? {}
  const config = Config ?? {}
  if (Type === 'none') return null
  const isLocal = Type === 'local'
  const size = config['max-size']
  const maxSizeBytes = size && size !== '-1' ? parseSize(size) : isLocal ? LOCAL_MAX_SIZE_BYTES : 0
  const maxFiles = config['max-file'] ? Number(config['max-file']) : isLocal ? LOCAL_MAX_FILES : 1
  if (!Number.isInteger(maxFiles) || maxFiles < 1)
    throw invalid('invalidLogOption', `max-file cannot be less than 1: '${config['max-file']}'`)
  if (maxFiles > 1 && maxSizeBytes === 0)
    throw invalid('invalidLogOption', `max-file cannot be used with max-size of 0 or unset`)
  return {
    driver: 'json-file',
    path: container.logPath,
    maxSizeBytes,
    maxFiles,
    mode: config.mode === 'non-blocking' ? 'non-blocking' : 'blocking',
    bufferBytes: config['max-buffer-size'] ? parseSize(config['max-buffer-size']) : DEFAULT_BUFFER_BYTES,
    extra: extraAttributes(container, config),
  }
}

/** The labels and variables that `--log-opt labels=a,b --log-opt env=C` copies into every line. */
function extraAttributes(
  container: Container,
  config: Readonly<Record<string, string>>,
): Record<string, string> | null {
  const labels = container.record.config.Labels ?? {}
  const env = Object.fromEntries(
    (container.record.config.Env ?? []).map((e) => {
      const at = e.indexOf('=')
      return at < 0 ? [e, ''] : [e.slice(0, at), e.slice(at + 1)]
    }),
  )
  const extra: Record<string, string> = {}
  const pick = (from: Readonly<Record<string, string>>, names = '', pattern = ''): void => {
    for (const name of names.split(',').filter(Boolean)) if (name in from) extra[name] = from[name]!
    if (pattern) {
      const matcher = new RegExp(pattern)
      for (const [name, value] of Object.entries(from)) if (matcher.test(name)) extra[name] = value
    }
  }
  pick(labels, config.labels, config['labels-regex'])
  pick(env, config.env, config['env-regex'])
  if (config.tag) extra.tag = expandTag(config.tag, container)
  return Object.keys(extra).length > 0 ? extra : null
}

/** The fields of docker's tag template that there are; anything else stays as written. */
const expandTag = (tag: string, container: Container): string =>
  tag.replace(/\{\{\s*\.(\w+)\s*\}\}/g, (whole, field: string) => {
    const { id, name, image, imageReference } = container.record
    const fields: Readonly<Record<string, string>> = {
      ID: id.slice(0, 12),
      FullID: id,
      Name: name,
      ImageID: image.replace('sha256:', '').slice(0, 12),
      ImageFullID: image,
      ImageName: imageReference,
      DaemonName: 'docker',
    }
    return fields[field] ?? whole
  })
