// The read of a token or two with bit-serial inputs: no tables, which would cost more than they save.
//
// Cells are read once, in the order of memory. An instruction adds four rows of 16 columns, for one input bit, in 32
// bits; levels are bits and are counted 32 rows at a time.
#include <algorithm>
#include <vector>

#include "cimphony.h"
#include "kinds.h"

namespace {

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

// Wide of a panel's columns from `column` on, for every bit.
template <int BITS>
inline void add_up(const Panel &panel, const Selected &selected, int64_t block, int column, Wide *sum) {
    const uint32_t *levels = panel.levels + column, *errors = panel.errors + column;
    const u32x8 *words = &selected.words[block * selected.block_words], *quads = &selected.quads[block * selected.block_quads];
    for (int j = 0; j < BITS; j++) sum[j] = Wide{};
    for (int plane = 0; plane < panel.planes; plane++) {
        if (plane > 0)
            for (int j = 0; j < BITS; j++) sum[j] += sum[j];
        for (int64_t w = 0; w < panel.words; w++, levels += TILE) {
            const WideBits level = load<WideBits>(levels);
#pragma GCC unroll 8
            for (int j = 0; j < BITS; j++) sum[j] += popcount(level & words[w][j]);
        }
    }
    for (int j = 0; j < BITS; j++) sum[j] = (sum[j] + panel.base * selected.counts[block][j]) << 8;
    if (panel.errors == nullptr) return;
    for (int64_t q = 0; q < panel.quads; q++, errors += TILE) {
        const uint32_t *bits = (const uint32_t *)&quads[q];
        const WideBits cells = load<WideBits>(errors);
#pragma GCC unroll 8
        for (int j = 0; j < BITS; j++) sum[j] = add_selected(sum[j], cells, bits[j]);
    }
}

// Codes of LANES columns, all bits of a chunk together.
template <int BITS, class Conv>
s16x16 read_panel(const Panel &panel, const Selected &selected, int64_t block, int half, const Conv &convert,
                  bool negative_top) {
    constexpr int lanes = sizeof(Wide) / 4, parts = LANES / lanes;
    Wide sum[parts][BITS];
    for (int i = 0; i < parts; i++) add_up<BITS>(panel, selected, block, half * LANES + i * lanes, sum[i]);
    s16x16 codes = {};
    for (int j = BITS - 1; j >= 0; j--) {
        s32x16 both;
        memcpy(&both, sum[0] + j, sizeof(Wide));
        if (parts == 2) memcpy((char *)&both + sizeof(Wide), sum[parts - 1] + j, sizeof(Wide));
        s16x16 code;
        if constexpr (Conv::is_long)
            code = convert(both);
        else
            code = convert((u16x16)narrow(both) + convert.start());
        codes = codes + codes + (j == BITS - 1 && negative_top ? -code : code);
    }
    return codes;
}

template <class Conv>
s16x16 read_bits(const Panel &panel, const Selected &selected, int64_t block, int half, const Conv &convert,
                 const Chunk &chunk) {
#define CASE(n) \
    case n:     \
        return read_panel<n, Conv>(panel, selected, block, half, convert, chunk.negative_top)
    switch (chunk.bits) {
        CASE(1); CASE(2); CASE(3); CASE(4); CASE(5); CASE(6); CASE(7);
    }
    return read_panel<8, Conv>(panel, selected, block, half, convert, chunk.negative_top);
#undef CASE
}

// Adds the codes of a block and slice to the totals [token, chunk, TILE] of a tile.
template <class Conv>
void add_panel(const Read &read, const Conv &convert, int64_t tile, int64_t block, int64_t slice, int32_t *totals) {
    const Panel panel(read.cells, tile, block, slice);
    int32_t factor[TILE];
    weigh(read.cells, slice, block, tile * TILE, TILE, factor);
    for (int64_t i = 0; i < read.tokens * read.chunk_count; i++)
        for (int half = 0; half < TILE / LANES; half++) {
            const Chunk &chunk = read.chunks[i % read.chunk_count];
            const s16x16 codes = read_bits(panel, read.selected[i], block, half, convert, chunk);
            add_scaled(totals + i * TILE + half * LANES, codes, factor + half * LANES);
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
        case LONG_UNSIGNED:
        case LONG_SIGNED: return read_tiles<LONG_SIGNED>(read, first_tile, last_tile);
    }
}
