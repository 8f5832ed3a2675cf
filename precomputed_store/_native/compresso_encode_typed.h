/* Encoder of labels of type LABEL, whose names end with SUFFIX.
 *
 * Included once for each label type by compresso_encode.c.
 */

#define NAME_(name, suffix) name##suffix
#define NAME__(name, suffix) NAME_(name, suffix)
#define NAME(name) NAME__(name, SUFFIX)

/* A slice: its first voxel, and bytes from row to row. Voxels of a row are together. */
typedef struct {
    const char *first;
    int64_t step;
} NAME(slice);

static inline const LABEL *NAME(row_of)(const NAME(slice) *in, uint32_t y) {
    return (const LABEL *)(in->first + y * in->step);
}

static NAME(slice) NAME(slice_of)(const encoder *of, uint32_t z) {
    const char *labels = of->labels + z * of->strides[0];
    if (!of->scratch) return (NAME(slice)){labels, of->strides[1]};
    LABEL *out = of->scratch;
    for (uint32_t y = 0; y < of->size[1]; ++y) {
        const char *row = labels + y * of->strides[1];
        for (uint32_t x = 0; x < of->size[0]; ++x)
            *out++ = *(const LABEL *)(row + x * of->strides[2]);
    }
    return (NAME(slice)){of->scratch, (int64_t)(of->size[0] * sizeof(LABEL))};
}

/* Say of up to 64 voxels whether they differ from the next one or from the one below. */
static inline void NAME(compare)(const LABEL *at, const LABEL *below, uint32_t count,
                                 uint8_t *flags) {
    if (sizeof(LABEL) < 8) {
        for (uint32_t i = 0; i < count; ++i)
            flags[i] = (uint8_t)((at[i] != at[i + 1]) | (at[i] != below[i]));
        return;
    }
    /* Without instructions that compare 64 bits, this is faster. */
    uint32_t differences[64];
    for (uint32_t i = 0; i < count; ++i) {
        const uint64_t bits = (uint64_t)((at[i] ^ at[i + 1]) | (at[i] ^ below[i]));
        differences[i] = (uint32_t)(bits | bits >> 32);
    }
    for (uint32_t i = 0; i < count; ++i) flags[i] = differences[i] != 0;
}

/* Find the boundaries of a row of a slice, whose next row is `below`, or for the last one itself. */
static void NAME(find_boundaries)(const LABEL *row, const LABEL *below, uint32_t size,
                                  uint64_t *bits) {
    uint8_t flags[64];
    for (; size > 64; size -= 64, row += 64, below += 64) {
        NAME(compare)(row, below, 64, flags);
        *bits++ = bits_of(flags);
    }
    memset(flags, 0, sizeof flags);
    NAME(compare)(row, below, size - 1, flags);
    flags[size - 1] = row[size - 1] != below[size - 1];
    *bits = bits_of(flags);
}

static inline uint8_t *NAME(put_label)(uint8_t *at, LABEL label) {
    memcpy(at, &label, sizeof label);
    return at + sizeof label;
}

/* Say which label a boundary voxel has that follows no other voxel: that of the next one along x
 * or y, if that is none of a boundary, or the label itself. */
static inline uint8_t *NAME(put_location)(const encoder *of, const NAME(slice) *in, uint8_t *at,
                                          uint32_t x, uint32_t y) {
    const LABEL *labels = NAME(row_of)(in, y), label = labels[x];
    const LABEL most = (LABEL)(sizeof(LABEL) > 4 ? UINT32_MAX : (LABEL)-1) - FIRST_LABEL;
    const uint64_t words = of->runs.words, *bits = of->runs.bits + y * words, right = x + 1;
    if (right < of->size[0] && !(bits[right / 64] >> right % 64 & 1) && labels[right] == label)
        return NAME(put_label)(at, RIGHT);
    if (y + 1 < of->size[1] && !(bits[words + x / 64] >> x % 64 & 1) &&
        NAME(row_of)(in, y + 1)[x] == label)
        return NAME(put_label)(at, DOWN);
    if (label <= most) return NAME(put_label)(at, (LABEL)(label + FIRST_LABEL));
    return NAME(put_label)(NAME(put_label)(at, ESCAPE), label);
}

