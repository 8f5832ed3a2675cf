/* A file that gets its name once it is complete, in one call.
 *
 * What cannot be done in this way leaves nothing behind: the caller does it step by step, and
 * finds out why.
 */

#if defined(__APPLE__)
#define _DARWIN_C_SOURCE
#else
#define _DEFAULT_SOURCE
#endif

#include "kernel.h"

#ifndef _WIN32

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

enum { NOT_DONE = 1, NO_LOCK = 2 };

static int write_file(const char *path, const char *data, int64_t size, int sync) {
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) return NOT_DONE;
    int status = DONE;
    while (size && status == DONE) {
        const ssize_t written = write(fd, data, (size_t)size);
        if (written > 0) data += written, size -= written;
        else if (!written || errno != EINTR) status = NOT_DONE;
    }
    if (status == DONE && sync && fsync(fd)) status = NOT_DONE;
    if (close(fd)) status = NOT_DONE;
    if (status != DONE) unlink(path);
    return status;
}

static int remove_files(const char *paths, int64_t count) {
    for (; count; --count, paths += strlen(paths) + 1)
        if (unlink(paths) && errno != ENOENT && errno != ENOTDIR) return NOT_DONE;
    return DONE;
}

/* Store an object.
 *
 * temporary, target: the file until it is complete, and then. folder: to be locked meanwhile.
 * others: num_others paths, each ended by a NUL, of older files of the same object. sync:
 * whether the bytes are to be on the disk first. Returns DONE, NOT_DONE, or NO_LOCK if it is the
 * folder that cannot be locked.
 */
EXPORT int store_file(const char *temporary, const char *target, const char *folder,
                      const char *others, int64_t num_others, const char *data, int64_t size,
                      int sync) {
    if (write_file(temporary, data, size, sync)) return NOT_DONE;
    int status = NO_LOCK;
    const int lock = open(folder, O_RDONLY | O_CLOEXEC);
    if (lock >= 0 && !flock(lock, LOCK_EX)) {
        status = rename(temporary, target) ? NOT_DONE : remove_files(others, num_others);
        /* A process that was forked meanwhile has it open too, and closing would not do. */
        flock(lock, LOCK_UN);
    }
    if (lock >= 0) close(lock);
    if (status != DONE) unlink(temporary);
    return status;
}

#endif
