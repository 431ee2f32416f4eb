import { randomBytes } from 'node:crypto'

declare const brand: unique symbol
type Branded<B extends string> = string & { readonly [brand]?: B }

export type NodeId = Branded<'node'>
export type ServiceId = Branded<'service'>
export type TaskId = Branded<'task'>
export type NetworkId = Branded<'network'>
export type ContainerId = Branded<'container'>

/** Id of a cluster object: 25 characters of base 36, 125 bits of chance (moby's identity.NewID has the same form). */
export function newObjectId(): string {
  const bits = BigInt(`0x${randomBytes(17).toString('hex')}`) >> 11n
  return bits.toString(36).padStart(25, '0').slice(-25)
}

/** Id of a container, exec, or local network: 64 lower-case hexadecimal digits, as the Engine API has them. */
export const newHexId = (): string => randomBytes(32).toString('hex')

/** The 12 digits that the docker command shows. */
export const shortId = (id: string): string => id.replace(/^sha256:/, '').slice(0, 12)
