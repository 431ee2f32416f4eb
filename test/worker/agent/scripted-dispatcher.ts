import type * as grpc from '@grpc/grpc-js'
import {
  type AgentMessage,
  type Assignment,
  Assignments,
  Dispatcher,
  ManagerMessage,
  SessionInfo,
  type TaskState,
  type TaskStatus,
} from '#proto'
import {
  type GrpcServer,
  listenGrpc,
  peerOf,
  serviceDefinition,
  type TlsIdentity,
  toServiceError,
} from '../../../src/common/grpc/index.js'
import type { ShoalError } from '../../../src/common/index.js'

type Call = grpc.ServerDuplexStream<AgentMessage, ManagerMessage>

/** A manager's dispatcher that does what a test tells it, over a real listener. */
export class ScriptedDispatcher {
  readonly sessions: { call: Call; messages: AgentMessage[]; nodeId: string }[] = []
  acknowledges = true
  refuse: ShoalError | null = null
  managers: readonly string[] = []
  #server: GrpcServer | null = null
  #version = 0

  async listen(identity: TlsIdentity): Promise<this> {
    this.#server = await listenGrpc({
      host: '127.0.0.1',
      port: 0,
      identity,
      register: (server) =>
        server.addService(serviceDefinition(Dispatcher), {
          Session: (call: Call) => this.#onSession(call),
          Report: (call: grpc.ServerDuplexStream<unknown, unknown>) => call.end(),
        }),
    })
    return this
  }

  get address(): string {
    return `127.0.0.1:${this.#server!.port}`
  }

  close(): Promise<void> {
    return this.#server!.close(0)
  }

  get session(): { call: Call; messages: AgentMessage[]; nodeId: string } {
    return this.sessions.at(-1)!
  }

  send(message: Partial<ManagerMessage>): void {
    this.session.call.write(ManagerMessage.create(message))
  }

  assign(full: boolean, upserts: readonly Partial<Assignment>[], rest: Partial<Assignments> = {}): void {
    const appliesTo = this.#version
    this.#version++
    this.send({
      assignments: Assignments.create({
        full,
        appliesTo,
        resultsIn: this.#version,
        upserts: upserts.map((u) => ({ task: null, secret: null, config: null, volume: null, ...u })),
        ...rest,
      }),
    })
  }

  /** Statuses in the order they came, over all sessions. */
  statuses(taskId: string): readonly TaskStatus[] {
    return this.sessions
      .flatMap((s) => s.messages)
      .flatMap((m) => m.statuses?.updates ?? [])
      .filter((u) => u.taskId === taskId)
      .map((u) => u.status!)
  }

  reached(taskId: string, state: TaskState): boolean {
    return this.statuses(taskId).some((s) => s.state === state)
  }

  #onSession(call: Call): void {
    if (this.refuse !== null) {
      call.emit('error', toServiceError(this.refuse))
      return
    }
    const session = { call, messages: [] as AgentMessage[], nodeId: peerOf(call)?.nodeId ?? '' }
    this.sessions.push(session)
    call.on('error', () => {})
    call.on('end', () => call.end())
    call.on('data', (message: AgentMessage) => {
      const isFirst = session.messages.length === 0
      session.messages.push(message)
      if (isFirst)
        call.write(
          ManagerMessage.create({
            session: SessionInfo.create({
              sessionId: `s${this.sessions.length}`,
              managers: this.managers.map((address, i) => ({ nodeId: `m${i}`, address })),
              beatPeriod: 5e9,
            }),
          }),
        )
      if (message.statuses && this.acknowledges)
        call.write(ManagerMessage.create({ ack: { sequence: message.statuses.sequence } }))
    })
  }
}
