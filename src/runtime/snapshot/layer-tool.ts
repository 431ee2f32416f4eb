import { type ChildProcessByStdio, spawn } from 'node:child_process'
import type { Readable, Writable } from 'node:stream'
import { type ErrorKind, notFound, ShoalError } from '../../common/index.js'

/** What apply and pack print (native/layer). */
export interface LayerResult {
  readonly diffId: string
  readonly tarBytes: number
  /** Sum of the files' bytes. */
  readonly sizeBytes: number
  readonly compressedDigest: string
  readonly compressedBytes: number
  readonly compression: 'gzip' | 'zstd' | 'none' | 'other'
  readonly entries: number
}

export interface Owner {
  readonly uid: number
  readonly gid: number
}

export interface ApplyOptions {
  readonly root: string
  /** Below root; plain mode only. */
  readonly path?: string
  /** Absolute file that keeps the stream. */
  readonly blob?: string
  /** Go on after what the blob file holds. */
  readonly resume?: boolean
  /** Keep gzip and zstd as they come, pack anything else as gzip. */
  readonly recompress?: boolean
  /** Absolute file for the directories that no entry described. */
  readonly implied?: string
  /** A tree as it is: ".wh." names mean nothing. */
  readonly plain?: boolean
  /** A name that leads out begins at the root, as an absolute one does. */
  readonly contain?: boolean
  readonly keepOwner?: boolean
  /** Whom everything belongs to, whatever the tar says. */
  readonly owner?: Owner
  readonly noOverwriteDir?: boolean
  readonly bytesMax?: number
  readonly entriesMax?: number
}

const KINDS: Readonly<Record<string, ErrorKind>> = {
  EINVAL: 'invalid',
  EFBIG: 'invalid',
  EISDIR: 'invalid',
  ENOTDIR: 'invalid',
  ELOOP: 'invalid',
  ENAMETOOLONG: 'invalid',
  ENOENT: 'notFound',
  // A mount point, or what somebody writes into meanwhile.
  EEXIST: 'conflict',
  ENOTEMPTY: 'conflict',
  EBUSY: 'conflict',
  ENOSPC: 'unavailable',
  EDQUOT: 'unavailable',
}

/** Trees a call of `usage` measures: its arguments and its result line stay short. */
const USAGE_TREES_MAX = 400

/** Standard error beyond this is cut: the result line is short. */
const STDERR_BYTES_MAX = 64 * 1024

/** A shoal-layer at work. Feed it with `write`, end it with `finish`. */
export class LayerProcess {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>
  readonly #done: Promise<Record<string, unknown>>
  /** Set while a writer waits. */
  #wake: () => void = () => {}

