/* Encoder of the compresso encoding, to the bytes that its library writes by default: windows of
 * 4 x 4 voxels, slices that are connected within themselves only, and an index of them.
 *
 * One thing is different: labels of more than 32 bits always stand behind an escape, as
 * Neuroglancer holds other locations in 32 bits.
 *
 * A voxel is a boundary if the next one along x or y has another label.
 * Neither Python nor numpy is needed, and the caller holds no interpreter lock.
 *
 * Specification: https://github.com/seung-lab/compresso, "Compresso Stream Format".
 */

#include "compresso_runs.h"

/* Codes of windows are 16 bits, of which one says whether it is a run. */
enum { STEP = 4, NUM_WINDOWS = 1 << 16, MOST_CODED = (1 << 15) - 1 };

/* What is returned instead of a size. */
enum { OUT_OF_MEMORY = -1, TOO_MANY_WINDOWS = 0 };

/* Bytes that grow at their end. */
typedef struct {
    uint8_t *first;
    uint64_t size, capacity;
} bytes;

/* What is encoded, and the sections of the chunk so far. */
typedef struct {
    uint32_t size[3]; /* x, y, z */
    const char *labels;
    const int64_t *strides; /* bytes, z, y, x */
    void *scratch;          /* for a slice whose rows are not together */
    run_table runs;
    bytes ids, locations;
    uint16_t *windows; /* then their codes */
    uint64_t num_windows, num_codes;
    uint64_t *is_used; /* a bit for each value of a window */
    uint16_t *values, *numbers; /* of windows: those that are used; the number of each */
    uint32_t num_values;
    uint64_t *counts; /* of ids, then of locations, of each slice */
} encoder;

/* Make room for so many more bytes. */
static int reserve(bytes *of, uint64_t more) {
    if (more <= of->capacity - of->size) return DONE;
    const uint64_t capacity = 2 * of->capacity + more;
    uint8_t *larger = capacity > SIZE_MAX ? NULL : realloc(of->first, (size_t)capacity);
    if (!larger) return NO_MEMORY;
    of->first = larger, of->capacity = capacity;
    return DONE;
}

static void free_encoder(encoder *of) {
    free(of->scratch), free(of->ids.first), free(of->locations.first);
    free(of->windows), free(of->is_used), free(of->values), free(of->numbers), free(of->counts);
    free_runs(&of->runs);
}

static int make_encoder(encoder *of, const char *labels, const int64_t *strides,
                        const int64_t *shape, unsigned label_bytes) {
    *of = (encoder){.labels = labels, .strides = strides};
    for (int axis = 0; axis < 3; ++axis) of->size[axis] = (uint32_t)shape[2 - axis];
    const uint32_t sx = of->size[0], sy = of->size[1], sz = of->size[2];
    const uint64_t windows = (uint64_t)cells(sx, STEP) * cells(sy, STEP) * sz;
    if (make_runs(&of->runs, sx, sy, 1, 4)) return NO_MEMORY;
    of->windows = array(windows, sizeof *of->windows);
    of->is_used = calloc(NUM_WINDOWS / 64, sizeof *of->is_used);
    of->values = array(NUM_WINDOWS, sizeof *of->values);
    of->numbers = array(NUM_WINDOWS, sizeof *of->numbers);
    of->counts = array(2 * (uint64_t)sz, sizeof *of->counts);
    const int is_together = strides[2] == (int64_t)label_bytes;
    if (!is_together) of->scratch = array((uint64_t)sx * sy, label_bytes);
    return of->windows && of->is_used && of->values && of->numbers && of->counts &&
                   (is_together || of->scratch)
               ? DONE
               : NO_MEMORY;
}

/* Bits of flags, which are 0 or 1. */
static inline uint64_t bits_of(const uint8_t flags[64]) {
    uint64_t bits = 0;
    for (int i = 0; i < 8; ++i) {
        uint64_t eight;
        memcpy(&eight, flags + 8 * i, 8);
        bits |= (eight * UINT64_C(0x0102040810204080) >> 56) << 8 * i;
    }
    return bits;
}

