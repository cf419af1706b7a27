// From the packed form of cells to the integers that the reads add.
#pragma once
#include "cimphony.h"
#include "simd.h"

constexpr uint32_t BIT[32] = {1u << 0,  1u << 1,  1u << 2,  1u << 3,  1u << 4,  1u << 5,  1u << 6,  1u << 7,
                              1u << 8,  1u << 9,  1u << 10, 1u << 11, 1u << 12, 1u << 13, 1u << 14, 1u << 15,
                              1u << 16, 1u << 17, 1u << 18, 1u << 19, 1u << 20, 1u << 21, 1u << 22, 1u << 23,
                              1u << 24, 1u << 25, 1u << 26, 1u << 27, 1u << 28, 1u << 29, 1u << 30, 1u << 31};

// The cells of one tile, block and slice.
struct Panel {
    const uint32_t *levels;  // [plane, word, TILE], the highest plane first: a bit for each of 32 rows
    const uint32_t *errors;  // [quad, TILE]: a byte for each of four rows; null where every cell is on a level
    int64_t words, quads;
    int planes, base;

    Panel(const Cells &c, int64_t tile, int64_t block, int64_t slice) : planes(c.plane_count), base(c.base) {
        const int64_t last = (c.rows - 1) / c.rows_per_block;
        const int64_t full = numbers(c, c.rows_per_block), short_one = numbers(c, c.rows - last * c.rows_per_block);
        const int64_t rows = block < last ? c.rows_per_block : c.rows - last * c.rows_per_block;
        words = (rows + 31) / 32, quads = (rows + 3) / 4;
        levels = c.panels + (tile * (last * full + short_one) + block * full) * c.slices +
                 slice * (block < last ? full : short_one);
        errors = c.only_levels ? nullptr : levels + words * planes * TILE;
    }

    // Of a panel with so many rows.
    static int64_t numbers(const Cells &c, int64_t rows) {
        return TILE * ((rows + 31) / 32 * c.plane_count + (c.only_levels ? 0 : (rows + 3) / 4));
    }

    // Conductances of four rows, columns LANES * half and on.
    inline void conductances(int64_t quad, int half, u16x16 *row) const {
        static constexpr uint32_t none[LANES] = {};
        split(errors ? errors + quad * TILE + half * LANES : none, row);
        const uint32_t *word = levels + quad / 8 * TILE + half * LANES;
        add_levels(row, word, (int)(quad % 8 * 4), planes - 1);
        for (int plane = planes - 2; plane >= 0; plane--) add_levels(row, word += words * TILE, (int)(quad % 8 * 4), plane);
        if (base)
            for (int k = 0; k < 4; k++) row[k] += (uint16_t)(256 * base);
    }

    // Levels of all columns.
    void all_levels(u8x32 *to) const {
        for (int64_t row = 0; row < 4 * quads; row++) {
            u8x32 sum = u8x32{} + (uint8_t)base;
            const uint32_t *word = levels + row / 32 * TILE;
            for (int plane = planes - 1; plane >= 0; plane--, word += words * TILE)
                add_where(sum, word, BIT[row % 32], (uint8_t)(1 << plane));
            to[row] = sum;
        }
    }

private:
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    // Each signed byte of four as 16 bits.
    static inline void split(const uint32_t *bytes, u16x16 *row) {
        const u32x16 four = load<u32x16>(bytes);
        const s32x16 even = (s32x16)((s16x32)(four << 8) >> 8), odd = (s32x16)((s16x32)four >> 8);
        row[0] = (u16x16)narrow(even), row[1] = (u16x16)narrow(odd);
        row[2] = (u16x16)narrow(even >> 16), row[3] = (u16x16)narrow(odd >> 16);
    }

    // Adds a plane of the levels of four rows, from row `first` of the words.
    static inline void add_levels(u16x16 *row, const uint32_t *word, int first, int plane) {
        const __m256i value = _mm256_set1_epi16((short)(256 << plane));
        for (int k = 0; k < 4; k++) {
            const __m512i bit = _mm512_set1_epi32((int)BIT[first + k]);
            const __mmask16 here = _mm512_test_epi32_mask(_mm512_loadu_si512(word), bit);
            row[k] = (u16x16)_mm256_mask_add_epi16((__m256i)row[k], here, (__m256i)row[k], value);
        }
    }
#else  // loops that compilers turn into vectors better than they do vectors of 64 bytes
    static inline void split(const uint32_t *bytes, u16x16 *row) {
        for (int k = 0; k < 4; k++) {
            uint16_t lane[LANES];
            for (int i = 0; i < LANES; i++) lane[i] = (uint16_t)(int8_t)(bytes[i] >> 8 * k);
            row[k] = load<u16x16>(lane);
        }
    }

    static inline void add_levels(u16x16 *row, const uint32_t *word, int first, int plane) {
        for (int k = 0; k < 4; k++) {
            uint16_t lane[LANES];
            for (int i = 0; i < LANES; i++) lane[i] = (uint16_t)((word[i] >> (first + k) & 1) << (8 + plane));
            row[k] += load<u16x16>(lane);
        }
    }
#endif

    // sum += value in the lanes whose word has the bit.
    static inline void add_where(u8x32 &sum, const uint32_t *words, uint32_t bit, uint8_t value) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
        const __m512i wanted = _mm512_set1_epi32((int)bit);
        const __mmask16 low = _mm512_test_epi32_mask(_mm512_loadu_si512(words), wanted);
        const __mmask16 high = _mm512_test_epi32_mask(_mm512_loadu_si512(words + LANES), wanted);
        const __mmask32 here = _mm512_kunpackw(high, low);
        sum = (u8x32)_mm256_mask_add_epi8((__m256i)sum, here, (__m256i)sum, _mm256_set1_epi8((char)value));
#else
        uint8_t lane[TILE];
        for (int i = 0; i < TILE; i++) lane[i] = words[i] & bit ? value : 0;
        sum += load<u8x32>(lane);
#endif
    }
};

// Place value of a slice for `count` columns from `column` on, negative where they are stored inverted.
static inline void weigh(const Cells &c, int64_t slice, int64_t block, int64_t column, int count, int32_t *factor) {
    const int64_t blocks = (c.rows + c.rows_per_block - 1) / c.rows_per_block, tiles = (c.columns + TILE - 1) / TILE;
    const uint32_t inverted = c.inverted ? c.inverted[(slice * blocks + block) * tiles + column / TILE] >> column % TILE : 0;
    for (int i = 0; i < count; i++) factor[i] = inverted >> i & 1 ? -c.places[slice] : c.places[slice];
}
