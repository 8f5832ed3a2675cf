/* Decoder and encoder for labels of type LABEL, whose names end with SUFFIX.
 *
 * Included once for each label type by compressed_segmentation.c.
 */

#define NAME_(name, suffix) name##suffix
#define NAME__(name, suffix) NAME_(name, suffix)
#define NAME(name) NAME__(name, SUFFIX)

enum { NAME(entry_words) = sizeof(LABEL) / sizeof(uint32_t) };

static inline LABEL NAME(entry)(const uint32_t *table, uint64_t index) {
    LABEL label;
    memcpy(&label, table + index * NAME(entry_words), sizeof label);
    return label;
}

/* One row of voxels of a block, from bit `offset` of its values on. BITS is a constant
 * wherever this is expanded, and the compiler makes a loop of its own for each. */
#define DECODE_ROW(BITS)                                                                  \
    for (int64_t x = 0; x < count; ++x, offset += (BITS)) {                               \
        uint64_t index = values[offset >> 5] >> (offset & 31);                            \
        if ((BITS) < 32) index &= (UINT64_C(1) << (BITS)) - 1;                            \
        if (index >= entries) return DAMAGED;                                             \
        *(LABEL *)(row + x * step) = NAME(entry)(table, index);                           \
    }                                                                                     \
    break

static int NAME(decode_row)(const uint32_t *values, const uint32_t *table, uint64_t entries,
                            unsigned bits, uint64_t offset, char *row, int64_t step,
                            int64_t count) {
    switch (bits) {
    case 1: DECODE_ROW(1);
    case 2: DECODE_ROW(2);
    case 4: DECODE_ROW(4);
    case 8: DECODE_ROW(8);
    case 16: DECODE_ROW(16);
    case 32: DECODE_ROW(32);
    default: return DAMAGED;
    }
    return DONE;
}

/* The part of one block that lies in the box. */
static int NAME(decode_block)(const uint32_t *words, uint64_t num_words, const int64_t *block,
                              const uint32_t *header, const span *part, const target *out) {
    const unsigned bits = header[0] >> 24;
    const uint64_t first_entry = header[0] & 0xFFFFFF;
    const uint64_t block_voxels = (uint64_t)block[0] * block[1] * block[2];
    if (first_entry > num_words) return DAMAGED;
    const uint32_t *table = words + first_entry;
    const uint64_t entries = (num_words - first_entry) / NAME(entry_words);
    const uint64_t values_start = header[1];
    if (bits && values_start + (bits * block_voxels + 31) / 32 > num_words) return DAMAGED;
    if (!entries) return DAMAGED;
    const LABEL only = NAME(entry)(table, 0);
    for (int64_t z = part[0].start; z < part[0].stop; ++z)
        for (int64_t y = part[1].start; y < part[1].stop; ++y) {
            char *row = out->data + (part[0].place + z) * out->step[0] +
                        (part[1].place + y) * out->step[1] +
                        (part[2].place + part[2].start) * out->step[2];
            const int64_t count = part[2].stop - part[2].start, step = out->step[2];
            if (!bits) {
                if (step == sizeof(LABEL))
                    for (int64_t x = 0; x < count; ++x) ((LABEL *)row)[x] = only;
                else
                    for (int64_t x = 0; x < count; ++x) *(LABEL *)(row + x * step) = only;
                continue;
            }
            const uint64_t voxel = part[2].start + block[2] * (y + block[1] * z);
            if (NAME(decode_row)(words + values_start, table, entries, bits, bits * voxel, row,
                                 step, count))
                return DAMAGED;
        }
    return DONE;
}

/* Decode the voxels of a box of one channel.
 *
 * words, num_words: the channel. shape, block: of the channel and its blocks, z, y, x.
 * box: first voxels, then the ones after the last, z, y, x, within the shape.
 * out, step: the first voxel of the box, and bytes from voxel to voxel along z, y, x.
 */
EXPORT int NAME(decode)(const uint32_t *words, uint64_t num_words, const int64_t *shape,
                        const int64_t *block, const int64_t *box, char *out,
                        const int64_t *step) {
    int64_t grid[3];
    for (int axis = 0; axis < 3; ++axis) grid[axis] = (shape[axis] + block[axis] - 1) / block[axis];
    if ((uint64_t)(grid[0] * grid[1] * grid[2]) * 2 > num_words) return DAMAGED;
    const target place = {out, {step[0], step[1], step[2]}};
    span part[3];
    for (int64_t z = box[0] / block[0]; z * block[0] < box[3]; ++z) {
        part[0] = span_of(z, block[0], box[0], box[3]);
        for (int64_t y = box[1] / block[1]; y * block[1] < box[4]; ++y) {
            part[1] = span_of(y, block[1], box[1], box[4]);
            for (int64_t x = box[2] / block[2]; x * block[2] < box[5]; ++x) {
                part[2] = span_of(x, block[2], box[2], box[5]);
                const uint32_t *header = words + 2 * (x + grid[2] * (y + grid[1] * z));
                if (NAME(decode_block)(words, num_words, block, header, part, &place))
                    return DAMAGED;
            }
        }
    }
    return DONE;
}

