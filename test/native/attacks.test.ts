// Images, documents and neighbours that try to lead the runtime astray.
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { tarOf } from '../runtime/image-kit.js'
import { killArguments, reported } from './kill-stages.js'
import {
  bin,
  cgroupFolders,
  controllerMount,
  eventually,
  exec,
  type Json,
  makeImage,
  type Output,
  TestContainer,
  traces,
} from './kit.js'
import { run, runtime, runtimeKit, sh } from './runtime-kit.js'

const kit = runtimeKit('at', { ownRoots: true })
let count = 0

const without = (c: Json, ...destinations: string[]): void => {
  c['mounts'] = c['mounts'].filter((m: Json) => !destinations.includes(m['destination']))
}

const runBundle = (config: Json, prepare: (rootfs: string) => void): ReturnType<typeof kit.run> =>
  kit.run(config, { prepare })

/** A container with a terminal whose image is what `prepare` makes of it; it must not come to anything outside of its root. */
async function terminal(config: Json, prepare: (image: string) => void): Promise<{ c: TestContainer; last: Json }> {
  const image = makeImage(join(kit.base, `image${++count}`))
  prepare(image)
  const c = new TestContainer(kit.base, image, config, { tty: true })
  const last = (await c.start()).at(-1)!
  await c.ended()
  return { c, last }
}

run('/dev/console that is a link does not lead the terminal onto another file (CVE-2025-52565)', async (t) => {
  const secret = join(kit.base, 'secret')
  writeFileSync(secret, 'untouched')
  for (const target of ['/proc/sysrq-trigger', '/proc/self/fd/0', `../../../../../../../..${secret}`, '/etc/passwd']) {
    const { c, last } = await terminal(
      sh('grep -c "sysrq-trigger" /proc/self/mountinfo; cat /etc/passwd | wc -l; echo end', (d) => without(d, '/dev')),
      (image) => {
        symlinkSync(target, join(image, 'dev/console'))
      },
    )
    // Refused, or bound on the link's place within the root: in no case on what the link points to.
    if (!last['error']) {
      // readonlyPaths bind it once, and nobody else.
      t.regex(c.log(), /^1\r\n2\r\nend\r\n$/, target)
    } else t.regex(last['error'].message, /console|link|symbolic/i, target)
    t.is(readFileSync(secret, 'utf8'), 'untouched')
    t.deepEqual(traces(c.id), [])
  }
})

run('a terminal is only made by a real devpts, whatever the image has at its place (CVE-2025-52565)', async (t) => {
  for (const kind of ['file', 'link to the host', 'folder']) {
    const { c, last } = await terminal(
      sh('echo ran', (d) => without(d, '/dev', '/dev/pts', '/dev/mqueue', '/dev/shm')),
      (image) => {
        rmSync(join(image, 'dev'), { recursive: true })
        mkdirSync(join(image, 'dev/pts'), { recursive: true })
        if (kind === 'file') writeFileSync(join(image, 'dev/pts/ptmx'), '')
        if (kind === 'link to the host') symlinkSync('/proc/1/root/dev/ptmx', join(image, 'dev/pts/ptmx'))
        if (kind === 'folder') mkdirSync(join(image, 'dev/pts/ptmx'))
      },
    )
    t.truthy(last['error'], `${kind}: ${c.log()}`)
    t.is(last['error'].stage, 'console', JSON.stringify(last))
    t.deepEqual([traces(c.id), cgroupFolders(c.cgroup)], [[], []])
  }
})

