import fs = require('node:fs')
import path = require('node:path')
import vm = require('node:vm')

const BUNDLE = path.join(__dirname, '../../cli/shoal.cjs')
const CODE = `${BUNDLE}.code`

/**
 * The bundled command as a function of `require`. What V8 made of it at build time is taken from the file beside it, which is
 * a third of the command's own time; another V8, or other flags, refuse that file, and the source is compiled.
 */
function compile(): vm.Script {
  let cachedData: Buffer | undefined
  try {
    cachedData = fs.readFileSync(CODE)
  } catch {
    // Not there: only slower.
  }
  return new vm.Script(`(function (require, module, exports) {${fs.readFileSync(BUNDLE, 'utf8')}\n})`, {
    filename: BUNDLE,
    ...(cachedData && { cachedData }),
  })
}

function run(script: vm.Script): void {
  script.runInThisContext()(require, module, exports)
}

if (require.main === module) run(compile())

export = { BUNDLE, CODE, compile, run }
