import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { type Exchange, Recorder } from '../support/recorder.js'
import { needShared } from '../support/shared.js'
import { Swagger, type Violation } from '../support/swagger.js'
import { clock, docker, type LabHost, lab, ok, swarm, until, webImage } from './support.js'

/**
 * Answers that differ from the description on purpose: the description is of a newer version, or of what dockerd sends
 * only in part. `operation` and `pointer` are regular expressions.
 */
interface Explanation {
  readonly operation: RegExp
  readonly pointer: RegExp
  readonly message: RegExp
  readonly why: string
}
const UNKNOWN = /no such field/
const EXPLAINED: readonly Explanation[] = [
  {
    operation: /^GET \/containers\/\{id\}\/json 200$/,
    pointer:
      /^\/NetworkSettings\/(Bridge|EndpointID|Gateway|GlobalIPv6Address|GlobalIPv6PrefixLen|HairpinMode|IPAddress|IPPrefixLen|IPv6Gateway|LinkLocalIPv6Address|LinkLocalIPv6PrefixLen|MacAddress|SecondaryIPAddresses|SecondaryIPv6Addresses)$/,
    message: UNKNOWN,
    why: 'the default bridge is shown at the top too up to API 1.51',
  },
  {
    operation: /^GET \/containers\/\{id\}\/json 200$/,
    pointer: /^\/HostConfig\/MemorySwappiness$/,
    message: /must be integer/,
    why: "a pointer in Go: null is the kernel's own, and what dockerd sends",
  },
  {
    operation: /^GET \/events 200$/,
    pointer: /^\/(status|id|from)$/,
    message: UNKNOWN,
    why: 'the first form of events, sent beside the second up to API 1.51',
  },
  {
    operation: /^GET \/images\/\{name\}\/json 200$/,
    pointer: /^\/(ContainerConfig|DockerVersion|Parent)$/,
    message: UNKNOWN,
    why: 'Parent and DockerVersion are sent up to API 1.51; docker-compose 1.29 fails without ContainerConfig',
  },
  {
    operation: /^GET \/networks 200$/,
    pointer: /^\/\d+\/Containers$/,
    message: UNKNOWN,
    why: 'dockerd sends an empty map in lists up to API 1.51',
  },
  {
    operation: /^GET \/services(\/\{id\})? 200$/,
    pointer: /\/PreviousSpec$/,
    message: UNKNOWN,
    why: 'missing in the description: `service inspect` and rollbacks of clients need it',
  },
  {
    operation: /^GET \/(services|tasks)(\/\{id\})? 200$/,
    pointer: /\/ContainerSpec\/Healthcheck$/,
    message: UNKNOWN,
    why: 'spelt HealthCheck in the description; the Go type says Healthcheck, and so do all clients',
  },
  {
    operation: /^GET \/services(\/\{id\})? 200$/,
    pointer: /\/UpdateStatus\/State$/,
    message: /allowed values/,
    why: 'the description forgot the states of a rollback',
  },
  {
    operation: /^GET \/tasks(\/\{id\})? 200$/,
    pointer: /\/NetworksAttachments\/\d+\/Network\/(ID|Version|CreatedAt|UpdatedAt|Spec|DriverState|IPAMOptions)$/,
    message: UNKNOWN,
    why: "the description gives a host's network; dockerd sends the cluster's object",
  },
  {
    operation: /^GET \/system\/df 200$/,
    pointer: /^\/(LayersSize|Images|Containers|Volumes|BuildCache|BuilderSize)$/,
    message: UNKNOWN,
    why: 'the layout up to API 1.51',
  },
  {
    operation: /^POST \/(configs|secrets)\/create 201$/,
    pointer: /^(\/ID)?$/,
    message: /no such field|'Id'/,
    why: 'spelt Id in the description; dockerd sends ID, and docker-py takes nothing else',
  },
  {
    operation: /^DELETE \/nodes\/\{id\} 400$/,
    pointer: /^$/,
    message: /no such status/,
    why: 'a node that is not down yet: a failed precondition of the managers, which dockerd answers with 400 too',
  },
  {
    operation: /^POST \/exec\/\{id\}\/start 101$/,
    pointer: /^$/,
    message: /no such status/,
    why: 'described for attach only; clients ask for the same upgrade here',
  },
  {
    operation: /^POST \/images\/(create|load|\{name\}\/push) 200$/,
    pointer: /^$/,
    message: /a body where none/,
    why: 'progress: a stream of JSON objects that the description leaves open',
  },
]

