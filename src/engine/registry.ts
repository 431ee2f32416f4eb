import { conflict, invalid, isKind, notFound } from '../common/index.js'
import type { Container } from './container.js'
import { aliasOf } from './links.js'

/** All containers by id and name. Names are reserved before the record is on disk, so that two creations cannot share one. */
export class Registry {
  readonly #byId = new Map<string, Container>()
  readonly #names = new Map<string, string>()
  /** Container that is being made → the image and the volumes that it counts on. */
  readonly #claims = new Map<string, Set<string>>()

  /** @throws conflict `nameInUse` with docker's sentence. */
  reserve(name: string, id: string): void {
    const holder = this.#names.get(name)
    if (holder !== undefined && holder !== id)
      throw conflict(
        'nameInUse',
        `Conflict. The container name "/${name}" is already in use by container "${holder}". You have to remove (or rename) that container to be able to reuse that name.`,
        { name, holder },
      )
    this.#names.set(name, id)
  }

  release(name: string, id: string): void {
    if (this.#names.get(name) === id) this.#names.delete(name)
  }

  /** Nobody removes this image or volume until the container is there, or given up. */
  claim(what: string, id: string): void {
    this.#claims.set(id, (this.#claims.get(id) ?? new Set()).add(what))
  }

  unclaim(id: string): void {
    this.#claims.delete(id)
  }

  claimants(what: string): readonly string[] {
    return [...this.#claims].filter(([, claimed]) => claimed.has(what)).map(([id]) => id)
  }

  isTaken(name: string): boolean {
    return this.#names.has(name)
  }

  add(container: Container): void {
    this.#byId.set(container.id, container)
  }

  delete(container: Container): void {
    this.#byId.delete(container.id)
    this.release(container.name, container.id)
  }

  byId(id: string): Container | undefined {
    return this.#byId.get(id)
  }

  /** By id, name (a leading slash is allowed), or unique id prefix. @throws notFound `noSuchContainer`. */
  find(reference: string): Container {
    if (reference === '') throw invalid('noName', 'invalid name or ID supplied: ""')
    const name = reference.startsWith('/') ? reference.slice(1) : reference
    const exact = this.#byId.get(reference) ?? this.#named(name)
    if (exact) return exact
    if (/^[0-9a-f]+$/.test(reference)) {
      const matches = [...this.#byId.keys()].filter((id) => id.startsWith(reference))
      if (matches.length === 1) return this.#byId.get(matches[0]!)!
      if (matches.length > 1)
        throw notFound('ambiguousReference', `multiple IDs found with provided prefix: ${reference}`, { reference })
    }
    throw notFound('noSuchContainer', `No such container: ${reference}`, { reference })
  }

  /** A name is a container's own, or "parent/alias" by a link of another. */
  #named(name: string): Container | undefined {
    const own = this.#byId.get(this.#names.get(name) ?? '')
    const [parent = '', alias] = name.split('/')
    if (own || alias === undefined) return own
    const links = this.#named(parent)?.record.hostConfig.Links ?? []
    const link = links.find((l) => aliasOf(l) === alias)
    return link === undefined ? undefined : this.find(link.split(':')[0]!)
  }

  has(reference: string): boolean {
    try {
      return this.find(reference) !== undefined
    } catch (caught) {
      if (isKind(caught, 'notFound')) return false
      throw caught
    }
  }

  all(): readonly Container[] {
    return [...this.#byId.values()]
  }
}
