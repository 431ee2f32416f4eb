/**
 * Frames of the shim's control protocol (docs/native.md): 4 bytes big-endian payload length, 1 byte type, payload.
 */
export type FrameType = 'J' | 'i' | 'o' | 'e'

export interface Frame {
  readonly type: FrameType
  /** A view into the received chunk: copy it to keep it longer than the call. */
  readonly payload: Buffer
}

/** Largest payload either side may send, bytes. */
export const MAX_PAYLOAD_BYTES = 1 << 20
export const HEADER_BYTES = 5

const KNOWN: Readonly<Record<number, FrameType>> = { 74: 'J', 105: 'i', 111: 'o', 101: 'e' }

export function frameHeader(type: FrameType, payloadBytes: number): Buffer {
  const header = Buffer.allocUnsafe(HEADER_BYTES)
  header.writeUInt32BE(payloadBytes, 0)
  header[4] = type.charCodeAt(0)
  return header
}

export const encodeFrame = (type: FrameType, payload: Uint8Array): Buffer =>
  Buffer.concat([frameHeader(type, payload.length), payload])

export const encodeJson = (message: object): Buffer => encodeFrame('J', Buffer.from(JSON.stringify(message)))

/** Why a stream of bytes is no stream of frames; the connection cannot be used any more. */
export class FrameError extends Error {
  override readonly name = 'FrameError'
}

/** Cuts a byte stream into frames. Whole frames inside one chunk are not copied. */
export class FrameReader {
  #held: Buffer[] = []
  #heldBytes = 0
  /** Bytes needed before anything can be given out. */
  #needed = HEADER_BYTES;

  /** Frames completed by this chunk, in order. @throws FrameError on an unknown type or a payload that is too long. */
  *push(chunk: Buffer): Generator<Frame> {
    let bytes = chunk
    if (this.#heldBytes > 0) {
      this.#held.push(chunk)
      this.#heldBytes += chunk.length
      if (this.#heldBytes < this.#needed) return
      bytes = Buffer.concat(this.#held, this.#heldBytes)
      this.#held = []
      this.#heldBytes = 0
    }
    let at = 0
    this.#needed = HEADER_BYTES
    while (bytes.length - at >= HEADER_BYTES) {
      const length = bytes.readUInt32BE(at)
      const type = KNOWN[bytes[at + 4]!]
      if (!type) throw new FrameError(`frame of unknown type 0x${bytes[at + 4]!.toString(16)}`)
      if (length > MAX_PAYLOAD_BYTES)
        throw new FrameError(`frame of ${length} bytes is longer than ${MAX_PAYLOAD_BYTES}`)
      const end = at + HEADER_BYTES + length
      if (end > bytes.length) {
        this.#needed = HEADER_BYTES + length
        break
      }
      yield { type, payload: bytes.subarray(at + HEADER_BYTES, end) }
      at = end
    }
    if (at < bytes.length) {
      const rest = bytes.subarray(at)
      this.#held = [rest]
      this.#heldBytes = rest.length
    }
  }
}
