import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { netnsPath } from './kernel.js'

export interface ProbeCount {
  requests: number
  failures: number
  /** Longest time without an answer, milliseconds. */
  longestGapMs: number
  lastFailure: string
}

/** What runs inside the client's namespace: one request at a time to each address in turn, a line a request. */
const SCRIPT = `
const http = require('node:http')
const [pauseMs, timeoutMs, ...urls] = process.argv.slice(1)
const ask = (url) => new Promise((resolve) => {
  const r = http.get(url, { agent: false, timeout: Number(timeoutMs) }, (res) => {
    res.resume()
    res.on('end', () => resolve(res.statusCode === 200 ? '' : 'status ' + res.statusCode))
    res.on('error', (e) => resolve(e.message))
  })
  r.on('timeout', () => r.destroy(new Error('no answer in ' + timeoutMs + ' ms')))
  r.on('error', (e) => resolve(e.message))
})
;(async () => {
  for (let i = 0; ; i++) {
    const url = urls[i % urls.length]
    const failure = await ask(url)
    process.stdout.write(failure ? 'fail ' + url + ' ' + failure + '\\n' : 'ok\\n')
    await new Promise((r) => setTimeout(r, Number(pauseMs)))
  }
})()
`

/** A client outside the cluster that keeps fetching a page, so that an interruption shows. */
export class Prober {
  readonly #child: ChildProcess
  #count: ProbeCount = { requests: 0, failures: 0, longestGapMs: 0, lastFailure: '' }
  #lastOk = performance.now()

  constructor(
    netns: string,
    urls: readonly string[],
    options: { readonly pauseMs: number; readonly timeoutMs: number },
  ) {
    this.#child = spawn(
      'nsenter',
      [
        `--net=${netnsPath(netns)}`,
        process.execPath,
        '-e',
        SCRIPT,
        String(options.pauseMs),
        String(options.timeoutMs),
        ...urls,
      ],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    )
    createInterface({ input: this.#child.stdout! }).on('line', (line) => {
      this.#count.requests++
      if (line === 'ok') {
        const now = performance.now()
        this.#count.longestGapMs = Math.max(this.#count.longestGapMs, now - this.#lastOk)
        this.#lastOk = now
      } else {
        this.#count.failures++
        this.#count.lastFailure = line.slice(5)
      }
    })
  }

  /** Counts since the last call. */
  take(): ProbeCount {
    const c = {
      ...this.#count,
      longestGapMs: Math.round(Math.max(this.#count.longestGapMs, performance.now() - this.#lastOk)),
    }
    this.#count = { requests: 0, failures: 0, longestGapMs: 0, lastFailure: '' }
    return c
  }

  async stop(): Promise<void> {
    const gone = new Promise((resolve) => this.#child.once('exit', resolve))
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    this.#child.kill('SIGKILL')
    await gone
  }
}
