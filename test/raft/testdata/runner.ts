import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { seededRng } from '../../../src/common/index.js'
import { newConfChangeRunner } from './confchange.js'
import { type Directive, normalize, parseFile, render } from './datadriven.js'
import { newInteractionRunner } from './interaction.js'
import { runQuorum } from './quorum.js'

export interface Failure {
  readonly file: string
  readonly line: number
  readonly directive: string
  readonly expected: string
  readonly actual: string
}

/** All .txt files below the folders (or the files themselves), in a stable order. */
export function findFiles(paths: readonly string[]): string[] {
  const files: string[] = []
  const walk = (path: string): void => {
    if (statSync(path).isFile()) {
      files.push(path)
      return
    }
    for (const name of readdirSync(path).sort()) {
      const inner = join(path, name)
      if (statSync(inner).isDirectory() || name.endsWith('.txt')) walk(inner)
    }
  }
  for (const path of paths) walk(path)
  return files
}

/** The kind is the name of the folder that the file lies in. */
function newRunner(file: string, seed: number): (d: Directive) => string {
  const kind = basename(dirname(file))
  if (kind === 'quorum') return runQuorum
  if (kind === 'confchange') return newConfChangeRunner()
  const rng = seededRng(seed)
  return newInteractionRunner(() => rng.random())
}

function runDirective(run: (d: Directive) => string, d: Directive): string {
  try {
    return normalize(run(d))
  } catch (caught) {
    // A broken invariant is a difference as well, and the trace says where it is.
    return `${caught instanceof Error ? (caught.stack ?? caught.message) : String(caught)}\n`
  }
}

/** Null: passed. Stops at the first difference, since everything after it is moved. */
export function runFile(file: string, seed: number): Failure | null {
  const data = parseFile(readFileSync(file, 'utf8'))
  const run = newRunner(file, seed)
  for (const d of data.directives) {
    const actual = runDirective(run, d)
    if (actual !== d.expected) {
      const directive = d.source.filter((l) => l.trim() !== '' && !l.startsWith('#')).join('\n')
      return { file, line: d.line, directive, expected: d.expected, actual }
    }
  }
  return null
}

/** Replaces the expected outputs by the actual ones. */
export function rewriteFile(file: string, seed: number): void {
  const data = parseFile(readFileSync(file, 'utf8'))
  const run = newRunner(file, seed)
  writeFileSync(
    file,
    render(
      data,
      data.directives.map((d) => runDirective(run, d)),
    ),
  )
}

/** The first differing line in its surroundings. */
export function describeFailure(f: Failure): string {
  const expected = f.expected.split('\n')
  const actual = f.actual.split('\n')
  let at = 0
  while (at < expected.length && expected[at] === actual[at]) at++
  const lines = [`${f.file}:${f.line}`, ...f.directive.split('\n').map((l) => `    ${l}`)]
  for (let i = Math.max(0, at - 3); i < at; i++) lines.push(`    ${expected[i]}`)
  for (const line of expected.slice(at, at + 6)) lines.push(`  - ${line}`)
  for (const line of actual.slice(at, at + 6)) lines.push(`  + ${line}`)
  return lines.join('\n')
}