run('sysctls are not written into something else that lies on /proc (CVE-2025-52881)', async (t) => {
  const fake = join(kit.base, 'fake-proc')
  mkdirSync(join(fake, 'sys/net/ipv4'), { recursive: true })
  mkdirSync(join(fake, 'self/attr'), { recursive: true })
  const file = join(fake, 'sys/net/ipv4/ip_forward')
  for (const mount of [
    { destination: '/proc', type: 'bind', source: fake, options: ['rbind', 'rw'] },
    { destination: '/proc', type: 'tmpfs', source: 'tmpfs', options: ['tmpcopyup'] },
  ]) {
    writeFileSync(file, 'as it was')
    const r = await runBundle(
      sh('cat /proc/sys/net/ipv4/ip_forward; echo', (c) => {
        without(c, '/proc')
        c['mounts'].unshift(mount)
        c['linux'].sysctl = { 'net.ipv4.ip_forward': '1' }
        c['linux'].maskedPaths = []
        c['linux'].readonlyPaths = []
      }),
      (rootfs) => {
        mkdirSync(join(rootfs, 'proc/sys/net/ipv4'), { recursive: true })
        writeFileSync(join(rootfs, 'proc/sys/net/ipv4/ip_forward'), 'image')
      },
    )
    // Set through a proc file system that the runtime made for itself, or refused.
    t.true(r.code === 0 || /proc/.test(r.stderr), r.stderr)
    if (r.code === 0) t.is(r.stdout, mount.type === 'bind' ? 'as it was\n' : 'image\n')
    t.is(readFileSync(file, 'utf8'), 'as it was')
    t.is(readFileSync(join(r.rootfs, 'proc/sys/net/ipv4/ip_forward'), 'utf8'), 'image')
    t.deepEqual([traces(r.id), cgroupFolders(`/native-at-${r.id}`)], [[], []])
  }
})

run('links below a second proc do not redirect writes (CVE-2025-52881)', async (t) => {
  // The image's own /proc is a link farm; the real one is mounted over it before anything is written.
  const r = await runBundle(
    sh('cat /proc/sys/net/ipv4/ip_forward; cat /proc/sys/kernel/hostname', (c) => {
      c['linux'].sysctl = { 'net.ipv4.ip_forward': '1' }
    }),
    (rootfs) => {
      mkdirSync(join(rootfs, 'proc/sys'), { recursive: true })
      symlinkSync('/tmp', join(rootfs, 'proc/sys/net'))
      symlinkSync('../sysrq-trigger', join(rootfs, 'proc/self'))
    },
  )
  t.is(r.code, 0, r.stderr)
  t.is(r.stdout, '1\nbox\n')
})

run('masked and read-only paths that are links stay within the root', async (t) => {
  const secret = join(kit.base, 'mask-secret')
  writeFileSync(secret, 'readable')
  const r = await runBundle(
    sh('cat /etc/passwd | wc -l; touch /tmp/x 2>/dev/null; echo ran', (c) => {
      c['linux'].maskedPaths.push('/evil-mask')
      c['linux'].readonlyPaths.push('/evil-ro')
    }),
    (rootfs) => {
      symlinkSync(`../../../../../../../..${secret}`, join(rootfs, 'evil-mask'))
      symlinkSync('../../../../../../../../tmp', join(rootfs, 'evil-ro'))
    },
  )
  // Refused, or followed inside: the host's file and folder are as they were.
  t.is(readFileSync(secret, 'utf8'), 'readable')
  t.notRegex(readFileSync('/proc/self/mountinfo', 'utf8'), new RegExp(secret))
  t.true(r.code === 0 || /link|evil/.test(r.stderr), `${r.code} ${r.stderr}`)
  writeFileSync('/tmp/.native-attacks-probe', '')
  rmSync('/tmp/.native-attacks-probe')
})

run(
  'a neighbour that swaps a folder for a link while mounts are made does not get them onto the host (CVE-2021-30465)',
  async (t) => {
    const secret = join(kit.base, 'swap-target')
    const shared = join(kit.base, 'swap-volume')
    for (const d of [secret, shared, join(shared, 'real')]) mkdirSync(d)
    symlinkSync(`../../../../../../../..${secret}`, join(shared, 'link'))
    // As a container would that has the same volume: "place" is a folder, then a link, then a folder, some thousand times a second.
    const swap = 'while :; do mv -T real place 2>/dev/null; mv -T place real; mv -T link place; mv -T place link; done'
    const neighbour = spawn('/bin/busybox', ['sh', '-c', swap], { cwd: shared, stdio: 'ignore' })
    const ended = new Promise((resolve) => neighbour.once('exit', resolve))
    let ran = 0
    try {
      for (let i = 0; i < 40; i++) {
        const r = await runBundle(
          sh('touch /volume/place/sub/inside /volume/real/sub/inside 2>/dev/null; true', (c) =>
            c['mounts'].push(
              { destination: '/volume', type: 'bind', source: shared, options: ['rbind', 'rw'] },
              { destination: '/volume/place/sub', type: 'tmpfs', source: 'tmpfs', options: [] },
            ),
          ),
          () => {},
        )
        if (r.code === 0) ran++
        // Nothing was made in the link's target, let alone mounted there.
        t.deepEqual(readdirSync(secret), [], r.stderr)
        t.deepEqual([traces(r.id), traces('swap-target')], [[], []])
      }
    } finally {
      neighbour.kill('SIGKILL')
      await ended
    }
    t.log(`${ran} of 40 containers found a folder`)
    t.true(ran > 0)
  },
)

