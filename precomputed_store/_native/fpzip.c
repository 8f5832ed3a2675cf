/* Decoder of the fpzip encoding: a box of a chunk.
 *
 * Nothing is trusted: whatever the bytes say, only they and the numbers asked for are touched,
 * and memory is taken for two planes of the chunk.
 * Neither Python nor numpy is needed, and the caller holds no interpreter lock.
 *
 * A stream has no checksum, but each array has one stream only. What an encoder could not have
 * written is damaged: numbers outside of what they count, bytes that differ from those that the
 * coder would give away, others behind them. So what is read to its end is what was encoded.
 *
 * There is no specification but the library: https://github.com/LLNL/fpzip. Its parts are known
 * from the literature: a carryless range coder (Subbotin), a quasistatic model of probabilities
 * (Schindler), the Lorenzo predictor (Lindstrom and Isenburg 2006).
 */

#include "kernel.h"

#include <float.h>

#ifdef _MSC_VER
#include <intrin.h>
#endif

/* Beside DONE and DAMAGED. */
enum { LEFT_TO_THE_LIBRARY = 2, NO_MEMORY = 3 };

enum {
    HEADER_BYTES = 28,
    FORMAT = 0x0110,
    PREDICTS_WITH_NUMBERS = 1, /* and not with integers or an emulation */
    MOST_BITS = 16,            /* of a number that is coded at once */
    VOXEL_BYTES = 32           /* more than are read for one */
};

/* The model of symbols. Their weights add up to WEIGHTS. */
enum {
    WEIGHT_BITS = 16,
    WEIGHTS = 1 << WEIGHT_BITS,
    MOST_SYMBOLS = 511,
    LONGEST_PERIOD = 1024,
    LOOKUP_SHIFT = 5
};

/* The range coder. An encoder would be at the same `low` and `range`. */
typedef struct {
    const uint8_t *at, *stop, *safe; /* up to `safe` VOXEL_BYTES can be read */
    uint32_t low, range, offset;     /* what is coded is `offset` above `low` */
    uint32_t damage;                 /* not 0 once something cannot be */
    uint8_t *tail;                   /* room for the last bytes, with zeros behind */
} coder;

typedef struct {
    unsigned num_symbols;
    uint32_t left, left_larger; /* symbols until the next weights; of them, with a larger step */
    uint32_t step, period;
    uint32_t weights[MOST_SYMBOLS]; /* the next ones */
    uint32_t starts[MOST_SYMBOLS + 1];
    uint16_t lookup[WEIGHTS >> LOOKUP_SHIFT]; /* first symbol that can be there */
} model;

/* A stream and what is wanted of it. Axes are field, z, y, x. */
typedef struct {
    const int64_t *shape, *first, *stop, *strides;
    uint8_t *out;
    unsigned kept; /* bits of each number */
} request;

static inline unsigned leading_zeros(uint32_t bits) {
#ifdef _MSC_VER
    unsigned long index;
    _BitScanReverse(&index, bits);
    return 31 - index;
#else
    return (unsigned)__builtin_clz(bits);
#endif
}