/* Append the locations of a slice: of boundary voxels behind and below others, or none. */
static int NAME(put_locations)(encoder *of, const NAME(slice) *in) {
    const uint64_t words = of->runs.words;
    for (uint32_t y = 0; y < of->size[1]; ++y) {
        const uint64_t *row = of->runs.bits + y * words;
        uint64_t before = 1;
        if (reserve(&of->locations, 2 * sizeof(LABEL) * (uint64_t)of->size[0])) return NO_MEMORY;
        uint8_t *at = of->locations.first + of->locations.size;
        for (uint64_t word = 0; word < words; ++word) {
            uint64_t bits = row[word] & (row[word] << 1 | before);
            if (y) bits &= row[(int64_t)word - (int64_t)words];
            before = row[word] >> 63;
            for (; bits; bits &= bits - 1)
                at = NAME(put_location)(of, in, at, (uint32_t)(64 * word + lowest_bit(bits)), y);
        }
        of->locations.size = (uint64_t)(at - of->locations.first);
    }
    return DONE;
}

/* Append the labels of the components of a slice. */
static int NAME(put_ids)(encoder *of, const NAME(slice) *in) {
    const uint32_t count = find_components(&of->runs), *first = of->runs.first_run;
    if (reserve(&of->ids, count * (uint64_t)sizeof(LABEL))) return NO_MEMORY;
    uint8_t *at = of->ids.first + of->ids.size;
    uint32_t next = 0;
    for (uint32_t y = 0; y < of->size[1]; ++y) {
        const LABEL *row = NAME(row_of)(in, y);
        for (uint32_t i = first[y]; i < first[y + 1]; ++i)
            if (of->runs.parents[i] == next) {
                at = NAME(put_label)(at, row[of->runs.edges[2 * (uint64_t)i]]);
                ++next;
            }
    }
    of->ids.size += count * (uint64_t)sizeof(LABEL);
    return DONE;
}

static int NAME(put_slice)(encoder *of, uint32_t z) {
    const NAME(slice) in = NAME(slice_of)(of, z);
    const uint64_t ids = of->ids.size, locations = of->locations.size;
    for (uint32_t y = 0; y < of->size[1]; ++y) {
        const uint32_t next = y + 1 < of->size[1] ? y + 1 : y;
        NAME(find_boundaries)(NAME(row_of)(&in, y), NAME(row_of)(&in, next), of->size[0],
                              of->runs.bits + y * of->runs.words);
    }
    put_windows(of);
    if (NAME(put_locations)(of, &in)) return NO_MEMORY;
    end_rows(&of->runs);
    if (NAME(put_ids)(of, &in)) return NO_MEMORY;
    of->counts[z] = (of->ids.size - ids) / sizeof(LABEL);
    of->counts[of->size[2] + z] = (of->locations.size - locations) / sizeof(LABEL);
    return DONE;
}

/* Encode a chunk.
 *
 * labels, strides: its first voxel, and bytes from voxel to voxel along z, y, x.
 * shape: of it, z, y, x, from 1 to 65535.
 * encoded: becomes the chunk, which is to be given to free_compresso.
 *
 * Returns the size of the chunk, or 0 if it has more different windows than can be numbered, or -1
 * if there is no memory.
 */
EXPORT int64_t NAME(encode_compresso)(const char *labels, const int64_t *strides,
                                      const int64_t *shape, uint8_t **encoded) {
    encoder of;
    int64_t size = OUT_OF_MEMORY;
    int status = make_encoder(&of, labels, strides, shape, sizeof(LABEL));
    for (uint32_t z = 0; !status && z < of.size[2]; ++z) status = NAME(put_slice)(&of, z);
    if (!status) {
        number_windows(&of);
        if (of.num_values > MOST_CODED + 1) {
            size = TOO_MANY_WINDOWS;
        } else {
            code_windows(&of);
            size = join(&of, sizeof(LABEL), encoded);
        }
    }
    free_encoder(&of);
    return size;
}

#undef NAME
#undef NAME__
#undef NAME_
