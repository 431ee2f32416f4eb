import test from 'ava'
import { planLab } from '../../src/lab/lab.js'

const options = { name: 'lab', managers: 2, workers: 1, subnet: '10.88.0', engine: 'shoald', engineFlags: [] }

test('hosts have addresses in a row behind the switch', (t) => {
  const plan = planLab(options)
  t.deepEqual(
    plan.hosts.map((h) => [h.name, h.role, h.address]),
    [
      ['m1', 'manager', '10.88.0.11'],
      ['m2', 'manager', '10.88.0.12'],
      ['w1', 'worker', '10.88.0.13'],
    ],
  )
  t.is(plan.registry, '10.88.0.254:5000')
  t.deepEqual(planLab({ ...options, subnet: '10.88.0.0/24' }), plan)
})

test('what cannot be a lab is refused by its value', (t) => {
  for (const subnet of ['10.88', '10.88.0.1/24', '10.88.0.0/16', '10.88.256', 'fd00::'])
    t.throws(() => planLab({ ...options, subnet }), { message: new RegExp(`"${subnet}"`) })
  t.throws(() => planLab({ ...options, name: 'Much-too-long' }), { message: /"Much-too-long"/ })
  t.throws(() => planLab({ ...options, managers: 0 }), { message: /0 managers/ })
  t.throws(() => planLab({ ...options, workers: 200 }), { message: /200 workers/ })
})
