import { invalid, ShoalError } from '../../common/index.js'
import { type ArgInstruction, type From, type Instruction, readInstruction, readStatement } from './instructions.js'
import { logicalLines } from './lines.js'

export interface Stage {
  readonly from: From
  readonly steps: readonly Instruction[]
}

export interface Dockerfile {
  /** ARGs before the first FROM. */
  readonly globals: readonly ArgInstruction[]
  readonly stages: readonly Stage[]
  readonly escapeWith: string
  readonly warnings: readonly string[]
}

/**
 * @param name The file's, for the error of a text that cannot be taken apart.
 * @throws invalid `badDockerfile`, `unknownInstruction`
 */
export function parseDockerfile(text: string, name: string): Dockerfile {
  if (text === '') throw invalid('badDockerfile', `the Dockerfile (${name}) cannot be empty`)
  const { lines, escapeWith, warnings, statements } = within(`failed to parse ${name}`, () => {
    const split = logicalLines(text)
    return { ...split, statements: split.lines.map((line) => readStatement(line.text, split.escapeWith)) }
  })
  const globals: ArgInstruction[] = []
  const stages: { from: From; steps: Instruction[] }[] = []
  for (const [i, statement] of statements.entries()) {
    const instruction = within(`dockerfile parse error line ${lines[i]!.first}`, () =>
      readInstruction(statement, escapeWith),
    )
    const stage = stages.at(-1)
    if (instruction.kind === 'from') stages.push({ from: instruction, steps: [] })
    else if (stage) stage.steps.push(instruction)
    else if (instruction.kind === 'arg') globals.push(instruction)
    else throw invalid('badDockerfile', 'no build stage in current context')
  }
  return { globals, stages, escapeWith, warnings }
}

function within<T>(what: string, read: () => T): T {
  try {
    return read()
  } catch (caught) {
    const { kind, code, message, fields } = ShoalError.from(caught)
    throw new ShoalError(kind, code, `${what}: ${message}`, fields, { cause: caught })
  }
}

/** One instruction alone, as ONBUILD keeps it. */
export function parseTrigger(text: string): Instruction {
  const { lines, escapeWith } = logicalLines(text)
  if (lines.length !== 1) throw invalid('badDockerfile', 'onbuild trigger should be a single expression')
  const instruction = readInstruction(readStatement(lines[0]!.text, escapeWith), escapeWith)
  if (instruction.kind === 'from') throw invalid('badDockerfile', "FROM isn't allowed as an ONBUILD trigger")
  return instruction
}

/** The stages up to the target, with the request's labels as last steps. */
export function planStages(
  file: Dockerfile,
  o: { readonly target: string; readonly labels: Readonly<Record<string, string>> },
): readonly Stage[] {
  let stages = file.stages
  if (o.target !== '') {
    const at = stages.findIndex((s) => s.from.name === o.target.toLowerCase())
    if (at < 0)
      throw invalid('noTarget', `failed to reach build target ${o.target} in Dockerfile`, { target: o.target })
    stages = stages.slice(0, at + 1)
  }
  const labels = Object.keys(o.labels)
    .sort()
    .map((name): Instruction => {
      const value = o.labels[name]!
      return { kind: 'label', code: `LABEL ${name}=${value}`, pairs: [{ name, value }], isLiteral: true }
    })
  const last = stages.at(-1)
  return last ? [...stages.slice(0, -1), { ...last, steps: [...last.steps, ...labels] }] : []
}
