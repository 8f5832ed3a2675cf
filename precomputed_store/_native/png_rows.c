/* The filters of png, which make rows of bytes compress better: undone and applied.
 *
 * Specification: Portable Network Graphics (Second Edition), 9 "Filtering".
 */

#include "kernel.h"

static inline int magnitude(int value) { return value < 0 ? -value : value; }

/* Whichever of left, above and above left is nearest to left + above - above left. */
static inline uint8_t paeth(int left, int above, int corner) {
    const int least = left < above ? left : above, most = left < above ? above : left;
    const int middle = 3 * corner - left - above;
    const int low = middle >= most ? least : corner;
    return (uint8_t)(middle <= least ? most : low);
}

/* A row, from its filter's number on. `above` is the row before it. PIXEL, the bytes from a
 * sample to the same of the next pixel, is a constant wherever this is expanded. */
static inline int restore_row(const uint8_t *coded, const uint8_t *above, uint8_t *row,
                              int64_t count, const int64_t pixel) {
    uint8_t left[8] = {0}, corner[8] = {0};
    const unsigned filter = *coded++;
    switch (filter) {
    case 0:
        memcpy(row, coded, count);
        return DONE;
    case 1:
        for (int64_t i = 0; i < count; i += pixel)
            for (int64_t k = 0; k < pixel; ++k)
                row[i + k] = left[k] = (uint8_t)(coded[i + k] + left[k]);
        return DONE;
    case 2:
        for (int64_t i = 0; i < count; ++i) row[i] = (uint8_t)(coded[i] + above[i]);
        return DONE;
    case 3:
        for (int64_t i = 0; i < count; i += pixel)
            for (int64_t k = 0; k < pixel; ++k)
                row[i + k] = left[k] = (uint8_t)(coded[i + k] + (left[k] + above[i + k]) / 2);
        return DONE;
    case 4:
        for (int64_t i = 0; i < count; i += pixel)
            for (int64_t k = 0; k < pixel; ++k) {
                const uint8_t up = above[i + k];
                row[i + k] = left[k] = (uint8_t)(coded[i + k] + paeth(left[k], up, corner[k]));
                corner[k] = up;
            }
        return DONE;
    default:
        return DAMAGED;
    }
}

#define RESTORE_ROWS(PIXEL)                                                              \
    for (int64_t y = 0; y < num_rows; ++y, coded += count + 1, above = rows, rows += count) \
        if (restore_row(coded, above, rows, count, (PIXEL))) return DAMAGED;             \
    break

/* Undo the filters of an image's first rows.
 *
 * coded: num_rows times 1 + count bytes. rows: where num_rows times count bytes go, behind a
 * row of zeros. count: of a row, a multiple of pixel, which is 1, 2, 3, 4, 6 or 8.
 */
EXPORT int restore_png_rows(const uint8_t *coded, uint8_t *rows, int64_t num_rows, int64_t count,
                            int64_t pixel) {
    const uint8_t *above = rows;
    rows += count;
    switch (pixel) {
    case 1: RESTORE_ROWS(1);
    case 2: RESTORE_ROWS(2);
    case 3: RESTORE_ROWS(3);
    case 4: RESTORE_ROWS(4);
    case 6: RESTORE_ROWS(6);
    case 8: RESTORE_ROWS(8);
    default: return DAMAGED;
    }
    return DONE;
}

enum { NO_MEMORY = 2, FILTERS = 5, MOST_PIXEL = 8 };

/* Bytes of a row behind those of a pixel that are zero. */
typedef struct {
    uint8_t *above, *row;
    uint8_t *coded[FILTERS];
} filter_room;

static inline uint64_t cost_of(const uint8_t *coded, int64_t count) {
    uint64_t sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += (uint64_t)magnitude((int8_t)coded[i]);
    return sum;
}

/* A row by each filter. Of pixels further left or up than the image, all samples are 0. */
static void apply_filters(const filter_room *to, int64_t count, int64_t pixel) {
    const uint8_t *row = to->row, *left = row - pixel, *above = to->above;
    const uint8_t *corner = above - pixel;
    memcpy(to->coded[0], row, count);
    for (int64_t i = 0; i < count; ++i) to->coded[1][i] = (uint8_t)(row[i] - left[i]);
    for (int64_t i = 0; i < count; ++i) to->coded[2][i] = (uint8_t)(row[i] - above[i]);
    for (int64_t i = 0; i < count; ++i)
        to->coded[3][i] = (uint8_t)(row[i] - (left[i] + above[i]) / 2);
    for (int64_t i = 0; i < count; ++i)
        to->coded[4][i] = (uint8_t)(row[i] - paeth(left[i], above[i], corner[i]));
}

/* Filter an image's rows, each by the filter whose bytes, as signed numbers, are the smallest.
 *
 * rows: num_rows times count bytes. coded: where num_rows times 1 + count bytes go. pixel: bytes
 * from a sample to the same of the next pixel, 8 at the most.
 */
EXPORT int filter_png_rows(const uint8_t *rows, uint8_t *coded, int64_t num_rows, int64_t count,
                           int64_t pixel) {
    if (pixel < 1 || pixel > MOST_PIXEL) return DAMAGED;
    uint8_t *memory = calloc((size_t)(2 * (count + MOST_PIXEL) + FILTERS * count), 1);
    if (!memory) return NO_MEMORY;
    filter_room room = {memory + MOST_PIXEL, memory + count + 2 * MOST_PIXEL, {NULL}};
    for (int i = 0; i < FILTERS; ++i)
        room.coded[i] = memory + 2 * (count + MOST_PIXEL) + i * count;
    for (int64_t y = 0; y < num_rows; ++y, rows += count, coded += count + 1) {
        memcpy(room.row, rows, count);
        apply_filters(&room, count, pixel);
        uint64_t least = UINT64_MAX;
        for (int i = 0; i < FILTERS; ++i) {
            const uint64_t cost = cost_of(room.coded[i], count);
            if (cost < least) least = cost, coded[0] = (uint8_t)i;
        }
        memcpy(coded + 1, room.coded[coded[0]], count);
        uint8_t *above = room.above;
        room.above = room.row, room.row = above;
    }
    free(memory);
    return DONE;
}
