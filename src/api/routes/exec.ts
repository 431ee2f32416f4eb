import type { FastifyInstance } from 'fastify'
import { conflict, invalid, ShoalError } from '../../common/index.js'
import { type ContainerView, parseDetachKeys } from '../../engine/index.js'
import { object } from '../body.js'
import type { ApiModules } from '../contract.js'
import { EXEC_BODY } from '../convert/container-shape.js'
import type { Query } from '../query.js'
import { atLeast, frame, hijack, pump, streamType } from '../streams.js'
import { size } from './containers.js'

interface ExecBody {
  AttachStdin?: boolean
  AttachStdout?: boolean
  AttachStderr?: boolean
  ConsoleSize?: [number, number] | null
  DetachKeys?: string
  Tty?: boolean
  Env?: string[] | null
  Cmd?: string[] | null
  Privileged?: boolean
  User?: string
  WorkingDir?: string
}

export function registerExec(app: FastifyInstance, m: ApiModules): void {
  const { containers } = m.engine

  app.post<{ Params: { id: string } }>('/containers/:id/exec', async (request, reply) => {
    const b = object<ExecBody>(request.body, EXEC_BODY, 'exec')
    if (!b.Cmd || b.Cmd.length === 0) throw invalid('noCommand', 'No exec command specified')
    const c: ContainerView = containers.get(request.params.id)
    if (c.state.status === 'paused')
      throw conflict('paused', `Container ${request.params.id} is paused, unpause the container before exec`)
    const id = await containers.execCreate(c.id, {
      cmd: b.Cmd,
      env: b.Env ?? [],
      user: b.User ?? '',
      workingDir: b.WorkingDir ?? '',
      tty: b.Tty ?? false,
      attachStdin: b.AttachStdin ?? false,
      attachStdout: b.AttachStdout ?? false,
      attachStderr: b.AttachStderr ?? false,
      privileged: b.Privileged ?? false,
      detachKeys: b.DetachKeys ?? '',
      ...(b.ConsoleSize ? { consoleSize: b.ConsoleSize } : {}),
    })
    reply.code(201)
    return { Id: id }
  })

  app.post<{ Params: { id: string } }>('/exec/:id/start', async (request, reply) => {
    const b = object<{ Detach?: boolean; Tty?: boolean; ConsoleSize?: [number, number] | null }>(
      request.body,
      { Detach: 'boolean', Tty: 'boolean', ConsoleSize: 'number[]' },
      'exec start',
    )
    const exec = containers.execInspect(request.params.id)
    if (b.Detach) {
      await containers.execStart(exec.id, null)
      return reply.code(200).send()
    }
    containers.execCheckStart(exec.id)
    // As dockerd: the request says whether the stream is bare, whatever the process has.
    const isRaw = b.Tty === true
    // The headers go out before the process is made, as dockerd does: clients that read them by lines and what follows from
    // the bare socket would lose what comes together with them.
    const socket = hijack(request, reply, streamType(request.apiVersion, isRaw))
    socket.on('error', () => socket.destroy())
    try {
      const attachment = await containers.execStart(exec.id, {
        tty: isRaw,
        detachKeys: exec.detachKeys,
        ...(b.ConsoleSize ? { consoleSize: b.ConsoleSize } : {}),
      })
      await pump(m, socket, attachment!, !isRaw)
    } catch (e) {
      // Told in the stream: clients take their exit code from exec inspect then.
      const data = Buffer.from(`${e instanceof ShoalError ? e.message : String(e)}\r\n`)
      socket.end(isRaw ? data : frame({ stream: 'stdout', data }))
      if (!(e instanceof ShoalError)) m.logger.error('an exec could not be started', { error: e })
    }
    return reply
  })

  app.post<{ Params: { id: string } }>('/exec/:id/resize', async (request, reply) => {
    const { width, height } = size(request.query as Query)
    await containers.execResize(request.params.id, width, height)
    return reply.code(200).send()
  })

  app.get<{ Params: { id: string } }>('/exec/:id/json', async (request) => {
    const e = containers.execInspect(request.params.id)
    return {
      ID: e.id,
      Running: e.running,
      // Up to 1.41 whatever kept it from running was 126.
      ExitCode: e.neverRan && !atLeast(request.apiVersion, '1.42') ? 126 : e.exitCode,
      ProcessConfig: {
        tty: e.tty,
        entrypoint: e.entrypoint,
        arguments: e.arguments,
        privileged: e.privileged,
        user: e.user,
      },
      OpenStdin: e.openStdin,
      OpenStderr: e.openStderr,
      OpenStdout: e.openStdout,
      CanRemove: !e.running && e.exitCode !== null,
      ContainerID: e.containerId,
      // Bytes, as Go writes them.
      DetachKeys: e.detachKeys ? Buffer.from(parseDetachKeys(e.detachKeys)).toString('base64') : '',
      Pid: e.pid,
    }
  })
}
