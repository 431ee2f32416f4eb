import { type ChildProcess, spawn } from 'node:child_process'
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

/**
 * What rules cannot lead is carried by a program of its own, one for each sandbox (native/relay): connections of IPv6 to a
 * container that has only IPv4, and to ::1. It gets the ports' sockets, and ends with this process.
 */
export class Relays {
  readonly #running = new Map<string, { readonly legs: string; readonly child: ChildProcess }>()

  constructor(private readonly ctx: OverlayContext) {}

  /** From now on these, and no others. */
  set(owner: string, legs: readonly Leg[]): void {
    const key = JSON.stringify(legs)
    const known = this.#running.get(owner)
    if (known?.legs === key) return
    this.#end(owner)
    if (legs.length > 0) this.#start(owner, legs)
  }

  stop(): void {
    for (const owner of [...this.#running.keys()]) this.#end(owner)
  }

  #end(owner: string): void {
    const running = this.#running.get(owner)
    this.#running.delete(owner)
    running?.child.kill('SIGKILL')
  }

  #start(owner: string, legs: readonly Leg[]): void {
    // Descriptors that the program inherits, from 3 on; its stdin ends with this process.
    const args = legs.flatMap((l, i) => [l.protocol, String(3 + i), l.targetIp, String(l.targetPort)])
    const child = spawn(this.ctx.options.relay!, args, {
      stdio: ['pipe', 'ignore', 'inherit', ...legs.map((l) => l.fd)],
    })
    const running = { legs: JSON.stringify(legs), child }
    this.#running.set(owner, running)
    child.once('error', (error) =>
      this.ctx.log.error('cannot start the relay of published ports', { error: String(error) }),
    )
    child.once('exit', (code, signal) => {
      if (this.#running.get(owner) !== running) return
      this.ctx.log.warn('the relay of published ports has ended, starting another', { sandbox: owner, code, signal })
      this.ctx.clock.after(AGAIN_MS, () => {
        if (this.#running.get(owner) === running) this.#start(owner, legs)
      })
    })
  }
}
