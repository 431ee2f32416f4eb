import { docker, type Lab, type LabHost, nodes, ok, until } from './support.js'

export interface Tally {
  acknowledged: number
  kills: number
  refused: number
}

/**
 * Services are created through any manager that answers while each manager's daemon in turn is killed with SIGKILL and
 * started again, `rounds` times each. Afterwards every acknowledged service must be there.
 */
export async function killManagers(l: Lab, rounds: number, log: (line: string) => void): Promise<Tally> {
  const managers = l.plan.hosts.filter((h) => h.role === 'manager')
  const tally: Tally = { acknowledged: 0, kills: 0, refused: 0 }
  const names = new Set<string>()
  let stop = false
  const creating = (async () => {
    for (let i = 0; !stop; i++) {
      const h = managers[i % managers.length]!
      const name = `svc${i}`
      const r = await docker(
        h,
        ['service', 'create', '-d', '--no-resolve-image', '--replicas', '0', '--name', name, 'busybox'],
        { timeoutMs: 15_000 },
      )
      if (r.status === 0) names.add(name)
      else tally.refused++
    }
  })()
  for (let round = 0; round < rounds; round++) {
    for (const h of managers) {
      const before = names.size
      await l.killDaemon(h)
      tally.kills++
      await l.startDaemon(h)
      const asked = managers.find((x) => x !== h)!
      await until(
        `${h.name} is a reachable manager again`,
        60,
        async () => (await reachable(asked)) === managers.length,
      )
      await until('another service was acknowledged', 60, async () => names.size > before)
    }
    log(`round ${round + 1}: ${tally.kills} kills, ${names.size} services acknowledged`)
  }
  stop = true
  await creating
  tally.acknowledged = names.size
  for (const h of managers) {
    const listed = await until(`${h.name} lists services`, 30, async () => {
      const out = await ok(h, 'service', 'ls', '--format', '{{.Name}}')
      return new Set(out.split('\n'))
    })
    const missing = [...names].filter((n) => !listed.has(n))
    if (missing.length > 0) throw new Error(`${h.name} lacks acknowledged services: ${missing.join(', ')}`)
  }
  return tally
}

const reachable = async (h: LabHost): Promise<number> =>
  (await nodes(h)).filter(
    (n) => n.ManagerStatus && (n.ManagerStatus.Leader || n.ManagerStatus.Reachability === 'reachable'),
  ).length
