// Where keys and values of a token lie: the cache of one layer is [block][kv_head][block_size][head_dim].
#pragma once

#include "vector.cuh"

// The widths attention is compiled for, each a kernel with the width in its name.
#define FOR_EACH_HEAD_DIM(X) X(32) X(64) X(96) X(128) X(256)

// The part of the cache that one sequence and one key-value head see.
struct Pages {
    const u32* table;
    int block_size;
    int kv_heads;
    int kv_head;

    // Number of the token's row among all rows of head_dim elements.
    DEV u32 row(u32 token) const {
        const u32 block = table[token / block_size];
        return (block * kv_heads + kv_head) * block_size + token % block_size;
    }
};
