// Products with weights: out[m][n] = sum over k of x[m][k] * w[n][k], plus bias[n] where bias is not null.
//
//   skinny_1, _2, _4, _8, _16   rows up to the number in the name    grid(ceil(n / 16)), block 256
//   tile                        any rows and n                       bf16: grid(ceil(n / 128), ceil(rows / 128)), block 256
//                                                                    f32:  grid(ceil(n / 64), ceil(rows / 64)), block 256
//   ..._logits                  the same with float results
//
// k is a multiple of 8; n and rows are any. Sums are f32. The results of one row do not depend on the other rows, and within the
// skinny ones not on the number in the name.
// skinny_* reads the weights once, from memory at the rate of memory; tile reads both operands through shared memory.
// The bodies: skinny_mma.cuh and tile_mma.cuh in bf16, matmul_scalar.cuh in f32.

#include "vector.cuh"

#ifdef ELEMENT_BF16
#include "skinny_mma.cuh"
#include "tile_mma.cuh"
#else
#include "matmul_scalar.cuh"
#endif

#define SKINNY(name, ROWS, OUT)                                                                                                    \
    KERNEL_MIN(name, 256, SKINNY_BLOCKS(ROWS),                                                                                     \
               (OUT* __restrict__ out, const element* __restrict__ x, const element* __restrict__ w,                               \
                const float* __restrict__ bias, int rows, int n, int k)) {                                                         \
        SHARED float parts[skinny_parts(ROWS)];                                                                                    \
        skinny<ROWS>(out, x, w, bias, rows, n, k, parts);                                                                          \
    }

SKINNY(skinny_1, 1, element)
SKINNY(skinny_2, 2, element)
SKINNY(skinny_4, 4, element)
SKINNY(skinny_8, 8, element)
SKINNY(skinny_16, 16, element)
SKINNY(skinny_1_logits, 1, float)
SKINNY(skinny_2_logits, 2, float)
SKINNY(skinny_4_logits, 4, float)
SKINNY(skinny_8_logits, 8, float)
SKINNY(skinny_16_logits, 16, float)

#define TILE(name, OUT)                                                                                                            \
    KERNEL_MIN(name, 256, 2,                                                                                                       \
               (OUT* __restrict__ out, const element* __restrict__ x, const element* __restrict__ w,                               \
                const float* __restrict__ bias, int rows, int n, int k)) {                                                         \
        SHARED uint4 staged[TILE_STAGED / PACK];                                                                                   \
        tile_product(out, x, w, bias, rows, n, k, reinterpret_cast<element*>(staged));                                             \
    }

TILE(tile, element)
TILE(tile_logits, float)
