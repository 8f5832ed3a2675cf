/* What the kernels share. */

#ifndef PRECOMPUTED_STORE_KERNEL_H
#define PRECOMPUTED_STORE_KERNEL_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

enum { DONE = 0, DAMAGED = 1 };

#endif
