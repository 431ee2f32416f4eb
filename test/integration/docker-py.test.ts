// Docker's Python client, unchanged, against one host: docker-py.py holds the checks.
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { promisify } from 'node:util'
import test from 'ava'
import { skip } from '../support/skip.js'
import { type Lab, type LabHost, lab, webImage } from './support.js'

const PYTHON = '/usr/bin/python3'
const isThere = existsSync('/usr/lib/python3/dist-packages/docker')

let l: Lab
let host: LabHost
let image: string

test.before(async () => {
  if (!isThere) return
  l = await lab('ipy', '10.92.20', 1, 0)
  host = l.plan.hosts[0]!
  image = await webImage(l, host)
})
test.after.always(async () => {
  await l?.down()
})

test('docker-py reads, writes, and is refused as with dockerd', async (t) => {
  t.timeout(300_000)
  if (!isThere) return skip(t, "Debian's python3-docker is not installed")
  const script = 'test/integration/docker-py.py'
  const { stdout } = await promisify(execFile)(PYTHON, [script, host.socket, image], { timeout: 280_000 })
  const lines = stdout.trim().split('\n')
  t.deepEqual(
    lines.filter((x) => x.startsWith('FAILED')),
    [],
  )
  t.is(lines.pop(), `${lines.length} checks`)
  t.true(lines.length >= 21)
})
