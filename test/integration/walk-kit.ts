// What the walks of the stock docker commands share: the commands, a recorder before each daemon that checks every answer
// against the API's description, and the list of what cli.md ranks must.
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { type Exchange, Recorder } from '../support/recorder.js'
import { needShared } from '../support/shared.js'
import { skip } from '../support/skip.js'
import { Swagger, type Violation } from '../support/swagger.js'
import { isExplained } from './explained.js'
import { clock, docker, type Lab, type LabHost, type Result, until } from './support.js'
import { difference, traces } from './traces.js'

export const COMMANDS = [
  { version: '28', path: '/usr/local/bin/docker' },
  { version: '20.10', path: '/usr/bin/docker' },
]

const SLOW_MS = 1500
/** Of a change that another one came before. */
const ATTEMPTS = 20
const ATTEMPT_MS = 100

/** The long forms of the words of the first level. */
const LONG: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    'attach commit cp create diff exec export kill logs pause port rename restart rm run start stats stop top unpause update wait'
      .split(' ')
      .map((w) => [w, `container ${w}`]),
  ),
  ...Object.fromEntries('build history import load pull push save tag'.split(' ').map((w) => [w, `image ${w}`])),
  ps: 'container ls',
  rmi: 'image rm',
  images: 'image ls',
  events: 'system events',
  info: 'system info',
  inspect: 'container inspect',
}

