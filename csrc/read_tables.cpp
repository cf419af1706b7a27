// The read of analog cells with bit-serial inputs, by table look-up.
//
// Inputs are bits, so a column sum is the sum of a subset of the rows. The sums of all subsets of GROUP rows are
// made once for a tile (the method of four Russians); a read then adds one table entry for each group. Sums are
// exact integers, 32 bytes of columns at a time, all bits of an input at once, and pass through the converter in
// registers.
#include <algorithm>
#include <vector>

#include "cimphony.h"
#include "kinds.h"

namespace {

constexpr int TOKENS = 256;  // tokens whose totals stay in cache

// sum += entries of groups `from` to `to`, for every bit.
template <int BITS, class Vector>
inline void look_up(const char *table, int64_t stride, const uint64_t *words, int64_t from, int64_t to, Vector *sum) {
    const char *group = table + from * stride;
    for (int64_t g = from; g < to; g++, group += stride) {
        uint64_t word = words[g];
#pragma GCC unroll 8
        for (int j = 0; j < BITS; j += 2) {
            sum[j] += *(const Vector *)(group + 8 * (word & 255));
            if (j + 1 < BITS) sum[j + 1] += *(const Vector *)(group + 8 * (word >> 8 & 255));
            word >>= 16;
            asm("" : "+r"(word));  // keeps the cheap byte extraction; without it the shifts are recomputed
        }
    }
}

// Totals of `tokens` tokens read against one block and slice, all bits of a chunk together. Not inlined: every sum
// has a register only while nothing else wants one.
template <class Kind, class Conv, int BITS>
__attribute__((noinline)) void read_block(const Conv &convert, const char *table, int64_t stride, const uint64_t *words, int64_t groups,
                int64_t tokens, bool negative_top, const int32_t *factor, int32_t *totals) {
    typedef typename Kind::Vector Vector;
    for (int64_t token = 0; token < tokens; token++, words += groups, totals += LANES * Kind::parts) {
        Vector sum[BITS];
        for (int j = 0; j < BITS; j++) sum[j] = Kind::start(convert.start());
        look_up<BITS>(table, stride, words, 0, groups, sum);
#pragma GCC unroll 2
        for (int part = 0; part < Kind::parts; part++) {
            s16x16 code = convert(Kind::part(sum[BITS - 1], part, convert.start()));
            if (negative_top) code = -code;
#pragma GCC unroll 8
            for (int j = BITS - 2; j >= 0; j--) code = code + code + convert(Kind::part(sum[j], part, convert.start()));
            add_scaled(totals + LANES * part, code, factor + LANES * part);
        }
    }
}

// The same where a block's sums need 32 bits.
template <class Conv, int BITS>
__attribute__((noinline)) void read_long_block(const Conv &convert, const char *table, int64_t stride, const uint64_t *words,
                int64_t groups, int64_t tokens, bool negative_top, const int32_t *factor, int32_t *totals) {
    for (int64_t token = 0; token < tokens; token++, words += groups, totals += LANES) {
        s32x16 total[BITS] = {};
        for (int64_t from = 0; from < groups; from += convert.run) {
            u16x16 sum[BITS] = {};
            look_up<BITS>(table, stride, words, from, std::min<int64_t>(groups, from + convert.run), sum);
            for (int j = 0; j < BITS; j++) total[j] += __builtin_convertvector((typename Conv::Sum)sum[j], s32x16);
        }
        s16x16 code = convert(total[BITS - 1]);
        if (negative_top) code = -code;
        for (int j = BITS - 2; j >= 0; j--) code = code + code + convert(total[j]);
        add_scaled(totals, code, factor);
    }
}

template <class Kind, class Conv>
void read_bits(int bits, const Conv &convert, const char *table, int64_t stride, const uint64_t *words, int64_t groups,
               int64_t tokens, bool negative_top, const int32_t *factor, int32_t *totals) {
#define CASE(n)                                                                                                          \
    case n:                                                                                                              \
        if constexpr (Conv::is_long)                                                                                     \
            return read_long_block<Conv, n>(convert, table, stride, words, groups, tokens, negative_top, factor, totals); \
        else                                                                                                             \
            return read_block<Kind, Conv, n>(convert, table, stride, words, groups, tokens, negative_top, factor, totals)
    switch (bits) {
        CASE(1); CASE(2); CASE(3); CASE(4); CASE(5); CASE(6); CASE(7); CASE(8);
    }
#undef CASE
}

// The sums of all subsets of each group of rows; the last group may be shorter. Entry 0 of a group is zero for good.
template <class Vector, int GROUP> void make_tables(const Vector *rows, int64_t count, Vector *table) {
    for (; count >= GROUP; count -= GROUP, rows += GROUP, table += 1 << GROUP) {
#pragma GCC unroll 6
        for (int i = 0; i < GROUP; i++) {
            const Vector next = table[1 << i] = rows[i];
#pragma GCC unroll 3
            for (int k = 1; k < 1 << i; k++) table[k + (1 << i)] = table[k] + next;
        }
    }
    for (int i = 0; i < count; i++) {
        const Vector next = table[1 << i] = rows[i];
        for (int k = 1; k < 1 << i; k++) table[k + (1 << i)] = table[k] + next;
    }
}

template <class Vector> void make_tables(const Vector *rows, int64_t count, int group, Vector *table) {
    switch (group) {
        case 2: return make_tables<Vector, 2>(rows, count, table);
        case 3: return make_tables<Vector, 3>(rows, count, table);
        case 4: return make_tables<Vector, 4>(rows, count, table);
        case 5: return make_tables<Vector, 5>(rows, count, table);
        case 6: return make_tables<Vector, 6>(rows, count, table);
    }
}

struct Read {
    const Cells &cells;
    const Chunk *chunks;
    int32_t chunk_count, group;
    int64_t tokens;
    int32_t *result;
};

template <class Kind> struct Scratch {
    std::vector<typename Kind::Vector> table, rows;
    std::vector<int32_t> totals;
    Scratch(int64_t rows_per_block, int group)
        : table(((rows_per_block + group - 1) / group) << group), rows((rows_per_block + 3) / 4 * 4),
          totals(TOKENS * LANES * Kind::parts) {}
};

// Columns `column` and on, tokens `from` and on, as many as fit the scratch.
template <class Kind, class Conv>
void read_columns(const Read &read, const Conv &convert, int64_t column, int64_t from, Scratch<Kind> &scratch) {
    constexpr int lanes = LANES * Kind::parts;
    const Cells &c = read.cells;
    const int64_t count = std::min<int64_t>(TOKENS, read.tokens - from), tile = column / TILE;
    const int64_t blocks = (c.rows + c.rows_per_block - 1) / c.rows_per_block;
    const int64_t width = std::min<int64_t>(lanes, c.columns - column);
    const int64_t stride = sizeof(typename Kind::Vector) << read.group;
    std::fill(scratch.totals.begin(), scratch.totals.end(), 0);
    int64_t words_before = 0;
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t first = block * c.rows_per_block, rows = std::min(c.rows_per_block, c.rows - first);
        const int64_t groups = (rows + read.group - 1) / read.group;
        for (int64_t slice = 0; slice < c.slices; slice++) {
            Kind::rows(Panel(c, tile, block, slice), (int)(column % TILE / LANES), scratch.rows.data());
            make_tables(scratch.rows.data(), rows, read.group, scratch.table.data());
            for (int32_t k = 0; k < read.chunk_count; k++) {
                const Chunk &chunk = read.chunks[k];
                int32_t factor[lanes];
                weigh(c, slice, block, column, lanes, factor);
                for (int i = 0; i < lanes; i++) factor[i] *= chunk.place;
                read_bits<Kind>(chunk.bits, convert, (const char *)scratch.table.data(), stride,
                                chunk.words + words_before + from * groups, groups, count, chunk.negative_top, factor,
                                scratch.totals.data());
            }
        }
        words_before += read.tokens * groups;
    }
    for (int64_t token = 0; token < count; token++)
        memcpy(read.result + (from + token) * c.columns + column, &scratch.totals[token * lanes], 4 * width);
}

