import { closeSync } from 'node:fs'
import type { OverlayContext } from '../context.js'

/** A published port that the relay serves. */
export interface Leg {
  readonly protocol: 'tcp' | 'udp'
  /** The port's own socket, listening where it is one of TCP. */
  readonly fd: number
  readonly targetIp: string
  readonly targetPort: number
}

/** Wait before a relay that ended by itself is started again, ms. */
const AGAIN_MS = 500

interface Relay {
  readonly legs: readonly Leg[]
  /** The relay ends when this is closed; null: it is being started, or about to be. */
  leash: number | null
}

/**
 * What rules cannot lead is carried by a program of its own, one for each sandbox (native/relay): connections of IPv6 to a
 * container that has only IPv4, and to ::1. It gets the ports' sockets, and ends with this process. Nobody waits for its start:
 * clients wait in the sockets' queues.
 */
export class Relays {
  readonly #running = new Map<string, Relay>()

  constructor(private readonly ctx: OverlayContext) {}

  /** From now on these, and no others. */
  set(owner: string, legs: readonly Leg[]): void {
    if (JSON.stringify(this.#running.get(owner)?.legs ?? []) === JSON.stringify(legs)) return
    this.#end(owner)
    if (legs.length === 0) return
    const relay: Relay = { legs, leash: null }
    this.#running.set(owner, relay)
    void this.#keep(owner, relay).catch((error: unknown) =>
      this.ctx.log.error('cannot start the relay of published ports', { sandbox: owner, error: String(error) }),
    )
  }

  stop(): void {
    for (const owner of [...this.#running.keys()]) this.#end(owner)
  }

  #end(owner: string): void {
    const relay = this.#running.get(owner)
    this.#running.delete(owner)
    if (relay) letGo(relay)
  }

  /** Runs it, again and again, until it is another's turn. */
  async #keep(owner: string, relay: Relay): Promise<void> {
    const { native, options, log, clock } = this.ctx
    const args = relay.legs.flatMap((l, i) => [l.protocol, String(3 + i), l.targetIp, String(l.targetPort)])
    const fds = relay.legs.map((l) => l.fd)
    const isWanted = (): boolean => this.#running.get(owner) === relay
    while (isWanted()) {
      const { pid, leash } = await native.netRelay(options.relay!, args, fds)
      relay.leash = leash
      if (!isWanted()) letGo(relay)
      await native.pidfdWait(pid, 0)
      letGo(relay)
      if (!isWanted()) return
      log.warn('the relay of published ports has ended, starting another', { sandbox: owner })
      await clock.sleep(AGAIN_MS)
    }
  }
}

function letGo(relay: Relay): void {
  if (relay.leash !== null) closeSync(relay.leash)
  relay.leash = null
}
