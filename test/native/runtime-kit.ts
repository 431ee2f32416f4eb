// What the tests of shoal-runtime as a command share: a folder with its state, an image, and bundles.
import { mkdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import {
  bin,
  canRun,
  cgroupFolders,
  exec,
  execDetached,
  type Json,
  makeConfig,
  makeDir,
  makeImage,
  type Output,
  removeDir,
} from './kit.js'

export const run = canRun ? test.serial : test.skip
export const runtime = bin('shoal-runtime')

/** A container whose process is a shell script. */
export const sh = (script: string, change?: (c: Json) => void): Json => makeConfig(['/bin/sh', '-c', script], change)

export interface Bundle {
  readonly id: string
  readonly dir: string
  readonly rootfs: string
  readonly cgroup: string
}

export interface BundleOptions {
  /** Part of the id, which ends with a number. */
  readonly tag?: string
  /** Changes the bundle's own root file system before it is used. */
  readonly prepare?: (rootfs: string) => void
}

/** What one test file has. Its folder is there from ava's `before` on, and goes after the last test. */
class RuntimeKit {
  base = ''
  /** The root file system of all bundles that have none of their own. */
  image = ''
  #count = 0

  constructor(
    readonly name: string,
    private readonly ownRoots: boolean,
  ) {
    test.before(() => {
      this.base = makeDir(name)
      if (canRun && !ownRoots) this.image = makeImage(join(this.base, 'image'))
    })
    test.after.always(async () => {
      for (const folder of cgroupFolders(`/native-test-${process.pid}`)) rmdirSync(folder)
      await removeDir(this.base)
    })
  }

  get state(): string {
    return join(this.base, 'state')
  }

  readonly call = (...args: string[]): Promise<Output> => exec(runtime, ['--root', this.state, ...args])

  /** For commands whose container goes on: ends with the command itself. */
  readonly quietly = (...args: string[]): Promise<Output> =>
    execDetached(runtime, ['--root', this.state, ...args], join(this.base, 'stderr'))

  readonly bundle = (config: Json, { tag = 'x', prepare }: BundleOptions = {}): Bundle => {
    const id = `${this.name}${process.pid}${tag}${++this.#count}`
    const dir = join(this.base, id)
    mkdirSync(dir)
    const own = this.ownRoots || prepare !== undefined
    const rootfs = own ? makeImage(join(dir, 'rootfs')) : this.image
    prepare?.(rootfs)
    if (config['root'] && !own) config['root'] = { ...config['root'], path: rootfs }
    const cgroup = `/native-${this.name}-${id}`
    // A test of what cannot be there leaves its own.
    config['linux'].cgroupsPath ??= cgroup
    writeFileSync(join(dir, 'config.json'), JSON.stringify(config))
    return { id, dir, rootfs, cgroup }
  }

  /** Runs it to its end. */
  readonly run = async (config: Json, options?: BundleOptions): Promise<Output & Bundle> => {
    const b = this.bundle(config, options)
    return { ...(await this.call('run', '--bundle', b.dir, b.id)), ...b }
  }

  /** Runs a shell script as the container's process, to its end. */
  readonly output = (script: string, change?: (c: Json) => void): Promise<Output & Bundle> =>
    this.run(sh(script, change))

  /** A container that goes on; its id. */
  readonly started = async (change?: (c: Json) => void, tag?: string): Promise<string> => {
    const b = this.bundle(sh('sleep 1000', change), { tag: tag ?? 'x' })
    const r = await this.quietly('run', '--detach', '--bundle', b.dir, b.id)
    if (r.code !== 0) throw new Error(r.stderr)
    return b.id
  }
}

/** ownRoots: each bundle has a root file system of its own, which tests change. */
export const runtimeKit = (name: string, options: { readonly ownRoots?: boolean } = {}): RuntimeKit =>
  new RuntimeKit(name, options.ownRoots ?? false)
