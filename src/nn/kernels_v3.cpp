// The loops for AVX2 and FMA.
#define FATHOM_ISA v3
#define FATHOM_VECTOR_BYTES 32
#define FATHOM_TILE_ROWS 6
#define FATHOM_TILE_VECTORS 2
#include "nn/kernels_impl.h"
