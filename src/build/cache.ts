import type { ContainerConfig } from '../engine/index.js'
import type { Digest, Image, ImageConfig } from '../runtime/index.js'
import type { RunConfig } from './config.js'

const list = (v: readonly string[] | string | null | undefined): readonly string[] =>
  v == null ? [] : typeof v === 'string' ? [v] : v
const sameList = (a: ContainerConfig['Cmd'], b: ContainerConfig['Cmd']): boolean => {
  const [x, y] = [list(a), list(b)]
  return x.length === y.length && x.every((v, i) => v === y[i])
}
const sameKeys = (a: object | null | undefined, b: object | null | undefined): boolean => {
  const [x, y] = [Object.keys(a ?? {}), Object.keys(b ?? {})]
  return x.length === y.length && x.every((k) => y.includes(k))
}

/** Whether two steps' containers were to do the same; names, hosts and images are not looked at. */
export function sameStep(a: ContainerConfig, b: ContainerConfig): boolean {
  return (
    !a.OpenStdin &&
    !b.OpenStdin &&
    (a.AttachStdout ?? false) === (b.AttachStdout ?? false) &&
    (a.AttachStderr ?? false) === (b.AttachStderr ?? false) &&
    (a.Tty ?? false) === (b.Tty ?? false) &&
    (a.User ?? '') === (b.User ?? '') &&
    sameList(a.Cmd, b.Cmd) &&
    sameList(a.Env, b.Env) &&
    sameList(a.Entrypoint, b.Entrypoint) &&
    sameKeys(a.ExposedPorts, b.ExposedPorts) &&
    sameKeys(a.Volumes, b.Volumes) &&
    sameKeys(a.Labels, b.Labels) &&
    Object.entries(a.Labels ?? {}).every(([k, v]) => b.Labels?.[k] === v)
  )
}

/** The newest of an image's children that this step made; null: it was not done before. */
export function cachedChild(children: readonly Image[], step: RunConfig): Image | null {
  let newest: Image | null = null
  for (const child of children) {
    const container = child.config.container_config as ContainerConfig | undefined
    if (container && sameStep(container, step) && (!newest || newest.createdMs < child.createdMs)) newest = child
  }
  return newest
}

/** Where an image's history goes on from another's. */
export interface HistoryStep {
  readonly isLast: boolean
  /** Layers that it has once this entry is done. */
  readonly layers: number
}

/**
 * For an image that is not among our own: whether it stands on `parent` by layers and history, and its next entry is this step.
 */
export function nextInHistory(target: ImageConfig, parent: ImageConfig | null, step: RunConfig): HistoryStep | null {
  const history = target.history ?? []
  const before = parent?.history ?? []
  const [own, below] = [target.rootfs.diff_ids, parent?.rootfs.diff_ids ?? []]
  if (before.length >= history.length || below.length > own.length) return null
  if (below.some((d, i) => d !== own[i])) return null
  if (before.some((h, i) => !sameEntry(h, history[i]!))) return null
  const entry = history[before.length]!
  if (entry.created_by !== list(step.Cmd).join(' ')) return null
  return {
    isLast: history.length === before.length + 1,
    layers: history.slice(0, before.length + 1).filter((h) => !h.empty_layer).length,
  }
}

type HistoryEntry = NonNullable<ImageConfig['history']>[number]
const ENTRY_FIELDS = ['created', 'created_by', 'author', 'comment', 'empty_layer'] as const
const sameEntry = (a: HistoryEntry, b: HistoryEntry): boolean =>
  ENTRY_FIELDS.every((f) => (a[f] || undefined) === (b[f] || undefined))

/** Whether `id` is among the images that a source was made from; the source itself is not. */
export const leadsTo = (id: Digest, lineage: readonly Digest[]): boolean => lineage.indexOf(id) > 0