  constructor(tool: string, args: readonly string[]) {
    this.#child = spawn(tool, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    // EPIPE: it stopped reading, and its last line says why.
    this.#child.stdin
      .on('error', () => {})
      .on('drain', () => this.#wake())
      .on('close', () => this.#wake())
    let stderr = ''
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(-STDERR_BYTES_MAX)
    })
    this.#done = new Promise((resolve, reject) => {
      this.#child.on('error', (cause) =>
        reject(
          new ShoalError(
            'internal',
            'layerTool',
            `cannot start ${tool}: ${cause.message}; is the native part built?`,
            { tool },
            { cause },
          ),
        ),
      )
      this.#child.on('close', (code, signal) => {
        const outcome = readOutcome(args[0] ?? '', stderr, code, signal)
        if (outcome instanceof Error) reject(outcome)
        else resolve(outcome)
      })
    })
    // Whoever awaits `done` sees the failure; until then it must not count as unhandled.
    this.#done.catch(() => {})
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  get stdout(): Readable {
    return this.#child.stdout
  }

  get stdin(): Writable {
    return this.#child.stdin
  }

  /** The process's result; rejects with what it reported. */
  get done(): Promise<Record<string, unknown>> {
    return this.#done
  }

  /** Resolves when there is room for more. Rejects with what the process reported when it ended before its input. */
  async write(chunk: Uint8Array): Promise<void> {
    const { stdin } = this.#child
    if (!stdin.destroyed && !stdin.write(chunk))
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    if (!stdin.destroyed) return
    await this.#done
    throw new ShoalError('internal', 'layerTool', 'the layer tool ended before its input')
  }

  /** Writes all of it, then awaits the result. */
  async consume(source: AsyncIterable<Uint8Array>): Promise<Record<string, unknown>> {
    try {
      for await (const chunk of source) await this.write(chunk)
    } catch (e) {
      await this.kill()
      throw e
    }
    return this.finish()
  }

  finish(): Promise<Record<string, unknown>> {
    this.#child.stdin.end()
    return this.#done
  }

  /** Resolves when it is gone. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    this.#child.stdout.resume()
    await this.#done.catch(() => {})
  }
}

function readOutcome(
  command: string,
  stderr: string,
  code: number | null,
  signal: NodeJS.Signals | null,
): Record<string, unknown> | ShoalError {
  const last = stderr.trimEnd().split('\n').at(-1) ?? ''
  let report: Record<string, unknown> | null = null
  try {
    report = JSON.parse(last) as Record<string, unknown>
  } catch {
    // No report: it was killed or crashed, which is told below with whatever it printed.
  }
  if (code === 0 && report) return report
  if (report && typeof report.message === 'string') {
    const errno = String(report.errno ?? '')
    const path = String(report.path ?? '')
    return new ShoalError(
      KINDS[errno] ?? 'internal',
      'layerTool',
      path ? `${report.message} (${path})` : report.message,
      { command, path, errno },
    )
  }
  return new ShoalError(
    'internal',
    'layerTool',
    `shoal-layer ${command} ended by ${signal ?? `status ${code}`}: ${last}`,
    {
      command,
    },
  )
}

/** The commands of native/layer. */
export class LayerTool {
  #measuring: {
    readonly root: string
    readonly resolve: (bytes: number) => void
    readonly reject: (error: unknown) => void
  }[] = []

  constructor(private readonly tool: string) {}

  start(command: string, args: readonly string[]): LayerProcess {
    return new LayerProcess(this.tool, [command, ...args])
  }

  apply(o: ApplyOptions): LayerProcess {
    const args = ['--root', o.root]
    if (o.path !== undefined) args.push('--path', o.path)
    if (o.blob !== undefined) args.push('--blob', o.blob)
    if (o.implied !== undefined) args.push('--implied', o.implied)
    if (o.bytesMax !== undefined) args.push('--bytes-max', String(o.bytesMax))
    if (o.entriesMax !== undefined) args.push('--entries-max', String(o.entriesMax))
    if (o.resume) args.push('--resume')
    if (o.recompress) args.push('--recompress')
    if (o.plain) args.push('--plain')
    if (o.contain) args.push('--contain')
    if (o.keepOwner === false) args.push('--no-owner')
    if (o.owner) args.push('--owner', `${o.owner.uid}:${o.owner.gid}`)
    if (o.noOverwriteDir) args.push('--no-overwrite-dir')
    return this.start('apply', args)
  }

  /** An overlay's upper directory as a gzipped layer in a file. */
  async packLayer(upper: string, blob: string): Promise<LayerResult> {
    return (await this.run('pack', ['--root', upper, '--overlay', '--gzip', '--blob', blob])) as unknown as LayerResult
  }

  /** A tree as a plain tar stream on the process's stdout; `done` tells whether it is whole. `name` replaces the path in it. */
  packTree(root: string, path = '', name?: string): LayerProcess {
    const p = this.start('pack', ['--root', root, '--path', path, ...(name === undefined ? [] : ['--name', name])])
    p.stdin.end()
    return p
  }

  /**
   * Copies a file, or what is in a directory (`name` ""), from one tree into a directory of another. Paths are below the roots; links on
   * the way stay inside.
   */
  async copyTree(
    from: { readonly root: string; readonly path: string; readonly name: string },
    to: { readonly root: string; readonly path: string; readonly owner?: Owner },
  ): Promise<void> {
    await this.#pipe(this.packTree(from.root, from.path, from.name), this.apply({ ...to, plain: true }))
  }

  /** Brings a layer, as it lies on disk, onto a merged tree: what it hides is removed. */
  async flattenLayer(layer: string, root: string): Promise<void> {
    const packer = this.start('pack', ['--root', layer, '--overlay'])
    packer.stdin.end()
    await this.#pipe(packer, this.start('apply', ['--root', root, '--flatten']))
  }

  async #pipe(packer: LayerProcess, applier: LayerProcess): Promise<void> {
    try {
      await Promise.all([packer.done, applier.consume(packer.stdout)])
    } catch (caught) {
      await Promise.all([packer.kill(), applier.kill()])
      throw caught
    }
  }

  /** Digest of a tree's names, modes, owners, attributes and contents, without times; `name` stands for the path in it. */
  async digestTree(root: string, path: string, name: string): Promise<string> {
    const args = ['--root', root, '--path', path, '--name', name, '--no-times', '--blob', '/dev/null']
    return ((await this.run('pack', args)) as unknown as LayerResult).diffId
  }

  /** Whether a file is a tar, compressed or not, with anything in it. */
  async isTar(root: string, path: string): Promise<boolean> {
    return (await this.run('probe', ['--root', root, '--path', path])).isTar === true
  }

  async run(command: string, args: readonly string[]): Promise<Record<string, unknown>> {
    const p = this.start(command, args)
    p.stdout.resume()
    return p.finish()
  }

  /**
   * Bytes of a tree's files, each inode once. What is asked for within one turn of the event loop is one process's work.
   * @throws notFound `noTree` when the directory is not there.
   */
  usage(root: string): Promise<number> {
    return new Promise((resolve, reject) => {
      if (this.#measuring.length === 0) setImmediate(() => void this.#measure())
      this.#measuring.push({ root, resolve, reject })
    })
  }

  async #measure(): Promise<void> {
    const all = this.#measuring
    this.#measuring = []
    for (let at = 0; at < all.length; at += USAGE_TREES_MAX) {
      const some = all.slice(at, at + USAGE_TREES_MAX)
      try {
        const { bytes } = (await this.run('usage', ['--', ...some.map((x) => x.root)])) as { bytes: (number | null)[] }
        for (const [i, { root, resolve, reject }] of some.entries()) {
          const size = bytes[i]
          if (typeof size === 'number') resolve(size)
          else reject(notFound('noTree', `directory ${root} is gone`, { root }))
        }
      } catch (caught) {
        for (const x of some) x.reject(caught)
      }
    }
  }

  /** Result and everything it wrote. The caller bounds the size by the command's own limit. */
  async collect(
    command: string,
    args: readonly string[],
  ): Promise<{ result: Record<string, unknown>; output: Buffer }> {
    const p = this.start(command, args)
    const chunks: Buffer[] = []
    p.stdout.on('data', (c: Buffer) => chunks.push(c))
    const result = await p.finish()
    return { result, output: Buffer.concat(chunks) }
  }
}

export const overlayArgs = (lower: readonly string[]): string[] => lower.flatMap((l) => ['--lower', l])
