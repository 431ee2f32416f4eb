import { describeFailure, findFiles, rewriteFile, runFile } from './runner.js'

/** `npm run raft:testdata -- [--rewrite] [--seed=N] DIR…` */
const args = process.argv.slice(2)
const paths = args.filter((a) => !a.startsWith('--'))
const seed = Number(args.find((a) => a.startsWith('--seed='))?.slice('--seed='.length) ?? 1)
const unknown = args.find((a) => a.startsWith('--') && a !== '--rewrite' && !a.startsWith('--seed='))
if (paths.length === 0 || unknown || !Number.isSafeInteger(seed)) {
  process.stderr.write(
    `${unknown ? `unknown option ${unknown}\n` : ''}usage: raft:testdata [--rewrite] [--seed=N] DIR...\n`,
  )
  process.exit(2)
}

const files = findFiles(paths)
let failed = 0
for (const file of files) {
  if (args.includes('--rewrite')) {
    rewriteFile(file, seed)
    continue
  }
  try {
    const failure = runFile(file, seed)
    if (failure) {
      failed++
      process.stdout.write(`${describeFailure(failure)}\n`)
    }
  } catch (caught) {
    failed++
    process.stdout.write(`${file}: ${caught instanceof Error ? caught.message : String(caught)}\n`)
  }
}
process.stdout.write(`${files.length - failed} passed, ${failed} failed\n`)
if (files.length === 0) process.stderr.write(`no .txt file below ${paths.join(', ')}\n`)
process.exitCode = failed > 0 || files.length === 0 ? 1 : 0
