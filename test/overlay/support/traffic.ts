// Small traffic programs that tests run inside namespaces:
//   serve NAME ADDRESS PORT       TCP: answers each connection with "NAME <peer address>", then echoes; UDP likewise
//   get ADDRESS PORT COUNT        TCP: COUNT connections one after another; prints JSON of answers, or the error
//   udp ADDRESS PORT COUNT [KEEP] UDP: COUNT questions, each from a new socket unless KEEP; prints JSON of answers
//   flood ADDRESS PORT COUNT      TCP: COUNT connections at once, each with more than any buffer holds, in pieces of all sizes, read
//                                 slowly by some, half-closed at the end; prints JSON of "same" for each whose echo is what was sent
//   hold ADDRESS PORT             TCP: connects, prints the answer, then echoes lines from stdin through it
//   chat ADDRESS PORT             UDP: each line from stdin is sent from one socket; prints what comes back
//   dns NAME [TYPE] [tcp]         asks 127.0.0.11; prints JSON {rcode, answers}
//   nameserver ADDRESS ANSWER     answers every A question with ANSWER
import { createSocket, type Socket as DatagramSocket } from 'node:dgram'
import { Resolver } from 'node:dns/promises'
import { connect, createServer } from 'node:net'
import { encodeResponse, parseQuery } from '../../../src/overlay/dns/packet.js'

const [mode, ...args] = process.argv.slice(2)
const PATIENCE_MS = 4000

// The test holds the other end of stdin: its end, however it came, ends this program.
process.stdin.on('end', () => process.exit(0))
process.stdin.resume()

function once(address: string, port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const s = connect({ host: address, port })
    const timer = setTimeout(() => {
      s.destroy()
      reject(Object.assign(new Error('no answer'), { code: 'TIMEOUT' }))
    }, PATIENCE_MS)
    s.on('error', (e) => {
      clearTimeout(timer)
      reject(e)
    })
    s.once('data', (d) => {
      clearTimeout(timer)
      s.destroy()
      resolve(d.toString())
    })
  })
}

function ask(address: string, port: number, socket = udpFor(address), keep = false): Promise<string> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(Object.assign(new Error('no answer'), { code: 'TIMEOUT' })), PATIENCE_MS)
    socket.once('message', (d) => {
      clearTimeout(timer)
      if (!keep) socket.close()
      resolve(d.toString())
    })
    socket.send('?', port, address)
  })
}

/** The greeting comes first, so the echo is what the answer ends with. */
function flood(address: string, port: number, n: number): Promise<string> {
  const sent = Buffer.alloc(1 + n * 300_000)
  for (let i = 0; i < sent.length; i++) sent[i] = (i * 31 + (i >> 8) * 7 + n) & 255
  return new Promise((resolve) => {
    const got: Buffer[] = []
    const s = connect({ host: address, port, allowHalfOpen: true })
    s.on('error', (e) => resolve(String(e)))
    s.on('data', (d) => {
      got.push(d)
      if (n % 3 !== 1 || got.length > 50) return
      s.pause()
      setTimeout(() => s.resume(), 5)
    })
    s.on('end', () => {
      const echo = Buffer.concat(got).subarray(-sent.length)
      resolve(echo.equals(sent) ? 'same' : `other: ${echo.length} of ${sent.length}`)
    })
    const piece = n % 2 === 0 ? 1 + n * 97 : 200_000
    // Many small pieces fill a pipe by their number, large ones by their size.
    for (let at = 0; at < sent.length; at += piece) s.write(sent.subarray(at, at + piece))
    s.end()
  })
}

const udpFor = (address: string): DatagramSocket => createSocket(address.includes(':') ? 'udp6' : 'udp4')

async function repeat(count: number, one: () => Promise<string>): Promise<void> {
  const answers: string[] = []
  try {
    for (let i = 0; i < count; i++) answers.push(await one())
  } catch (e) {
    console.log(JSON.stringify({ answers, error: (e as NodeJS.ErrnoException).code }))
    process.exit(0)
  }
  console.log(JSON.stringify({ answers, error: null }))
  process.exit(0)
}

if (mode === 'serve') {
  const [name, address, port] = args
  const udp = udpFor(address!)
  udp.on('message', (_m, from) => udp.send(`${name} ${from.address}`, from.port, from.address))
  udp.bind(Number(port), address)
  const server = createServer((s) => {
    s.on('error', () => s.destroy())
    s.write(`${name} ${s.remoteAddress}`)
    s.pipe(s)
  })
  server.listen(Number(port), address, () => console.log('ready'))
} else if (mode === 'get') {
  await repeat(Number(args[2] ?? 1), () => once(args[0]!, Number(args[1])))
} else if (mode === 'udp') {
  const kept = args[3] ? udpFor(args[0]!) : undefined
  await repeat(Number(args[2] ?? 1), () => ask(args[0]!, Number(args[1]), kept, kept !== undefined))
} else if (mode === 'flood') {
  const all = Array.from({ length: Number(args[2]) }, (_, i) => flood(args[0]!, Number(args[1]), i))
  const settled = await Promise.all(all)
  let i = 0
  await repeat(settled.length, async () => settled[i++]!)
} else if (mode === 'hold') {
  const s = connect({ host: args[0]!, port: Number(args[1]) })
  s.on('data', (d) => process.stdout.write(`${d.toString().trim()}\n`))
  s.on('error', (e) => {
    process.stdout.write(`error ${(e as NodeJS.ErrnoException).code}\n`)
    process.exit(0)
  })
  process.stdin.on('data', (d) => s.write(d))
} else if (mode === 'chat') {
  const udp = udpFor(args[0]!)
  udp.on('message', (m) => process.stdout.write(`${m}\n`))
  udp.on('error', (e) => process.stdout.write(`${e}\n`))
  process.stdin.on('data', (d) => udp.send(d, Number(args[1]), args[0]))
} else if (mode === 'nameserver') {
  const udp = createSocket('udp4')
  udp.on('message', (m, from) => {
    const q = parseQuery(m)
    if (!q) return
    const data = Uint8Array.from(args[1]!.split('.').map(Number))
    udp.send(encodeResponse(q, 0, [{ type: q.question.type, ttl: 60, data }], 512), from.port, from.address)
  })
  udp.bind(53, args[0], () => console.log('ready'))
} else if (mode === 'dns') {
  const resolver = new Resolver({ timeout: PATIENCE_MS, tries: 1 })
  resolver.setServers([`${process.env.DNS_SERVER ?? '127.0.0.11'}:53`])
  try {
    const type = args[1] ?? 'A'
    const answers = type === 'PTR' ? await resolver.reverse(args[0]!) : await resolver.resolve(args[0]!, type)
    console.log(JSON.stringify({ answers, error: null }))
  } catch (e) {
    console.log(JSON.stringify({ answers: [], error: (e as NodeJS.ErrnoException).code }))
  }
}
