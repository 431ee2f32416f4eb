const NEWLINE = 10

/** Given a line without its end. */
export type LineTest = (line: Buffer) => boolean

/** Where the last matching lines of one file begin; `missing`: of those asked for, so many are in older files. */
export interface TailStart {
  readonly at: number
  readonly missing: number
}

/** Cuts appended bytes into lines; the unfinished rest waits for more. */
export class LineCutter {
  #rest: Buffer = Buffer.alloc(0);

  *push(chunk: Buffer): Generator<Buffer> {
    let bytes = this.#rest.length > 0 ? Buffer.concat([this.#rest, chunk]) : chunk
    for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE)) {
      yield bytes.subarray(0, end)
      bytes = bytes.subarray(end + 1)
    }
    this.#rest = Buffer.from(bytes)
  }
}

/** Of a file whose bytes can be read from anywhere. */
export async function tailBackwards(
  file: {
    readonly size: number
    readonly blockBytes: number
    readonly read: (from: number, length: number) => Promise<Buffer>
  },
  count: number,
  matches: LineTest,
): Promise<TailStart> {
  let end = file.size
  let missing = count
  if (missing <= 0) return { at: end, missing: 0 }
  let tail: Buffer = Buffer.alloc(0)
  while (end > 0) {
    const start = Math.max(0, end - file.blockBytes)
    const block = await file.read(start, end - start)
    const bytes: Buffer = tail.length > 0 ? Buffer.concat([block, tail]) : block
    // Lines that begin in `bytes` and are whole; what is before the first newline may begin earlier.
    let lineEnd = bytes.length
    if (bytes[lineEnd - 1] === NEWLINE) lineEnd--
    for (;;) {
      const newline = bytes.lastIndexOf(NEWLINE, lineEnd - 1)
      if (newline < 0 || lineEnd <= 0) break
      if (matches(bytes.subarray(newline + 1, lineEnd)) && --missing === 0) return { at: start + newline + 1, missing }
      lineEnd = newline
    }
    if (start === 0 && lineEnd > 0 && matches(bytes.subarray(0, lineEnd)) && --missing === 0) return { at: 0, missing }
    tail = Buffer.from(bytes.subarray(0, lineEnd))
    if (tail.length > 0) tail = Buffer.concat([tail, Buffer.from('\n')])
    end = start
  }
  return { at: 0, missing }
}

/** Of one that can only be read through: the starts of the last `count` that matched are kept. */
export async function tailForwards(
  blocks: AsyncIterable<Buffer>,
  count: number,
  matches: LineTest,
): Promise<TailStart> {
  const cutter = new LineCutter()
  const starts: number[] = []
  let matched = 0
  let at = 0
  for await (const block of blocks)
    for (const line of cutter.push(block)) {
      if (matches(line)) starts[matched++ % Math.max(1, count)] = at
      at += line.length + 1
    }
  if (count <= 0) return { at, missing: 0 }
  return matched < count ? { at: 0, missing: count - matched } : { at: starts[matched % count]!, missing: 0 }
}
