/** What the log needs from a disk. The real one is in node-disk.ts; simulations have one that loses and tears writes. */

export type StoreOp =
  | { readonly type: 'put'; readonly key: Uint8Array; readonly value: Uint8Array }
  | { readonly type: 'del'; readonly key: Uint8Array }

export interface KeyValueStore {
  /** All records in the order of their keys. */
  records(): AsyncIterable<readonly [key: Uint8Array, value: Uint8Array]>
  /** All or nothing, durable once it resolves. Never two at a time: they could run in either order. */
  batch(ops: readonly StoreOp[]): Promise<void>
  /** Deletes [from, to) in pieces and without a sync: for what no one reads any more. */
  discard(from: Uint8Array, to: Uint8Array): Promise<void>
  close(): Promise<void>
}

/** A file being written under a temporary name. */
export interface FileSink {
  write(bytes: Uint8Array): Promise<void>
  /** fsync, rename to the wanted name, fsync of the directory. */
  commit(): Promise<void>
  abort(): Promise<void>
}

export interface FileSource {
  /** The next `length` bytes, fewer only at the end. */
  read(length: number): Promise<Uint8Array>
  close(): Promise<void>
}

/** A small file whose start is overwritten again and again. */
export interface InPlaceFile {
  /** Without a sync: survives the process but perhaps not the machine. */
  write(bytes: Uint8Array): void
  close(): void
}

export interface Disk {
  /** Makes the directory and those above it, durably, for its owner only. */
  makeDirectory(path: string): Promise<void>
  openStore(path: string): Promise<KeyValueStore>
  /** Null when there is none. */
  readFile(path: string): Promise<Uint8Array | null>
  /** Readable by its owner only; after a crash either the old or the new content is there. */
  replaceFile(path: string, bytes: Uint8Array): Promise<void>
  createFile(path: string): Promise<FileSink>
  openFile(path: string): Promise<FileSource>
  /** Made when absent, otherwise with its content; the handle stays open, since every write of the log uses it. */
  openInPlace(path: string): Promise<InPlaceFile>
  /** Names in a directory, sorted; empty when it does not exist. */
  list(path: string): Promise<readonly string[]>
  /** A file or a whole directory; nothing happens when it is absent. */
  remove(path: string): Promise<void>
  freeBytes(path: string): Promise<number>
}
