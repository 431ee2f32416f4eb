import type { PortPublication, SandboxSpec } from '../contract.js'
import type { SandboxResolver } from '../dns/server.js'
import type { Attachment } from '../drivers/driver.js'
import type { TableWriter } from '../firewall/table-writer.js'

/** What is kept on disk of a sandbox. */
export interface SandboxRecord {
  spec: SandboxSpec
  readonly netns: string | null
  attachments: readonly Attachment[]
  ports: readonly PortPublication[]
  /** What `ports` were asked for as, and the endpoint that they lead to. */
  published?: undefined | { readonly wanted: readonly PortPublication[]; readonly by: string | null }
}

/** A sandbox with its live parts. */
export interface Live extends SandboxRecord {
  resolver: SandboxResolver | null
  table: TableWriter | null
  /** What resolv.conf says as last written by this process: our name server or not; null: not written yet. */
  namesInFile: boolean | null
}

/** It has a namespace of its own; one that shares another's is served with that one. */
export const ownsNetns = (s: SandboxRecord): boolean => s.netns !== null && typeof s.spec.mode === 'string'
