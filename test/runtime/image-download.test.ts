import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import test from 'ava'
import { download } from '../../src/runtime/image/download.js'

test('a file is read from its URL, through redirects and without a scheme; what is not there is told as such', async (t) => {
  const server = createServer((request, response) => {
    if (request.url === '/moved') response.writeHead(302, { location: '/file' }).end()
    else if (request.url === '/file') response.end('content')
    else response.writeHead(request.url === '/broken' ? 500 : 404).end()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  const { signal } = new AbortController()
  for (const source of [`http://${host}/file`, `${host}/file`, `${host}/moved`])
    t.is(await text(await download(source, signal)), 'content')
  await t.throwsAsync(download(`${host}/other`, signal), { message: /404/, kind: 'notFound' } as never)
  await t.throwsAsync(download(`${host}/broken`, signal), { message: /500/, kind: 'internal' } as never)
  await t.throwsAsync(download('127.0.0.1:9/file', signal), { kind: 'internal' } as never)
})
