import { isKind } from '../common/index.js'
import {
  type Image,
  type ImagePlatform,
  type ImageService,
  type OnProgress,
  parseReference,
  type RegistryAuth,
} from '../runtime/index.js'
import type { BuildRequest } from './contract.js'

/** Docker Hub's name in clients' credentials. */
const HUB_KEYS = ['https://index.docker.io/v1/', 'index.docker.io', 'docker.io']

/** Of the request's credentials those for an image's registry; keys are hosts or URLs. */
export function authFor(reference: string, auths: Readonly<Record<string, RegistryAuth>>): RegistryAuth {
  const { domain } = parseReference(reference)
  const keys = domain === 'docker.io' ? HUB_KEYS : [domain]
  const host = (key: string): string => key.replace(/^https?:\/\//, '').replace(/\/.*$/, '')
  const key = keys.find((k) => Object.hasOwn(auths, k)) ?? Object.keys(auths).find((k) => host(k) === domain)
  return key === undefined ? {} : auths[key]!
}

const fits = (image: Image, p: ImagePlatform | null): boolean =>
  !p ||
  (image.config.os === p.os &&
    image.config.architecture === p.architecture &&
    (!p.variant || !image.config.variant || p.variant === image.config.variant))

/** Base images and sources of COPY --from by their names, each looked for and pulled once a build. */
export class BaseImages {
  readonly #known = new Map<string, Promise<Image>>()

  constructor(
    private readonly images: ImageService,
    private readonly request: Pick<BuildRequest, 'pull' | 'auths' | 'platform' | 'userAgent'>,
    private readonly o: { readonly onProgress: OnProgress; readonly signal: AbortSignal },
  ) {}

  get(reference: string, platform: ImagePlatform | null = this.request.platform): Promise<Image> {
    const key = JSON.stringify([reference, platform])
    const known = this.#known.get(key)
    if (known) return known
    const found = this.#find(reference, platform)
    this.#known.set(key, found)
    return found
  }

  async #find(reference: string, platform: ImagePlatform | null): Promise<Image> {
    if (!this.request.pull) {
      const here = await this.images.get(reference).catch((caught: unknown) => {
        if (isKind(caught, 'notFound')) return null
        throw caught
      })
      if (here && fits(here, platform)) return here
    }
    return this.images.pull(reference, {
      auth: {
        ...authFor(reference, this.request.auths),
        ...(this.request.userAgent ? { userAgent: this.request.userAgent } : {}),
      },
      ...(platform ? { platform } : {}),
      ...this.o,
    })
  }
}