/* Labels of one block in the order in which they were met, found by hashing. */
typedef struct {
    LABEL *labels;
    uint32_t *slots; /* 1 + number of the label, or 0 */
    uint32_t *used;  /* slots to be cleared */
    uint32_t *order, *rank;
    uint32_t mask, count;
} NAME(labels);

static uint32_t NAME(number)(NAME(labels) *found, LABEL label) {
    uint32_t slot = (uint32_t)(((uint64_t)label * UINT64_C(0x9E3779B97F4A7C15)) >> 40);
    for (slot &= found->mask; found->slots[slot]; slot = (slot + 1) & found->mask)
        if (found->labels[found->slots[slot] - 1] == label) return found->slots[slot] - 1;
    found->labels[found->count] = label;
    found->used[found->count] = slot;
    found->slots[slot] = ++found->count;
    return found->count - 1;
}

static void NAME(sift)(const LABEL *labels, uint32_t *order, uint32_t root, uint32_t count) {
    for (uint32_t child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && labels[order[child]] < labels[order[child + 1]]) ++child;
        if (labels[order[root]] >= labels[order[child]]) return;
        const uint32_t moved = order[root];
        order[root] = order[child], order[child] = moved;
    }
}

/* Numbers of the labels, the smallest label first: by insertion if there are few, else a heap. */
static void NAME(sort)(const LABEL *labels, uint32_t *order, uint32_t count) {
    if (count <= 32) {
        for (uint32_t i = 1; i < count; ++i) {
            const uint32_t moved = order[i];
            uint32_t j = i;
            for (; j && labels[order[j - 1]] > labels[moved]; --j) order[j] = order[j - 1];
            order[j] = moved;
        }
        return;
    }
    for (uint32_t root = count / 2; root--;) NAME(sift)(labels, order, root, count);
    for (uint32_t last = count; --last;) {
        const uint32_t moved = order[0];
        order[0] = order[last], order[last] = moved;
        NAME(sift)(labels, order, 0, last);
    }
}

/* Whether a row is one label. Without a branch for each voxel, so that it takes a few of
 * the machine's widest instructions where voxels lie side by side. */
static inline int NAME(is_uniform)(const char *row, int64_t step, int64_t count, LABEL label) {
    LABEL differing = 0;
    if (step == sizeof(LABEL))
        for (int64_t x = 0; x < count; ++x) differing |= ((const LABEL *)row)[x] ^ label;
    else
        for (int64_t x = 0; x < count; ++x) differing |= *(const LABEL *)(row + x * step) ^ label;
    return !differing;
}

/* Number the labels of a block, and its voxels, x fastest. */
static void NAME(number_voxels)(NAME(labels) *found, const char *labels, const int64_t *step,
                                const int64_t *extent, uint16_t *numbers) {
    for (uint32_t i = 0; i < found->count; ++i) found->slots[found->used[i]] = 0;
    found->count = 0;
    LABEL last = *(const LABEL *)labels;
    uint16_t number = (uint16_t)NAME(number)(found, last);
    for (int64_t z = 0; z < extent[0]; ++z)
        for (int64_t y = 0; y < extent[1]; ++y, numbers += extent[2]) {
            const char *row = labels + z * step[0] + y * step[1];
            if (NAME(is_uniform)(row, step[2], extent[2], last)) {
                for (int64_t x = 0; x < extent[2]; ++x) numbers[x] = number;
                continue;
            }
            for (int64_t x = 0; x < extent[2]; ++x, row += step[2]) {
                const LABEL label = *(const LABEL *)row;
                if (label != last) {
                    last = label;
                    number = (uint16_t)NAME(number)(found, label);
                }
                numbers[x] = number;
            }
        }
    for (uint32_t i = 0; i < found->count; ++i) found->order[i] = i;
    NAME(sort)(found->labels, found->order, found->count);
    for (uint32_t i = 0; i < found->count; ++i) found->rank[found->order[i]] = i;
}

