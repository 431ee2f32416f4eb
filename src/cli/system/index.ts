import type { Cli, Command } from '../command.js'
import { registerDf } from './df.js'
import { registerDialStdio } from './dial-stdio.js'
import { registerEvents } from './events.js'
import { registerInfo } from './info.js'
import { registerPrune } from './prune.js'

export function registerSystem(parent: Command, cli: Cli): void {
  registerDf(parent, cli)
  registerDialStdio(parent, cli)
  registerEvents(parent, cli)
  registerInfo(parent, cli)
  registerPrune(parent, cli)
}
