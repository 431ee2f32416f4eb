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
  const p = spawn('bin/shoal', ['-H', `unix://${socket}`, 'export', 'x'], { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = new Promise<number | null>((resolve) => p.on('exit', resolve))
  let got = 0
  for await (const chunk of p.stdout) {
    got += (chunk as Buffer).length
    await new Promise((resolve) => setTimeout(resolve, 30))
  }
  t.is(got, data.length)
  t.is(await ended, 0)
})
