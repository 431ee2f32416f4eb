import { createConnection } from 'node:net'
import { connect } from 'node:tls'
import { type Cli, type Command, Exit } from '../command.js'
import { type HostFlags, resolveTarget } from '../host.js'

/** system dial-stdio: joins standard input and output with the engine's socket; what ssh:// connections run on the far side. */
export function registerDialStdio(parent: Command, _cli: Cli): void {
  parent
    .command('dial-stdio', { hidden: true })
    .description('Proxy the stdio stream to the daemon connection. Should not be invoked manually.')
    .action(async () => {
      const t = resolveTarget((parent.parent?.opts() ?? {}) as HostFlags)
      const unix = /^unix:\/\/(.*)$/.exec(t.host)
      const tcp = /^(?:tcp|https?):\/\/\[?([^\]/]*?)\]?(?::(\d+))?\/?$/.exec(t.host)
      if (!unix && !tcp) throw new Exit(1, `unable to dial "${t.host}": use unix://PATH or tcp://ADDRESS:PORT`)
      const port = Number(tcp?.[2] ?? (t.tls ? 2376 : 2375))
      const socket = unix
        ? createConnection({ path: unix[1]!, allowHalfOpen: true })
        : t.tls
          ? connect({ host: tcp![1], port, ...t.tls })
          : createConnection({ host: tcp![1]!, port, allowHalfOpen: true })
      process.stdin.pipe(socket)
      socket.pipe(process.stdout, { end: false })
      await new Promise<void>((resolve, reject) => {
        socket.once('end', resolve)
        socket.once('error', (e) => reject(new Exit(1, `failed to dial ${t.host}: ${e.message}`)))
      })
    })
}