template <class Kind, int ROUNDING>
void read_tiles(const Read &read, int64_t first_tile, int64_t last_tile) {
    Convert<ROUNDING> convert(read.cells.converter);
    if constexpr (Convert<ROUNDING>::is_long) convert.run /= read.group;
    Scratch<Kind> scratch(read.cells.rows_per_block, read.group);
    const int64_t last = std::min(last_tile * TILE, read.cells.columns);
    for (int64_t column = first_tile * TILE; column < last; column += LANES * Kind::parts)
        for (int64_t from = 0; from < read.tokens; from += TOKENS) read_columns(read, convert, column, from, scratch);
}

template <int ROUNDING>
void read_kind(const Read &read, int entry_bytes, int64_t first_tile, int64_t last_tile) {
    constexpr bool is_unsigned = ROUNDING == SHIFT_UNSIGNED || ROUNDING == SCALE_UNSIGNED;
    if constexpr (is_unsigned)
        if (read.cells.only_levels) return read_tiles<Levels, ROUNDING>(read, first_tile, last_tile);
    if (entry_bytes == sizeof(WideConductances::Vector))
        read_tiles<WideConductances, ROUNDING>(read, first_tile, last_tile);
    else
        read_tiles<Conductances, ROUNDING>(read, first_tile, last_tile);
}

}  // namespace

EXPORT int cim_widest_entry() { return sizeof(WideConductances::Vector); }

EXPORT void cim_read_tables(const Cells *cells, const Chunk *chunks, int32_t chunk_count, int32_t group,
                            int32_t entry_bytes, int64_t tokens, int64_t first_tile, int64_t last_tile,
                            int32_t *result) {
    const Read read{*cells, chunks, chunk_count, group, tokens, result};
    switch (cells->converter.rounding) {
        case SHIFT_UNSIGNED: return read_kind<SHIFT_UNSIGNED>(read, entry_bytes, first_tile, last_tile);
        case SHIFT_SIGNED: return read_kind<SHIFT_SIGNED>(read, entry_bytes, first_tile, last_tile);
        case SCALE_UNSIGNED: return read_kind<SCALE_UNSIGNED>(read, entry_bytes, first_tile, last_tile);
        case SCALE_SIGNED: return read_kind<SCALE_SIGNED>(read, entry_bytes, first_tile, last_tile);
        case LONG_UNSIGNED: return read_tiles<Conductances, LONG_UNSIGNED>(read, first_tile, last_tile);
        case LONG_SIGNED: return read_tiles<Conductances, LONG_SIGNED>(read, first_tile, last_tile);
    }
}