/** Rows of cli.md that are ranked must, with their flags of that rank, each in all its forms. */
function mustRows(path: string): Map<string, readonly (readonly string[])[]> {
  const text = readFileSync(path, 'utf8').split('### docker compose')[0]!
  return new Map(
    [...text.matchAll(/^\| `([a-z]+ [a-z-]+)` \| must \| ([^|]*)/gm)].map((m) => [
      m[1]!,
      [...m[2]!.matchAll(/(`-[^ ]+)/g)].map((f) => f[1]!.replaceAll('`', '').replace(/=.*/, '').split('/')),
    ]),
  )
}

/** What has been walked by one command, over all files of a run of its own. */
export class Walked {
  /** Row → flags that were given. */
  readonly rows = new Map<string, Set<string>>()
  commands = 0
  /** Commands that took long, with their seconds: where a walk's time goes. */
  readonly slow: string[] = []

  took(args: readonly string[], ms: number): void {
    if (ms > SLOW_MS) this.slow.push(`${(ms / 1000).toFixed(1)} s: docker ${args.join(' ').slice(0, 100)}`)
  }

  note(args: readonly string[]): void {
    this.commands++
    const [first = '', second = ''] = args
    const row = LONG[first] ?? `${first} ${second}`
    const flags = this.rows.get(row) ?? new Set()
    this.rows.set(row, flags)
    for (const a of args) {
      if (!/^-/.test(a)) continue
      flags.add(a.replace(/=.*/s, ''))
      // -ai is -a -i
      if (/^-[a-zA-Z]{2,}$/.test(a)) for (const letter of a.slice(1)) flags.add(`-${letter}`)
    }
  }
}

/** One stock command against one host. */
export class Client {
  constructor(
    readonly path: string,
    readonly host: LabHost,
    private readonly walked: Walked,
  ) {}

  /** The command 28; 20.10 lacks some flags. */
  get isNew(): boolean {
    return this.path === COMMANDS[0]!.path
  }

  run(args: readonly string[], options: { input?: string | Buffer; timeoutMs?: number } = {}): Promise<Result> {
    this.walked.note(args)
    const begun = clock.monotonic()
    return docker(this.host, args, { docker: this.path, ...options }).finally(() =>
      this.walked.took(args, clock.monotonic() - begun),
    )
  }

  async ok(...args: string[]): Promise<string> {
    for (let attempt = 1; ; attempt++) {
      const r = await this.run(args)
      if (r.status === 0) return r.stdout.trim()
      // The command writes what it has read; a manager may have written meanwhile (a role, the state of an update).
      if (!r.stderr.includes('update out of sequence') || attempt === ATTEMPTS)
        throw new Error(`docker ${args.join(' ')}: ${r.status}: ${r.stderr.trim() || r.stdout.trim()}`)
      await clock.sleep(ATTEMPT_MS)
    }
  }

  /** With a terminal of its own, by script(1). */
  terminal(command: string, input = ''): Promise<Result> {
    this.walked.note(command.split(' '))
    return new Promise((resolve, reject) => {
      const p = spawn('script', ['-qec', `${this.path} -H unix://${this.host.socket} ${command}`, '/dev/null'], {
        env: { ...process.env, DOCKER_CONFIG: '/nonexistent', TERM: 'dumb' },
        timeout: 60_000,
      })
      let stdout = ''
      p.stdout.on('data', (b) => {
        stdout += b
        if (input !== '' && stdout.includes('# ')) {
          p.stdin.write(input)
          input = ''
        }
      })
      p.on('error', reject)
      p.on('close', (code) => resolve({ status: code ?? 1, stdout, stderr: '' }))
    })
  }

  /** Runs on until the output has all of the words, and is ended then. */
  follow(args: readonly string[], ...words: string[]): Promise<string> {
    this.walked.note(args)
    return new Promise((resolve, reject) => {
      const p = spawn(this.path, args, {
        env: { ...process.env, DOCKER_HOST: `unix://${this.host.socket}`, DOCKER_CONFIG: '/nonexistent' },
      })
      let out = ''
      const timer = setTimeout(() => {
        p.kill('SIGKILL')
        reject(new Error(`docker ${args.join(' ')}: ${words.join(', ')} not within 20 s; so far: ${out}`))
      }, 20_000)
      const take = (b: Buffer): void => {
        out += b
        if (words.every((w) => out.includes(w))) {
          clearTimeout(timer)
          p.kill('SIGKILL')
          resolve(out)
        }
      }
      p.stdout.on('data', take)
      p.stderr.on('data', take)
      p.on('error', reject)
    })
  }
}

/** Recorders before the hosts' daemons, and what went through them. */
export class Walk {
  readonly exchanges: Exchange[] = []
  readonly walked = new Map(COMMANDS.map((c) => [c.path, new Walked()]))
  readonly #recorders: Recorder[] = []
  readonly #dir = mkdtempSync(join(tmpdir(), 'shoal-walk-'))
  readonly hosts: LabHost[] = []
  lab!: Lab

  async start(lab: Lab): Promise<void> {
    this.lab = lab
    for (const h of lab.plan.hosts) {
      const recorder = await Recorder.start(join(this.#dir, `${h.name}.sock`), h.socket, (x) => this.exchanges.push(x))
      this.#recorders.push(recorder)
      this.hosts.push({ ...h, socket: recorder.path })
    }
  }

  async stop(): Promise<void> {
    for (const r of this.#recorders) await r.stop()
    rmSync(this.#dir, { recursive: true, force: true })
  }

  /** One test a command; what a walk leaves behind on a host fails it. */
  step(title: string, fn: (t: ExecutionContext, ...clients: Client[]) => Promise<void>): void {
    for (const { version, path } of COMMANDS)
      test.serial(`docker ${version}: ${title}`, async (t) => {
        t.timeout(180_000)
        if (!existsSync(path)) return skip(t, `no docker command ${version} at ${path}`)
        const { hosts } = this.lab.plan
        const before = hosts.map((h) => traces(h))
        await fn(t, ...this.hosts.map((h) => new Client(path, h, this.walked.get(path)!)))
        for (const [i, h] of hosts.entries()) {
          let left: string[] = []
          await until(`${h.name} is as it was`, 15, async () => {
            left = difference(before[i]!, traces(h))
            return left.length === 0
          }).catch(() => {})
          t.deepEqual(left, [], `${title}: left behind on ${h.name}`)
        }
      })
  }

  /** After the steps: every row that is `mine` was walked by both commands, and every must flag of it by the newer. */
  checkRows(mine: (row: string) => boolean, excused: Readonly<Record<string, string>> = {}): void {
    for (const { version, path } of COMMANDS)
      test.serial(`docker ${version}: the walk has every row that is ranked must`, (t) => {
        if (!existsSync(path)) return skip(t, `no docker command ${version} at ${path}`)
        const page = needShared(t, 'inventory', 'cli.md')
        if (page === null) return
        const rows = mustRows(page)
        const wanted = [...rows.keys()].filter(mine)
        const { rows: walked, commands, slow } = this.walked.get(path)!
        const flags = wanted
          .filter((r) => !(r in excused))
          .flatMap((r) => rows.get(r)!.map((forms) => ({ row: r, forms })))
        const without = flags.filter(({ row, forms }) => !forms.some((f) => walked.get(row)?.has(f)))
        const missing = without.map(({ row, forms }) => `${row} ${forms.at(-1)}`)
        if (missing.length > 0) t.log(`without: ${missing.join(', ')}`)
        for (const [row, why] of Object.entries(excused)) t.log(`not walked: ${row}: ${why}`)
        for (const line of slow) t.log(line)
        t.log(
          `COUNTED: docker ${version}: ${commands} commands, ${wanted.length - Object.keys(excused).length} of ${wanted.length} must rows, ${flags.length - without.length} of ${flags.length} must flags`,
        )
        // The older command has not all of them.
        if (path === COMMANDS[0]!.path) t.deepEqual(missing, [])
        t.deepEqual(
          wanted.filter((r) => !walked.has(r) && !(r in excused)),
          [],
        )
      })
  }

  /** At last: every answer has the shape that the description gives, or a reason not to. */
  checkAnswers(answersMin: number): void {
    test.serial('every answer of the walk has the shape that the API description gives', (t) => {
      const description = needShared(t, 'spec', 'engine-api', 'swagger.yaml')
      if (description === null) return
      const swagger = new Swagger(description)
      const unexplained = new Map<string, Violation>()
      const operations = new Set<string>()
      let checked = 0
      for (const x of this.exchanges) {
        const found = swagger.check(x)
        checked += found.checked
        operations.add(found.operation)
        for (const v of found.violations)
          if (!isExplained(v, x))
            unexplained.set(
              `${v.operation} ${v.pointer.replace(/\/\d+(?=\/|$)/g, '/*')}: ${v.message} (${x.url.split('/')[1]})`,
              v,
            )
        t.is(x.headers['api-version'], '1.50', x.url)
        if (!x.isUpgraded) continue
        t.is(x.status, 101, x.url)
        t.is(x.headers.upgrade, 'tcp')
        t.regex(String(x.headers['content-type']), /^application\/vnd\.docker\.(multiplexed|raw)-stream$/)
      }
      t.log(
        `COUNTED: ${this.exchanges.length} calls of ${operations.size} kinds, ${checked} JSON answers checked, ${this.exchanges.filter((x) => x.isUpgraded).length} upgrades`,
      )
      t.deepEqual([...unexplained.keys()].sort(), [])
      t.true(checked >= answersMin)
    })
  }
}
