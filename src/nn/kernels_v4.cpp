// The loops for AVX-512.
#define FATHOM_ISA v4
#define FATHOM_VECTOR_BYTES 64
#define FATHOM_TILE_ROWS 6
#define FATHOM_TILE_VECTORS 4
#include "nn/kernels_impl.h"
