// Unsigned integers by their width, and the numbering of a grid's threads for loops that stride over it.
#pragma once

#include "compat.cuh"

using u32 = unsigned;
using u64 = unsigned long long;

DEV u64 grid_thread() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }
DEV u64 grid_threads() { return (u64)gridDim.x * blockDim.x; }
