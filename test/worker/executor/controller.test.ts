import test from 'ava'
import { ContainerSpec, Node, Task, TaskSpec } from '#proto'
import { nullLogger } from '../../../src/common/index.js'
import { DependencyStore } from '../../../src/worker/dependencies/index.js'
import { ContainerController, type ControllerModules } from '../../../src/worker/executor/controller.js'

const pulledFor = async (image: string, preferLocalImages: boolean): Promise<string[]> => {
  const pulled: string[] = []
  const controller = new ContainerController(
    Task.create({ id: 't1', spec: TaskSpec.create({ container: ContainerSpec.create({ image }) }) }),
    {
      engine: {
        images: { get: async () => ({ id: 'sha256:1' }), pull: async (name: string) => pulled.push(name) },
        containers: { list: () => [], create: async () => {} },
      },
      logger: nullLogger,
      dependencies: new DependencyStore(),
      files: { write: async () => [] },
      preferLocalImages,
      node: async () => Node.create({ id: 'n1' }),
    } as unknown as ControllerModules,
  )
  await controller.prepare(new AbortController().signal)
  return pulled
}

test('a tag is asked for again though the image is here, unless local images are preferred; a digest never is', async (t) => {
  t.deepEqual(await pulledFor('web:1', false), ['web:1'])
  t.deepEqual(await pulledFor('web:1', true), [])
  t.deepEqual(await pulledFor(`web@sha256:${'1'.repeat(64)}`, false), [])
})
