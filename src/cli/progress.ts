import type { Readable } from 'node:stream'
import { type Cli, Exit, jsonObjects } from './command.js'

interface Message {
  status?: string
  id?: string
  progress?: string
  progressDetail?: { current?: number; total?: number }
  stream?: string
  error?: string
  errorDetail?: { code?: number; message?: string }
  aux?: object
}

/**
 * Shows a pull, push, load or import stream as docker does: a line per layer, rewritten in place on a terminal, new
 * states appended elsewhere. An error in the stream ends the command with its text.
 */
export async function showProgress(
  cli: Cli,
  from: Readable,
  options: { readonly quiet: boolean; readonly onAux?: (aux: object) => void; readonly terminal?: boolean },
): Promise<void> {
  const terminal = options.terminal ?? process.stdout.isTTY === true
  const rowOf = new Map<string, number>()
  let rows = 0
  for await (const m of jsonObjects(from) as AsyncGenerator<Message>) {
    if (m.error) throw new Exit(m.errorDetail?.code || 1, m.error)
    if (m.aux) options.onAux?.(m.aux)
    if (options.quiet) continue
    if (m.stream !== undefined) {
      cli.out(m.stream)
      continue
    }
    if (m.status === undefined) continue
    const text = `${m.id ? `${m.id}: ` : ''}${m.status}${bar(m)}`
    if (!terminal) {
      if (!m.progressDetail?.current) cli.out(`${text}\n`)
      continue
    }
    if (!m.id) {
      cli.out(`${text}\n`)
      rowOf.clear()
      rows = 0
      continue
    }
    const known = rowOf.get(m.id)
    if (known === undefined) {
      rowOf.set(m.id, rows++)
      cli.out(`${text}\n`)
    } else {
      const up = rows - known
      cli.out(`\u001b[${up}A\r\u001b[2K${text}\u001b[${up}B\r`)
    }
  }
}

function bar(m: Message): string {
  const { current = 0, total = 0 } = m.progressDetail ?? {}
  if (m.progress) return ` ${m.progress}`
  if (current <= 0 || total <= 0) return ''
  const filled = Math.min(Math.floor((current / total) * 50), 50)
  return ` [${'='.repeat(filled)}${filled < 50 ? '>' : ''}${' '.repeat(Math.max(49 - filled, 0))}] ${(current / 1e6).toFixed(1)}MB/${(total / 1e6).toFixed(1)}MB`
}