run(
  'no way leads through a descriptor of the runtime: not as the working directory, as the program, or by exec (CVE-2024-21626)',
  async (t) => {
    const { id, dir, rootfs } = kit.bundle(sh('sleep 1000'))
    const state = ['--root', kit.state]
    for (let fd = 3; fd < 24; fd++) symlinkSync(`/proc/self/fd/${fd}`, join(rootfs, `wd${fd}`))
    writeFileSync(join(rootfs, 'etc/inside'), '')
    const started = await new Promise((resolve) =>
      spawn(runtime, [...state, 'run', '--detach', '--bundle', dir, id], { stdio: 'ignore' }).once('exit', resolve),
    )
    t.is(started, 0)
    try {
      for (let fd = 3; fd < 24; fd++) {
        // Where a path is no descriptor of the host's there is nothing to be found but the container's own root.
        for (const args of [
          ['--cwd', `/proc/self/fd/${fd}`, id, '/bin/sh', '-c', 'ls ../../../../etc'],
          ['--cwd', `/wd${fd}`, id, '/bin/sh', '-c', 'ls ../../../../etc'],
          [id, `/proc/self/fd/${fd}/../../../../bin/ls`, '/etc'],
        ]) {
          const r = await exec(runtime, [...state, 'exec', ...args])
          if (r.code === 0) t.regex(r.stdout, /^inside$/m, args.join(' '))
        }
        const r = await runBundle(
          sh('ls ../../../../etc', (c) => (c['process'].cwd = `/wd${fd}`)),
          (image) => {
            symlinkSync(`/proc/self/fd/${fd}`, join(image, `wd${fd}`))
            writeFileSync(join(image, 'etc/inside'), '')
          },
        )
        if (r.code === 0) t.regex(r.stdout, /^inside$/m, `cwd /wd${fd}`)
      }
    } finally {
      await exec(runtime, [...state, 'delete', '--force', id])
    }
  },
)

interface Race {
  /** Whose calls are counted, as for kill-at. */
  readonly which: number
  /** What the neighbour does; "self": the process is killed at that call. */
  readonly neighbour: string
  /** The command, after what has to be there before it was made anew. */
  readonly command: () => readonly string[]
  readonly input?: Buffer
  readonly env?: NodeJS.ProcessEnv
  /** Only the calls from the one on before which this shell test is true for the first time, 25 unless told. */
  readonly from?: string
  readonly span?: number
}

/**
 * Runs a command once for each of its system calls and lets a neighbour do something just before that call: he wins every race there is.
 * Gives the number of calls.
 */
async function atEachCall(race: Race, look: (n: number, r: Output) => unknown): Promise<number> {
  const report = join(kit.base, `report${++count}`)
  const at = async (n: number, neighbour: string): Promise<[Output, Awaited<ReturnType<typeof reported>>]> => {
    const kill = killArguments({
      which: race.which,
      whom: neighbour === 'self' ? neighbour : `sh:${neighbour}`,
      n,
      report,
    })
    const r = await exec(bin('kill-at'), [...kill, ...race.command()], {
      ...(race.input && { input: race.input }),
      ...(race.env && { env: race.env }),
    })
    return [r, await reported(report)]
  }
  const [, all] = await at(0, '')
  let last = 'calls' in all ? all.calls : 0
  let first = 1
  if (race.from) {
    const seen = join(kit.base, `seen${count}`)
    for (let above = last; first < above; ) {
      const middle = (first + above) >> 1
      rmSync(seen, { force: true })
      await at(middle, `if ${race.from}; then touch ${seen}; fi`)
      if (existsSync(seen)) above = middle
      else first = middle + 1
    }
    last = Math.min(last, first + (race.span ?? 25))
  }
  for (let n = first; n <= last; n++) await look(n, (await at(n, race.neighbour))[0])
  return last - first + 1
}

