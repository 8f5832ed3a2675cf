/* Decoder of the compresso encoding: a box of a chunk.
 *
 * Nothing is trusted: whatever the bytes say, only they and the voxels asked for are touched,
 * and memory is taken for as many voxels as the chunk has.
 * Neither Python nor numpy is needed, and the caller holds no interpreter lock.
 *
 * Slices are decoded one by one where the chunk has an index of them (version 1). Else all are,
 * as one label can be copied from slice to slice.
 *
 * Specification: https://github.com/seung-lab/compresso, "Compresso Stream Format".
 */

#include "compresso_runs.h"

/* Beside DONE, DAMAGED and NO_MEMORY. */
enum { TOO_FEW = 2, OUTSIDE = 3, WRONG_INDEX = 4, CROSSING = 6 };

enum { MOST_WINDOW_VOXELS = 64 };

/* A chunk's sections. Axes are x, y, z. */
typedef struct {
    uint32_t size[3], step[3];
    unsigned has_index, connectivity, window_bytes, index_bytes;
    uint64_t num_ids, num_values, num_locations;
    const uint8_t *ids, *values, *locations, *windows, *windows_stop, *index;
} stream;

/* Slices that are decoded together. */
typedef struct {
    run_table runs;
    uint32_t z;
    uint64_t first_id, num_ids, location, locations_stop;
} slab;

/* Where in the windows we are. */
typedef struct {
    const uint8_t *at;
    uint64_t empty; /* windows that are left of a run of the first value */
} cursor;

static inline uint64_t load(const uint8_t *at, unsigned bytes) {
    uint64_t number = 0;
    switch (bytes) { /* copies of a constant size are single instructions */
    case 1: return *at;
    case 2: memcpy(&number, at, 2); break;
    case 4: memcpy(&number, at, 4); break;
    default: memcpy(&number, at, 8);
    }
    return number;
}

/* The next section of so many numbers, or NULL if the chunk is shorter. */
static const uint8_t *section(const uint8_t **at, uint64_t *left, uint64_t count, unsigned width) {
    if (count > *left / width) return NULL;
    const uint8_t *start = *at;
    *at += count * width, *left -= count * width;
    return start;
}

/* How many windows a code stands for: a run of the first value (odd), or one window with the
 * value of that index (even). */
static inline uint64_t windows_in(uint64_t code) { return code & 1 ? code >> 1 : 1; }

static int check_windows(const stream *in) {
    uint64_t left = 1;
    for (int axis = 0; axis < 3; ++axis) left *= cells(in->size[axis], in->step[axis]);
    if (!in->num_values) return DAMAGED;
    for (const uint8_t *at = in->windows; at < in->windows_stop; at += in->window_bytes) {
        const uint64_t code = load(at, in->window_bytes), count = windows_in(code);
        const uint64_t value = code & 1 ? 0 : code >> 1;
        if ((count > left) | (value >= in->num_values)) return DAMAGED;
        left -= count;
    }
    return left ? DAMAGED : DONE;
}

static uint64_t labels_in(const stream *in, uint32_t z) {
    return load(in->index + (uint64_t)z * in->index_bytes, in->index_bytes);
}

/* How far behind those of the last slice the locations of a slice begin. */
static uint64_t locations_before(const stream *in, uint32_t z) {
    return load(in->index + ((uint64_t)in->size[2] + z) * in->index_bytes, in->index_bytes);
}

/* The index has the labels of each slice, then how far its locations begin after the last's. */
static int check_index(const stream *in) {
    uint64_t ids = in->num_ids, locations = in->num_locations;
    for (uint32_t z = 0; z < in->size[2]; ++z) {
        const uint64_t labels = labels_in(in, z), further = locations_before(in, z);
        if (labels > ids || further > locations) return DAMAGED;
        ids -= labels, locations -= further;
    }
    return ids ? DAMAGED : DONE;
}

static int read_stream(stream *in, const uint8_t *data, uint64_t length, const int64_t *shape,
                       unsigned label_bytes) {
    if (length < HEADER_BYTES || memcmp(data, "cpso", 4) || data[4] > 1 || data[5] != label_bytes)
        return DAMAGED;
    in->has_index = data[4];
    for (int axis = 0; axis < 3; ++axis) {
        in->size[axis] = (uint32_t)load(data + 6 + 2 * axis, 2);
        in->step[axis] = data[12 + axis];
        if (in->size[axis] != (uint64_t)shape[2 - axis]) return DAMAGED;
    }
    const uint32_t voxels = in->step[0] * in->step[1] * in->step[2];
    in->num_ids = load(data + 15, 8);
    in->num_values = load(data + 23, 4);
    in->num_locations = load(data + 27, 8);
    in->connectivity = data[35];
    if (!voxels || voxels > MOST_WINDOW_VOXELS) return DAMAGED;
    if (in->connectivity != 4 && (in->connectivity != 6 || in->has_index)) return DAMAGED;
    in->window_bytes = bytes_for(voxels);
    in->index_bytes = index_bytes_for(in->size[0], in->size[1]);

    const uint8_t *at = data + HEADER_BYTES;
    uint64_t left = length - HEADER_BYTES;
    if (!(in->ids = section(&at, &left, in->num_ids, label_bytes))) return DAMAGED;
    if (!(in->values = section(&at, &left, in->num_values, in->window_bytes))) return DAMAGED;
    if (!(in->locations = section(&at, &left, in->num_locations, label_bytes))) return DAMAGED;
    const uint64_t index = in->has_index ? 2 * (uint64_t)in->size[2] * in->index_bytes : 0;
    if (index > left || (left - index) % in->window_bytes) return DAMAGED;
    in->windows = at;
    in->windows_stop = in->index = at + (left - index);
    if (check_windows(in)) return DAMAGED;
    return in->has_index ? check_index(in) : DONE;
}