const isExplained = (v: Violation): boolean =>
  EXPLAINED.some((e) => e.operation.test(v.operation) && e.pointer.test(v.pointer) && e.message.test(v.message))

test.serial('what the stock docker command is answered has the shapes that the API description gives', async (t) => {
  t.timeout(400_000)
  const description = needShared(t, 'spec/engine-api/swagger.yaml')
  if (description === null) return
  const swagger = new Swagger(description)
  const dir = mkdtempSync(join(tmpdir(), 'shoal-swagger-'))
  const exchanges: Exchange[] = []
  const recorders: Recorder[] = []
  const l = await lab('isw', '10.92.4', 1, 1)
  try {
    const image = await webImage(l, l.plan.hosts[0]!)
    const [m1, w1] = (await Promise.all(
      l.plan.hosts.map(async (h) => {
        const recorder = await Recorder.start(join(dir, `${h.name}.sock`), h.socket, (x) => exchanges.push(x))
        recorders.push(recorder)
        return { ...h, socket: recorder.path }
      }),
    )) as [LabHost, LabHost]
    let commands = 0
    const failed: string[] = []
    const run = (line: string, options: Parameters<typeof docker>[2] = {}) => {
      commands++
      const begun = clock.monotonic()
      const took = (): void => {
        const ms = clock.monotonic() - begun
        if (ms > 2500) t.log(`${(ms / 1000).toFixed(1)} s: docker ${line}`)
      }
      return docker(
        m1,
        line.split(' ').map((w) => w.replaceAll('~', ' ')),
        options,
      ).finally(took)
    }
    /** Words are divided by blanks; a tilde is a blank within one. */
    const must = async (line: string, input?: string): Promise<string> => {
      const r = await run(line, input === undefined ? {} : { input })
      // All the others go on: one run tells everything.
      if (r.status !== 0) failed.push(`docker ${line}: ${r.status}: ${r.stderr || r.stdout}`)
      return r.stdout.trim()
    }
    const fails = async (line: string): Promise<void> => {
      const r = await run(line)
      t.not(r.status, 0, `docker ${line} must fail`)
    }

    // One engine alone.
    await must('version')
    await must('info')
    await fails('service ls')
    await must('image ls')
    await must(`image inspect ${image}`)
    await must(`history ${image}`)
    await must(`tag ${image} copy:1`)
    await must(`pull ${image}`)
    await must(`push ${image}`)
    await must(`save -o ${join(dir, 'saved.tar')} copy:1`)
    await must('rmi copy:1')
    await must(`load -i ${join(dir, 'saved.tar')}`)
    await fails('rmi no/such:image')
    await must('volume create --label a=b data')
    await must('volume ls')
    await must('volume inspect data')
    await must('network create --subnet 10.77.1.0/24 --label a=b net1')
    await must('network ls')
    await must(
      `run -d --name one --network net1 -p 18080:80 -v data:/data --health-cmd true --health-interval 1s -l a=b --restart on-failure:3 ${image}`,
    )
    await must('network inspect net1')
    await must('ps -a -s')
    await must('container inspect one')
    await until('one is healthy', 30, async () => (await must('inspect -f {{.State.Health.Status}} one')) === 'healthy')
    await must('inspect -s one')
    await must('top one')
    await must('logs one')
    await must('port one')
    await must('exec one true')
    await must('exec -i one cat', 'typed\n')
    await must('exec -d one true')
    await must('stats --no-stream one')
    await must('diff one')
    await must('update --memory 64m --memory-swap 64m one')
    await must('rename one uno')
    await must('pause uno')
    await must('unpause uno')
    await must(`cp uno:/etc/hosts ${join(dir, 'hosts')}`)
    writeFileSync(join(dir, 'into'), 'content')
    await must(`cp ${join(dir, 'into')} uno:/tmp/`)
    await must(`export -o ${join(dir, 'exported.tar')} uno`)
    await must(`import ${join(dir, 'exported.tar')} imported:1`)
    await must('commit -m noted uno committed:1')
    await must('network create net2')
    await must('network connect --alias other net2 uno')
    await must('network disconnect net1 uno')
    await must('restart -t 1 uno')
    await must('kill -s KILL uno')
    await must('wait uno')
    await must('start uno')
    await must('stop -t 1 uno')
    t.is(await must(`run --rm -i ${image} cat`, 'through'), 'through')
    await fails(`run --rm ${image} /no/such`)
    await must(`create --name two ${image} sh -c exit~3`)
    await fails('start -a two')
    await must('system df -v')
    await must('events --since 10m --until 0s')
    await must('events --since 10m --until 0s --filter type=container --filter event=die')
    await fails('inspect nothing')
    await fails('network rm bridge')
    await must('container rm -f two')
    await must('rm -v uno')
    await must('container prune -f')
    await must('network prune -f')
    await must('volume prune -f -a')
    await must('image prune -f')

    // A swarm of two.
    await swarm({ plan: { hosts: [m1, w1] } })
    await must('info')
    await must('swarm join-token worker')
    await must('swarm update --task-history-limit 3')
    await fails('swarm unlock-key')
    await must('node ls')
    await must('node inspect self')
    const worker = await must('node ls -q -f role=worker')
    await must(`node update --label-add zone=a ${worker}`)
    await must('network create -d overlay --attachable over')
    await must('network inspect over')
    await must('secret create password -', 'tiger')
    await must('secret inspect password')
    await must('secret ls')
    await must('config create settings -', 'a=1')
    await must('config inspect settings')
    await must('config ls')
    await must(
      `service create --name web --replicas 2 --network over -p 18081:80 --mount type=volume,source=vol,target=/v --env A=b --limit-memory 64M --update-parallelism 1 --health-cmd true --health-interval 1s --constraint node.platform.os==linux ${image}`,
    )
    await must('service ls')
    await must('service inspect web')
    await must('service ps web')
    await must('service logs web')
    const task = await must('service ps -q web').then((x) => x.split('\n')[0])
    await must(`inspect --type task ${task}`)
    await must('node ps')
    await must('service scale -d web=3')
    await must('service update -d --label-add a=b web')
    await must('service rollback -d web')
    await must(`service create -d --name every --mode global ${image}`)
    await must(`service create -d --name job --mode replicated-job ${image} true`)
    await must('service ls')
    await must('network inspect --verbose over')
    await fails('service inspect nothing')
    await fails('secret rm nothing')
    await must('service rm web every job')
    await must('secret rm password')
    await must('config rm settings')
    // The command asks up to a whole second, and what was just done comes after it.
    const told = async (line: RegExp): Promise<void> => {
      await until(String(line), 10, async () =>
        line.test((await run('events --since 10m --until 0s --filter scope=swarm')).stdout),
      )
    }
    await told(/ config remove .*name=settings/)
    for (const line of [/ service create .*name=web/, / service update .*replicas.new=3/, / service remove .*name=web/])
      await told(line)
    for (const line of [
      / secret create .*name=password/,
      / network create .*name=over/,
      / node update .*state.new=ready/,
    ])
      await told(line)
    await ok(w1, 'info')
    await ok(w1, 'swarm', 'leave')
    await until(
      'the worker is down',
      30,
      async () =>
        (await must('node ls -q -f membership=accepted')).split('\n').length === 2 &&
        (await run(`node rm ${worker}`)).status === 0,
    )
    await must('swarm leave --force')
    await must('plugin ls')

    let checked = 0
    const unexplained = new Map<string, Violation>()
    for (const x of exchanges) {
      const found = swagger.check(x)
      checked += found.checked
      for (const v of found.violations)
        if (!isExplained(v))
          unexplained.set(`${v.operation} ${v.pointer.replace(/\/\d+(?=\/|$)/g, '/*')}: ${v.message}`, v)
    }
    const upgrades = exchanges.filter((x) => x.isUpgraded)
    const operations = new Set(exchanges.map((x) => swagger.check(x).operation))
    t.log(
      `${commands} docker commands, ${exchanges.length} calls of ${operations.size} kinds, ${checked} JSON answers checked, ${upgrades.length} upgrades`,
    )
    t.deepEqual(failed, [])
    t.deepEqual([...unexplained.keys()].sort(), [])
    t.true(checked > 150)
    for (const x of upgrades) {
      t.is(x.status, 101, x.url)
      t.is(x.headers.upgrade, 'tcp')
      t.regex(String(x.headers['content-type']), /^application\/vnd\.docker\.(multiplexed|raw)-stream$/)
    }
    for (const x of exchanges) t.is(x.headers['api-version'], '1.50', x.url)
  } finally {
    for (const r of recorders) await r.stop()
    await l.down()
    rmSync(dir, { recursive: true, force: true })
  }
})
