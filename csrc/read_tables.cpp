// The read of analog cells with bit-serial inputs, by table look-up.
//
// Inputs are bits, so a column sum is the sum of a subset of the rows. The sums of all subsets of GROUP rows are
// made once for a tile (the method of four Russians); a read then adds one table entry for each group. Sums are
// exact 16-bit integers, LANES columns at a time, all bits of an input at once, and pass through the converter in
// registers.
#include <algorithm>
#include <type_traits>
#include <vector>

#include "cimphony.h"
#include "expand.h"
#include "simd.h"

static_assert(sizeof(u16x16) << GROUP <= 8 * 256, "an index byte counts units of 8 bytes");

namespace {

constexpr int TOKENS = 256;  // tokens whose totals stay in cache

template <int ROUNDING> struct Convert {
    static constexpr bool is_signed = ROUNDING == SHIFT_SIGNED || ROUNDING == SCALE_SIGNED;
    static constexpr bool scales = ROUNDING == SCALE_UNSIGNED || ROUNDING == SCALE_SIGNED;
    typedef typename std::conditional<is_signed, s16x16, u16x16>::type Sum;
    Sum multiplier, half, low, high;
    int shift;

    explicit Convert(const Converter &c) {
        shift = scales ? c.shift - 16 : c.shift;
        for (int i = 0; i < LANES; i++) {
            multiplier[i] = c.multiplier;
            half[i] = (1 << shift) >> 1;
            low[i] = c.low;
            high[i] = c.high;
        }
    }
    // Where the sum is scaled, rounding needs no more than its upper half: floor(floor(a / 2^16) / 2^k) = floor(a / 2^(16+k)).
    inline u16x16 start() const { return scales ? u16x16{} : (u16x16)half; }
    inline s16x16 operator()(u16x16 total) const {
        Sum code = (Sum)total;
        if constexpr (scales) code = multiply_high(code, multiplier) + half;
        code = min(code >> shift, high);
        if constexpr (is_signed) code = max(code, low);
        return (s16x16)code;
    }
};

// One tile's totals of a read of `tokens` tokens against one block and slice, all bits of a chunk together.
template <class Conv, int BITS>
void read_block(const Conv &convert, const char *table, const uint64_t *words, int64_t groups, int64_t tokens,
                bool negative_top, const int32_t *factor, int32_t *totals) {
    constexpr int64_t stride = sizeof(u16x16) << GROUP;
    for (int64_t token = 0; token < tokens; token++, totals += LANES) {
        u16x16 sum[BITS];
        for (int j = 0; j < BITS; j++) sum[j] = convert.start();
        const char *group = table;
        for (int64_t g = 0; g < groups; g++, group += stride) {
            uint64_t word = *words++;
#pragma GCC unroll 8
            for (int j = 0; j < BITS; j += 2) {
                sum[j] += *(const u16x16 *)(group + 8 * (word & 255));
                if (j + 1 < BITS) sum[j + 1] += *(const u16x16 *)(group + 8 * (word >> 8 & 255));
                word >>= 16;
                asm("" : "+r"(word));  // keeps the cheap byte extraction; without it the shifts are recomputed
            }
        }
        s16x16 code = convert(sum[BITS - 1]);
        if (negative_top) code = -code;
#pragma GCC unroll 8
        for (int j = BITS - 2; j >= 0; j--) code = code + code + convert(sum[j]);
        add_scaled(totals, code, factor);
    }
}

template <class Conv>
void read_bits(int bits, const Conv &convert, const char *table, const uint64_t *words, int64_t groups, int64_t tokens,
               bool negative_top, const int32_t *factor, int32_t *totals) {
#define CASE(n) \
    case n: return read_block<Conv, n>(convert, table, words, groups, tokens, negative_top, factor, totals)
    switch (bits) {
        CASE(1); CASE(2); CASE(3); CASE(4); CASE(5); CASE(6); CASE(7); CASE(8);
    }
#undef CASE
}

// The sums of all subsets of each group of rows; the last group may be shorter.
void make_tables(const u16x16 *rows, int64_t count, u16x16 *table) {
    for (int64_t first = 0; first < count; first += GROUP, table += 1 << GROUP) {
        table[0] = u16x16{};
        for (int64_t i = 0; i < std::min<int64_t>(GROUP, count - first); i++) {
            const u16x16 row = rows[first + i];
            for (int64_t k = 0; k < 1 << i; k++) table[k + (1 << i)] = table[k] + row;
        }
    }
}

struct Scratch {
    std::vector<u16x16> rows, table;
    std::vector<int32_t> totals;
    explicit Scratch(int64_t rows_per_block)
        : rows(rows_per_block), table(((rows_per_block + GROUP - 1) / GROUP) << GROUP), totals(TOKENS * LANES) {}
};

struct Read {
    const Cells &cells;
    const Chunk *chunks;
    int32_t chunk_count;
    int64_t tokens;
    int32_t *result;
};

template <class Conv> void read_half(const Read &read, const Conv &convert, int64_t column, int64_t from, Scratch &scratch) {
    const Cells &c = read.cells;
    const int64_t count = std::min<int64_t>(TOKENS, read.tokens - from), tile = column / TILE;
    const int64_t blocks = (c.rows + c.rows_per_block - 1) / c.rows_per_block;
    const int64_t padded = (c.columns + TILE - 1) / TILE * TILE, width = std::min<int64_t>(LANES, c.columns - column);
    std::fill(scratch.totals.begin(), scratch.totals.end(), 0);
    int64_t words_before = 0;
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t first = block * c.rows_per_block, rows = std::min(c.rows_per_block, c.rows - first);
        const int64_t groups = (rows + GROUP - 1) / GROUP;
        for (int64_t slice = 0; slice < c.slices; slice++) {
            const int64_t packed = (tile * c.rows + first) * c.slices + slice * rows;
            expand_rows(c, packed, rows, (int)(column % TILE / LANES), scratch.rows.data());
            make_tables(scratch.rows.data(), rows, scratch.table.data());
            for (int32_t k = 0; k < read.chunk_count; k++) {
                int32_t factor[LANES];
                for (int i = 0; i < LANES; i++)
                    factor[i] = c.factor[(slice * blocks + block) * padded + column + i] * read.chunks[k].place;
                const uint64_t *words = read.chunks[k].words + words_before + from * groups;
                read_bits(read.chunks[k].bits, convert, (const char *)scratch.table.data(), words, groups, count,
                          read.chunks[k].negative_top, factor, scratch.totals.data());
            }
        }
        words_before += read.tokens * groups;
    }
    for (int64_t token = 0; token < count; token++)
        memcpy(read.result + (from + token) * c.columns + column, &scratch.totals[token * LANES], 4 * width);
}

