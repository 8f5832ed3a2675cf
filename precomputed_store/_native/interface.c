#include "kernel.h"

/* Grows with every change of what the functions are called with. */
EXPORT int interface_version(void) { return 3; }
