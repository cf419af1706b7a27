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

    // How many planes there are, where it is not known beforehand.
    template <int PLANES> int count() const { return PLANES == 0 ? plane_count : PLANES; }

    // sum += conductances of columns LANES * half and on, less 256 * base.
    template <int PLANES = 0> inline void add(u16x16 &sum, int64_t row, int half) const {
        sum += (u16x16)widen(load<s8x16>(rest + row * TILE + half * LANES));
        add_where(sum, planes[row * count<PLANES>()] >> (half * LANES), 256);
        for (int plane = 1; plane < count<PLANES>(); plane++)
            add_where(sum, planes[row * count<PLANES>() + plane] >> (half * LANES), (uint16_t)(256 << plane));
    }

    // Conductances of columns LANES * half and on.
    inline u16x16 conductance(int64_t row, int half) const {
        u16x16 value = u16x16{} + (uint16_t)(256 * base);
        add(value, row, half);
        return value;
    }

#if defined(__AVX512BW__)
    // The same for all columns of the tile.
    template <int PLANES = 0> inline void add(u16x32 &sum, int64_t row) const {
        sum += (u16x32)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(rest + row * TILE)));
        add_where(sum, planes[row * count<PLANES>()], 256);
        for (int plane = 1; plane < count<PLANES>(); plane++)
            add_where(sum, planes[row * count<PLANES>() + plane], (uint16_t)(256 << plane));
    }

    // Conductances of all columns of the tile.
    inline u16x32 conductances(int64_t row) const {
        __builtin_prefetch(rest + (row + AHEAD) * TILE);
        u16x32 value = u16x32{} + (uint16_t)(256 * base);
        add(value, row);
        return value;
    }
#endif

    // sum += levels of all columns of the tile, less the base.
    template <int PLANES = 0> inline void add(u8x32 &sum, int64_t row) const {
        add_where(sum, planes[row * count<PLANES>()], 1);
        for (int plane = 1; plane < count<PLANES>(); plane++)
            add_where(sum, planes[row * count<PLANES>() + plane], (uint8_t)(1 << plane));
    }

    // Levels of all columns of the tile.
    inline u8x32 level(int64_t row) const {
        u8x32 value = u8x32{} + (uint8_t)base;
        add(value, row);
        return value;
    }

#if defined(__AVX512BW__)
    static inline void add_where(u16x32 &sum, uint32_t bits, uint16_t value) {
        sum = (u16x32)_mm512_mask_add_epi16((__m512i)sum, (__mmask32)bits, (__m512i)sum, _mm512_set1_epi16((short)value));
    }
#endif

    // sum += value in the lanes whose bit is set.
    static inline void add_where(u16x16 &sum, uint32_t bits, uint16_t value) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
        const __m256i step = _mm256_set1_epi16((short)value);
        sum = (u16x16)_mm256_mask_add_epi16((__m256i)sum, (__mmask16)bits, (__m256i)sum, step);
#else
        constexpr u16x16 bit = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
        sum += (u16x16)(((u16x16{} + (uint16_t)bits) & bit) == bit) & value;
#endif
    }

    static inline void add_where(u8x32 &sum, uint32_t bits, uint8_t value) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
        const __m256i step = _mm256_set1_epi8((char)value);
        sum = (u8x32)_mm256_mask_add_epi8((__m256i)sum, (__mmask32)bits, (__m256i)sum, step);
#else
        constexpr u8x32 bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128,
                               1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
        uint8_t spread[32];
        for (int i = 0; i < 32; i++) spread[i] = (uint8_t)(bits >> (i / 8 * 8));
        sum += (u8x32)((load<u8x32>(spread) & bit) == bit) & value;
#endif
    }
};
