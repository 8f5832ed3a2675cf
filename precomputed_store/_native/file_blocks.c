/* Blocks of voxels out of files, straight into an array.
 *
 * A file that is not what it should be (missing, a link, of another size, unreadable) is left
 * for the caller, who finds out why. No byte outside of the array is written, whatever the
 * blocks say.
 */

#if defined(__APPLE__)
#define _DARWIN_C_SOURCE
#else
#define _POSIX_C_SOURCE 200809L
#endif

#include "kernel.h"

#ifndef _WIN32

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where a plane is this small a part of the way to the next, planes are read one by one. */
#define SPARSE 2
/* As many bytes are copied in the time of one call. */
#define NEAR 8192

/* Bytes of one file. Axes are channel, z, y; along x, voxels are one run. */
typedef struct {
    int64_t start, step[3], count[3], run;
    int64_t place; /* of its first byte in the array */
} block;

typedef struct {
    char *data;
    int64_t size, step[3];
} array;

typedef struct {
    char *data;
    int64_t size;
} scratch;

/* Bytes from the first to the last of a part that has `axes` axes, the last ones. */
static int64_t extent(const int64_t *count, const int64_t *step, int axes, int64_t run) {
    int64_t bytes = run;
    for (int axis = 3 - axes; axis < 3; ++axis) bytes += (count[axis] - 1) * step[axis];
    return bytes;
}

/* Whether a part's bytes lie between `start` and `size`; no sum overflows. */
static int lies_within(const block *part, const int64_t *step, int64_t start, int64_t size) {
    if (start < 0 || part->run < 1 || part->run > size) return 0;
    for (int axis = 0; axis < 3; ++axis) {
        if (part->count[axis] < 1 || step[axis] < 0) return 0;
        if (step[axis] && part->count[axis] - 1 > size / step[axis]) return 0;
    }
    return extent(part->count, step, 3, part->run) <= size - start;
}

static int read_all(int fd, char *data, int64_t size, int64_t start) {
    while (size) {
        const ssize_t got = pread(fd, data, (size_t)size, (off_t)start);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return DAMAGED;
        data += got, start += got, size -= got;
    }
    return DONE;
}

static int reserve(scratch *room, int64_t size) {
    if (size <= room->size) return DONE;
    free(room->data);
    room->data = malloc((size_t)size);
    room->size = room->data ? size : 0;
    return room->data ? DONE : DAMAGED;
}

/* Rows of `axes` axes, the last ones, that lie in the file from `start` on. */
static int read_rows(int fd, const block *part, int axes, int64_t start, char *place,
                     const array *out, scratch *room) {
    const int64_t *count = part->count, size = extent(count, part->step, axes, part->run);
    if (size == part->run) return read_all(fd, place, size, start);
    if (reserve(room, size) || read_all(fd, room->data, size, start)) return DAMAGED;
    const int64_t planes = axes > 1 ? count[1] : 1;
    for (int64_t z = 0; z < planes; ++z)
        for (int64_t y = 0; y < count[2]; ++y)
            memcpy(place + z * out->step[1] + y * out->step[2],
                   room->data + z * part->step[1] + y * part->step[2], (size_t)part->run);
    return DONE;
}

static int read_block(int fd, const block *part, const array *out, scratch *room) {
    const int64_t plane = extent(part->count, part->step, 1, part->run);
    const int by_plane = part->count[1] > 1 && plane * SPARSE < part->step[1];
    for (int64_t c = 0; c < part->count[0]; ++c)
        for (int64_t z = 0; z < (by_plane ? part->count[1] : 1); ++z) {
            const int64_t start = part->start + c * part->step[0] + z * part->step[1];
            char *place = out->data + part->place + c * out->step[0] + z * out->step[1];
            if (read_rows(fd, part, by_plane ? 1 : 2, start, place, out, room)) return DAMAGED;
        }
    return DONE;
}

/* Single runs that lie close together: read with what is between them. */
static int read_near(int fd, const block *parts, int64_t num_parts, const array *out,
                     scratch *room, int64_t start, int64_t stop) {
    if (reserve(room, stop - start) || read_all(fd, room->data, stop - start, start))
        return DAMAGED;
    for (int64_t i = 0; i < num_parts; ++i)
        memcpy(out->data + parts[i].place, room->data + (parts[i].start - start),
               (size_t)parts[i].run);
    return DONE;
}

/* Blocks that lie within the file and the array. */
static int read_parts(int fd, const block *parts, int64_t num_parts, const array *out,
                      scratch *room) {
    int64_t start = INT64_MAX, stop = 0;
    int are_runs = 1;
    for (int64_t i = 0; i < num_parts; ++i) {
        const block *part = &parts[i];
        if (part->start < start) start = part->start;
        if (part->start + part->run > stop) stop = part->start + part->run;
        are_runs &= part->count[0] == 1 && part->count[1] == 1 && part->count[2] == 1;
    }
    if (are_runs && num_parts > 1 && (stop - start) / NEAR < num_parts)
        return read_near(fd, parts, num_parts, out, room, start, stop);
    for (int64_t i = 0; i < num_parts; ++i)
        if (read_block(fd, &parts[i], out, room)) return DAMAGED;
    return DONE;
}

static int read_file(const char *path, int64_t size, const block *parts, int64_t num_parts,
                     const array *out, scratch *room) {
    struct stat found;
    /* Without O_NONBLOCK, opening a pipe would wait for ever. */
    const int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return DAMAGED;
    int status = DAMAGED;
    if (!fstat(fd, &found) && S_ISREG(found.st_mode) && found.st_size == size) {
        int64_t sound = 0;
        while (sound < num_parts &&
               lies_within(&parts[sound], parts[sound].step, parts[sound].start, size) &&
               lies_within(&parts[sound], out->step, parts[sound].place, out->size))
            ++sound;
        if (sound == num_parts) status = read_parts(fd, parts, num_parts, out, room);
    }
    close(fd);
    return status;
}

/* Read blocks of files.
 *
 * paths: num_files paths, each ended by a NUL. sizes: of the files. first: where the blocks of
 * each file begin in `blocks`, and where those of the last one end. out, out_size, out_step: the
 * array, its bytes, and those from voxel to voxel along channel, z, y. done: where 1 goes for
 * each file that was read, else 0.
 */
EXPORT void read_file_blocks(const char *paths, int64_t num_files, const int64_t *sizes,
                             const int64_t *first, const block *blocks, char *out,
                             int64_t out_size, const int64_t *out_step, uint8_t *done) {
    const array target = {out, out_size, {out_step[0], out_step[1], out_step[2]}};
    scratch room = {NULL, 0};
    for (int64_t i = 0; i < num_files; ++i, paths += strlen(paths) + 1)
        done[i] = read_file(paths, sizes[i], blocks + first[i], first[i + 1] - first[i], &target,
                            &room) == DONE;
    free(room.data);
}

#endif
