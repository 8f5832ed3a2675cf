/* Decoder for numbers of type NUMBER, as wide as the unsigned BITS, whose names end with SUFFIX.
 *
 * Included once for each type of number by fpzip.c.
 */

#define NAME_(name, suffix) name##suffix
#define NAME__(name, suffix) NAME_(name, suffix)
#define NAME(name) NAME__(name, SUFFIX)

/* Rows of numbers, each behind a zero: the one being read, and those before it in y, z and
 * both. */
typedef struct {
    NUMBER *here;
    const NUMBER *up, *back, *both;
} NAME(rows);

static inline BITS NAME(bits_of)(NUMBER number) {
    BITS bits;
    memcpy(&bits, &number, sizeof bits);
    return bits;
}

/* The highest `kept` bits of integers in the order of the numbers. */
static inline BITS NAME(ordered)(NUMBER number, unsigned kept) {
    const unsigned dropped = 8 * sizeof(BITS) - kept;
    const BITS bits = (BITS)~NAME(bits_of)(number) >> dropped;
    return bits ^ ((BITS)(0 - (bits >> (kept - 1))) >> dropped >> 1);
}

static inline NUMBER NAME(number_of)(BITS bits, unsigned kept) {
    const unsigned dropped = 8 * sizeof(BITS) - kept;
    bits = (BITS)~(bits ^ ((BITS)(0 - (bits >> (kept - 1))) >> dropped >> 1)) << dropped;
    NUMBER number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* Whether a prediction that is no number is the same whichever operand of a sum comes first,
 * as compilers choose. Where both are none, the first one's bits go on. */
static int NAME(is_certain)(const NUMBER *terms) {
    const BITS quiet = (BITS)1 << (sizeof(BITS) == 4 ? 22 : 51);
    NUMBER sum = terms[0];
    for (unsigned i = 1; i < 7; ++i) {
        const NUMBER term = terms[i];
        if (i % 2) {
            sum -= term;
            continue;
        }
        if (sum != sum && term != term &&
            (NAME(bits_of)(sum) | quiet) != (NAME(bits_of)(term) | quiet))
            return 0;
        sum += term;
    }
    return 1;
}

/* How far a number is from the prediction; `is_below` says in which direction. */
static inline BITS NAME(read_distance)(coder *in, model *of, unsigned kept, int *is_below) {
    const unsigned symbol = read_symbol(in, of), middle = of->num_symbols / 2;
    *is_below = symbol < middle;
    const unsigned size = *is_below ? middle - symbol : symbol - middle;
    if (kept <= 8 || !size) return size; /* else it is the length in bits, and they follow */
    return (BITS)1 << (size - 1) | (BITS)read_bits(in, size - 1);
}

static int NAME(read_row)(coder *from, model *of, NAME(rows) rows, int64_t size, unsigned kept) {
    const BITS last = (BITS)~(BITS)0 >> (8 * sizeof(BITS) - kept);
    const int is_whole = kept == 8 * sizeof(BITS);
    coder in[1] = {*from}; /* in registers */
    for (int64_t x = 1; x <= size; ++x) {
        if (!has_bytes(in)) return DAMAGED;
        /* The order matters, as sums are rounded. */
        const NUMBER terms[7] = {rows.here[x - 1], rows.both[x],   rows.up[x],      rows.back[x - 1],
                                 rows.back[x],     rows.up[x - 1], rows.both[x - 1]};
        const NUMBER sum =
            terms[0] - terms[1] + terms[2] - terms[3] + terms[4] - terms[5] + terms[6];
        if (sum != sum && !NAME(is_certain)(terms))
            return in->damage ? DAMAGED : LEFT_TO_THE_LIBRARY;
        const BITS predicted = NAME(ordered)(sum, kept);
        int is_below;
        const BITS distance = NAME(read_distance)(in, of, kept, &is_below);
        if (!distance && is_whole) { /* sooner there for the next sum */
            rows.here[x] = sum;
            continue;
        }
        in->damage |= distance > (is_below ? predicted : last - predicted);
        const BITS actual = is_below ? predicted - distance : predicted + distance;
        rows.here[x] = NAME(number_of)(actual, kept);
    }
    *from = *in;
    return in->damage ? DAMAGED : DONE;
}

/* Copy as much of a row as is wanted. */
static void NAME(copy_row)(const request *of, const NUMBER *row, int64_t field, int64_t z,
                           int64_t y) {
    if (field < of->first[0] || z < of->first[1] || z >= of->stop[1]) return;
    if (y < of->first[2] || y >= of->stop[2]) return;
    uint8_t *to = of->out + (field - of->first[0]) * of->strides[0] +
                  (z - of->first[1]) * of->strides[1] + (y - of->first[2]) * of->strides[2];
    const int64_t count = of->stop[3] - of->first[3];
    row += of->first[3];
    if (of->strides[3] == sizeof *row)
        memcpy(to, row, (size_t)count * sizeof *row);
    else
        for (int64_t x = 0; x < count; ++x) memcpy(to + x * of->strides[3], row + x, sizeof *row);
}

/* Read planes of a field up to `depth`. `planes` are two, each number behind a row and a column
 * of zeros. */
static int NAME(read_field)(coder *in, model *symbols, const request *of, int64_t field,
                            int64_t depth, NUMBER *planes) {
    const int64_t width = of->shape[3] + 1, size = (of->shape[2] + 1) * width;
    memset(planes, 0, 2 * (size_t)size * sizeof *planes);
    reset(symbols, of->kept > 8 ? 2 * of->kept + 1 : (2u << of->kept) - 1);
    for (int64_t z = 0; z < depth; ++z) {
        NUMBER *plane = planes + z % 2 * size, *before = planes + (z + 1) % 2 * size;
        for (int64_t y = 0; y < of->shape[2]; ++y) {
            NUMBER *up = plane + y * width, *both = before + y * width;
            const NAME(rows) rows = {up + width, up, both + width, both};
            const int status = NAME(read_row)(in, symbols, rows, of->shape[3], of->kept);
            if (status) return status;
            NAME(copy_row)(of, rows.here + 1, field, z, y);
        }
    }
    return DONE;
}

static int NAME(read_box)(coder *in, const request *of) {
    const uint64_t size = (uint64_t)(of->shape[2] + 1) * (uint64_t)(of->shape[3] + 1);
    if (size > SIZE_MAX / 2 / sizeof(NUMBER)) return NO_MEMORY;
    NUMBER *planes = malloc(2 * (size_t)size * sizeof *planes);
    model *symbols = malloc(sizeof *symbols);
    int status = planes && symbols ? DONE : NO_MEMORY;
    for (int64_t field = 0; !status && field < of->stop[0]; ++field) {
        const int64_t depth = field + 1 < of->stop[0] ? of->shape[1] : of->stop[1];
        status = NAME(read_field)(in, symbols, of, field, depth, planes);
    }
    free(symbols), free(planes);
    return status;
}

/* Decode a box of a chunk.
 *
 * data: the stream, of `length` bytes, at any address.
 * shape: numbers along field, z, y, x.
 * box: the first number and the one after the last, four and four, within the chunk.
 * out, strides: where the box goes; strides in bytes, aligned for the numbers.
 */
EXPORT int NAME(decode_fpzip)(const uint8_t *data, uint64_t length, const int64_t *shape,
                              const int64_t *box, uint8_t *out, const int64_t *strides) {
    for (unsigned axis = 0; axis < 4; ++axis)
        if (shape[axis] > INT32_MAX) return DAMAGED;
    if (length < HEADER_BYTES) return DAMAGED;
    if (!computes_exactly()) return LEFT_TO_THE_LIBRARY;
    coder in;
    uint8_t tail[2 * VOXEL_BYTES] = {0};
    start(&in, data, length, tail);
    request of = {shape, box, box + 4, strides, out, 0};
    int status = read_header(&in, shape, 8 * sizeof(NUMBER), &of.kept);
    if (status || (status = NAME(read_box)(&in, &of))) return status;
    const int is_whole = of.stop[0] == shape[0] && of.stop[1] == shape[1];
    return (is_whole ? is_end(&in) : has_bytes(&in)) ? DONE : DAMAGED;
}

#undef NAME
#undef NAME__
#undef NAME_
