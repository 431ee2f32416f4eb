// Appends for ever and says after each write what is durable; the parent kills it at any moment.
import { entry, hard, open } from './fixture.js'

const log = await open(process.argv[2]!)
for (let n = 0; ; n++) {
  const next = log.lastIndex() + 1
  const size = 1 + (n % 7)
  const entries = Array.from({ length: size }, (_, i) => entry(next + i, 1, 'x'.repeat(((n * 37) % 500) + 1)))
  await log.append(entries, hard(1, next - 1))
  process.stdout.write(`${log.lastIndex()}\n`)
}
