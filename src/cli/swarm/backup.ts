import { createReadStream } from 'node:fs'
import { open, rename, rm } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { type Cli, type Command, Exit, readLine } from '../command.js'

/** More than a backup's first two lines. */
const HEADER_BYTES_MAX = 20 * 1024

export function registerBackup(parent: Command, cli: Cli): void {
  parent
    .command('backup')
    .description("Save the swarm's state to a file, with all its secrets and keys")
    .argument('<file>', 'path of the file, replaced when it exists')
    .action(async (file: string) => {
      const answer = await (await cli.api()).stream('GET', '/swarm/backup')
      // Whole or not at all; a file of that name stays until the new one is on disk.
      const made = `${file}.tmp`
      const f = await open(made, 'w', 0o600)
      let bytes = 0
      try {
        try {
          // A file that was left here may have had another mode.
          await f.chmod(0o600)
          for await (const piece of answer as AsyncIterable<Buffer>) {
            await f.writeFile(piece)
            bytes += piece.length
          }
          await f.sync()
        } finally {
          await f.close()
        }
        await rename(made, file)
      } catch (e) {
        await rm(made, { force: true })
        throw new Exit(1, `the backup was not written to ${file}: ${(e as Error).message}`)
      }
      cli.out(
        `Swarm saved to ${file} (${bytes} bytes). The file holds the secrets and keys of the swarm: keep it as safe as those.\n`,
      )
    })

  parent
    .command('restore')
    .description('Start a one-manager swarm from a backup')
    .argument('<file>', 'path of a file of "shoal swarm backup"')
    .option('--advertise-addr <address>', 'address or interface that other nodes dial', '')
    .option('--data-path-addr <address>', 'address or interface of container traffic', '')
    .option('-f, --force', 'leave the swarm that this node is in')
    .option('--listen-addr <address>', 'address to listen on', '0.0.0.0:2377')
    .action(async (file: string, f: Record<string, string> & { force?: boolean }) => {
      const api = await cli.api()
      const locked = await isLocked(file)
      if (locked && process.stdin.isTTY) cli.err('Enter unlock key: ')
      const key = locked ? (await readLine()).trim() : ''
      const answer = await api.stream('POST', '/swarm/restore', {
        query: {
          listenAddr: f.listenAddr,
          advertiseAddr: f.advertiseAddr,
          dataPathAddr: f.dataPathAddr,
          force: f.force === true,
        },
        stream: createReadStream(file),
        headers: { 'Content-Type': 'application/octet-stream', ...(key ? { 'X-Shoal-Unlock-Key': key } : {}) },
      })
      const id = JSON.parse(await text(answer)) as string
      cli.out(
        `Swarm restored: current node (${id}) is now its only manager.\n\nNodes that reach this address as a manager of before come back by themselves; the others are shown as down\nand may leave and join anew. See "shoal node ls".\n`,
      )
    })
}

const text = async (from: Readable): Promise<string> => Buffer.concat(await from.toArray()).toString()

/** Does the header say that the key is wrapped? What is no backup, the daemon says. */
async function isLocked(file: string): Promise<boolean> {
  let f: Awaited<ReturnType<typeof open>>
  try {
    f = await open(file, 'r')
  } catch (e) {
    throw new Exit(1, `the backup ${file} cannot be read: ${(e as Error).message}`)
  }
  try {
    const { buffer, bytesRead } = await f.read(Buffer.alloc(HEADER_BYTES_MAX), 0, HEADER_BYTES_MAX, 0)
    const line = buffer.subarray(0, bytesRead).toString('latin1').split('\n')[1] ?? ''
    return (JSON.parse(line.slice(65)) as { wrap: unknown }).wrap !== null
  } catch {
    return false
  } finally {
    await f.close()
  }
}
