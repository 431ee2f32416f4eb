import { fail } from './assert.js'

/** Appends sent to one member and not acknowledged: a ring of (last index, bytes), bounded by number and by bytes. */
export class Inflights {
  private start = 0
  private count_ = 0
  private bytes = 0
  private indexes: number[] = []
  private sizes: number[] = []

  constructor(
    readonly maxCount: number,
    /** 0: no limit. One append may pass it: the window is full at or above the limit. */
    readonly maxBytes: number,
  ) {}

  get count(): number {
    return this.count_
  }

  isFull(): boolean {
    return this.count_ >= this.maxCount || (this.maxBytes !== 0 && this.bytes >= this.maxBytes)
  }

  /** `index`: the last of the append; rising from call to call. */
  add(index: number, bytes: number): void {
    if (this.isFull()) fail(`inflights: cannot add ${index}, the window of ${this.maxCount} is full`)
    if (this.count_ === this.indexes.length) this.grow()
    let at = this.start + this.count_
    if (at >= this.indexes.length) at -= this.indexes.length
    this.indexes[at] = index
    this.sizes[at] = bytes
    this.count_++
    this.bytes += bytes
  }

  /** The ring starts small: most members never use the whole window. */
  private grow(): void {
    const length = Math.min(this.maxCount, Math.max(8, this.indexes.length * 2))
    const indexes = new Array<number>(length).fill(0)
    const sizes = new Array<number>(length).fill(0)
    for (let i = 0; i < this.count_; i++) {
      const at = (this.start + i) % this.indexes.length
      indexes[i] = this.indexes[at]!
      sizes[i] = this.sizes[at]!
    }
    this.indexes = indexes
    this.sizes = sizes
    this.start = 0
  }

  /** Frees every append that ends at or below `index`. */
  freeUpTo(index: number): void {
    while (this.count_ > 0 && this.indexes[this.start]! <= index) {
      this.bytes -= this.sizes[this.start]!
      this.count_--
      this.start++
      if (this.start === this.indexes.length) this.start = 0
    }
    if (this.count_ === 0) this.start = 0
  }

  reset(): void {
    this.start = 0
    this.count_ = 0
    this.bytes = 0
  }
}
