/* Decoder for labels of type LABEL, whose names end with SUFFIX.
 *
 * Included once for each label type by compresso.c.
 */

#define NAME_(name, suffix) name##suffix
#define NAME__(name, suffix) NAME_(name, suffix)
#define NAME(name) NAME__(name, SUFFIX)

/* Where the labels of a slab go: labels from row to row and from slice to slice. */
typedef struct {
    LABEL *first;
    int64_t row, slice;
} NAME(voxels);

static inline LABEL NAME(label)(const uint8_t *labels, uint64_t index) {
    LABEL label;
    memcpy(&label, labels + index * sizeof label, sizeof label);
    return label;
}

/* Label the runs, and the boundary voxel behind each: it has the label of the one before.
 *
 * A few voxels at a time, and so a few too many: those are labelled after them. */
static void NAME(put_runs)(const stream *in, const slab *of, const NAME(voxels) *to) {
    enum { STEP = 8 };
    const uint8_t *ids = in->ids + of->first_id * sizeof(LABEL);
    const uint32_t *first = of->runs.first_run, size = in->size[0];
    for (uint32_t z = 0; z < of->runs.depth; ++z)
        for (uint32_t y = 0; y < in->size[1]; ++y, ++first) {
            LABEL *line = to->first + z * to->slice + y * to->row;
            for (uint32_t i = first[0]; i < first[1]; ++i) {
                const uint16_t *edges = of->runs.edges + 2 * (uint64_t)i;
                const LABEL label = NAME(label)(ids, of->runs.parents[i]);
                const uint32_t stop = edges[1] + (edges[1] < size);
                uint32_t x = edges[0];
                for (; x < stop && x + STEP <= size; x += STEP)
                    for (int j = 0; j < STEP; ++j) line[x + j] = label;
                for (; x < stop; ++x) line[x] = label;
            }
        }
}

/* Label a boundary voxel by the next location. A boundary voxel that comes later has no label
 * yet, which is 0. */
static int NAME(put_location)(const stream *in, slab *of, const NAME(voxels) *to,
                              const uint64_t *bits, uint32_t x, uint32_t y, uint32_t z) {
    if (of->location >= of->locations_stop) return TOO_FEW;
    LABEL *at = to->first + z * to->slice + y * to->row + x;
    const LABEL code = NAME(label)(in->locations, of->location++);
    const uint64_t slice = in->size[1] * of->runs.words, bit = UINT64_C(1) << x % 64;
    bits += x / 64;
    switch (code) {
    case LEFT:
        if (!x) return OUTSIDE;
        *at = at[-1];
        break;
    case RIGHT:
        if (x + 1 == in->size[0]) return OUTSIDE;
        *at = (x % 64 == 63 ? bits[1] & 1 : bits[0] & bit << 1) ? 0 : at[1];
        break;
    case UP:
        if (!y) return OUTSIDE;
        *at = at[-to->row];
        break;
    case DOWN:
        if (y + 1 == in->size[1]) return OUTSIDE;
        *at = bits[of->runs.words] & bit ? 0 : at[to->row];
        break;
    case ABOVE:
        if (!(of->z + z)) return OUTSIDE;
        if (!z) return CROSSING;
        *at = at[-to->slice];
        break;
    case BELOW:
        if (of->z + z + 1 == in->size[2]) return OUTSIDE;
        if (z + 1 == of->runs.depth) return CROSSING;
        *at = bits[slice] & bit ? 0 : at[to->slice];
        break;
    case ESCAPE:
        if (of->location >= of->locations_stop) return TOO_FEW;
        *at = NAME(label)(in->locations, of->location++);
        break;
    default: *at = (LABEL)(code - FIRST_LABEL);
    }
    return DONE;
}

/* Label the boundary voxels that do not follow a run: by the voxel above them in the slice, or
 * in the slice above, if that is none of a boundary, else by locations. */
static int NAME(put_row)(const stream *in, slab *of, const NAME(voxels) *to, uint32_t y,
                         uint32_t z) {
    const uint64_t *row = of->runs.bits + ((uint64_t)z * in->size[1] + y) * of->runs.words;
    LABEL *line = to->first + z * to->slice + y * to->row;
    uint64_t before = 1;
    for (uint64_t word = 0; word < of->runs.words; ++word) {
        uint64_t left = row[word] & (row[word] << 1 | before);
        before = row[word] >> 63;
        if (word + 1 == of->runs.words && in->size[0] % 64)
            left &= UINT64_MAX >> (64 - in->size[0] % 64);
        if (!left) continue;
        LABEL *at = line + 64 * word;
        if (y) {
            const uint64_t *up = row + word - of->runs.words;
            for (uint64_t bits = left & ~*up; bits; bits &= bits - 1)
                at[lowest_bit(bits)] = at[(int64_t)lowest_bit(bits) - to->row];
            left &= *up;
        }
        if (z && in->connectivity == 6) {
            const uint64_t *above = row + word - in->size[1] * of->runs.words;
            for (uint64_t bits = left & ~*above; bits; bits &= bits - 1)
                at[lowest_bit(bits)] = at[(int64_t)lowest_bit(bits) - to->slice];
            left &= *above;
        }
        for (; left; left &= left - 1) {
            const uint32_t x = (uint32_t)(64 * word + lowest_bit(left));
            const int status = NAME(put_location)(in, of, to, row, x, y, z);
            if (status) return status;
        }
    }
    return DONE;
}

