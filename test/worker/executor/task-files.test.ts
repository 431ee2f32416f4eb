import test from 'ava'
import {
  Config,
  ConfigSpec,
  ContainerSpec,
  FileTarget,
  Network,
  NetworkAttachment,
  Node,
  Secret,
  SecretSpec,
  Task,
  TaskSpec,
} from '#proto'
import { ShoalError } from '../../../src/common/index.js'
import { DependencyStore } from '../../../src/worker/dependencies/index.js'
import { containerBody } from '../../../src/worker/executor/container-plan.js'
import { filesOf } from '../../../src/worker/executor/task-files.js'

const node = Node.create({ id: 'node1' })
const target = (name: string, over: Partial<FileTarget> = {}): FileTarget =>
  FileTarget.create({ name, uid: '0', gid: '0', mode: 0o444, ...over })
const withSpec = (spec: Partial<ContainerSpec>): { task: Task; container: ContainerSpec } => {
  const container = ContainerSpec.create({ image: 'image', ...spec })
  return { task: Task.create({ id: 'task1', spec: TaskSpec.create({ container }) }), container }
}
function dependencies(): DependencyStore {
  const store = new DependencyStore()
  store.putSecret(Secret.create({ id: 's1', spec: SecretSpec.create({ data: Buffer.from('tiger') }) }))
  store.putConfig(Config.create({ id: 'c1', spec: ConfigSpec.create({ data: Buffer.from('a=1') }) }))
  return store
}

test('a relative target of a secret is below /run/secrets, one of a config below the root', (t) => {
  const { task, container } = withSpec({
    secrets: [
      { secretId: 's1', secretName: 'password', target: target('password') },
      { secretId: 's1', secretName: 'password', target: target('/etc/key', { uid: '7', gid: '8', mode: 0o100400 }) },
    ],
    configs: [
      { configId: 'c1', configName: 'settings', target: target('settings') },
      { configId: 'c1', configName: 'for-the-runtime', target: null },
    ],
  })
  const files = filesOf(task, container, node, dependencies())
  t.deepEqual(
    files.map((f) => [f.target, Buffer.from(f.data).toString(), f.uid, f.gid, f.mode]),
    [
      ['/run/secrets/password', 'tiger', 0, 0, 0o444],
      ['/etc/key', 'tiger', 7, 8, 0o400],
      ['/settings', 'a=1', 0, 0, 0o444],
    ],
  )
})

test('what no manager gave, and an owner that is no number, are errors that name them', (t) => {
  const missing = withSpec({ secrets: [{ secretId: 's9', secretName: 'lost', target: target('x') }] })
  const error = t.throws(() => filesOf(missing.task, missing.container, node, dependencies()), {
    instanceOf: ShoalError,
  })
  t.is(error?.code, 'secretMissing')
  t.is(error?.message, 'secret not found: lost (s9) of task task1')
  const config = withSpec({ configs: [{ configId: 'c9', configName: 'gone', target: target('x') }] })
  t.regex(
    t.throws(() => filesOf(config.task, config.container, node, dependencies()))!.message,
    /config not found: gone/,
  )
  const named = withSpec({ secrets: [{ secretId: 's1', secretName: 'p', target: target('x', { uid: 'nginx' }) }] })
  t.regex(t.throws(() => filesOf(named.task, named.container, node, dependencies()))!.message, /UID "nginx"/)
})

test('the container gets its files as read-only binds, and all of its security options', (t) => {
  const { task, container } = withSpec({
    privileges: {
      ...({} as NonNullable<ContainerSpec['privileges']>),
      noNewPrivileges: true,
      seccomp: { mode: 'custom', profile: Buffer.from('{}') },
    },
  })
  const body = containerBody(task, container, [{ source: '/run/x/tasks/task1/0', target: '/run/secrets/p' }])
  t.deepEqual(body.HostConfig?.Mounts, [
    { Type: 'bind', Source: '/run/x/tasks/task1/0', Target: '/run/secrets/p', ReadOnly: true },
  ])
  t.deepEqual(body.HostConfig?.SecurityOpt, ['no-new-privileges', 'seccomp={}'])
})

test("a service's names are not aliases of its container; where no manager tells them, the container has them", (t) => {
  const { task, container } = withSpec({})
  const on = (driver: string): Task => ({
    ...task,
    serviceAnnotations: { name: 'web', labels: {} },
    networks: [
      NetworkAttachment.create({
        network: Network.create({ id: 'net1', driverState: { name: driver, options: {} } }),
        aliases: ['www'],
      }),
    ],
  })
  const namesOn = (driver: string) => containerBody(on(driver), container, []).NetworkingConfig?.EndpointsConfig?.net1
  t.like(namesOn('overlay'), { Aliases: undefined, DNSNames: ['www'] })
  t.like(namesOn('bridge'), { Aliases: undefined, DNSNames: ['web', 'www'] })
})
