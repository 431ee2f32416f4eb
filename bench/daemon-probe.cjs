// Loaded into daemons by NODE_OPTIONS=--require: writes down how long the event loop was held, and CPU profiles.
//   PROBE_DIR/<pid>.holds      lines of "<Unix ms at the end> <ms held> <of which ms on a CPU>", for holds above 10 ms
//   PROBE_DIR/<pid>.cpuprofile with PROBE_PROFILE set: from the start, or from a SIGUSR2, to the next SIGUSR2
const { openSync, readFileSync, writeFileSync, writeSync } = require('node:fs')
const { join } = require('node:path')
const { Session } = require('node:inspector')

const EVERY_MS = 2
const HELD_MS = 10
const { PROBE_DIR: dir, PROBE_PROFILE: profile } = process.env

if (dir && /daemon\/main\.js$/.test(process.argv[1] ?? '')) {
  const holds = openSync(join(dir, `${process.pid}.holds`), 'a')
  // A busy machine takes the CPU away: only the part on a CPU is the daemon's own doing.
  const onCpuMs = () => Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'latin1').split(' ')[0]) / 1e6
  let at = performance.now()
  let cpu = onCpuMs()
  setInterval(() => {
    const now = performance.now()
    const used = onCpuMs()
    const held = now - at - EVERY_MS
    if (held > HELD_MS)
      writeSync(holds, `${(performance.timeOrigin + now).toFixed(0)} ${held.toFixed(1)} ${(used - cpu).toFixed(1)}\n`)
    at = now
    cpu = used
  }, EVERY_MS).unref()

  if (profile) {
    let session = null
    let count = 0
    const toggle = () => {
      if (session === null) {
        session = new Session()
        session.connect()
        session.post('Profiler.enable')
        session.post('Profiler.setSamplingInterval', { interval: 500 })
        session.post('Profiler.start')
      } else {
        session.post('Profiler.stop', (_, { profile }) =>
          writeFileSync(join(dir, `${process.pid}-${++count}.cpuprofile`), JSON.stringify(profile)),
        )
        session.disconnect()
        session = null
      }
    }
    process.on('SIGUSR2', toggle)
    toggle()
  }
}
