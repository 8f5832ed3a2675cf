/* What the encoder and the decoder of the compresso encoding share: its numbers, and the
 * components of the voxels between boundaries, which are found by runs of rows.
 */

#ifndef PRECOMPUTED_STORE_COMPRESSO_RUNS_H
#define PRECOMPUTED_STORE_COMPRESSO_RUNS_H

#include "kernel.h"

#ifdef _MSC_VER
#include <intrin.h>
#endif

/* Beside DONE and DAMAGED. */
enum { NO_MEMORY = 5 };

enum { HEADER_BYTES = 36 };

/* What a location says: copy a neighbour's label, take the next location, or the label itself,
 * plus FIRST_LABEL. */
enum { LEFT, RIGHT, UP, DOWN, ABOVE, BELOW, ESCAPE, FIRST_LABEL };

/* Runs of slices: the voxels of a row between two boundaries. */
typedef struct {
    uint32_t size_x, size_y, depth;
    unsigned connectivity;
    uint64_t words;      /* of a row */
    uint64_t *bits;      /* rows of boundary voxels, ones after the last voxel */
    uint16_t *edges;     /* of each run, its first voxel and the one after the last */
    uint32_t *parents;   /* of each run, one before it that it touches, or itself; then its
                            component's number */
    uint32_t *first_run; /* of each row, and of the one after the last */
} run_table;

static inline unsigned lowest_bit(uint64_t bits) {
#ifdef _MSC_VER
    unsigned long index;
    if (_BitScanForward(&index, (unsigned long)bits)) return index;
    _BitScanForward(&index, (unsigned long)(bits >> 32));
    return index + 32;
#else
    return (unsigned)__builtin_ctzll(bits);
#endif
}

static inline uint32_t cells(uint32_t size, uint32_t step) { return (size + step - 1) / step; }

static inline unsigned bytes_for(unsigned bits) {
    unsigned bytes = 1;
    while (8 * bytes < bits) bytes *= 2;
    return bytes;
}

/* Bytes of a number in the index of slices. */
static inline unsigned index_bytes_for(uint32_t size_x, uint32_t size_y) {
    unsigned bits = 0;
    while (2 * (uint64_t)size_x * size_y >> bits) ++bits;
    return bytes_for(bits);
}

static inline void *array(uint64_t count, size_t width) {
    return count > SIZE_MAX / width ? NULL : malloc((size_t)count * width);
}

/* Take memory for `depth` slices. */
static inline int make_runs(run_table *of, uint32_t size_x, uint32_t size_y, uint32_t depth,
                            unsigned connectivity) {
    const uint64_t rows = (uint64_t)size_y * depth, runs = rows * ((size_x + 1) / 2);
    *of = (run_table){.size_x = size_x, .size_y = size_y, .depth = depth};
    of->connectivity = connectivity;
    of->words = (size_x + 63) / 64;
    if (runs > UINT32_MAX) return NO_MEMORY;
    of->bits = array(rows * of->words, sizeof *of->bits);
    of->edges = array(runs, 2 * sizeof *of->edges);
    of->parents = array(runs, sizeof *of->parents);
    of->first_run = array(rows + 1, sizeof *of->first_run);
    return of->bits && of->edges && of->parents && of->first_run ? DONE : NO_MEMORY;
}

static inline void free_runs(run_table *of) {
    free(of->bits), free(of->edges), free(of->parents), free(of->first_run);
}

/* Set the bits after the last voxel of each row. */
static inline void end_rows(const run_table *of) {
    const uint64_t rows = (uint64_t)of->size_y * of->depth;
    if (of->size_x % 64)
        for (uint64_t row = 0; row < rows; ++row)
            of->bits[(row + 1) * of->words - 1] |= UINT64_MAX << of->size_x % 64;
}

/* Find the runs of a row from run `first` on. Returns the one after the last. */
static inline uint32_t find_runs(const run_table *of, const uint64_t *row, uint32_t first) {
    uint16_t *const start = of->edges + 2 * (uint64_t)first, *edge = start;
    uint64_t before = 1;
    for (uint64_t word = 0; word < of->words; ++word) {
        uint64_t changes = row[word] ^ (row[word] << 1 | before);
        before = row[word] >> 63;
        for (; changes; changes &= changes - 1)
            *edge++ = (uint16_t)(64 * word + lowest_bit(changes));
    }
    if ((edge - start) % 2) *edge++ = (uint16_t)of->size_x;
    const uint32_t stop = first + (uint32_t)((edge - start) / 2);
    for (uint32_t i = first; i < stop; ++i) of->parents[i] = i;
    return stop;
}

static inline uint32_t root_of(uint32_t *parents, uint32_t number) {
    number = parents[number]; /* mostly that is it */
    while (parents[number] != number) number = parents[number] = parents[parents[number]];
    return number;
}

/* Unite the runs [a, a_stop) of a row with those of an earlier one that they touch. */
static inline void unite_rows(const run_table *of, uint32_t a, uint32_t a_stop, uint32_t b,
                              uint32_t b_stop) {
    while (a < a_stop && b < b_stop) {
        const uint16_t *edges = of->edges + 2 * (uint64_t)a, *others = of->edges + 2 * (uint64_t)b;
        if ((edges[0] < others[1]) & (others[0] < edges[1]) && of->parents[a] != of->parents[b]) {
            const uint32_t root = root_of(of->parents, a), other = root_of(of->parents, b);
            /* The root is the run that comes first. */
            of->parents[root > other ? root : other] = root < other ? root : other;
        }
        const int is_passed = edges[1] < others[1];
        a += is_passed, b += !is_passed;
    }
}

/* Find the components and number them by their first voxels. Returns how many there are. */
static inline uint32_t find_components(const run_table *of) {
    const uint32_t *first = of->first_run;
    const uint64_t rows = (uint64_t)of->size_y * of->depth;
    of->first_run[0] = 0;
    for (uint64_t row = 0; row < rows; ++row) {
        of->first_run[row + 1] = find_runs(of, of->bits + row * of->words, first[row]);
        if (row % of->size_y)
            unite_rows(of, first[row], first[row + 1], first[row - 1], first[row]);
        if (of->connectivity == 6 && row >= of->size_y) {
            const uint64_t above = row - of->size_y;
            unite_rows(of, first[row], first[row + 1], first[above], first[above + 1]);
        }
    }
    uint32_t count = 0;
    for (uint32_t i = 0; i < first[rows]; ++i) {
        const uint32_t parent = of->parents[i]; /* already numbered, if it is another */
        of->parents[i] = parent == i ? count++ : of->parents[parent];
    }
    return count;
}

#endif
