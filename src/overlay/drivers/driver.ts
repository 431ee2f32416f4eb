import type { EndpointRecord, NetworkRecord } from '../contract.js'

/** One endpoint with what its driver needs to undo it; kept on disk with its sandbox. */
export interface Attachment {
  readonly record: EndpointRecord
  readonly driver: string
  /** Name of the outer link; "" where there is none. */
  readonly hostLink: string
  readonly gatewayPriority: number
  /** Names that this sandbox alone has for others of the network, in lower case. */
  readonly links?: Readonly<Record<string, string>>
  /** Besides those of the record. */
  readonly linkLocalAddresses?: readonly string[]
  /** Of a plugin's endpoint. */
  readonly remote?: {
    /** What the plugin called the interface in the host's namespace, where it finds it again; "": it made none. */
    readonly sourceName: string
    /** The plugin takes care of the way out, or wants none. */
    readonly needsNoEgress: boolean
    /** The ports that it was told to publish, as JSON; absent: it was told of none. */
    readonly programmed?: string
  }
  /** The way out of a sandbox that is only on cluster networks: not shown to users. */
  readonly hidden: boolean
}

export interface NetworkDriver {
  /**
   * Makes the interface inside the namespace, with its addresses, up. Undoes itself when it fails. Resolves with the attachment
   * as it has become: some drivers have a say in that.
   */
  attach(network: NetworkRecord, attachment: Attachment, netns: string): Promise<Attachment>
  /** Idempotent; the namespace may be gone. */
  detach(network: NetworkRecord, attachment: Attachment, netns: string): Promise<void>
  /**
   * Makes the endpoint mute, in much less time than the kernel needs to take a link down: its address is free when this
   * resolves. `detach` must follow. For endpoints of a namespace that nobody lives in any more.
   */
  mute?(attachment: Attachment, netns: string): Promise<void>
}
