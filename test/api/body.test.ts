import test from 'ava'
import { object } from '../../src/api/body.js'
import { CREATE_BODY } from '../../src/api/convert/container-shape.js'

const refusal = (body: unknown): string => {
  try {
    object(body, CREATE_BODY, 'container')
    return 'taken'
  } catch (e) {
    return (e as Error).message
  }
}

for (const [body, message] of [
  [{ Image: 'a', Cmd: 'x', Entrypoint: ['y'], Memory: 1e9, HostConfig: null, Unknown: { a: 1 } }, 'taken'],
  [{ Image: 5 }, 'container.Image: expected string, got number 5'],
  [{ image: 5 }, 'container.Image: expected string, got number 5'],
  [{ Env: ['A=b', null] }, 'container.Env[1]: expected string, got null null'],
  [{ Cmd: [['x']] }, 'container.Cmd[0]: expected string, got array ["x"]'],
  [{ StopTimeout: 1.5 }, 'container.StopTimeout: expected whole number, got number 1.5'],
  [{ Labels: { a: 5 } }, 'container.Labels.a: expected string, got number 5'],
  [{ ExposedPorts: ['80/tcp'] }, 'container.ExposedPorts: expected object, got array ["80/tcp"]'],
  [{ ExposedPorts: { '80/tcp': null } }, 'taken'],
  [{ HostConfig: { PortBindings: { '80/tcp': null, '81/tcp': [{ HostPort: '1' }] } } }, 'taken'],
  [
    { HostConfig: { PortBindings: { '80/tcp': [{ HostPort: {} }] } } },
    'container.HostConfig.PortBindings.80/tcp[0].HostPort: expected string, got object {}',
  ],
  [
    { HostConfig: { PortBindings: { '80/tcp': {} } } },
    'container.HostConfig.PortBindings.80/tcp: expected array of objects, got object {}',
  ],
  [{ HostConfig: { ConsoleSize: [1, 'x'] } }, 'container.HostConfig.ConsoleSize[1]: expected number, got string "x"'],
  [
    { HostConfig: { Mounts: [{ TmpfsOptions: { Options: ['x'] } }] } },
    'container.HostConfig.Mounts[0].TmpfsOptions.Options[0]: expected array of strings, got string "x"',
  ],
  [
    { NetworkingConfig: { EndpointsConfig: { a: null, b: { IPAMConfig: { IPv4Address: {} } } } } },
    'container.NetworkingConfig.EndpointsConfig.b.IPAMConfig.IPv4Address: expected string, got object {}',
  ],
  [[], 'container: the body must be a JSON object, not array'],
] as const)
  test(`${JSON.stringify(body)}: ${message}`, (t) => t.is(refusal(body), message))
