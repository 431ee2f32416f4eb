// One simulated host: a NetworkService in this process's network namespace, driven over IPC.
import { join } from 'node:path'
import { createLogger, ShoalError, seededRng, systemClock } from '../../../src/common/index.js'
import { createNetworkService, type NetworkService, type OverlayOptionsInput } from '../../../src/overlay/index.js'
import { Plugins } from '../../../src/runtime/index.js'

let service: NetworkService | null = null

interface Call {
  readonly id: number
  readonly method: string
  readonly args: unknown[]
}

// The test ended, however it did.
process.on('disconnect', () => process.exit(0))

process.on('message', (call: Call) => {
  void handle(call).then(
    (value) => process.send?.({ id: call.id, value: value ?? null }),
    (e) => {
      const s = ShoalError.from(e)
      process.send?.({ id: call.id, error: { kind: s.kind, code: s.code, message: s.message, stack: s.stack } })
    },
  )
})

async function handle({ method, args }: Call): Promise<unknown> {
  if (method === 'open') {
    const level = process.env.OVERLAY_TEST_LOG === 'debug' ? 'debug' : 'warn'
    const options = args[0] as OverlayOptionsInput
    const modules = { clock: systemClock, rng: seededRng(1), logger: createLogger(level) }
    const plugins = new Plugins({ sockets: [join(options.runDir, '..', 'plugins')], specs: [] }, modules)
    service = createNetworkService(options, { ...modules, plugins })
    return service.start(new Set(args[1] as string[]))
  }
  const call = service?.[method as keyof NetworkService] as ((...a: unknown[]) => unknown) | undefined
  if (!call) throw new Error(`no method ${method}`)
  return call.apply(service, args)
}
