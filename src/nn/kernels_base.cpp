// The loops for x86-64 and others: what every compiler target has.
#define FATHOM_ISA base
#define FATHOM_VECTOR_BYTES 16
#define FATHOM_TILE_ROWS 4
#define FATHOM_TILE_VECTORS 2
#include "nn/kernels_impl.h"
