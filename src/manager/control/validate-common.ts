import type { Annotations } from '#proto'
import { badSpec } from './errors.js'

const DNS_NAME = /^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$/
const SECRET_NAME = /^[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?$/

/** Services, networks, volumes: a DNS label. */
export function checkName(annotations: Annotations | null): string {
  const name = annotations?.name ?? ''
  if (name === '') throw badSpec('meta: name must be provided')
  if (!DNS_NAME.test(name)) throw badSpec('name must be valid as a DNS name component', { name })
  if (name.length > 63) throw badSpec('name must be 63 characters or fewer', { name })
  return name
}

/** Secrets and configs: up to 64 characters, also dots. */
export function checkSecretName(annotations: Annotations | null): string {
  const name = annotations?.name ?? ''
  if (name === '') throw badSpec('name must be provided')
  if (name.length > 64 || !SECRET_NAME.test(name))
    throw badSpec(
      'invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]',
      { name },
    )
  return name
}
