/** A process to be killed: pulls one image into a directory. Arguments: root, layer tool, reference. */
import { nullLogger, systemClock, systemRng } from '../../src/common/index.js'
import { createImageService } from '../../src/runtime/index.js'

const [root, layerTool, reference] = process.argv.slice(2)
const images = createImageService(
  { root: root!, layerTool: layerTool! },
  { clock: systemClock, rng: systemRng, logger: nullLogger },
)
await images.start()
await images.pull(reference!, {})
await images.stop()
