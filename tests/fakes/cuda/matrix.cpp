// The warp's matrix instructions: which lane holds which element is the PTX ISA's, for mma.m16n8k16 and ldmatrix.

#include "block.h"

namespace simt {

static float low(unsigned pair) { return __uint_as_float(pair << 16); }
static float high(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }

static void whole_warp(unsigned mask) {
    if (mask != 0xffffffffu) fault(Code::launch_failed, "a matrix instruction in a warp of fewer than 32 threads");
}

// Lane l is row l/4 of a quarter of the tiles, and holds columns (or, of b, rows) 2(l%4) and the next.
void Mma::perform(void* const* operands, unsigned mask) {
    whole_warp(mask);
    float a[16][16], b[8][16];  // b by columns
    for (unsigned lane = 0; lane < 32; ++lane) {
        const Mma& own = *static_cast<const Mma*>(operands[lane]);
        unsigned row = lane / 4, column = lane % 4 * 2;
        for (unsigned part = 0; part < 4; ++part) {
            float* to = &a[row + part % 2 * 8][column + part / 2 * 8];
            to[0] = low(own.a[part]);
            to[1] = high(own.a[part]);
        }
        for (unsigned part = 0; part < 2; ++part) {
            float* to = &b[row][column + part * 8];
            to[0] = low(own.b[part]);
            to[1] = high(own.b[part]);
        }
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
        float* d = static_cast<const Mma*>(operands[lane])->d;
        for (unsigned part = 0; part < 4; ++part) {
            const float* row = a[lane / 4 + part / 2 * 8];
            const float* column = b[lane % 4 * 2 + part % 2];
            float sum = 0;
            for (unsigned k = 0; k < 16; ++k) sum += row[k] * column[k];
            d[part] += sum;
        }
    }
}

// Lane l gets of each tile the two elements at row l/4, columns 2(l%4) and the next; of the tile turned, if transposed.
void LoadMatrix::perform(void* const* operands, unsigned mask) {
    whole_warp(mask);
    unsigned tiles = static_cast<const LoadMatrix*>(operands[0])->tiles;
    const unsigned short* rows[32];
    for (unsigned lane = 0; lane < tiles * 8; ++lane) {
        const void* row = static_cast<const LoadMatrix*>(operands[lane])->row;
        if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) {
            fault(Code::misaligned_address, "ldmatrix: lane %u names a row at %p, which is not a multiple of 16", lane, row);
        }
        if (!is_shared(row, 16)) fault(Code::illegal_address, "ldmatrix: lane %u names a row outside of shared memory", lane);
        rows[lane] = static_cast<const unsigned short*>(row);
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
        const LoadMatrix& own = *static_cast<const LoadMatrix*>(operands[lane]);
        unsigned row = lane / 4, column = lane % 4 * 2;
        for (unsigned tile = 0; tile < tiles; ++tile) {
            const unsigned short* const* of = rows + tile * 8;
            unsigned first = own.transposed ? of[column][row] : of[row][column];
            unsigned second = own.transposed ? of[column + 1][row] : of[row][column + 1];
            own.r[tile] = first | second << 16;
        }
    }
}

}  // namespace simt