/* Where we are behind so many windows. */
static cursor skip_windows(const stream *in, uint64_t count) {
    const uint8_t *at = in->windows;
    uint64_t passed = 0;
    for (; passed < count; at += in->window_bytes) passed += windows_in(load(at, in->window_bytes));
    return (cursor){at, passed - count};
}

/* Set the bits of a window in rows of a slice; `value` begins with the slice's. */
static inline void put_window(const stream *in, uint64_t *row, uint64_t words, uint32_t rows,
                              uint32_t x, uint64_t value) {
    const uint64_t mask = UINT64_MAX >> (64 - in->step[0]);
    const uint32_t word = x / 64, offset = x % 64;
    const int straddles = offset + in->step[0] > 64 && word + 1 < words;
    for (uint32_t y = 0; y < rows; ++y, row += words) {
        const uint64_t bits = value >> y * in->step[0] & mask;
        row[word] |= bits << offset;
        if (straddles) row[word + 1] |= bits >> (64 - offset);
    }
}

/* Set the bits of a slice's boundaries, from the first window of its layer on.
 *
 * Returns where the next layer begins. */
static cursor put_slice(const stream *in, cursor from, uint32_t z, uint64_t *bits,
                        uint64_t words) {
    const uint32_t shift = z % in->step[2] * in->step[0] * in->step[1];
    const uint64_t first = load(in->values, in->window_bytes) >> shift;
    const uint32_t step = in->step[0], num_x = cells(in->size[0], step);
    memset(bits, 0, in->size[1] * words * sizeof *bits);
    for (uint32_t y = 0; y < in->size[1]; y += in->step[1]) {
        uint64_t *row = bits + y * words;
        const uint32_t left = in->size[1] - y, rows = left < in->step[1] ? left : in->step[1];
        for (uint32_t x = 0; x < num_x;) {
            if (from.empty) {
                const uint32_t count = from.empty < num_x - x ? (uint32_t)from.empty : num_x - x;
                from.empty -= count;
                if (first)
                    for (uint32_t i = x; i < x + count; ++i)
                        put_window(in, row, words, rows, i * step, first);
                x += count;
                continue;
            }
            const uint64_t code = load(from.at, in->window_bytes);
            from.at += in->window_bytes;
            if (code & 1) {
                from.empty = code >> 1;
            } else {
                const uint8_t *value = in->values + (code >> 1) * in->window_bytes;
                put_window(in, row, words, rows, x++ * step,
                           load(value, in->window_bytes) >> shift);
            }
        }
    }
    return from;
}

/* Boundaries of the slices of a slab. Returns where those of the next one begin, if it begins
 * with another layer of windows, else where the last of the layers does. */
static cursor put_boundaries(const stream *in, const slab *of, cursor from) {
    for (uint32_t z = of->z; z < of->z + of->runs.depth; ++z) {
        uint64_t *bits = of->runs.bits + (uint64_t)(z - of->z) * in->size[1] * of->runs.words;
        const cursor next = put_slice(in, from, z, bits, of->runs.words);
        if ((z + 1) % in->step[2] == 0) from = next;
    }
    end_rows(&of->runs);
    return from;
}

/* Which ids and locations are those of the slab that begins with slice z: the first, or the one
 * behind the last. */
static void find_labels(const stream *in, slab *of, uint32_t z) {
    const uint32_t next = z + of->runs.depth;
    of->first_id += of->num_ids;
    of->z = z;
    of->num_ids = in->num_ids, of->locations_stop = in->num_locations;
    if (!in->has_index) return;
    if (of->runs.depth == 1) of->num_ids = labels_in(in, z);
    if (next < in->size[2]) of->locations_stop = of->location + locations_before(in, next);
}

/* Make ready for the first slab, which begins with slice z. */
static void start_labels(const stream *in, slab *of, uint32_t z) {
    of->first_id = of->num_ids = of->location = 0;
    if (!in->has_index) return;
    for (uint32_t i = 0; i < z; ++i) of->first_id += labels_in(in, i);
    for (uint32_t i = 0; i <= z; ++i) of->location += locations_before(in, i);
}

/* Whether a slab has the labels that its index says, or no more than there are without one. */
static int check_ids(const stream *in, const slab *of, uint64_t components) {
    if (components > of->num_ids) return TOO_FEW;
    return in->has_index && components < of->num_ids ? WRONG_INDEX : DONE;
}

/* The same of the locations; behind those of the last slice there may be more. */
static int check_locations(const stream *in, const slab *of) {
    if (of->location == of->locations_stop || !in->has_index) return DONE;
    return of->z + of->runs.depth < in->size[2] ? WRONG_INDEX : DONE;
}

#define TYPED "compresso_typed.h"
#include "unsigned_types.h"
