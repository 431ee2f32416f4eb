import test from 'ava'
import {
  Annotations,
  Config,
  ConfigSpec,
  ContainerSpec,
  Mount,
  Node,
  NodeDescription,
  Secret,
  SecretSpec,
  Task,
  TaskSpec,
} from '#proto'
import { ShoalError, seededRng } from '../../../src/common/index.js'
import {
  DependencyStore,
  expandContainerSpec,
  expandTemplate,
  payloadFor,
} from '../../../src/worker/dependencies/index.js'

const values = {
  Service: { Name: 'web', Labels: { tier: 'front', 'com.example.x': 'dotted' } },
  Task: { Slot: '3' },
  Count: 2,
}

test("templates expand as Go's do", (t) => {
  const cases: readonly [string, string][] = [
    ['plain {', 'plain {'],
    ['{{.Service.Name}}-{{ .Task.Slot }}', 'web-3'],
    ['{{.Service.Labels.tier}}', 'front'],
    ['{{.Service.Labels.none}}|', '|'],
    ['{{index .Service.Labels "com.example.x"}}', 'dotted'],
    ['{{if eq .Task.Slot "3"}}three{{else}}other{{end}}', 'three'],
    ['{{if eq .Task.Slot "1"}}one{{else if eq .Task.Slot "3"}}three{{else}}other{{end}}', 'three'],
    ['{{if .Service.Labels.none}}x{{end}}', ''],
    ['{{if and .Service.Name (not .Service.Labels.none)}}yes{{end}}', 'yes'],
    ['{{.Service.Name | printf "%s-%s" "a"}}', 'a-web'],
    ['a  {{- /* a comment */ -}}  b', 'ab'],
    ['a {{- " }} " -}} b', 'a }} b'],
    ['{{printf "%d%%" .Count}}', '2%'],
    ['{{`raw \\n`}}', 'raw \\n'],
    ['{{.Service.Labels}}', 'map[com.example.x:dotted tier:front]'],
  ]
  for (const [text, expected] of cases) t.is(expandTemplate(text, values), expected, text)
})

test('what is not understood is refused with its reason', (t) => {
  const cases: readonly [string, RegExp][] = [
    ['{{.Service.Nam}}', /no \.Service\.Nam/],
    ['{{.Service.Name', /not closed/],
    ['{{if .Task}}x', /no "end"/],
    ['{{end}}', /without an "if"/],
    ['{{nothing 1}}', /no function "nothing"/],
    ['{{.Service.constructor}}', /no \.Service\.constructor/],
    ['{{toString}}', /no function "toString"/],
    ['{{}}', /empty/],
    ['{{"a" | "b"}}', /pipe/],
    ['{{ $x := 1 }}', /not understood/],
    ['{{(.Task.Slot}}', /parenthesis/],
  ]
  for (const [text, expected] of cases) t.throws(() => expandTemplate(text, values), { message: expected }, text)
})

test('any text either expands or is refused as a bad template (seed 5)', (t) => {
  const rng = seededRng(5)
  const pieces = [
    '{{',
    '}}',
    '.',
    '"',
    '`',
    '(',
    ')',
    '|',
    'if ',
    'else',
    'end',
    '-',
    ' ',
    'Service',
    'index',
    '1',
    '/*',
    '*/',
    'x',
    '\\',
  ]
  for (let i = 0; i < 20_000; i++) {
    let text = ''
    for (let n = Math.floor(rng.random() * 12); n > 0; n--) text += pieces[Math.floor(rng.random() * pieces.length)]
    try {
      expandTemplate(text, values)
    } catch (error) {
      if (!(error instanceof ShoalError && error.code === 'badTemplate')) t.fail(`${JSON.stringify(text)}: ${error}`)
    }
  }
  t.pass()
})

const node = Node.create({
  id: 'nid',
  description: NodeDescription.create({ hostname: 'host', platform: { os: 'linux', architecture: 'x86_64' } }),
})
const task = Task.create({
  id: 'tid',
  serviceId: 'sid',
  nodeId: 'nid',
  slot: 2,
  serviceAnnotations: Annotations.create({ name: 'db', labels: { a: 'b' } }),
  spec: TaskSpec.create({
    container: ContainerSpec.create({
      hostname: '{{.Node.Hostname}}-{{.Task.Slot}}',
      env: ['NAME={{.Task.Name}}', 'OS={{.Node.Platform.OS}}'],
      mounts: [
        Mount.create({
          source: 'data-{{.Task.Slot}}',
          target: '/{{.Service.Labels.a}}',
          volumeLabels: { l: '{{.Service.ID}}' },
        }),
      ],
      secrets: [{ secretId: 's1', secretName: 'pw', target: { name: 'password', uid: '0', gid: '0', mode: 0o444 } }],
    }),
  }),
})

test("a container's spec is expanded for its task and node; a global task's slot is its node", (t) => {
  const spec = expandContainerSpec(task, node)
  t.is(spec.hostname, 'host-2')
  t.deepEqual(spec.env, ['NAME=db.2.tid', 'OS=linux'])
  t.is(spec.mounts[0]!.source, 'data-2')
  t.is(spec.mounts[0]!.target, '/b')
  t.deepEqual(spec.mounts[0]!.volumeLabels, { l: 'sid' })
  t.is(expandContainerSpec({ ...task, slot: 0 }, node).hostname, 'host-nid')
})

test("payloads are templates only with their driver, and see the task's own secrets and environment", (t) => {
  const dependencies = new DependencyStore()
  dependencies.putSecret(Secret.create({ id: 's1', spec: SecretSpec.create({ data: Buffer.from('sesame') }) }))
  const config = (text: string, driver = 'golang') =>
    Config.create({
      id: 'c1',
      spec: ConfigSpec.create({ data: Buffer.from(text), templating: driver ? { name: driver, options: {} } : null }),
    })
  const payload = (c: Config): string => Buffer.from(payloadFor(c, task, node, dependencies)).toString()
  t.is(payload(config('{{.Task.Slot}}', '')), '{{.Task.Slot}}')
  t.is(payload(config('{{env "OS"}}/{{secret "password"}}')), 'linux/sesame')
  t.throws(() => payload(config('{{secret "other"}}')), { message: /no secret with target "other"/ })
  t.throws(() => payload(config('x', 'jinja')), { message: /use "golang"/ })
})
