import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { cpus, release, totalmem } from 'node:os'
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import type { SystemFacts } from '../api/index.js'
import type { Engine } from '../engine/index.js'
import { type HostPort, joinHostPort } from './addresses.js'

export interface MetricSources {
  readonly engine: {
    readonly containers: { list(): readonly { readonly state: { readonly status: string } }[] }
    readonly events: Pick<Engine['events'], 'subscribe'>
  }
  readonly facts: Pick<SystemFacts, 'id' | 'version' | 'gitCommit' | 'storageDriver'>
  readonly isManager: () => boolean
}

/** Prometheus' format on /metrics, under the names that dockerd has; beside them what prom-client tells of every process. */
export class Metrics {
  private constructor(
    private readonly server: Server,
    private readonly gone: AbortController,
  ) {}

  static async start(where: HostPort, sources: MetricSources): Promise<Metrics> {
    const gone = new AbortController()
    const registry = registryOf(sources, gone.signal)
    const server = createServer((request, response) => {
      if (request.method !== 'GET' || request.url?.split('?')[0] !== '/metrics') {
        response.writeHead(404).end('page not found\n')
        return
      }
      registry.metrics().then(
        (text) => response.writeHead(200, { 'Content-Type': registry.contentType }).end(text),
        (e: unknown) => response.writeHead(500).end(`${String(e)}\n`),
      )
    })
    server.listen(where)
    await once(server, 'listening') // rejects with the server's error
    return new Metrics(server, gone)
  }

  get address(): string {
    const { address, port } = this.server.address() as AddressInfo
    return joinHostPort({ host: address, port })
  }

  async stop(): Promise<void> {
    this.gone.abort()
    this.server.closeAllConnections()
    await new Promise((resolve) => this.server.close(resolve))
  }
}

function registryOf({ engine, facts, isManager }: MetricSources, gone: AbortSignal): Registry {
  const registry = new Registry()
  const registers = [registry]
  collectDefaultMetrics({ register: registry })
  new Gauge({
    name: 'engine_daemon_engine_info',
    help: 'What this engine is; always 1',
    labelNames: ['version', 'commit', 'architecture', 'graphdriver', 'kernel', 'daemon_id'],
    registers,
  }).set(
    {
      version: facts.version,
      commit: facts.gitCommit,
      architecture: process.arch,
      graphdriver: facts.storageDriver,
      kernel: release(),
      daemon_id: facts.id,
    },
    1,
  )
  new Gauge({ name: 'engine_daemon_engine_cpus_cpus', help: 'CPUs of the host', registers }).set(cpus().length)
  new Gauge({ name: 'engine_daemon_engine_memory_bytes', help: 'Memory of the host', registers }).set(totalmem())
  new Gauge({
    name: 'engine_daemon_container_states_containers',
    help: 'Containers by state: running, paused, stopped',
    labelNames: ['state'],
    registers,
    collect() {
      const states = engine.containers.list().map((c) => c.state.status)
      for (const state of ['running', 'paused']) this.set({ state }, states.filter((s) => s === state).length)
      this.set({ state: 'stopped' }, states.filter((s) => s !== 'running' && s !== 'paused').length)
    },
  })
  new Gauge({
    name: 'swarm_node_manager',
    help: 'Whether this node is a manager (1) or not (0)',
    registers,
    collect() {
      this.set(isManager() ? 1 : 0)
    },
  })
  const events = new Counter({ name: 'engine_daemon_events_total', help: 'Events since the start', registers })
  void (async () => {
    for await (const _ of engine.events.subscribe({ sinceMs: null, untilMs: null, signal: gone })) events.inc()
  })()
  return registry
}
