import { type FileHandle, open, stat } from 'node:fs/promises'

const BLOCK_BYTES = 64 * 1024
const NEWLINE = 10

/** The files of a log that exist, oldest first: `path.N` … `path.1`, `path`. */
export async function logFiles(path: string): Promise<string[]> {
  const files: string[] = []
  for (let n = 0; ; n++) {
    const file = n === 0 ? path : `${path}.${n}`
    try {
      await stat(file)
    } catch {
      if (n > 0) break
      continue // only just rotated
    }
    files.unshift(file)
  }
  return files
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

/** Reads on from where the last call stopped, to the present end. */
export async function* readToEnd(
  file: FileHandle,
  position: { at: number },
  cutter: LineCutter,
): AsyncGenerator<Buffer> {
  for (;;) {
    const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(BLOCK_BYTES), 0, BLOCK_BYTES, position.at)
    if (bytesRead === 0) return
    position.at += bytesRead
    yield* cutter.push(buffer.subarray(0, bytesRead))
  }
}

/**
 * Where the last `count` matching lines of a log begin: file index and offset. Reads backwards, so that the tail of a
 * large log costs no more than its last blocks.
 */
export async function findTail(
  files: readonly string[],
  count: number,
  matches: (line: Buffer) => boolean,
): Promise<{ readonly file: number; readonly at: number }> {
  let left = count
  for (let index = files.length - 1; index >= 0; index--) {
    const file = await open(files[index]!, 'r')
    try {
      let end = (await file.stat()).size
      if (left <= 0) return { file: index, at: end }
      let tail: Buffer = Buffer.alloc(0)
      while (end > 0) {
        const start = Math.max(0, end - BLOCK_BYTES)
        const block = Buffer.alloc(end - start)
        await file.read(block, 0, block.length, start)
        let bytes: Buffer = tail.length > 0 ? Buffer.concat([block, tail]) : block
        // Lines that begin in `bytes` and are whole; what is before the first newline may begin earlier.
        let lineEnd = bytes.length
        if (bytes[lineEnd - 1] === NEWLINE) lineEnd--
        for (;;) {
          const newline = bytes.lastIndexOf(NEWLINE, lineEnd - 1)
          if (newline < 0 || lineEnd <= 0) break
          if (matches(bytes.subarray(newline + 1, lineEnd)) && --left === 0)
            return { file: index, at: start + newline + 1 }
          lineEnd = newline
        }
        if (start === 0) {
          if (lineEnd > 0 && matches(bytes.subarray(0, lineEnd)) && --left === 0) return { file: index, at: 0 }
          bytes = Buffer.alloc(0)
        }
        tail = Buffer.from(bytes.subarray(0, lineEnd))
        if (tail.length > 0) tail = Buffer.concat([tail, Buffer.from('\n')])
        end = start
      }
    } finally {
      await file.close()
    }
  }
  return { file: 0, at: 0 }
}
