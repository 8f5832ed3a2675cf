/* The compressed_segmentation encoding, for one channel of a chunk.
 *
 * Nothing is trusted: whatever the words say, only they and the voxels asked for are touched.
 * Neither Python nor numpy is needed, and the caller holds no interpreter lock.
 *
 * Specification: Neuroglancer, sliceview/compressed_segmentation/README.md.
 */

#include "kernel.h"

#define TOO_LARGE UINT64_MAX

/* Where a block and a box overlap along one axis. */
typedef struct {
    int64_t start, stop; /* voxels from the block's first */
    int64_t place;       /* of the block's first voxel, from the box's first */
} span;

typedef struct {
    char *data;
    int64_t step[3];
} target;

typedef struct {
    uint32_t *words;
    uint64_t size, capacity;
} output;

typedef struct {
    uint64_t hash, start;
    uint32_t count; /* 0 in a free slot */
} table_slot;

typedef struct {
    table_slot *slots;
    uint64_t mask;
} tables;

static span span_of(int64_t cell, int64_t block, int64_t start, int64_t stop) {
    const int64_t first = cell * block;
    const span found = {start > first ? start - first : 0,
                        stop < first + block ? stop - first : block, first - start};
    return found;
}

static unsigned bits_for(uint32_t labels) {
    unsigned bits = labels > 1;
    while (bits < 32 && (UINT64_C(1) << bits) < labels) bits *= 2;
    return bits;
}

#define PACK_ROW(BITS)                                                      \
    for (int64_t x = 0; x < count; ++x, offset += (BITS))                   \
        words[offset >> 5] |= rank[numbers[x]] << (offset & 31);            \
    break

/* Put a row of a block into its values, from bit `offset` on. */
static void pack_row(uint32_t *words, uint64_t offset, unsigned bits, const uint16_t *numbers,
                     const uint32_t *rank, int64_t count) {
    switch (bits) {
    case 1: PACK_ROW(1);
    case 2: PACK_ROW(2);
    case 4: PACK_ROW(4);
    case 8: PACK_ROW(8);
    default: PACK_ROW(16);
    }
}

static uint64_t power_of_two(uint64_t least) {
    uint64_t power = 1;
    while (power < least) power *= 2;
    return power;
}

#define LABEL uint32_t
#define SUFFIX _uint32
#include "segmentation_typed.h"
#undef LABEL
#undef SUFFIX

#define LABEL uint64_t
#define SUFFIX _uint64
#include "segmentation_typed.h"