/* Where the table of a block begins: an equal one that is there already, or a new one. */
static uint64_t NAME(place_table)(const NAME(labels) *found, output *out, tables *known) {
    uint64_t hash = found->count;
    for (uint32_t i = 0; i < found->count; ++i)
        hash = (hash ^ (uint64_t)found->labels[found->order[i]]) * UINT64_C(0x9E3779B97F4A7C15),
        hash ^= hash >> 29;
    uint64_t slot = hash & known->mask;
    for (; known->slots[slot].count; slot = (slot + 1) & known->mask) {
        const table_slot *other = &known->slots[slot];
        if (other->hash != hash || other->count != found->count) continue;
        const uint32_t *stored = out->words + other->start;
        uint32_t i = 0;
        while (i < found->count && NAME(entry)(stored, i) == found->labels[found->order[i]]) ++i;
        if (i == found->count) return other->start;
    }
    const uint64_t start = out->size, size = (uint64_t)found->count * NAME(entry_words);
    if (start + size > out->capacity) return TOO_LARGE;
    for (uint32_t i = 0; i < found->count; ++i)
        memcpy(out->words + start + i * NAME(entry_words), &found->labels[found->order[i]],
               sizeof(LABEL));
    out->size += size;
    known->slots[slot] = (table_slot){hash, start, found->count};
    return start;
}

static int NAME(encode_block)(NAME(labels) *found, const char *labels, const int64_t *step,
                              const int64_t *extent, const int64_t *block, uint16_t *numbers,
                              uint32_t *header, output *out, tables *known) {
    NAME(number_voxels)(found, labels, step, extent, numbers);
    const unsigned bits = bits_for(found->count);
    const uint64_t start = out->size;
    const uint64_t size = ((uint64_t)block[0] * block[1] * block[2] * bits + 31) / 32;
    if (start + size > out->capacity) return DAMAGED;
    memset(out->words + start, 0, size * sizeof(uint32_t));
    if (bits)
        for (int64_t z = 0; z < extent[0]; ++z)
            for (int64_t y = 0; y < extent[1]; ++y) {
                const uint64_t offset = bits * (block[2] * (y + block[1] * z));
                pack_row(out->words + start, offset, bits, numbers, found->rank, extent[2]);
                numbers += extent[2];
            }
    out->size += size;
    const uint64_t table = NAME(place_table)(found, out, known);
    if (table > 0xFFFFFF) return DAMAGED;
    header[0] = (uint32_t)table | bits << 24;
    header[1] = (uint32_t)start;
    return DONE;
}

/* Encode one channel.
 *
 * labels, step: its first voxel, and bytes from voxel to voxel along z, y, x.
 * shape, block: of the channel and its blocks, z, y, x; blocks of 65,536 voxels at the most.
 * words, capacity: where the result goes. Returns its words, 0 if they are more than
 * `capacity`, or -1 if there is no memory.
 */
EXPORT int64_t NAME(encode)(const char *labels, const int64_t *step, const int64_t *shape,
                            const int64_t *block, uint32_t *words, uint64_t capacity) {
    int64_t grid[3], most = 1;
    for (int axis = 0; axis < 3; ++axis) {
        grid[axis] = (shape[axis] + block[axis] - 1) / block[axis];
        most *= block[axis] < shape[axis] ? block[axis] : shape[axis];
    }
    const uint64_t num_blocks = grid[0] * grid[1] * grid[2];
    output out = {words, 2 * num_blocks, capacity};
    if (out.size > capacity) return 0;
    const uint64_t num_slots = power_of_two(2 * most), num_tables = power_of_two(2 * num_blocks);
    NAME(labels) found = {.labels = malloc(most * sizeof(LABEL)),
                          .slots = calloc(num_slots, sizeof(uint32_t)),
                          .used = malloc(most * sizeof(uint32_t)),
                          .order = malloc(most * sizeof(uint32_t)),
                          .rank = malloc(most * sizeof(uint32_t)),
                          .mask = (uint32_t)(num_slots - 1)};
    tables known = {calloc(num_tables, sizeof(table_slot)), num_tables - 1};
    uint16_t *numbers = malloc(most * sizeof(uint16_t));
    int64_t result = -1;
    if (found.labels && found.slots && found.used && found.order && found.rank && known.slots &&
        numbers) {
        uint32_t *header = words;
        result = 0;
        for (int64_t z = 0; z < grid[0]; ++z)
            for (int64_t y = 0; y < grid[1]; ++y)
                for (int64_t x = 0; x < grid[2]; ++x, header += 2) {
                    const int64_t start[3] = {z * block[0], y * block[1], x * block[2]};
                    const char *first = labels;
                    int64_t extent[3];
                    for (int axis = 0; axis < 3; ++axis) {
                        first += start[axis] * step[axis];
                        const int64_t left = shape[axis] - start[axis];
                        extent[axis] = block[axis] < left ? block[axis] : left;
                    }
                    if (NAME(encode_block)(&found, first, step, extent, block, numbers, header,
                                           &out, &known))
                        goto done;
                }
        result = (int64_t)out.size;
    }
done:
    free(found.labels), free(found.slots), free(found.used), free(found.order), free(found.rank);
    free(known.slots), free(numbers);
    return result;
}

#undef DECODE_ROW
#undef NAME
#undef NAME__
#undef NAME_