/** A file that nobody must get at, and proof that it is as it was. */
function untouched(t: ExecutionContext, name: string): { secret: string; check: (n: number) => void } {
  const secret = join(kit.base, name)
  writeFileSync(secret, 'untouched', { mode: 0o600 })
  const before = statSync(secret)
  const check = (n: number): void => {
    const now = statSync(secret)
    t.deepEqual([now.mode, now.uid, now.ctimeMs], [before.mode, before.uid, before.ctimeMs], `call ${n}`)
  }
  return { secret, check }
}

run(
  'what a container swaps for a link while it is copied there leads nowhere, at any moment (docker cp)',
  async (t) => {
    const { secret, check } = untouched(t, 'copy-secret')
    const root = join(kit.base, 'copy')
    const tar = tarOf([
      { name: 'file', data: 'x', mode: 0o4777, uid: 7 },
      { name: 'folder/', type: 'directory', mode: 0o777, uid: 7 },
    ])
    for (const name of ['file', 'folder']) {
      const calls = await atEachCall(
        {
          which: 0,
          neighbour: `cd ${root}/place && { rm -rf ${name}; ln -s ${secret} ${name}; }`,
          command: () => {
            rmSync(root, { recursive: true, force: true })
            mkdirSync(join(root, 'place'), { recursive: true })
            return [bin('shoal-layer'), 'apply', '--plain', '--root', root, '--path', 'place']
          },
          input: tar,
          from: `[ -e ${root}/place/${name} ]`,
        },
        check,
      )
      t.true(calls > 5)
    }
  },
)

run('a file that a container swaps for a fifo while it is copied from there holds up nobody (docker cp)', async (t) => {
  const root = join(kit.base, 'copied')
  await atEachCall(
    {
      which: 0,
      neighbour: `cd ${root} && { rm -f file; mkfifo file; }`,
      command: () => {
        rmSync(root, { recursive: true, force: true })
        mkdirSync(root)
        writeFileSync(join(root, 'file'), 'x')
        return [bin('shoal-layer'), 'pack', '--root', root]
      },
    },
    (n, r) => t.is(r.code, 0, `call ${n}: ${r.stderr}`),
  )
})

run('a node that a neighbour swaps for a link in a volume they share leads nowhere, at any moment', async (t) => {
  const { secret, check } = untouched(t, 'node-secret')
  const volume = join(kit.base, 'node-volume')
  const config = sh('true', (c) => {
    c['mounts'].push({ destination: '/volume', type: 'bind', source: volume, options: ['rbind', 'rw'] })
    c['linux'].devices = [{ path: '/volume/node', type: 'c', major: 1, minor: 5, fileMode: 0o666, uid: 7, gid: 7 }]
  })
  const b = kit.bundle(config)
  const calls = await atEachCall(
    {
      which: 1,
      neighbour: `cd ${volume} && { rm -f node; ln -s ${secret} node; }`,
      command: () => {
        rmSync(volume, { recursive: true, force: true })
        mkdirSync(volume)
        return [runtime, '--root', kit.state, 'run', '--bundle', b.dir, b.id]
      },
      from: `[ -e ${volume}/node ]`,
    },
    (n) => {
      check(n)
      t.deepEqual(cgroupFolders(b.cgroup), [])
    },
  )
  t.true(calls > 20)
})

