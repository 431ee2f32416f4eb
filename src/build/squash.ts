import { newHexId, rfc3339 } from '../common/index.js'
import type { Digest, ImageConfig, LayerTool } from '../runtime/index.js'
import type { BuildModules } from './contract.js'

/** The document of an image whose own layers became one. */
export function squashedDocument(
  image: ImageConfig,
  base: ImageConfig | null,
  o: { readonly diffId: Digest | null; readonly comment: string; readonly created: string },
): ImageConfig {
  const below = base?.history?.length ?? 0
  return {
    ...image,
    created: o.created,
    rootfs: { type: 'layers', diff_ids: [...(base?.rootfs.diff_ids ?? []), ...(o.diffId ? [o.diffId] : [])] },
    history: [
      ...(image.history ?? []).map((h, i) => (i < below ? h : { ...h, empty_layer: true })),
      { created: o.created, comment: o.comment, ...(o.diffId ? {} : { empty_layer: true }) },
    ],
  }
}

/** A new image: what `image` has above `base` in one layer. Both stay. */
export async function squash(
  m: BuildModules,
  tool: LayerTool,
  o: { readonly image: Digest; readonly base: Digest | null },
): Promise<Digest> {
  const { images } = m.engine
  const [image, base] = [await images.get(o.image), o.base === null ? null : await images.get(o.base)]
  const [of, target] = [newHexId(), newHexId()]
  try {
    const { lower } = await m.snapshots.prepare(of, image.id, { isBare: true })
    await m.snapshots.prepare(target, o.base, { isBare: true })
    const own = image.config.rootfs.diff_ids.length - (base?.config.rootfs.diff_ids.length ?? 0)
    await m.snapshots.withMounted(target, async (root) => {
      for (const layer of lower.slice(0, own).reverse()) await tool.flattenLayer(layer, root)
    })
    const comment = o.base === null ? `create new from ${o.image}` : `merge ${o.image} to ${o.base}`
    const created = rfc3339(m.clock.now())
    const squashed = await images.derive({
      base: o.base,
      snapshot: target,
      parent: null,
      config: (diffId) => squashedDocument(image.config, base?.config ?? null, { diffId, comment, created }),
    })
    return squashed.id
  } finally {
    await m.snapshots.remove(of)
    await m.snapshots.remove(target)
  }
}
