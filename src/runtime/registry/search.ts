import { ShoalError } from '../../common/index.js'
import type { SearchResult } from '../contract.js'
import { statusOf } from './errors.js'
import { readBody, type Transport } from './transport.js'

const ANSWER_BYTES_MAX = 8 * 1024 * 1024
/** Names asked for at once from a catalogue, and how many such pages are read. */
const CATALOGUE_PAGE = 1000
const CATALOGUE_PAGES_MAX = 50

/** "localhost:5000/web" → that registry and "web"; without a registry the term is Docker Hub's. */
export function searchPlace(term: string): { readonly host: string; readonly term: string } {
  const slash = term.indexOf('/')
  const first = slash < 0 ? '' : term.slice(0, slash)
  const hasHost = /[.:]/.test(first) || first === 'localhost'
  return hasHost ? { host: first, term: term.slice(slash + 1) } : { host: 'index.docker.io', term }
}

/**
 * Asks the registry itself: by the search of the first registry API (Docker Hub has it), else by its catalogue
 * (distribution-spec has none; Docker's registry does), of which those are taken that contain the term.
 * @throws notFound `noSearch` when it has neither.
 */
export async function searchRegistry(
  transport: Transport,
  query: { readonly host: string; readonly term: string; readonly limit: number },
): Promise<readonly SearchResult[]> {
  const path = `/v1/search?q=${encodeURIComponent(query.term)}&n=${query.limit}`
  try {
    const r = await transport.send({ method: 'GET', path, expect: [200], scope: '' })
    const found = JSON.parse((await readBody(r.body, ANSWER_BYTES_MAX)).toString('utf8')) as { results?: unknown }
    if (Array.isArray(found.results)) return found.results.filter(isObject).map(resultOf).slice(0, query.limit)
  } catch (caught) {
    if (caught instanceof SyntaxError || [404, 405, 501].includes(statusOf(caught) ?? 0)) {
      // No first API there.
    } else throw caught
  }
  try {
    return (await catalogue(transport))
      .filter((name) => name.includes(query.term.toLowerCase()))
      .slice(0, query.limit)
      .map((name) => ({ name: `${query.host}/${name}`, description: '', stars: 0, isOfficial: false }))
  } catch (caught) {
    if (!(caught instanceof SyntaxError) && ![401, 403, 404, 405, 501].includes(statusOf(caught) ?? 0)) throw caught
    throw new ShoalError(
      'notFound',
      'noSearch',
      `registry ${query.host} offers no search and no catalogue of its repositories`,
      query,
    )
  }
}

const isObject = (v: unknown): v is Record<string, unknown> => typeof v === 'object' && v !== null

const resultOf = (r: Record<string, unknown>): SearchResult => ({
  name: String(r.name ?? ''),
  description: String(r.description ?? ''),
  stars: Number(r.star_count) || 0,
  isOfficial: r.is_official === true,
})

async function catalogue(transport: Transport): Promise<string[]> {
  const names: string[] = []
  for (let page = 0; page < CATALOGUE_PAGES_MAX; page++) {
    const after = names.length > 0 ? `&last=${encodeURIComponent(names.at(-1)!)}` : ''
    const r = await transport.send({
      method: 'GET',
      path: `/v2/_catalog?n=${CATALOGUE_PAGE}${after}`,
      expect: [200],
      scope: 'registry:catalog:*',
    })
    const doc = JSON.parse((await readBody(r.body, ANSWER_BYTES_MAX)).toString('utf8')) as { repositories?: unknown }
    const some = Array.isArray(doc.repositories) ? doc.repositories.filter((n) => typeof n === 'string') : []
    names.push(...some)
    if (some.length < CATALOGUE_PAGE) break
  }
  return names
}