static int NAME(put_slab)(const stream *in, slab *of, const NAME(voxels) *to) {
    int status = check_ids(in, of, find_components(&of->runs));
    if (status) return status;
    NAME(put_runs)(in, of, to);
    for (uint32_t z = 0; z < of->runs.depth; ++z)
        for (uint32_t y = 0; y < in->size[1]; ++y)
            if ((status = NAME(put_row)(in, of, to, y, z))) return status;
    return check_locations(in, of);
}

/* Copy what is in the box. */
static void NAME(copy)(const slab *of, const NAME(voxels) *from, const int64_t *box, char *out,
                       const int64_t *step) {
    const int64_t count = box[5] - box[2];
    for (int64_t z = box[0]; z < box[3]; ++z) {
        if (z < of->z || z >= (int64_t)of->z + of->runs.depth) continue;
        for (int64_t y = box[1]; y < box[4]; ++y) {
            const LABEL *row = from->first + (z - of->z) * from->slice + y * from->row + box[2];
            char *target = out + (z - box[0]) * step[0] + (y - box[1]) * step[1];
            if (step[2] == sizeof(LABEL))
                memcpy(target, row, count * sizeof(LABEL));
            else
                for (int64_t x = 0; x < count; ++x) *(LABEL *)(target + x * step[2]) = row[x];
        }
    }
}

/* Decode the slabs of `depth` slices that have some of the box. */
static int NAME(decode_slabs)(const stream *in, uint32_t depth, const int64_t *box, char *out,
                              const int64_t *step) {
    const int64_t sx = in->size[0], sy = in->size[1];
    /* Where a slice's rows lie as we need them, they are decoded in their place. */
    const int in_place = depth == 1 && !box[1] && !box[2] && box[4] == sy && box[5] == sx &&
                         step[2] == sizeof(LABEL);
    const uint64_t voxels = (uint64_t)sx * sy * depth;
    slab part = {0};
    LABEL *scratch = NULL;
    int status = make_runs(&part.runs, in->size[0], in->size[1], depth, in->connectivity);
    if (!status && !in_place) {
        scratch = array(voxels, sizeof(LABEL));
        if (!scratch) status = NO_MEMORY;
    }
    NAME(voxels) to = {scratch, sx, sx * sy};
    const uint32_t start = depth == 1 ? (uint32_t)box[0] : 0;
    const uint64_t layer = (uint64_t)cells(in->size[0], in->step[0]) * cells(in->size[1], in->step[1]);
    cursor windows = skip_windows(in, layer * (start / in->step[2]));
    start_labels(in, &part, start);
    for (uint32_t z = start; !status && z < box[3]; z += depth) {
        find_labels(in, &part, z);
        windows = put_boundaries(in, &part, windows);
        if (in_place)
            to = (NAME(voxels)){(LABEL *)(out + (z - box[0]) * step[0]),
                                step[1] / (int64_t)sizeof(LABEL), 0};
        status = NAME(put_slab)(in, &part, &to);
        if (!status && !in_place) NAME(copy)(&part, &to, box, out, step);
    }
    free_runs(&part.runs);
    free(scratch);
    return status;
}

/* Decode the voxels of a box of a chunk.
 *
 * data, length: the chunk. shape: of it, z, y, x.
 * box: first voxels, then the ones after the last, z, y, x, within the shape.
 * out, step: the first voxel of the box, and bytes from voxel to voxel along z, y, x.
 */
EXPORT int NAME(decode_compresso)(const uint8_t *data, uint64_t length, const int64_t *shape,
                                  const int64_t *box, char *out, const int64_t *step) {
    stream in;
    if (read_stream(&in, data, length, shape, sizeof(LABEL))) return DAMAGED;
    const uint32_t depth = in.has_index ? 1 : in.size[2];
    const int status = NAME(decode_slabs)(&in, depth, box, out, step);
    return status == CROSSING ? NAME(decode_slabs)(&in, in.size[2], box, out, step) : status;
}

#undef NAME
#undef NAME__
#undef NAME_
