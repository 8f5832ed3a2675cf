/* Includes the file that TYPED names once for each unsigned type, as LABEL, whose names end with
 * SUFFIX. */

#define LABEL uint8_t
#define SUFFIX _uint8
#include TYPED
#undef LABEL
#undef SUFFIX

#define LABEL uint16_t
#define SUFFIX _uint16
#include TYPED
#undef LABEL
#undef SUFFIX

#define LABEL uint32_t
#define SUFFIX _uint32
#include TYPED
#undef LABEL
#undef SUFFIX

#define LABEL uint64_t
#define SUFFIX _uint64
#include TYPED
#undef LABEL
#undef SUFFIX
