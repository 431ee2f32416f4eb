import { invalid } from '../../common/index.js'
import { isDigest } from '../content/blob-store.js'
import type { ImageConfig } from '../contract.js'

/** Checks what we rely on in a config from elsewhere. Throws badConfig. */
export function parseConfig(raw: Uint8Array): ImageConfig {
  let doc: unknown
  try {
    doc = JSON.parse(Buffer.from(raw).toString('utf8'))
  } catch (cause) {
    throw invalid('badConfig', "the image's config is no JSON", {}, { cause })
  }
  const config = doc as ImageConfig
  if (typeof doc !== 'object' || doc === null || typeof config.rootfs !== 'object' || config.rootfs === null)
    throw invalid('badConfig', "the image's config has no rootfs; it may be an artifact that is not an image")
  const ids = config.rootfs.diff_ids ?? []
  if (!Array.isArray(ids) || !ids.every((d) => typeof d === 'string' && isDigest(d)))
    throw invalid('badConfig', "the image's config has diff_ids that are no sha256 digests")
  if (typeof config.os !== 'string' || typeof config.architecture !== 'string')
    throw invalid('badConfig', "the image's config names no os or architecture")
  // A scratch image of some builders has null there.
  return config.rootfs.diff_ids ? config : { ...config, rootfs: { type: 'layers', diff_ids: [] } }
}

export const encodeJson = (doc: unknown): Buffer => Buffer.from(JSON.stringify(doc))
