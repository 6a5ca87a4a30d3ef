/**
 * Chunks from Reed-Solomon shards: the code of `crates/erasure`, whose test vectors it shares.
 *
 * GF(2^8) with the polynomial 0x11d; the matrix is a Vandermonde matrix (row r, column c: r to the power of c) times the
 * inverse of its upper square, so that the data shards are the chunk itself. Any `data` shards give the chunk.
 */

/** A shard, and its place in the code. */
export interface Shard {
  index: number;
  bytes: Uint8Array;
}

const EXP = new Uint8Array(510);
const LOG = new Uint8Array(256);
for (let power = 0, value = 1; power < 255; power += 1) {
  EXP[power] = value;
  EXP[power + 255] = value;
  LOG[value] = power;
  value <<= 1;
  if (value > 255) value ^= 0x11d;
}

function times(a: number, b: number): number {
  return a === 0 || b === 0 ? 0 : EXP[LOG[a]! + LOG[b]!]!;
}

function inverse(a: number): number {
  return EXP[255 - LOG[a]!]!;
}

function power(base: number, exponent: number): number {
  if (exponent === 0) return 1;
  return base === 0 ? 0 : EXP[(LOG[base]! * exponent) % 255]!;
}

type Matrix = Uint8Array[];

function product(a: Matrix, b: Matrix): Matrix {
  return a.map((row) => {
    const sums = new Uint8Array(b[0]!.length);
    row.forEach((factor, at) => b[at]!.forEach((value, column) => (sums[column]! ^= times(factor, value))));
    return sums;
  });
}

/** By Gauss and Jordan. Every square that is asked for has an inverse: that is what makes it a code. */
function inverted(square: Matrix): Matrix {
  const size = square.length;
  const rows = square.map((row, at) => {
    const both = new Uint8Array(2 * size);
    both.set(row);
    both[size + at] = 1;
    return both;
  });
  for (let column = 0; column < size; column += 1) {
    const pivot = rows.findIndex((row, at) => at >= column && row[column] !== 0);
    if (pivot < 0) throw new Error('these shards give nothing');
    [rows[column], rows[pivot]] = [rows[pivot]!, rows[column]!];
    const first = rows[column]!;
    const scale = inverse(first[column]!);
    for (let at = 0; at < 2 * size; at += 1) first[at] = times(first[at]!, scale);
    rows.forEach((row, other) => {
      const factor = row[column]!;
      if (other === column || factor === 0) return;
      for (let at = 0; at < 2 * size; at += 1) row[at]! ^= times(factor, first[at]!);
    });
  }
  return rows.map((row) => row.slice(size));
}

/** A row for each shard: what of each data shard is in it. */
function matrix(data: number, parity: number): Matrix {
  const vandermonde = Array.from({ length: data + parity }, (_, row) =>
    Uint8Array.from({ length: data }, (_, column) => power(row, column)),
  );
  return product(vandermonde, inverted(vandermonde.slice(0, data)));
}

/** Adds `factor` times `from` to `into`. */
function add(into: Uint8Array, from: Uint8Array, factor: number): void {
  if (factor === 0) return;
  const table = new Uint8Array(256);
  for (let value = 0; value < 256; value += 1) table[value] = times(factor, value);
  for (let at = 0; at < into.length; at += 1) into[at]! ^= table[from[at]!]!;
}

/** Bytes of each shard of a chunk of `size` bytes. */
export function shardLength(size: number, data: number): number {
  return Math.ceil(size / data);
}

/**
 * The chunk of `size` bytes from at least `data` different shards. Whether these are shards of it at all its SHA-256
 * says, which the caller checks.
 */
export function readShards(
  size: number,
  data: number,
  parity: number,
  shards: readonly Shard[],
): Uint8Array<ArrayBuffer> {
  const length = shardLength(size, data);
  const known = new Map(shards.map((shard) => [shard.index, shard.bytes]));
  const usable = [...known].filter(([index, bytes]) => index < data + parity && bytes.length === length);
  if (usable.length < data) throw new Error(`${usable.length} of the ${data} shards are there that are needed`);
  // Data shards first: they need no arithmetic.
  usable.sort(([a], [b]) => a - b);
  const used = usable.slice(0, data);
  const chunk = new Uint8Array(length * data);
  for (const [index, bytes] of used) if (index < data) chunk.set(bytes, index * length);
  const missing = Array.from({ length: data }, (_, index) => index).filter((index) => !used.some(([at]) => at === index));
  if (missing.length > 0) {
    const rows = matrix(data, parity);
    const back = inverted(used.map(([index]) => rows[index]!));
    for (const index of missing) {
      const place = chunk.subarray(index * length, (index + 1) * length);
      used.forEach(([, bytes], at) => add(place, bytes, back[index]![at]!));
    }
  }
  return chunk.subarray(0, size);
}
