// The read of one token with bit-serial inputs: no tables, which would cost more than they save.
//
// A row of cells is expanded once and added to two of 32 sums: the one of the value of its input's low four bits, and
// the one of its high four. The sum of a bit is that of the values that have it. Cells are read once, in the order of
// memory, and nothing branches on the inputs.
#include <algorithm>
#include <vector>

#include "cimphony.h"
#include "kinds.h"

namespace {

constexpr int WINDOW = 4;  // bits whose values are told apart
constexpr int VALUES = 1 << WINDOW;
constexpr int TOGETHER = 4;       // slices read side by side: a sum is not needed again before it is written
constexpr int64_t FETCHED = 8192;  // bytes fetched before they are needed

// Rows of a block whose bits are not all 0, with the values of both windows.
struct Word {
    int32_t row;
    uint8_t low, high;
};

struct Words {
    std::vector<Word> words;
    std::vector<int64_t> first;  // [block + 1]
    Words(const int64_t *inputs, const Cells &c, const Chunk &chunk) {
        const uint64_t mask = (1u << chunk.bits) - 1;
        const int low_bit = __builtin_ctz((uint32_t)chunk.place);
        for (int64_t start = 0; start < c.rows; start += c.rows_per_block) {
            first.push_back((int64_t)words.size());
            for (int64_t row = start; row < std::min(start + c.rows_per_block, c.rows); row++) {
                const uint64_t value = (uint64_t)inputs[row] >> low_bit & mask;
                if (value != 0)
                    words.push_back({(int32_t)(row - start), (uint8_t)(value % VALUES), (uint8_t)(value / VALUES)});
            }
        }
        first.push_back((int64_t)words.size());
    }
};

struct Read {
    const Cells &cells;
    const Chunk *chunks;
    const std::vector<Words> &words;  // [chunk]
    int32_t *result;
};

template <class Kind> using Sums = typename Kind::Vector[2 * VALUES];

// The sums of all bits from those of the values, which are 0 afterwards.
template <class Vector> inline void sum_bits(Vector *values, Vector start, Vector *bits) {
    values[0] = Vector{};
#pragma GCC unroll 4
    for (int bit = WINDOW - 1; bit >= 0; bit--) {
        const int half = 1 << bit;
        Vector sum = start + values[half];
#pragma GCC unroll 8
        for (int value = 1; value < half; value++) {
            sum += values[half + value];
            values[value] += values[half + value];
            values[half + value] = Vector{};
        }
        values[half] = Vector{};
        bits[bit] = sum;
    }
}

// Totals of a tile with all bits of a chunk, from `SLICES` slices of a block.
template <class Kind, int SLICES, class Conv>
void read_slices(const Read &read, const Conv &convert, int32_t k, int64_t tile, int64_t block, int64_t slice,
                 Sums<Kind> *sums, int32_t *totals) {
    typedef typename Kind::Vector Vector;
    const Cells &c = read.cells;
    const Chunk &chunk = read.chunks[k];
    const int64_t blocks = (c.rows + c.rows_per_block - 1) / c.rows_per_block;
    const int64_t padded = (c.columns + TILE - 1) / TILE * TILE;
    const int64_t first = block * c.rows_per_block, rows = std::min(c.rows_per_block, c.rows - first);
    const Rows packed(c, (tile * c.rows + first) * c.slices + slice * rows);
    const Word *from = read.words[k].words.data() + read.words[k].first[block];
    const Word *to = read.words[k].words.data() + read.words[k].first[block + 1];
    const int32_t *factor = c.factor + (slice * blocks + block) * padded + tile * TILE;
    for (int s = 0; s < SLICES; s++)  // needed at the end
        for (int i = 0; i < TILE; i += 16) __builtin_prefetch(factor + s * blocks * padded + i);
    const char *rest = (const char *)packed.rest + FETCHED, *planes = (const char *)packed.planes + FETCHED / 8;
    for (int half = 0; half < TILE / LANES; half += Kind::parts) {
        for (const Word *word = from; word < to; word++) {
            __builtin_prefetch(rest, 0, 2);
            if (SLICES == TOGETHER) __builtin_prefetch(rest + 64, 0, 2);
            __builtin_prefetch(planes, 0, 2);
            rest += SLICES * TILE;
            planes += SLICES * 4;
#pragma GCC unroll 4
            for (int s = 0; s < SLICES; s++) {
                const Vector cells = Kind::row(packed, s * rows + word->row, half);
                sums[s][word->low] += cells;
                sums[s][VALUES + word->high] += cells;
            }
        }
        for (int s = 0; s < SLICES; s++) {
            Vector bits[2 * WINDOW];
            const Vector start = Kind::start(convert.start());
            sum_bits(sums[s], start, bits);
            sum_bits(sums[s] + VALUES, start, bits + WINDOW);
            for (int which = 0; which < Kind::parts; which++) {
                s16x16 code = convert(Kind::part(bits[chunk.bits - 1], which, convert.start()));
                if (chunk.negative_top) code = -code;
                for (int j = chunk.bits - 2; j >= 0; j--)
                    code = code + code + convert(Kind::part(bits[j], which, convert.start()));
                const int lane = LANES * (half + which);
                add_scaled(totals + lane, code, factor + s * blocks * padded + lane);
            }
        }
    }
}

template <class Kind, int ROUNDING>
void read_tiles(const Read &read, int32_t chunk_count, int64_t first_tile, int64_t last_tile) {
    const Cells &c = read.cells;
    const Convert<ROUNDING> convert(c.converter);
    const int64_t blocks = (c.rows + c.rows_per_block - 1) / c.rows_per_block;
    Sums<Kind> sums[TOGETHER] = {};
    for (int64_t tile = first_tile; tile < last_tile; tile++) {
        int32_t result[TILE] = {};
        for (int32_t k = 0; k < chunk_count; k++) {
            int32_t totals[TILE] = {};
            for (int64_t block = 0; block < blocks; block++) {
                int64_t slice = 0;
                for (; slice + TOGETHER <= c.slices; slice += TOGETHER)
                    read_slices<Kind, TOGETHER>(read, convert, k, tile, block, slice, sums, totals);
                for (; slice < c.slices; slice++) read_slices<Kind, 1>(read, convert, k, tile, block, slice, sums, totals);
            }
            for (int i = 0; i < TILE; i++) result[i] += totals[i] * read.chunks[k].place;
        }
        memcpy(read.result + tile * TILE, result, 4 * std::min<int64_t>(TILE, c.columns - tile * TILE));
    }
}

template <int ROUNDING>
void read_kind(const Read &read, int32_t chunk_count, int64_t first_tile, int64_t last_tile) {
    constexpr bool is_unsigned = ROUNDING == SHIFT_UNSIGNED || ROUNDING == SCALE_UNSIGNED;
    if constexpr (is_unsigned)
        if (read.cells.only_levels) return read_tiles<Levels, ROUNDING>(read, chunk_count, first_tile, last_tile);
    read_tiles<WideConductances, ROUNDING>(read, chunk_count, first_tile, last_tile);
}

}  // namespace

EXPORT void cim_read_token(const Cells *cells, const int64_t *inputs, const Chunk *chunks, int32_t chunk_count,
                           int64_t first_tile, int64_t last_tile, int32_t *result) {
    std::vector<Words> words;
    for (int32_t k = 0; k < chunk_count; k++) words.emplace_back(inputs, *cells, chunks[k]);
    const Read read{*cells, chunks, words, result};
    switch (cells->converter.rounding) {
        case SHIFT_UNSIGNED: return read_kind<SHIFT_UNSIGNED>(read, chunk_count, first_tile, last_tile);
        case SHIFT_SIGNED: return read_kind<SHIFT_SIGNED>(read, chunk_count, first_tile, last_tile);
        case SCALE_UNSIGNED: return read_kind<SCALE_UNSIGNED>(read, chunk_count, first_tile, last_tile);
        case SCALE_SIGNED: return read_kind<SCALE_SIGNED>(read, chunk_count, first_tile, last_tile);
    }
}
