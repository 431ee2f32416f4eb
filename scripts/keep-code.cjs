// Runs the bundled command with the words given and keeps the code that V8 made of it.
const { writeFileSync } = require('node:fs')
const { CODE, compile, run } = require('../build/src/cli/start.cjs')

const script = compile()
process.on('exit', () => writeFileSync(CODE, script.createCachedData()))
run(script)
