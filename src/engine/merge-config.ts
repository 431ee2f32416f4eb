import type { ImageConfig } from '../runtime/index.js'
import type { ContainerConfig, HealthcheckConfig } from './types.js'

const asList = (value: string[] | string | null | undefined): string[] | null =>
  value == null ? null : typeof value === 'string' ? (value === '' ? [] : [value]) : value

/**
 * The user's configuration over the image's, as docker merges: an entrypoint of one's own drops the image's command;
 * environment, labels, ports and volumes are joined; the rest is taken when the user left it out.
 */
export function mergeConfig(user: ContainerConfig, image: ImageConfig['config'] = {}): ContainerConfig {
  const userEntrypoint = asList(user.Entrypoint)
  const userCmd = asList(user.Cmd)
  let entrypoint = userEntrypoint
  let cmd = userCmd
  if (!userEntrypoint) entrypoint = image.Entrypoint?.length ? [...image.Entrypoint] : null
  if (!userEntrypoint?.length && !userCmd?.length) cmd = image.Cmd?.length ? [...image.Cmd] : userCmd
  // `--entrypoint ""` arrives as [""]: no entrypoint at all.
  if (entrypoint?.length === 1 && entrypoint[0] === '') entrypoint = null
  return {
    ...user,
    User: user.User || image.User || '',
    ExposedPorts: nonEmpty({ ...image.ExposedPorts, ...user.ExposedPorts }),
    Env: joinEnvironment(user.Env ?? [], image.Env ?? []),
    Entrypoint: entrypoint,
    Cmd: cmd,
    Volumes: nonEmpty({ ...image.Volumes, ...user.Volumes }),
    WorkingDir: normalizeDir(user.WorkingDir || image.WorkingDir || ''),
    Labels: { ...image.Labels, ...user.Labels },
    StopSignal: user.StopSignal || image.StopSignal || undefined,
    Healthcheck: mergeHealthcheck(user.Healthcheck, image.Healthcheck),
    OnBuild: user.OnBuild ?? null,
    Shell: user.Shell ?? (image.Shell ? [...image.Shell] : undefined),
  }
}

/** A name alone stays: it takes away what else would be set. */
function joinEnvironment(user: readonly string[], image: readonly string[]): string[] {
  const names = new Set(user.map((entry) => entry.split('=', 1)[0]))
  return [...user, ...image.filter((entry) => !names.has(entry.split('=', 1)[0]))]
}

function normalizeDir(dir: string): string {
  if (dir === '' || dir === '/') return dir
  return dir.replace(/\/+/g, '/').replace(/\/$/, '')
}

/** What is zero, empty or null counts as left out, and is not shown. */
function mergeHealthcheck(
  user: ContainerConfig['Healthcheck'],
  image: NonNullable<ImageConfig['config']>['Healthcheck'],
): ContainerConfig['Healthcheck'] {
  if (!user) return image ? { ...image } : undefined
  const merged: HealthcheckConfig = {
    Test: user.Test?.length ? user.Test : image?.Test,
    Interval: user.Interval || image?.Interval,
    Timeout: user.Timeout || image?.Timeout,
    StartPeriod: user.StartPeriod || image?.StartPeriod,
    StartInterval: user.StartInterval || image?.StartInterval,
    Retries: user.Retries || image?.Retries,
  }
  return Object.fromEntries(Object.entries(merged).filter(([, value]) => value))
}

const nonEmpty = <T>(o: Record<string, T>): Record<string, T> | undefined => (Object.keys(o).length > 0 ? o : undefined)

/** Entrypoint and command as one argument vector. */
export const commandOf = (config: ContainerConfig): string[] => [
  ...(asList(config.Entrypoint) ?? []),
  ...(asList(config.Cmd) ?? []),
]
