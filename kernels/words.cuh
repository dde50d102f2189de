// Unsigned integers by their width, the numbering of a grid's threads for loops that stride over it, and minus infinity.
#pragma once

#include "compat.cuh"

using u32 = unsigned;
using u64 = unsigned long long;

DEV u64 grid_thread() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }
DEV u64 grid_threads() { return (u64)gridDim.x * blockDim.x; }

// The score of what is not seen.
DEV float minus_infinity() { return __uint_as_float(0xff800000u); }
