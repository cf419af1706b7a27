// The read of a token or two with bit-serial inputs: no tables, which would cost more than they save.
//
// Cells are read once, in the order of memory. An instruction adds four rows of 16 columns, for one input bit, in 32
// bits; levels are bits and are counted 32 rows at a time.
#include <algorithm>
#include <vector>

#include "cimphony.h"
#include "kinds.h"

namespace {

#if defined(__AVX512VNNI__)
constexpr int SIDE_BY_SIDE = 2;  // halves of a tile, with all sums in registers
#else
constexpr int SIDE_BY_SIDE = 1;
#endif

// Eight input bits (lanes) of the rows: a byte of a quad, or a bit of a word, is 1 where a row has the bit.
struct Selected {
    std::vector<u32x8> quads, words;  // [block, quad or word]
    std::vector<s32x8> counts;        // [block], rows that have the bit
    int64_t block_quads, block_words;

    Selected(const int64_t *inputs, const Cells &c, int low_bit)
        : block_quads((c.rows_per_block + 3) / 4), block_words((c.rows_per_block + 31) / 32) {
        const int64_t blocks = (c.rows + c.rows_per_block - 1) / c.rows_per_block;
        quads.resize(blocks * block_quads), words.resize(blocks * block_words), counts.resize(blocks);
        constexpr u32x8 each = {0, 1, 2, 3, 4, 5, 6, 7};
        for (int64_t block = 0; block < blocks; block++)
            for (int64_t row = 0; row < std::min(c.rows_per_block, c.rows - block * c.rows_per_block); row++) {
                const int64_t input = inputs[block * c.rows_per_block + row];
                const u32x8 bits = (u32x8{} + (uint32_t)(input >> low_bit)) >> each & 1;
                quads[block * block_quads + row / 4] |= bits << (uint32_t)(row % 4 * 8);
                words[block * block_words + row / 32] |= bits << (uint32_t)(row % 32);
                counts[block] += (s32x8)bits;
            }
    }
};

struct Read {
    const Cells &cells;
    const Chunk *chunks;
    int32_t chunk_count;
    int64_t tokens;
    const std::vector<Selected> &selected;  // [token, chunk]
    int32_t *result;
};

// Codes of a panel's columns from LANES * half on, all bits of a chunk together.
template <int BITS, class Conv>
void read_panel(const Panel &panel, const Selected &selected, int64_t block, int half, const Conv &convert,
                bool negative_top, s16x16 *codes) {
    const uint32_t *levels = panel.levels + half * LANES, *errors = panel.errors + half * LANES;
    const u32x8 *words = &selected.words[block * selected.block_words], *quads = &selected.quads[block * selected.block_quads];
    s32x16 sum[SIDE_BY_SIDE][BITS];
    for (int i = 0; i < SIDE_BY_SIDE; i++)
        for (int j = 0; j < BITS; j++) sum[i][j] = s32x16{};
    for (int plane = 0; plane < panel.planes; plane++) {
        if (plane > 0)
            for (int i = 0; i < SIDE_BY_SIDE; i++)
                for (int j = 0; j < BITS; j++) sum[i][j] += sum[i][j];
        for (int64_t w = 0; w < panel.words; w++, levels += TILE)
            for (int i = 0; i < SIDE_BY_SIDE; i++) {
                const u32x16 level = load<u32x16>(levels + i * LANES);
#pragma GCC unroll 8
                for (int j = 0; j < BITS; j++) sum[i][j] += popcount(level & words[w][j]);
            }
    }
    for (int i = 0; i < SIDE_BY_SIDE; i++)
        for (int j = 0; j < BITS; j++) sum[i][j] = (sum[i][j] + panel.base * selected.counts[block][j]) << 8;
    if (panel.errors)
        for (int64_t q = 0; q < panel.quads; q++, errors += TILE) {
            const uint32_t *bits = (const uint32_t *)&quads[q];
            u32x16 cells[SIDE_BY_SIDE];
            for (int i = 0; i < SIDE_BY_SIDE; i++) cells[i] = load<u32x16>(errors + i * LANES);
#pragma GCC unroll 8
            for (int j = 0; j < BITS; j++)
                for (int i = 0; i < SIDE_BY_SIDE; i++) sum[i][j] = add_selected(sum[i][j], cells[i], bits[j]);
        }
    for (int i = 0; i < SIDE_BY_SIDE; i++) {
        codes[i] = convert((u16x16)narrow(sum[i][BITS - 1]) + convert.start());
        if (negative_top) codes[i] = -codes[i];
        for (int j = BITS - 2; j >= 0; j--) codes[i] = codes[i] + codes[i] + convert((u16x16)narrow(sum[i][j]) + convert.start());
    }
}

template <class Conv>
void read_bits(const Panel &panel, const Selected &selected, int64_t block, int half, const Conv &convert,
               const Chunk &chunk, s16x16 *codes) {
#define CASE(n) \
    case n:     \
        return read_panel<n, Conv>(panel, selected, block, half, convert, chunk.negative_top, codes)
    switch (chunk.bits) {
        CASE(1); CASE(2); CASE(3); CASE(4); CASE(5); CASE(6); CASE(7); CASE(8);
    }
#undef CASE
}

// Adds the codes of a block and slice to the totals [token, chunk, TILE] of a tile.
template <class Conv>
void add_panel(const Read &read, const Conv &convert, int64_t tile, int64_t block, int64_t slice, int32_t *totals) {
    const Panel panel(read.cells, tile, block, slice);
    int32_t factor[TILE];
    weigh(read.cells, slice, block, tile * TILE, TILE, factor);
    for (int64_t i = 0; i < read.tokens * read.chunk_count; i++)
        for (int half = 0; half < TILE / LANES; half += SIDE_BY_SIDE) {
            s16x16 codes[SIDE_BY_SIDE];
            read_bits(panel, read.selected[i], block, half, convert, read.chunks[i % read.chunk_count], codes);
            for (int k = 0; k < SIDE_BY_SIDE; k++)
                add_scaled(totals + i * TILE + (half + k) * LANES, codes[k], factor + (half + k) * LANES);
        }
}

template <int ROUNDING> void read_tiles(const Read &read, int64_t first_tile, int64_t last_tile) {
    const Cells &c = read.cells;
    const Convert<ROUNDING> convert(c.converter);
    const int64_t blocks = (c.rows + c.rows_per_block - 1) / c.rows_per_block;
    std::vector<int32_t> totals(read.tokens * read.chunk_count * TILE);
    for (int64_t tile = first_tile; tile < last_tile; tile++) {
        std::fill(totals.begin(), totals.end(), 0);
        for (int64_t block = 0; block < blocks; block++)
            for (int64_t slice = 0; slice < c.slices; slice++) add_panel(read, convert, tile, block, slice, totals.data());
        const int64_t width = std::min<int64_t>(TILE, c.columns - tile * TILE);
        for (int64_t token = 0; token < read.tokens; token++)
            for (int64_t i = 0; i < width; i++) {
                int32_t total = 0;
                for (int32_t k = 0; k < read.chunk_count; k++)
                    total += totals[(token * read.chunk_count + k) * TILE + i] * read.chunks[k].place;
                read.result[token * c.columns + tile * TILE + i] = total;
            }
    }
}

}  // namespace

EXPORT void cim_read_token(const Cells *cells, const int64_t *inputs, int64_t tokens, const Chunk *chunks,
                           int32_t chunk_count, int64_t first_tile, int64_t last_tile, int32_t *result) {
    std::vector<Selected> selected;
    for (int64_t token = 0; token < tokens; token++)
        for (int32_t k = 0; k < chunk_count; k++)
            selected.emplace_back(inputs + token * cells->rows, *cells, __builtin_ctz((uint32_t)chunks[k].place));
    const Read read{*cells, chunks, chunk_count, tokens, selected, result};
    switch (cells->converter.rounding) {
        case SHIFT_UNSIGNED: return read_tiles<SHIFT_UNSIGNED>(read, first_tile, last_tile);
        case SHIFT_SIGNED: return read_tiles<SHIFT_SIGNED>(read, first_tile, last_tile);
        case SCALE_UNSIGNED: return read_tiles<SCALE_UNSIGNED>(read, first_tile, last_tile);
        case SCALE_SIGNED: return read_tiles<SCALE_SIGNED>(read, first_tile, last_tile);
    }
}
