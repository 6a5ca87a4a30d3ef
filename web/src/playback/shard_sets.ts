/**
 * Which sets of shards are tried where some, each as it is listed, do not give their chunk: whoever made them was wrong.
 * Pure. The Rust crate `vstack-playback` chooses the same, and shares its test vectors.
 */

/**
 * Sets of `needed` shards with different indexes, each with the last of `here`, at most `most`: those without it were
 * tried before it came. The others of a set are chosen in the order of dictionaries, by when they came.
 */
export function setsWithTheLast<Shard extends { index: number }>(
  here: readonly Shard[],
  needed: number,
  most: number,
): Shard[][] {
  const found: Shard[][] = [];
  const last = here[here.length - 1];
  if (last === undefined || needed === 0 || most === 0) return found;
  const fill = (chosen: readonly Shard[], rest: readonly Shard[]): void => {
    if (chosen.length === needed) {
      found.push([...chosen]);
      return;
    }
    const isOpen = ({ index }: Shard) => chosen.every((other) => other.index !== index);
    const indexes = new Set(rest.filter(isOpen).map(({ index }) => index));
    // Without this, twins would have it go through many beginnings that nothing can come of.
    if (chosen.length + indexes.size < needed) return;
    for (const [at, one] of rest.entries()) {
      if (found.length >= most) return;
      if (isOpen(one)) fill([...chosen, one], rest.slice(at + 1));
    }
  };
  fill([last], here.slice(0, -1));
  return found;
}
