// From the packed form of cells to the integers that the reads add.
#pragma once
#include "cimphony.h"
#include "simd.h"

constexpr int AHEAD = 128;  // rows fetched before they are needed

// Packed rows of one block, slice and tile.
struct Rows {
    const int8_t *rest;
    const uint32_t *planes;
    int plane_count;
    int base;

    Rows(const Cells &cells, int64_t first)
        : rest(cells.rest + first * TILE), planes(cells.planes + first * cells.plane_count),
          plane_count(cells.plane_count), base(cells.base) {}

    // Conductances of columns LANES * half and on.
    inline u16x16 conductance(int64_t row, int half) const {
        u16x16 value = (u16x16)__builtin_convertvector(load<s8x16>(rest + row * TILE + half * LANES), s16x16);
        value += (uint16_t)(256 * base);
        value += chosen(planes[row * plane_count] >> (half * LANES), 256);
        for (int plane = 1; plane < plane_count; plane++)
            value += chosen(planes[row * plane_count + plane] >> (half * LANES), (uint16_t)(256 << plane));
        return value;
    }

#if defined(__AVX512BW__)
    // Conductances of all columns of the tile.
    inline u16x32 conductances(int64_t row) const {
        __builtin_prefetch(rest + (row + AHEAD) * TILE);
        u16x32 value = (u16x32)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(rest + row * TILE)));
        value += (uint16_t)(256 * base);
        value += (u16x32)_mm512_maskz_set1_epi16((__mmask32)planes[row * plane_count], 256);
        for (int plane = 1; plane < plane_count; plane++)
            value += (u16x32)_mm512_maskz_set1_epi16((__mmask32)planes[row * plane_count + plane], (short)(256 << plane));
        return value;
    }
#endif

    // Levels of all columns of the tile.
    inline u8x32 level(int64_t row) const {
        u8x32 value = u8x32{} + (uint8_t)base;
        for (int plane = 0; plane < plane_count; plane++)
            value += chosen_byte(planes[row * plane_count + plane], (uint8_t)(1 << plane));
        return value;
    }

    // `value` in the lanes whose bit is set.
    static inline u16x16 chosen(uint32_t bits, uint16_t value) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
        return (u16x16)_mm256_maskz_set1_epi16((__mmask16)bits, (short)value);
#else
        constexpr u16x16 bit = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
        return (u16x16)(((u16x16{} + (uint16_t)bits) & bit) == bit) & value;
#endif
    }

    static inline u8x32 chosen_byte(uint32_t bits, uint8_t value) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
        return (u8x32)_mm256_maskz_set1_epi8((__mmask32)bits, (char)value);
#else
        constexpr u8x32 bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128,
                               1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
        uint8_t spread[32];
        for (int i = 0; i < 32; i++) spread[i] = (uint8_t)(bits >> (i / 8 * 8));
        return (u8x32)((load<u8x32>(spread) & bit) == bit) & value;
#endif
    }
};
