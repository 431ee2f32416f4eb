// The same words given to docker and to shoal, on one engine: what they print and their statuses must be the same.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { systemClock } from '../../src/common/index.js'
import { BUSYBOX, call, Lab, SHOALD, webRootfs } from '../../src/lab/index.js'

const SHOAL = join(process.cwd(), 'bin/shoal')

function docker28(): string | null {
  for (const path of [process.env.DOCKER, '/usr/local/bin/docker', '/usr/bin/docker']) {
    if (!path || !existsSync(path)) continue
    const version = spawnSync(path, ['--version'], { encoding: 'utf8' }).stdout
    // Words and columns differ between major versions; these are the ones that the command follows.
    if (/version 28\./.test(version)) return path
  }
  return null
}

const docker = docker28()
const reason =
  process.getuid?.() !== 0
    ? 'a lab needs root'
    : !docker
      ? 'there is no docker command of version 28'
      : !existsSync(BUSYBOX)
        ? `${BUSYBOX} is missing`
        : !existsSync('build/cli/shoal.cjs')
          ? 'the command is not bundled: npm run build'
          : null
if (reason) console.log(`skipped: ${reason}`)
const run = reason ? test.serial.skip : test.serial

let lab: Lab
let socket = ''
let dir = ''
test.before(async () => {
  if (reason) return
  lab = await Lab.up(
    { name: 'clitest', subnet: '10.89.77', managers: 1, workers: 0, engine: SHOALD, engineFlags: [] },
    systemClock,
    () => {},
  )
  socket = lab.host('m1').socket
  dir = mkdtempSync(join(tmpdir(), 'shoal-cli-'))
  const query = 'fromSrc=-&repo=busybox&tag=latest&changes=CMD%20%5B%22sh%22%5D&changes=ENV%20PATH%3D%2Fbin'
  await call(socket, 'POST', `/images/create?${query}`, { stream: webRootfs() })
  await call(
    socket,
    'POST',
    `/images/busybox/tag?repo=${encodeURIComponent(`${lab.plan.registry}/busybox`)}&tag=latest`,
  )
  await call(socket, 'POST', `/images/${encodeURIComponent(`${lab.plan.registry}/busybox`)}/push?tag=latest`, {
    headers: { 'X-Registry-Auth': 'e30=' },
  })
})
test.after.always(async () => {
  await lab?.down()
  if (dir) rmSync(dir, { recursive: true, force: true })
})