run('/etc/passwd that a container swaps for a fifo does not hold up exec, at any moment', async (t) => {
  const b = kit.bundle(sh('sleep 1000'))
  t.is((await kit.quietly('run', '--detach', '--bundle', b.dir, b.id)).code, 0)
  const passwd = join(b.rootfs, 'etc/passwd')
  await atEachCall(
    {
      which: 1,
      neighbour: `rm -f ${passwd}; mkfifo ${passwd}`,
      command: () => {
        rmSync(passwd, { force: true })
        writeFileSync(passwd, 'root:x:0:0:root:/root:/bin/sh\n')
        return [runtime, '--root', kit.state, 'exec', b.id, '/bin/true']
      },
    },
    (n, r) => t.is(r.code, 0, `call ${n}: ${r.stderr}`),
  )
  await kit.call('delete', '--force', b.id)
})

run(
  'in a user namespace without a network of its own, read-only /sys is read-only with all that is mounted below',
  async (t) => {
    const r = await kit.output(
      "grep ' /sys' /proc/self/mountinfo | cut -d' ' -f6 | cut -d, -f1 | sort | uniq -c",
      (c) => {
        without(c, '/sys/fs/cgroup')
        c['linux'].namespaces = c['linux'].namespaces.filter((n: Json) => n['type'] !== 'network')
        c['linux'].namespaces.push({ type: 'user' })
        for (const k of ['uidMappings', 'gidMappings']) c['linux'][k] = [{ containerID: 0, hostID: 0, size: 65536 }]
      },
    )
    t.regex(r.stdout, /^ +\d+ ro\n$/, r.stderr)
  },
)

run(
  'the helper that holds the ids of an idmapped mount ends with the runtime, at whatever call that is killed',
  async (t) => {
    const folder = join(kit.base, 'idmapped')
    mkdirSync(folder)
    const map = [{ containerID: 0, hostID: 100000, size: 10 }]
    const b = kit.bundle(
      sh('true', (c) => {
        const mount = { destination: '/m', type: 'bind', source: folder, options: ['bind'] }
        c['mounts'].push({ ...mount, uidMappings: map, gidMappings: map })
      }),
    )
    const mark = `NATIVE_MARK=${b.id}`
    const marked = (): string[] =>
      readdirSync('/proc').filter((p) => {
        try {
          return /^\d+$/.test(p) && readFileSync(`/proc/${p}/environ`, 'utf8').includes(mark)
        } catch {
          return false // ended meanwhile
        }
      })
    t.teardown(() => marked().map((p) => process.kill(Number(p), 'SIGKILL')))
    await atEachCall(
      {
        which: 0,
        neighbour: 'self',
        command: () => [runtime, '--root', kit.state, 'run', '--bundle', b.dir, b.id],
        env: { ...process.env, NATIVE_MARK: b.id },
        // Limits are written before mounts are looked at.
        from: `[ "$(cat ${join(controllerMount('pids').path, b.cgroup, 'pids.max')})" = 100 ]`,
        span: 60,
      },
      async (n) => {
        await eventually(() => marked().length === 0, `killed at call ${n}: the end of the helper`)
        t.is((await kit.call('delete', '--force', b.id)).code, 0)
      },
    )
  },
)

run('/dev/null that the image makes a link does not become the mask (CVE-2025-31133)', async (t) => {
  const secret = join(kit.base, 'null-secret')
  writeFileSync(secret, 'untouched')
  for (const target of ['/proc/sysrq-trigger', '/proc/sys/kernel/core_pattern', `../../../../../../../..${secret}`]) {
    const r = await runBundle(
      sh(
        'cat /proc/keys | wc -c; echo x > /proc/keys; grep -c -E "core_pattern|null-secret" /proc/self/mountinfo',
        (c) => without(c, '/dev', '/dev/pts', '/dev/mqueue', '/dev/shm'),
      ),
      (rootfs) => {
        rmSync(join(rootfs, 'dev'), { recursive: true })
        mkdirSync(join(rootfs, 'dev'))
        symlinkSync(target, join(rootfs, 'dev/null'))
      },
    )
    t.true(r.code !== 0 && /null/.test(r.stderr), `${target}: ${r.code} ${r.stdout} ${r.stderr}`)
    t.is(readFileSync(secret, 'utf8'), 'untouched')
    t.deepEqual([traces(r.id), cgroupFolders(`/native-at-${r.id}`)], [[], []])
  }
})
