import test from 'ava'
import { Metrics } from '../../src/daemon/metrics.js'

test('metrics are those of the moment, under the names of dockerd', async (t) => {
  const states = ['running', 'running', 'paused', 'exited', 'created']
  let isManager = false
  const metrics = await Metrics.start(
    { host: '127.0.0.1', port: 0 },
    {
      engine: {
        containers: { list: () => states.map((status) => ({ state: { status } })) },
        events: {
          async *subscribe() {
            yield* [{}, {}, {}] as never[]
          },
        },
      },
      facts: { id: 'me', version: '1.2', gitCommit: 'abc', storageDriver: 'overlay2' },
      isManager: () => isManager,
    },
  )
  t.teardown(() => metrics.stop())
  const get = async (path: string) => {
    const answer = await fetch(`http://${metrics.address}${path}`)
    return { status: answer.status, text: await answer.text() }
  }
  t.is((await get('/')).status, 404)
  const { text } = await get('/metrics')
  for (const line of [
    'engine_daemon_container_states_containers{state="running"} 2',
    'engine_daemon_container_states_containers{state="paused"} 1',
    'engine_daemon_container_states_containers{state="stopped"} 2',
    'engine_daemon_events_total 3',
    'swarm_node_manager 0',
  ])
    t.true(text.includes(`\n${line}\n`), line)
  t.regex(text, /\nengine_daemon_engine_info\{version="1\.2",commit="abc",.*daemon_id="me"\} 1\n/)
  t.regex(text, /\nprocess_resident_memory_bytes \d/)
  states.pop()
  isManager = true
  const later = (await get('/metrics')).text
  t.true(later.includes('{state="stopped"} 1\n') && later.includes('\nswarm_node_manager 1\n'))
})
