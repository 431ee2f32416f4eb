import { conflict, isOutOfSpace, shortId } from '../../common/index.js'
import type { Change, ImageRecord, ReferenceRecord } from '../content/database.js'
import type { Digest, ImageDeletion, ImageService } from '../contract.js'
import { familiarString, parseReference, repositoryOf } from '../registry/reference.js'
import type { ImageStore } from './store.js'

export type RemoveOptions = Parameters<ImageService['remove']>[1]

const shown = (r: ReferenceRecord): string => familiarString(parseReference(r.name))

const childrenOf = (store: ImageStore, id: Digest): ImageRecord[] =>
  [...store.db.images.values()].filter((i) => i.parent === id)

/** Docker's words; `hard` conflicts yield to nothing. */
function refuse(id: Digest, hard: boolean, reason: string, container: string | null): Error {
  return conflict(
    'imageInUse',
    `conflict: unable to delete ${shortId(id)} (${hard ? 'cannot be forced' : 'must be forced'}) - ${reason}`,
    { image: id, container },
  )
}

function checkDeletable(store: ImageStore, record: ImageRecord, repositories: number, o: RemoveOptions): void {
  if (childrenOf(store, record.id).length > 0) throw refuse(record.id, true, 'image has dependent child images', null)
  const user = o.inUse(record.id)
  if (user?.running)
    throw refuse(record.id, true, `image is being used by running container ${shortId(user.container)}`, user.container)
  if (repositories > 1 && !o.force) throw refuse(record.id, false, 'image is referenced in multiple repositories', null)
  if (user && !o.force)
    throw refuse(
      record.id,
      false,
      `image is being used by stopped container ${shortId(user.container)}`,
      user.container,
    )
}

/**
 * By name: the name goes, and the image with its last one. By id: all its names go, when they are of one repository or it is
 * forced. Layers that a container stands on stay until the container goes.
 */
export async function removeImage(
  store: ImageStore,
  reference: string,
  o: RemoveOptions,
): Promise<readonly ImageDeletion[]> {
  return store.exclusive(async () => {
    const { record, reference: named } = store.need(reference)
    const all = store.referencesOf(record.id)
    const report: ImageDeletion[] = []
    const changes: Change[] = []
    const untag = (r: ReferenceRecord): void => {
      changes.push({ delete: 'reference', key: r.name })
      report.push({ Untagged: shown(r) })
    }
    let remaining: ReferenceRecord[]
    if (named) {
      remaining = all.filter((r) => r !== named)
      const ref = parseReference(named.name)
      const repository = (r: ReferenceRecord): string => repositoryOf(parseReference(r.name))
      const isTag = (r: ReferenceRecord): boolean => parseReference(r.name).tag !== null
      // The digests of a repository go with its last tag.
      const doomed =
        ref.tag && !remaining.some((r) => isTag(r) && repository(r) === repositoryOf(ref))
          ? remaining.filter((r) => repository(r) === repositoryOf(ref))
          : []
      remaining = remaining.filter((r) => !doomed.includes(r))
      if (remaining.length === 0) {
        const user = o.inUse(record.id)
        if (user && !o.force)
          throw conflict(
            'imageInUse',
            `conflict: unable to remove repository reference "${reference}" (must force) - container ${shortId(user.container)} is using its referenced image ${shortId(record.id)}`,
            { image: record.id, container: user.container },
          )
      }
      untag(named)
      doomed.forEach(untag)
      // Forced while a container runs on it, or while images stand on it: only the name goes.
      if (remaining.length === 0 && (o.inUse(record.id)?.running || childrenOf(store, record.id).length > 0))
        return finish(store, record, changes, report, [])
    } else {
      const repositories = new Set(all.map((r) => repositoryOf(parseReference(r.name))))
      checkDeletable(store, record, repositories.size, o)
      all.forEach(untag)
      remaining = []
    }
    const deleted = remaining.length === 0 ? deleteUp(store, record, o, changes, report) : []
    return finish(store, record, changes, report, deleted)
  })
}

/** The image, and with `prune` its ancestors that nobody names, uses or builds on. Returns the ids. */
function deleteUp(
  store: ImageStore,
  first: ImageRecord,
  o: RemoveOptions,
  changes: Change[],
  report: ImageDeletion[],
): Digest[] {
  const deleted: Digest[] = []
  for (let record: ImageRecord | undefined = first; record; ) {
    changes.push({ delete: 'image', key: record.id })
    report.push({ Deleted: record.id })
    deleted.push(record.id)
    // Layers that only this image had, top first, as docker lists them.
    for (const l of [...record.layers].reverse())
      if (![...store.db.images.values()].some((i) => !deleted.includes(i.id) && i.layers.includes(l)))
        if (!report.some((r) => 'Deleted' in r && r.Deleted === l)) report.push({ Deleted: l })
    const parent: ImageRecord | undefined = record.parent ? store.db.images.get(record.parent) : undefined
    record =
      o.prune &&
      parent &&
      store.referencesOf(parent.id).length === 0 &&
      !childrenOf(store, parent.id).some((c) => !deleted.includes(c.id)) &&
      o.inUse(parent.id) === null
        ? parent
        : undefined
  }
  return deleted
}

async function finish(
  store: ImageStore,
  record: ImageRecord,
  changes: readonly Change[],
  report: readonly ImageDeletion[],
  deleted: readonly Digest[],
): Promise<readonly ImageDeletion[]> {
  const labels = await store.labelsOf(record.id)
  try {
    await store.db.commit(changes)
  } catch (caught) {
    if (!isOutOfSpace(caught) || deleted.length === 0) throw caught
    await store.collect(new Set(deleted)).catch((e) => {
      if (!isOutOfSpace(e)) throw e // the files are gone, which is what matters here
    })
    await store.db.commit(changes)
  }
  for (const r of report) if ('Untagged' in r) await store.emit('untag', record.id, record.id, labels)
  for (const id of deleted) await store.emit('delete', id, id, {})
  if (deleted.length > 0) await store.collect()
  return report
}
