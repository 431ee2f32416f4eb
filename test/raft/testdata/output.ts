import type { CoreLogger } from '../../../src/raft/core/index.js'

const LEVELS = ['DEBUG', 'INFO', 'WARN', 'ERROR', 'FATAL', 'NONE']

/** Where a command's lines and the cores' log lines meet, in the order they come. */
export class Output implements CoreLogger {
  private text = ''
  private level_ = 0

  /** An index into the levels, to be put back after a command. */
  get level(): number {
    return this.level_
  }

  set level(level: number) {
    this.level_ = level
  }

  setLevelByName(name: string): string | null {
    const level = LEVELS.indexOf(name.toUpperCase())
    if (level < 0) return `log level '${name}' is unknown, expected one of: ${LEVELS.join(', ')}`
    this.level_ = level
    return null
  }

  /** Level NONE: nothing but a command's error comes out. */
  get isQuiet(): boolean {
    return this.level_ === LEVELS.length - 1
  }

  write(text: string): void {
    if (!this.isQuiet) this.text += text
  }

  take(): string {
    const text = this.text
    this.text = ''
    return text
  }

  indented(body: () => void): void {
    const outer = this.text
    this.text = ''
    try {
      body()
    } finally {
      const inner = this.text
      this.text = outer
      const lines = inner.split('\n')
      if (lines.at(-1) === '') lines.pop()
      for (const line of lines) this.text += `  ${line}\n`
    }
  }

  private log(level: number, text: string): void {
    if (this.level_ <= level) this.write(`${LEVELS[level]} ${text}\n`)
  }

  debug(text: string): void {
    this.log(0, text)
  }

  info(text: string): void {
    this.log(1, text)
  }

  warn(text: string): void {
    this.log(2, text)
  }

  error(text: string): void {
    this.log(3, text)
  }
}
