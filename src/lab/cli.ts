import { spawn } from 'node:child_process'
import { Command, InvalidArgumentError } from 'commander'
import { ShoalError, systemClock } from '../common/index.js'
import { netnsPath } from './kernel.js'
import { Lab, SHOALD } from './lab.js'

const count = (v: string): number => {
  if (!/^\d+$/.test(v)) throw new InvalidArgumentError(`"${v}" is not a whole number`)
  return Number(v)
}

const say = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

function table(rows: readonly (readonly string[])[]): void {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((r) => r[i]!.length)))
  for (const r of rows)
    say(
      r
        .map((c, i) => c.padEnd(widths[i]!))
        .join('  ')
        .trimEnd(),
    )
}

const program = new Command('npm run lab --')
  .description(
    'Many hosts on one machine: each a network namespace on a switch, with its own daemon, data and cgroup parent',
  )
  .enablePositionalOptions()
const named = (name: string, description: string): Command =>
  program.command(name).description(description).option('--name <lab>', 'name of the lab', 'lab')
const open = (o: { name: string }): Lab => Lab.open(o.name, systemClock)

named('up', 'cable the hosts and start their daemons')
  .option('--managers <n>', 'hosts m1, m2, ...', count, 3)
  .option('--workers <n>', 'hosts w1, w2, ...', count, 2)
  .option('--subnet <a.b.c>', "first three bytes of the hosts' network", '10.88.0')
  .option('--engine <path>', "daemon to run; any that takes dockerd's flags", SHOALD)
  .action(async (o: { name: string; managers: number; workers: number; subnet: string; engine: string }) => {
    const lab = await Lab.up({ ...o, engineFlags: [] }, systemClock, say)
    list(lab)
    const m1 = lab.host('m1')
    say(`\nDOCKER_HOST=unix://${m1.socket} docker swarm init --advertise-addr ${m1.address}`)
  })

function list(lab: Lab): void {
  table([
    ['HOST', 'ADDRESS', 'ROLE', 'STATE', 'PID', 'SOCKET'],
    ...lab.plan.hosts.map((h) => [
      h.name,
      h.address,
      h.role,
      lab.isUp(h) ? 'up' : 'down',
      lab.isUp(h) ? String(lab.daemonPid(h)) : '-',
      `unix://${h.socket}`,
    ]),
  ])
}

named('ls', 'list the hosts').action((o) => list(open(o)))

named('exec', 'run a command on a host, with DOCKER_HOST and SHOAL_HOST set to its daemon')
  .argument('<host>')
  .argument('<command...>')
  .passThroughOptions()
  .action(async (name: string, command: string[], o: { name: string }) => {
    const host = open(o).host(name)
    const address = `unix://${host.socket}`
    const p = spawn('nsenter', [`--net=${netnsPath(host.netns)}`, ...command], {
      stdio: 'inherit',
      env: { ...process.env, DOCKER_HOST: address, SHOAL_HOST: address },
    })
    process.exitCode = await new Promise<number>((resolve, reject) => {
      p.on('error', reject)
      p.on('exit', (code, signal) => resolve(signal ? 128 : (code ?? 1)))
    })
  })

named('kill', 'switch a host off: its cable and every process of it')
  .argument('<host>')
  .action(async (name: string, o) => {
    const lab = open(o)
    await lab.kill(lab.host(name))
    say(`${name} is off`)
  })

named('start', 'switch a host on again')
  .argument('<host>')
  .action(async (name: string, o) => {
    const lab = open(o)
    await lab.start(lab.host(name))
    say(`${name} answers`)
  })

named('partition', 'let nothing pass between two hosts')
  .argument('<a>')
  .argument('<b>')
  .option('--one-way', 'drop only what goes from a to b')
  .action(async (a: string, b: string, o: { name: string; oneWay?: boolean }) => {
    const lab = open(o)
    await lab.partition(lab.host(a), lab.host(b), { oneWay: o.oneWay ?? false })
    say(o.oneWay ? `nothing passes from ${a} to ${b}` : `nothing passes between ${a} and ${b}`)
  })

named('heal', 'end all partitions').action(async (o) => {
  await open(o).heal()
  say('all hosts reach each other')
})

named('down', 'stop everything and leave nothing behind').action(async (o: { name: string }) => {
  await open(o).down()
  say(`lab "${o.name}" is gone`)
})

program.parseAsync().catch((e: unknown) => {
  process.stderr.write(`lab: ${ShoalError.from(e).message}\n`)
  process.exitCode = 1
})
