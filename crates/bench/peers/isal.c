// ISA-L as a peer: for every line it is sent, prints how many nanoseconds coding a chunk took, and making two lost data
// shards of it anew, each the median of so many times. Arguments: data shards, parity shards, bytes of a shard, times.
#include <isa-l/erasure_code.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  const int k = atoi(argv[1]), p = atoi(argv[2]), len = atoi(argv[3]), times = atoi(argv[4]), m = k + p;
  if (k < 2 || p < 2 || m > 32 || len < 1 || times < 1) return 2;
  unsigned char *shard[32], *made[2], matrix[32 * 32], tables[32 * 32 * 32];
  for (int i = 0; i < m; i++)
    if (posix_memalign((void **)&shard[i], 64, (size_t)len)) return 1;
  for (int i = 0; i < 2; i++)
    if (posix_memalign((void **)&made[i], 64, (size_t)len)) return 1;
  for (int i = 0; i < k; i++)
    for (int j = 0; j < len; j++) shard[i][j] = (unsigned char)rand();
  gf_gen_cauchy1_matrix(matrix, m, k);
  uint64_t *took = malloc(sizeof *took * (size_t)times);
  char line[64];
  while (fgets(line, sizeof line, stdin)) {
    for (int t = 0; t < times; t++) {
      const uint64_t began = now();
      ec_init_tables(k, p, matrix + k * k, tables);
      ec_encode_data(len, k, p, tables, shard, shard + k);
      took[t] = now() - began;
    }
    qsort(took, (size_t)times, sizeof *took, ascending);
    const uint64_t encode = took[times / 2];
    for (int t = 0; t < times; t++) {
      // The first two data shards are lost: the others and the first parity shards are left.
      unsigned char rows[32 * 32], inverse[32 * 32], *left[32];
      const uint64_t began = now();
      for (int i = 0; i < k; i++) {
        left[i] = shard[i + 2];
        memcpy(rows + i * k, matrix + (i + 2) * k, (size_t)k);
      }
      if (gf_invert_matrix(rows, inverse, k)) return 1;
      ec_init_tables(k, 2, inverse, tables);
      ec_encode_data(len, k, 2, tables, left, made);
      took[t] = now() - began;
    }
    qsort(took, (size_t)times, sizeof *took, ascending);
    for (int i = 0; i < 2; i++)
      if (memcmp(made[i], shard[i], (size_t)len)) return 1;
    printf("%llu %llu\n", (unsigned long long)encode, (unsigned long long)took[times / 2]);
    fflush(stdout);
  }
  return 0;
}
