import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import test from 'ava'
import type { ShoalError } from '../../src/common/index.js'
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
  for (const [source, kind, message] of [
    [`${host}/other`, 'notFound', /404/],
    [`${host}/broken`, 'internal', /500/],
    [
      '127.0.0.1:3/file',
      'internal',
      'Get "http://127.0.0.1:3/file": dial tcp 127.0.0.1:3: connect: connection refused',
    ],
    ['nosuch.invalid/file', 'internal', /: dial tcp: lookup nosuch\.invalid: [a-z ]+$/],
    ['http://', 'invalid', /is not a URL/],
  ] as const) {
    const e = await t.throwsAsync<ShoalError>(download(source, signal), { message })
    t.is(e.kind, kind)
  }
})