interface Outcome {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/**
 * `script` is a shell's; @@ is the client, ~ a mark of its own for names, so that both may make the same things; %image is one
 * that the lab's registry has: for one of Docker Hub, tasks would wait for name servers that a lab has not.
 */
function one(client: 'docker' | 'shoal', script: string): Outcome {
  const mark = client === 'docker' ? 'zzd' : 'zzs'
  const text = script
    .replaceAll('@@', client === 'docker' ? (docker as string) : SHOAL)
    .replaceAll('~', mark)
    .replaceAll('%image', `${lab.plan.registry}/busybox`)
  const r = spawnSync('/bin/sh', ['-c', text], {
    encoding: 'utf8',
    env: { ...process.env, DOCKER_HOST: `unix://${socket}`, DOCKER_CONFIG: join(dir, client), SHOAL_HOST: '' },
    cwd: dir,
    timeout: 60_000,
  })
  const plain = (s: string): string =>
    s
      .replaceAll(docker as string, 'docker')
      .replaceAll(SHOAL, 'docker')
      .replaceAll('shoal', 'docker')
      .replaceAll('Shoal', 'Docker')
      .replaceAll(mark, 'ZZ')
      .replaceAll(join(dir, client), 'CONFIG')
      .replace(/\b[0-9a-f]{64}\b/g, 'ID64')
      .replace(/\b[0-9a-z]{25}\b/g, 'ID25')
      .replace(/\b[0-9a-f]{12}\b/g, 'ID12')
      .replace(/\b[0-9a-z]{12}\b(?= )/g, 'ID12')
      .replace(/(Less than a second|About a minute|\d+ (seconds?|minutes?))/g, 'T')
      .replace(/\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?/g, 'TIME')
      // Log lines of docker's packer, which is cut off when the copy is refused.
      .replace(/^time=.*closed pipe"\n/gm, '')
      .replace(/\r+\n/g, '\n')
      .replace(/ {2,}/g, '  ')
  return { status: r.status, stdout: plain(r.stdout), stderr: plain(r.stderr) }
}

function same(title: string, scripts: readonly string[]): void {
  run(title, (t) => {
    for (const script of scripts) {
      const begun = performance.now()
      const [theirs, ours] = [one('docker', script), one('shoal', script)]
      const ms = performance.now() - begun
      if (ms > 3000) t.log(`${(ms / 1000).toFixed(1)} s: ${script.slice(0, 100)}`)
      t.deepEqual(ours, theirs, script)
    }
  })
}

same('wrong usage', [
  '@@ run --foo x',
  '@@ run',
  '@@ ps --foo',
  '@@ rm',
  '@@ tag a',
  '@@ run -m abc x',
  '@@ run -zq x',
  '@@ run -p',
  '@@ run --tty=maybe x',
  '@@ container foo',
  '@@ foo',
  '@@ info extra',
  '@@ service ls -f name',
  '@@ service create --replicas=x a',
  '@@ run -p 99999:1 a',
  '@@ run --mount foo a',
  '@@ run --restart foo:x a',
  '@@ run -it --rm busybox true </dev/null',
])

same('run: output, statuses and flags', [
  "@@ run --rm busybox sh -c 'echo o; echo e >&2; exit 7'",
  '@@ run --rm busybox nosuch',
  '@@ run --rm busybox /etc',
  '@@ create --pull never nosuch',
  'echo foo | @@ run --rm -i busybox cat',
  '@@ run --rm --entrypoint echo busybox hi',
  '@@ run --rm --init=false --tty=false --sig-proxy=false busybox true',
  "@@ run --rm -m 64m --cpus .5 --pids-limit 50 --ulimit nofile=100:200 -h hh -u 1:2 -w /tmp -e A=1 --add-host x:1.2.3.4 --cap-drop all --read-only busybox sh -c 'ulimit -n; hostname; id -u; pwd; echo $A; grep x /etc/hosts; grep CapEff /proc/self/status'",
  'A=env; export A; @@ run --rm -e A -e NOPE busybox env | grep -v HOSTNAME | sort',
  '@@ run --rm --health-cmd true --no-healthcheck busybox true',
])

// The docker command warns of its old builder on stderr.
const BUILD = 'DOCKER_BUILDKIT=0 @@ build 2>/dev/null'
same('builds', [
  `mkdir -p ctx; printf 'FROM busybox AS a\\nARG X\\nRUN echo built $X; echo e >&2\\nCOPY . /ctx/\\n' > ctx/Dockerfile; echo f > ctx/f; echo f > ctx/g; echo g > ctx/.dockerignore; ${BUILD} --no-cache --build-arg X=~ -t b~ ctx`,
  '@@ run --rm b~ ls -a /ctx',
  `${BUILD} -q --no-cache ctx`,
  `printf 'FROM busybox\\nRUN exit 4' | ${BUILD} --no-cache -`,
  `printf 'FOO' | ${BUILD} -`,
  `${BUILD} nope`,
  `${BUILD} -f nope ctx`,
  `${BUILD}`,
  `printf 'FROM busybox\\nCOPY . /c\\nRUN ls -a /c | wc -l' > other; ${BUILD} --no-cache -f other ctx | tail -n +2`,
  `${BUILD} --no-cache --label a=b --target a --iidfile iid~ ctx >/dev/null; cut -c1-7 iid~`,
  '@@ builder prune -f 2>/dev/null',
  // How many layers go depends on whether both clients' builds fell into one second.
  '@@ rmi -f b~ | grep -v ^Deleted',
])

same('a container’s life', [
  "@@ run -d --name c~ -l k=v busybox sh -c 'echo o1; echo o2; exec sleep 1000'",
  '@@ ps -f name=c~',
  '@@ ps -a -f name=c~ --format \'{{.Names}} {{.Image}} {{.State}} {{.Label "k"}} {{.Mounts}}\'',
  '@@ ps -f name=c~ --format json',
  '@@ ps -f foo=bar',
  '@@ logs c~',
  '@@ logs -n 1 c~',
  '@@ logs nope',
  "@@ exec c~ sh -c 'exit 3'",
  '@@ exec c~ nosuch',
  'echo foo | @@ exec -i c~ cat',
  '@@ exec -e A=b -w /tmp c~ sh -c "echo \\$A; pwd"',
  "@@ exec c~ sh -c 'echo hi >/etc/hi; rm /etc/group'",
  '@@ diff c~',
  '@@ top c~ -o comm',
  '@@ pause c~',
  '@@ attach c~',
  '@@ unpause c~',
  '@@ rename c~ x~',
  '@@ rename c~ x~',
  '@@ update --memory 100m --memory-swap 200m x~',
  "@@ inspect -f '{{.HostConfig.Memory}} {{.Name}} {{.State.Status}}' x~",
  '@@ inspect nope',
  '@@ container inspect nope',
  '@@ kill -s foo x~',
  '@@ stop -t 0 x~ nope',
  '@@ start x~',
  '@@ restart -t 0 x~',
  '@@ rm x~',
  '@@ rm -f nope',
  "@@ stats --no-stream --format '{{.Name}} {{.PIDs}}' x~",
  '@@ export x~ | tar t | sort | head -5',
  "@@ commit -m msg -a me -c 'ENV A=b' x~ i~:1 | cut -c1-7",
  "@@ inspect -f '{{.Author}} {{.Comment}} {{json .Config.Env}}' i~:1",
  '@@ rm -f x~',
  '@@ wait x~',
])

same('cp, both ways', [
  '@@ run -d --name p~ busybox sleep 1000',
  'rm -rf o; mkdir o; @@ cp p~:/etc o && ls o/etc',
  'rm -rf o; @@ cp p~:/etc o && ls o',
  'rm -rf o; mkdir o; @@ cp p~:/var/www/. o && find o | sort',
  'rm -rf o; mkdir o; @@ cp p~:/etc/passwd o/pw && cat o/pw',
  'rm -rf o; mkdir o; @@ cp p~:/bin/sh o && readlink o/sh',
  'rm -rf o; mkdir o; @@ cp -L p~:/bin/sh o && test -f o/sh && ls o',
  '@@ cp p~:/etc/passwd - | tar t',
  'echo x >f; chmod 750 f; tar c f | @@ cp - p~:/tmp && @@ exec p~ ls -l /tmp/f | cut -c1-10',
  'mkdir -p s/t; ln -sf ../f s/t/l; : >s/empty; @@ cp s p~:/tmp && @@ exec p~ sh -c "find /tmp/s | sort; readlink /tmp/s/t/l"',
  '@@ cp s/. p~:/tmp/new && @@ exec p~ sh -c "find /tmp/new | sort"',
  '@@ cp f p~:/nope/x',
  '@@ cp p~:/nope .',
  '@@ cp s p~:/etc/passwd',
  '@@ cp p~:/etc f',
  '@@ cp p~:/etc/passwd missing/x',
  '@@ cp p~:/etc/passwd p~:/x',
  '@@ cp a b',
  '@@ rm -f p~',
])

same('images', [
  // An image of two repositories: docker prints its rows in no order.
  '@@ images busybox | sort',
  '@@ images --format json busybox | sort',
  '@@ images --digests --no-trunc busybox | sort',
  '@@ history busybox',
  '@@ history --format json busybox',
  '@@ history -q busybox',
  '@@ tag busybox t~:1',
  "@@ images -f reference=t~:1 --format '{{.Repository}} {{.Tag}}'",
  '@@ save t~:1 | tar t | grep -v / | sort',
  '@@ save -o s~.tar t~:1 && @@ rmi t~:1 && @@ load -i s~.tar',
  '@@ load -q -i s~.tar',
  '@@ load -i missing',
  '@@ export $(@@ create busybox) | @@ import -c \'CMD ["x"]\' - m~:1 | cut -c1-7',
  '@@ rmi nope',
  '@@ rmi -f nope',
  '@@ tag nope a:b',
  '@@ image inspect nope',
  '@@ rmi t~:1',
])

same('volumes and networks', [
  '@@ volume create v~ --label a=b',
  '@@ volume ls -f name=v~ --format \'{{.Name}} {{.Driver}} {{.Label "a"}}\'',
  '@@ volume ls -f name=v~ --format json',
  '@@ volume ls -q -f name=v~',
  '@@ volume rm v~ nope',
  '@@ volume inspect nope',
  '@@ network create n~ --label a=b --internal',
  "@@ network inspect -f '{{.Name}} {{.Driver}} {{.Internal}} {{json .Labels}}' n~",
  '@@ network ls -f name=n~ --format json',
  '@@ run -d --name nc~ busybox sleep 1000',
  '@@ network connect --alias al n~ nc~',
  '@@ inspect -f \'{{(index .NetworkSettings.Networks "n~").Aliases}}\' nc~ | cut -c1-3',
  '@@ network disconnect n~ nc~',
  '@@ network disconnect n~ nope',
  '@@ rm -f nc~',
  '@@ network rm n~',
  '@@ network inspect nope',
])

same('contexts', [
  '@@ context create mine --docker host=tcp://1.2.3.4:2375 --description hi',
  '@@ context create mine',
  '@@ context ls',
  'unset DOCKER_HOST SHOAL_HOST; @@ context use mine && @@ context show',
  'unset DOCKER_HOST SHOAL_HOST; @@ context rm mine',
  'unset DOCKER_HOST SHOAL_HOST; @@ context use default && @@ context rm mine',
  '@@ context rm nope',
  '@@ context use nope',
  '@@ context create default',
])

same('without a swarm', ['@@ node ls', '@@ service ls', '@@ swarm unlock </dev/null', '@@ swarm leave'])

run('swarm objects, once there is a swarm', (t) => {
  const init = one('shoal', `@@ swarm init --advertise-addr ${lab.host('m1').address}`)
  t.is(init.status, 0, init.stderr)
  t.regex(init.stdout, /^Swarm initialized: current node \(ID25\) is now a manager\.\n\nTo add a worker to this swarm/)
  for (const script of [
    '@@ node ls',
    '@@ node ls --format json',
    '@@ node inspect --pretty self',
    '@@ node update --label-add a=b $(@@ node ls -q) | wc -c',
    '@@ node update --availability drain nope',
    'echo hello | @@ secret create -l a=b s~ - | wc -c',
    '@@ secret ls -f name=s~',
    '@@ secret ls -f name=s~ --format json',
    '@@ secret inspect --pretty s~',
    'echo hello | @@ config create c~ - | wc -c',
    '@@ config inspect --pretty c~',
    '@@ service create -d -q --no-resolve-image --name w~ --replicas 2 --secret s~ --config source=c~,target=/cc,mode=0400 -e A=b -l x=y --limit-memory 64m --constraint node.role==manager --update-parallelism 2 --update-order start-first --health-cmd true %image sleep 1000 | wc -c',
    '@@ service inspect --pretty w~',
    '@@ service update -q -d --env-add C=d --env-rm A --label-add q=r --label-rm x --limit-memory 32m --constraint-add node.hostname!=zz --replicas 3 --secret-rm s~ w~',
    // Without what the tasks have done meanwhile.
    "@@ service inspect -f '{{json .Spec.Labels}} {{json .Spec.TaskTemplate.ContainerSpec.Env}} {{json .Spec.TaskTemplate.ContainerSpec.Configs}} {{json .Spec.TaskTemplate.Placement}} {{json .Spec.TaskTemplate.Resources}} {{json .Spec.Mode}}' w~",
    '@@ service update -q -d --no-resolve-image --force w~',
    '@@ service rollback -q -d w~',
    '@@ service scale -d w~=1',
    '@@ service scale w~',
    '@@ service scale nope=2',
    '@@ service ls -f name=w~ -q | wc -c',
    '@@ service ps nope',
    '@@ service inspect nope',
    '@@ service create --mode foo %image',
    '@@ service create --secret nope -d -q %image',
    '@@ service rm w~ nope',
    '@@ secret rm s~ nope',
    '@@ config rm c~',
    '@@ swarm join-token worker',
    '@@ swarm join-token -q manager',
    '@@ swarm ca | head -1',
    '@@ swarm leave',
    '@@ system df --format json | grep -v Images',
    "@@ info -f '{{.Swarm.LocalNodeState}} {{.Driver}} {{.NCPU}}'",
  ])
    t.deepEqual(one('shoal', script), one('docker', script), script)
})

run('a service is created and followed until it converged', (t) => {
  const made = one('shoal', '@@ service create --name conv --update-monitor 500ms --replicas 2 %image sleep 1000')
  t.is(made.status, 0, made.stderr)
  t.regex(made.stdout, /overall progress: 2 out of 2 tasks\nverify: Service ID25 converged\n$/)
  t.is(one('shoal', '@@ service rm conv').stdout, 'conv\n')
})

run('the keys that detach leave the container running', async (t) => {
  // script(1) gives a terminal.
  const terminal = spawn('script', ['-qec', `${SHOAL} run -it --name dt busybox sh`, '/dev/null'], {
    env: { ...process.env, DOCKER_HOST: `unix://${socket}`, DOCKER_CONFIG: join(dir, 'shoal') },
  })
  const late = setTimeout(() => terminal.kill('SIGKILL'), 60_000)
  let seen = ''
  terminal.stdout.on('data', (b: Buffer) => {
    const before = seen.includes('# ')
    seen += String(b)
    if (!before && seen.includes('# ')) terminal.stdin.write('echo yes\u0010\u0011')
  })
  const [status] = (await once(terminal, 'close')) as [number | null]
  clearTimeout(late)
  t.is(status, 0, seen)
  t.is(one('shoal', "@@ inspect -f '{{.State.Running}}' dt").stdout, 'true\n')
  t.is(one('shoal', '@@ rm -f dt').status, 0)
})

run('login keeps what it was told, logout forgets it', (t) => {
  const address = lab.plan.registry
  const login = one('shoal', `echo pw | @@ login -u me --password-stdin ${address}`)
  t.is(login.status, 0, login.stderr)
  const auth = Buffer.from('me:pw').toString('base64')
  t.regex(readFileSync(join(dir, 'shoal/config.json'), 'utf8'), new RegExp(auth))
  t.is(one('shoal', `@@ logout ${address}`).stdout, `Removing login credentials for ${address}\n`)
  t.notRegex(readFileSync(join(dir, 'shoal/config.json'), 'utf8'), new RegExp(auth))
})

run('push and pull go through the registry', (t) => {
  const image = `${lab.plan.registry}/cli:1`
  t.is(one('shoal', `@@ tag busybox ${image} && @@ push -q ${image} && @@ rmi ${image} >/dev/null`).status, 0)
  const pulled = one('shoal', `@@ pull ${image}`)
  t.is(pulled.status, 0, pulled.stderr)
  t.regex(pulled.stdout, new RegExp(`Status: Downloaded newer image for ${image}\\n${image}\\n$`))
})