/* Append the windows of a slice. */
static void put_windows(encoder *of) {
    const uint64_t words = of->runs.words;
    const uint32_t num_x = cells(of->size[0], STEP);
    for (uint32_t y = 0; y < of->size[1]; y += STEP) {
        const uint32_t left = of->size[1] - y, rows = left < STEP ? left : STEP;
        uint16_t *out = of->windows + of->num_windows;
        of->num_windows += num_x;
        for (uint64_t word = 0; word < words; ++word) {
            const uint32_t count = word + 1 < words ? 16 : num_x - 16 * (uint32_t)word;
            uint64_t bits[STEP] = {0};
            for (uint32_t row = 0; row < rows; ++row)
                bits[row] = of->runs.bits[(y + row) * words + word];
            for (uint32_t i = 0; i < count; ++i, ++out) {
                const unsigned shift = 4 * i;
                const uint64_t window = (bits[0] >> shift & 15) | (bits[1] >> shift & 15) << 4 |
                                        (bits[2] >> shift & 15) << 8 |
                                        (bits[3] >> shift & 15) << 12;
                *out = (uint16_t)window;
                of->is_used[window / 64] |= UINT64_C(1) << window % 64;
            }
        }
    }
}

/* List the windows that are used, in order, and number them. */
static void number_windows(encoder *of) {
    for (uint32_t word = 0; word < NUM_WINDOWS / 64; ++word)
        for (uint64_t bits = of->is_used[word]; bits; bits &= bits - 1) {
            const uint32_t window = 64 * word + lowest_bit(bits);
            of->numbers[window] = (uint16_t)of->num_values;
            of->values[of->num_values++] = (uint16_t)window;
        }
}

/* Replace the windows by codes: twice their number, or twice the length of a run of the first,
 * and one. */
static void code_windows(encoder *of) {
    uint16_t *code = of->windows;
    uint32_t run = 0;
    for (uint64_t i = 0; i < of->num_windows; ++i) {
        const uint16_t number = of->numbers[of->windows[i]];
        if (run && (number || run == MOST_CODED)) *code++ = (uint16_t)(2 * run + 1), run = 0;
        if (number)
            *code++ = (uint16_t)(2 * number);
        else
            ++run;
    }
    if (run) *code++ = (uint16_t)(2 * run + 1);
    of->num_codes = (uint64_t)(code - of->windows);
}

static inline uint8_t *put(uint8_t *at, uint64_t number, unsigned width) {
    memcpy(at, &number, width); /* the machine is little-endian */
    return at + width;
}

static inline uint8_t *put_all(uint8_t *at, const void *from, uint64_t size) {
    if (size) memcpy(at, from, (size_t)size);
    return at + size;
}

static uint8_t *put_header(uint8_t *at, const encoder *of, unsigned label_bytes) {
    at = put_all(at, "cpso\1", 5);
    at = put(at, label_bytes, 1);
    for (int axis = 0; axis < 3; ++axis) at = put(at, of->size[axis], 2);
    at = put(put(put(at, STEP, 1), STEP, 1), 1, 1);
    at = put(at, of->ids.size / label_bytes, 8);
    at = put(at, of->num_values, 4);
    at = put(at, of->locations.size / label_bytes, 8);
    return put(at, of->runs.connectivity, 1);
}

/* Join the sections. Returns their size, and where they are. */
static int64_t join(const encoder *of, unsigned label_bytes, uint8_t **out) {
    const uint64_t slices = of->size[2], *locations = of->counts + slices;
    const unsigned index_bytes = index_bytes_for(of->size[0], of->size[1]);
    const uint64_t values = of->num_values * sizeof *of->values;
    const uint64_t codes = of->num_codes * sizeof *of->windows;
    uint8_t *const first = array(HEADER_BYTES + of->ids.size + values + of->locations.size + codes +
                                     2 * slices * index_bytes, 1);
    if (!first) return OUT_OF_MEMORY;
    uint8_t *at = put_header(first, of, label_bytes);
    at = put_all(at, of->ids.first, of->ids.size);
    at = put_all(at, of->values, values);
    at = put_all(at, of->locations.first, of->locations.size);
    at = put_all(at, of->windows, codes);
    for (uint64_t z = 0; z < slices; ++z) at = put(at, of->counts[z], index_bytes);
    /* Where locations begin, after those of the slice before. */
    for (uint64_t z = 0; z < slices; ++z) at = put(at, z ? locations[z - 1] : 0, index_bytes);
    *out = first;
    return at - first;
}

EXPORT void free_compresso(uint8_t *encoded) { free(encoded); }

#define TYPED "compresso_encode_typed.h"
#include "unsigned_types.h"
