// What the command writes arrives whole, however slowly it is read.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'

const dir = mkdtempSync(join(tmpdir(), 'shoal-cli-'))
test.after.always(() => rmSync(dir, { recursive: true, force: true }))

test('a slow reader gets every byte', async (t) => {
  const data = Buffer.alloc(1_000_000, 'tar')
  const server = createServer((request, response) => {
    response.setHeader('Api-Version', '1.50')
    response.end(request.url!.endsWith('/export') ? data : 'OK')
  })
  const socket = join(dir, 'api.sock')
  await new Promise<void>((resolve) => server.listen(socket, resolve))
  t.teardown(() => server.close())
  // A pipe of the shell's: Node's own would be a pair of sockets, which is written to in another way.
  const reader = `while n=$(dd bs=64k count=1 2>/dev/null | wc -c); [ "$n" -gt 0 ]; do echo $n; sleep 0.05; done`
  const p = spawn('sh', ['-c', `bin/shoal -H unix://${socket} export x | ${reader}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let text = ''
  for await (const chunk of p.stdout) text += chunk
  const got = text.trim().split('\n').map(Number)
  t.is(
    got.reduce((a, b) => a + b, 0),
    data.length,
  )
})
