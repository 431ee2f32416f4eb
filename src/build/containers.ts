import { StringDecoder } from 'node:string_decoder'
import { ShoalError, shortId } from '../common/index.js'
import type { ContainerService, HostConfig } from '../engine/index.js'
import type { RunConfig } from './config.js'

const RED = '\u001b[91m'
const PLAIN = '\u001b[0m'

/** The containers of one build. What is told of them is dockerd's to the letter: clients cut ids out of it. */
export class BuildContainers {
  readonly #made = new Set<string>()

  constructor(
    private readonly containers: ContainerService,
    private readonly host: HostConfig,
    private readonly print: (text: string) => void,
  ) {}

  /** `image` null: without one. Resolves with its id. */
  async create(config: RunConfig, image: string | null): Promise<string> {
    const { id, warnings } = await this.containers.create(
      {
        ...config,
        Image: image ?? '',
        // What it says goes to the user, and nowhere else.
        HostConfig: { ...this.host, LogConfig: { Type: 'none' } },
      },
      { name: '', onNothing: image === null },
    )
    this.#made.add(id)
    for (const w of warnings) this.print(` ---> [Warning] ${w}\n`)
    this.print(` ---> Running in ${shortId(id)}\n`)
    return id
  }

  /**
   * Runs it to its end. When the signal aborts it is killed and removed first.
   *
   * @throws `commandFailed` with field `exitCode`; cancelled `cancelled`
   */
  async run(id: string, command: readonly string[], signal: AbortSignal): Promise<void> {
    const attachment = await this.containers.attach(id, {
      stdin: false,
      stdout: true,
      stderr: true,
      logs: false,
      stream: true,
      detachKeys: '',
    })
    const stop = (): void => void this.containers.kill(id, 'KILL').catch(() => {}) // it may have ended by itself
    const printing = this.#printOutput(attachment.output)
    printing.catch(() => {}) // awaited below, unless the start fails
    try {
      signal.throwIfAborted()
      await this.containers.start(id)
      signal.addEventListener('abort', stop)
      if (signal.aborted) stop()
      await printing
      const { exitCode, error } = await this.containers.wait(id, 'not-running', new AbortController().signal)
      signal.throwIfAborted()
      if (exitCode === 0) return
      const message = `The command '${command.join(' ')}' returned a non-zero code: ${exitCode}`
      throw new ShoalError('internal', 'commandFailed', error ? `${message}: ${error}` : message, { exitCode })
    } catch (caught) {
      if (!signal.aborted) throw caught
      await this.#remove(id)
      throw new ShoalError('cancelled', 'cancelled', 'build cancelled', {}, { cause: caught })
    } finally {
      signal.removeEventListener('abort', stop)
      attachment.close()
    }
  }

  async #printOutput(
    output: AsyncIterable<{ readonly stream: 'stdout' | 'stderr'; readonly data: Uint8Array }>,
  ): Promise<void> {
    // A character may come in two pieces.
    const decoders = { stdout: new StringDecoder('utf8'), stderr: new StringDecoder('utf8') }
    const show = (stream: 'stdout' | 'stderr', text: string): void => {
      if (text !== '') this.print(stream === 'stderr' ? `${RED}${text}${PLAIN}` : text)
    }
    for await (const { stream, data } of output) show(stream, decoders[stream].write(data as Buffer))
    for (const stream of ['stdout', 'stderr'] as const) show(stream, decoders[stream].end())
  }

  /** After a step; those of earlier ones too, where they were kept. */
  async removeAll(): Promise<void> {
    for (const id of this.#made) {
      try {
        await this.#remove(id)
      } catch (caught) {
        this.print(`Error removing intermediate container ${shortId(id)}: ${(caught as Error).message}\n`)
        return
      }
      this.print(`Removing intermediate container ${shortId(id)}\n`)
    }
  }

  async #remove(id: string): Promise<void> {
    await this.containers.remove(id, { force: true, volumes: true, link: false })
    this.#made.delete(id)
  }
}
