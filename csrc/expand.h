// From the packed form of cells to 16-bit conductances, one half tile at a time.
#pragma once
#include "cimphony.h"
#include "simd.h"

// Conductances [row, LANES] of `count` rows from packed row `first` on.
static inline void expand_rows(const Cells &cells, int64_t first, int64_t count, int half, u16x16 *to) {
    constexpr u16x16 bit = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
    const u16x16 base = u16x16{} + (uint16_t)(256 * cells.base);
    const int8_t *rest = cells.rest + first * TILE + half * LANES;
    const uint32_t *planes = cells.planes + first * cells.plane_count;
    for (int64_t row = 0; row < count; row++, rest += TILE) {
        u16x16 value = base + (u16x16)__builtin_convertvector(load<s8x16>(rest), s16x16);
        for (int plane = 0; plane < cells.plane_count; plane++) {
            const uint16_t set = (uint16_t)(*planes++ >> (half * LANES));
            value += ((u16x16{} + set) & bit) == bit ? u16x16{} + (uint16_t)(256 << plane) : u16x16{};
        }
        to[row] = value;
    }
}
