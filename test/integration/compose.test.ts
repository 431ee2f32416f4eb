import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { skip } from '../support/skip.js'
import { call, docker, type LabHost, lab, ok, type Result, until, webImage } from './support.js'

const COMPOSE = '/usr/bin/docker-compose'

interface Inspected {
  readonly Id: string
  readonly State: { readonly Running: boolean; readonly Health?: { readonly Status: string } }
  readonly Config: { readonly Labels: Record<string, string> }
  readonly NetworkSettings: {
    readonly Networks: Record<string, { readonly Aliases: string[] | null; readonly IPAddress: string }>
  }
}

const project = (image: string, page: string): string => `
version: '3.8'
services:
  db:
    image: ${image}
    stop_grace_period: 1s
    command: [httpd, -f, -p, '5432', -h, /data]
    volumes: ['data:/data']
    networks: [back]
    healthcheck: {test: [CMD, test, -d, /data], interval: 1s, timeout: 2s, retries: 5}
  cache:
    image: ${image}
    command: [sh, -c, 'echo cache ready; exec sleep 100000']
    init: true
    networks: {back: {aliases: [store, memory]}}
    stop_signal: SIGTERM
    labels: {role: 'it''s "quoted" = odd'}
  api:
    image: ${image}
    stop_grace_period: 1s
    environment: {PAGE: ${page}}
    command: [sh, -c, 'mkdir -p /www && echo "$$PAGE" > /www/index.html && exec httpd -f -p 8000 -h /www']
    depends_on: [db, cache]
    networks: [front, back]
  web:
    image: ${image}
    stop_grace_period: 1s
    depends_on: [api]
    ports: ['18090:80']
    networks: [front]
    restart: on-failure
  job:
    image: ${image}
    command: [sh, -c, 'echo done; exit 0']
    network_mode: none
    tmpfs: [/scratch]
networks:
  front: {}
  back: {internal: true, ipam: {config: [{subnet: 10.78.9.0/24}]}}
volumes:
  data: {labels: {kept: 'no'}}
`