static inline uint32_t next_four(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void start(coder *in, const uint8_t *data, uint64_t length, uint8_t *tail) {
    *in = (coder){.at = data + 4, .stop = data + length, .range = UINT32_MAX, .tail = tail};
    in->safe = length > 4 + VOXEL_BYTES ? in->stop - VOXEL_BYTES : data;
    in->offset = next_four(data);
}

/* Before each voxel: make sure that its bytes can be read. Returns DAMAGED behind the last. */
static inline int go_on(coder *in) {
    if (in->safe == in->stop) return in->at > in->stop ? DAMAGED : DONE;
    const size_t left = (size_t)(in->stop - in->at);
    memcpy(in->tail, in->at, left);
    in->at = in->tail;
    in->safe = in->stop = in->tail + left;
    return DONE;
}

static inline int has_bytes(coder *in) { return in->at <= in->safe || go_on(in) == DONE; }

/* Drop the bytes that are certain, at most 3. */
static inline void drop_bytes(coder *in) {
    const uint32_t differing = in->low ^ (in->low + in->range);
    const unsigned bits = leading_zeros(differing) & 24; /* of whole bytes */
    const uint64_t next = (uint64_t)in->offset << 32 | next_four(in->at);
    in->offset = (uint32_t)(next >> (32 - bits));
    in->low <<= bits;
    in->range <<= bits;
    in->at += bits / 8;
    if (in->range >> 16) return;
    /* The range is small, but a carry could change all bytes: an encoder gives up what is behind
     * the carry. What is coded there is beyond the range from now on, and is seen to be. */
    in->offset = in->offset << 16 | next_four(in->at) >> 16;
    in->low <<= 16;
    in->range = 0 - in->low;
    in->at += 2;
}

/* Go on with the part of the range that a number or symbol has. */
static inline void narrow(coder *in, uint32_t first, uint32_t count) {
    in->low += in->range * first;
    in->offset -= in->range * first;
    in->range *= count;
    drop_bytes(in);
}

/* No bits are coded by nothing, except that a range up to the very top, which begins with a zero
 * byte, looks as if that byte were certain. */
static inline void read_nothing(coder *in) {
    const uint32_t differing = in->low ^ (in->low + in->range);
    if (differing >> 24) return;
    const unsigned shift = differing >> 16 ? 24 : differing >> 8 ? 16 : 8;
    in->damage |= ((in->low + in->offset) ^ in->low) >> shift;
    drop_bytes(in);
}

/* A number of 1 to MOST_BITS bits. */
static inline uint32_t read_short(coder *in, unsigned bits) {
    in->range >>= bits;
    uint32_t number = in->offset / in->range, rest = in->offset % in->range;
    if (number >> bits) {
        in->damage = 1;
        number = rest = in->offset = 0;
    }
    in->low += in->offset - rest;
    in->offset = rest;
    drop_bytes(in);
    return number;
}

/* A number of at most 64 bits, the lowest first. */
static inline uint64_t read_bits(coder *in, unsigned bits) {
    uint64_t number = 0;
    unsigned shift = 0;
    for (; bits > MOST_BITS; bits -= MOST_BITS, shift += MOST_BITS)
        number |= (uint64_t)read_short(in, MOST_BITS) << shift;
    if (bits) return number | (uint64_t)read_short(in, bits) << shift;
    read_nothing(in);
    return number;
}

/* Take the next weights, and halve them for the ones after. */
static void renew(model *of) {
    if (of->left_larger) {
        of->left = of->left_larger, of->left_larger = 0;
        ++of->step;
        return;
    }
    of->period = 2 * of->period < LONGEST_PERIOD ? 2 * of->period : LONGEST_PERIOD;
    uint32_t start = 0, missing = WEIGHTS;
    for (unsigned symbol = 0; symbol < of->num_symbols; ++symbol) {
        const uint32_t stop = start + of->weights[symbol];
        of->starts[symbol] = start;
        for (uint32_t i = (start + (1 << LOOKUP_SHIFT) - 1) >> LOOKUP_SHIFT;
             i << LOOKUP_SHIFT < stop; ++i)
            of->lookup[i] = (uint16_t)symbol;
        of->weights[symbol] = of->weights[symbol] >> 1 | 1;
        missing -= of->weights[symbol];
        start = stop;
    }
    of->step = missing / of->period;
    of->left_larger = missing % of->period;
    of->left = of->period - of->left_larger;
}

static void reset(model *of, unsigned num_symbols) {
    of->num_symbols = num_symbols;
    of->period = num_symbols >> 4 | 2;
    of->left_larger = 0;
    for (unsigned symbol = 0; symbol < num_symbols; ++symbol)
        of->weights[symbol] = WEIGHTS / num_symbols + (symbol < WEIGHTS % num_symbols);
    of->starts[num_symbols] = WEIGHTS;
    renew(of);
}

static inline unsigned find_symbol(coder *in, const model *of) {
    uint32_t weight = in->offset / in->range;
    in->damage |= weight >> WEIGHT_BITS;
    weight %= WEIGHTS;
    unsigned symbol = of->lookup[weight >> LOOKUP_SHIFT];
    while (weight >= of->starts[symbol + 1]) ++symbol;
    return symbol;
}

static inline unsigned read_symbol(coder *in, model *of) {
    in->range >>= WEIGHT_BITS;
    unsigned symbol = of->num_symbols / 2; /* in smooth data often, and known without division */
    const uint32_t *start = of->starts + symbol;
    if (in->offset - in->range * start[0] >= in->range * (start[1] - start[0]))
        symbol = find_symbol(in, of);
    narrow(in, of->starts[symbol], of->starts[symbol + 1] - of->starts[symbol]);
    if (!of->left) renew(of);
    --of->left;
    of->weights[symbol] += of->step;
    return symbol;
}

/* Read the header, and how many bits of a number are kept. */
static int read_header(coder *in, const int64_t *shape, unsigned width, unsigned *kept) {
    static const uint8_t magic[] = "fpz";
    static const unsigned parts[] = {8, 8, 8, 8, 16, 8, 1, 7, 32, 32, 32, 32};
    uint32_t read[12];
    for (unsigned i = 0; i < 12; ++i) {
        if (!has_bytes(in)) return DAMAGED;
        read[i] = (uint32_t)read_bits(in, parts[i]);
    }
    for (unsigned i = 0; i < 4; ++i)
        if (read[i] != magic[i] || read[8 + i] != (uint64_t)shape[3 - i]) return DAMAGED;
    if (in->damage || read[4] != FORMAT || read[6] != (width == 64)) return DAMAGED;
    *kept = read[7] ? read[7] : width;
    const unsigned unit = width / 32;
    if (read[5] != PREDICTS_WITH_NUMBERS || *kept % unit || *kept < 2 * unit || *kept > width)
        return LEFT_TO_THE_LIBRARY;
    return DONE;
}

/* Whether the end of the stream is reached, and it is what an encoder writes last. */
static int is_end(coder *in) {
    return has_bytes(in) && in->at == in->stop && !in->offset && !in->damage;
}

/* Whether predictions can be what they were when the numbers were encoded. Other code can have
 * set this thread to take very small numbers for 0. */
static int computes_exactly(void) {
    volatile float smallest = FLT_MIN;
    smallest *= FLT_EPSILON;
    return FLT_EVAL_METHOD == 0 && smallest + smallest > smallest;
}

#define NUMBER float
#define BITS uint32_t
#define SUFFIX _float32
#include "fpzip_typed.h"
#undef NUMBER
#undef BITS
#undef SUFFIX

#define NUMBER double
#define BITS uint64_t
#define SUFFIX _float64
#include "fpzip_typed.h"