template <int ROUNDING> void read_tiles(const Read &read, int64_t first_tile, int64_t last_tile) {
    const Convert<ROUNDING> convert(read.cells.converter);
    Scratch scratch(read.cells.rows_per_block);
    const int64_t last = std::min(last_tile * TILE, read.cells.columns);
    for (int64_t column = first_tile * TILE; column < last; column += LANES)
        for (int64_t from = 0; from < read.tokens; from += TOKENS) read_half(read, convert, column, from, scratch);
}

}  // namespace

EXPORT void cim_read_tables(const Cells *cells, const Chunk *chunks, int32_t chunk_count, int64_t tokens,
                            int64_t first_tile, int64_t last_tile, int32_t *result) {
    const Read read{*cells, chunks, chunk_count, tokens, result};
    switch (cells->converter.rounding) {
        case SHIFT_UNSIGNED: return read_tiles<SHIFT_UNSIGNED>(read, first_tile, last_tile);
        case SHIFT_SIGNED: return read_tiles<SHIFT_SIGNED>(read, first_tile, last_tile);
        case SCALE_UNSIGNED: return read_tiles<SCALE_UNSIGNED>(read, first_tile, last_tile);
        case SCALE_SIGNED: return read_tiles<SCALE_SIGNED>(read, first_tile, last_tile);
    }
}