test.serial(
  'docker-compose 1.29 brings a project of five services up, drives it, changes it and takes it down',
  async (t) => {
    t.timeout(300_000)
    if (!existsSync(COMPOSE)) return skip(t, `${COMPOSE} is not installed: apt-get install docker-compose`)
    const dir = mkdtempSync(join(tmpdir(), 'shoal-compose-'))
    const l = await lab('ico', '10.92.6', 1, 0)
    try {
      const m1 = l.plan.hosts[0] as LabHost
      const image = await webImage(l, m1)
      const file = join(dir, 'docker-compose.yml')
      writeFileSync(file, project(image, 'first'))
      const compose = (...args: string[]): Promise<Result> =>
        new Promise((resolve, reject) => {
          const p = spawn(COMPOSE, ['-p', 'shop', '-f', file, '--no-ansi', ...args], {
            env: { ...process.env, DOCKER_HOST: `unix://${m1.socket}`, DOCKER_CONFIG: '/nonexistent' },
            stdio: ['ignore', 'pipe', 'pipe'],
            timeout: 120_000,
          })
          let [stdout, stderr] = ['', '']
          p.stdout.on('data', (b) => {
            stdout += b
          })
          p.stderr.on('data', (b) => {
            stderr += b
          })
          p.on('error', reject)
          p.on('close', (code) => resolve({ status: code ?? 128, stdout, stderr }))
        })
      const must = async (...args: string[]): Promise<string> => {
        const r = await compose(...args)
        if (r.status !== 0) throw new Error(`docker-compose ${args.join(' ')}: ${r.status}: ${r.stdout}${r.stderr}`)
        return r.stdout
      }
      const inspect = async (service: string, n = 1): Promise<Inspected> =>
        (await call<Inspected[]>(m1.socket, 'GET', `/containers/shop_${service}_${n}/json`)) as unknown as Inspected
      /** Through the network, by service name and alias. */
      const fetchFrom = (service: string, url: string): Promise<string> =>
        must('exec', '-T', service, 'wget', '-q', '-O', '-', url)

      await must('up', '-d')
      t.deepEqual((await must('ps', '--services', '--filter', 'status=running')).trim().split('\n').sort(), [
        'api',
        'cache',
        'db',
        'web',
      ])
      t.regex(await must('ps'), /shop_web_1 .* Up .*18090->80\/tcp/)
      await until('db is healthy', 30, async () => (await inspect('db')).State.Health?.Status === 'healthy')
      const cache = await inspect('cache')
      t.is(cache.Config.Labels.role, 'it\'s "quoted" = odd')
      const aliases = cache.NetworkSettings.Networks.shop_back!.Aliases ?? []
      for (const name of ['cache', 'store', 'memory']) t.true(aliases.includes(name), `${name} in ${aliases}`)
      t.is((await fetchFrom('web', 'http://api:8000/')).trim(), 'first')
      t.regex((await compose('exec', '-T', 'api', 'ping', '-c', '1', '-W', '3', 'store')).stdout, /1 packets received/)
      // A name of another network is asked of name servers that a lab has not: what is known answers at once.
      t.not((await compose('exec', '-T', 'web', 'timeout', '1', 'wget', '-q', '-O', '-', 'http://db:5432/')).status, 0)
      const logs = await must('logs', 'cache', 'job')
      t.regex(logs, /cache_1 .*cache ready/)
      t.regex(logs, /job_1 .*done/)
      t.regex(await must('top', 'cache'), /sleep 100000/)
      t.is((await compose('exec', '-T', 'api', 'sh', '-c', 'exit 7')).status, 7)
      t.regex(await must('port', 'web', '80'), /:18090/)
      t.regex(await must('images'), /web/)

      await must('up', '-d', '--scale', 'cache=3')
      t.is((await must('ps', '-q', 'cache')).trim().split('\n').length, 3)
      await must('up', '-d', '--scale', 'cache=1')
      t.is((await must('ps', '-q', 'cache')).trim().split('\n').length, 1)

      await must('pause', 'cache')
      await must('unpause', 'cache')
      await must('stop', '-t', '1', 'api')
      t.false((await inspect('api')).State.Running)
      await must('start', 'api')
      await until('api answers again', 20, async () => (await fetchFrom('web', 'http://api:8000/')).trim() === 'first')
      await must('restart', '-t', '1', 'web')
      await must('kill', 'cache')
      await must('up', '-d')

      // A change recreates one container: its volume and networks are taken over, the others are left alone.
      await must('exec', '-T', 'db', 'sh', '-c', 'echo kept > /data/file')
      const before = { api: (await inspect('api')).Id, db: (await inspect('db')).Id }
      writeFileSync(file, project(image, 'second'))
      await must('up', '-d')
      t.not((await inspect('api')).Id, before.api)
      t.is((await inspect('db')).Id, before.db)
      await until(
        'api shows the new page',
        20,
        async () => (await fetchFrom('web', 'http://api:8000/')).trim() === 'second',
      )
      await must('up', '-d', '--force-recreate', '-t', '1', 'db')
      t.is((await must('exec', '-T', 'db', 'cat', '/data/file')).trim(), 'kept')
      t.is((await must('run', '--rm', '-T', 'cache', 'echo', 'once')).trim(), 'once')

      // What `logs -f` and `events` listen to.
      const events = docker(m1, [
        'events',
        '--since',
        '5m',
        '--until',
        '0s',
        '--filter',
        'label=com.docker.compose.project=shop',
        '--format',
        '{{.Type}} {{.Action}} {{.Actor.Attributes.name}}',
      ])
      t.regex((await events).stdout, /container start shop_web_1/)

      await must('down', '-v', '-t', '1')
      t.is(await ok(m1, 'ps', '-aq'), '')
      t.is(await ok(m1, 'volume', 'ls', '-q'), '')
      t.deepEqual((await ok(m1, 'network', 'ls', '--format', '{{.Name}}')).split('\n').sort(), [
        'bridge',
        'host',
        'none',
      ])
    } finally {
      await l.down()
      rmSync(dir, { recursive: true, force: true })
    }
  },
)
