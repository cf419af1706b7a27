// The read of one token with bit-serial inputs: no tables, which would cost more than they save.
//
// Rows are sorted by the value of four of their input bits at once. The cells of rows with the same value are summed
// (two additions a row for eight bits), and a value's sum joins the sums of the bits that the value has. Cells are
// read once, in the order of memory, which is what one token waits for.
#include <algorithm>
#include <vector>

#include "cimphony.h"
#include "kinds.h"

namespace {

constexpr int WINDOW = 4;  // bits sorted by together
constexpr int VALUES = 1 << WINDOW;
constexpr int64_t FETCHED = 2048;  // rows fetched before they are needed

// Rows of every block sorted by a window of their bits; those with no bit set are left out.
struct Order {
    std::vector<uint32_t> rows;              // [block, row]
    std::vector<uint32_t> first;             // [block, value], where rows with that value begin
    Order(const int64_t *inputs, const Cells &c, int low_bit, int bits) : rows(c.rows) {
        const uint32_t mask = (1u << bits) - 1;
        first.resize((c.rows + c.rows_per_block - 1) / c.rows_per_block * (VALUES + 1));
        uint32_t *at = first.data();
        for (int64_t start = 0; start < c.rows; start += c.rows_per_block, at += VALUES + 1) {
            const int64_t count = std::min(c.rows_per_block, c.rows - start);
            uint32_t found[VALUES] = {};
            for (int64_t row = 0; row < count; row++) found[inputs[start + row] >> low_bit & mask]++;
            at[0] = at[1] = 0;
            for (int value = 1; value < VALUES; value++) at[value + 1] = at[value] + found[value];
            uint32_t next[VALUES];
            std::copy(at, at + VALUES, next);
            for (int64_t row = 0; row < count; row++) {
                const uint32_t value = inputs[start + row] >> low_bit & mask;
                if (value != 0) rows[start + next[value]++] = (uint32_t)row;
            }
        }
    }
};

// Fetches what is read later, a few lines at a time: bursts would wait for one another.
struct Fetch {
    const char *rest, *planes;
    int rest_lines, plane_lines;  // in one step

    Fetch(const Cells &c, int64_t from, int64_t rows, int64_t steps) {
        rest = (const char *)(c.rest + (from + FETCHED) * TILE);
        planes = (const char *)(c.planes + (from + FETCHED) * c.plane_count);
        rest_lines = c.only_levels ? 0 : (int)((rows * TILE / 64 + steps - 1) / steps);
        plane_lines = (int)((rows * 4 * c.plane_count / 64 + steps - 1) / steps);
    }
    inline void step() {
        for (int i = 0; i < rest_lines; i++, rest += 64) __builtin_prefetch(rest, 0, 2);
        for (int i = 0; i < plane_lines; i++, planes += 64) __builtin_prefetch(planes, 0, 2);
    }
};

// Sums of the cells of the rows in which a bit is set, for all bits of a window and a few slices side by side: the
// lengths of the loops are hard to foresee, so every one of them should do much.
template <class Kind, int PLANES, int SLICES>
__attribute__((noinline)) void add_window(Fetch &ahead, const Rows &cells, int64_t stride, int half, const uint32_t *rows,
                                            const uint32_t *first, typename Kind::Vector (*sums)[2 * WINDOW]) {
    typedef typename Kind::Vector Vector;
    const Rows packed = cells;  // copies, which stay in registers
    Fetch fetch = ahead;
    Vector total[SLICES][WINDOW] = {};
#pragma GCC unroll 16
    for (int value = 1; value < VALUES; value++) {
        const uint32_t from = first[value], to = first[value + 1];
        Vector sum[SLICES];
        fetch.step();
        for (int s = 0; s < SLICES; s++) sum[s] = Kind::base(packed, to - from);
        for (uint32_t k = from; k < to; k++)
#pragma GCC unroll 4
            for (int s = 0; s < SLICES; s++) Kind::template add<PLANES>(sum[s], packed, rows[k] + s * stride, half);
#pragma GCC unroll 4
        for (int s = 0; s < SLICES; s++)
#pragma GCC unroll 4
            for (int bit = 0; bit < WINDOW; bit++)
                if (value >> bit & 1) total[s][bit] += sum[s];
    }
    for (int s = 0; s < SLICES; s++)
        for (int bit = 0; bit < WINDOW; bit++) sums[s][bit] += total[s][bit];
    ahead = fetch;
}

struct Part {
    const Chunk &chunk;
    std::vector<Order> windows;
};

struct Read {
    const Cells &cells;
    const std::vector<Part> &parts;
    int32_t *result;
};

// Totals of the columns of a tile, with all bits of a chunk, from slices `slice` and on.
template <class Kind, int PLANES, int SLICES, class Conv>
void read_slices(const Read &read, const Conv &convert, const Part &part, int64_t tile, int64_t block, int64_t slice,
                 int32_t *totals) {
    typedef typename Kind::Vector Vector;
    const Cells &c = read.cells;
    const int64_t blocks = (c.rows + c.rows_per_block - 1) / c.rows_per_block;
    const int64_t padded = (c.columns + TILE - 1) / TILE * TILE;
    const int64_t first = block * c.rows_per_block, rows = std::min(c.rows_per_block, c.rows - first);
    const int64_t steps = (VALUES - 1) * part.windows.size() * (TILE / LANES / Kind::parts);
    const int32_t *factor = c.factor + (slice * blocks + block) * padded + tile * TILE;
    for (int s = 0; s < SLICES; s++)  // needed at the end
        for (int i = 0; i < TILE; i += 16) __builtin_prefetch(factor + s * blocks * padded + i);
    Fetch fetch(c, (tile * c.rows + first) * c.slices + slice * rows, SLICES * rows, steps);
    const Rows packed(c, (tile * c.rows + first) * c.slices + slice * rows);
    for (int half = 0; half < TILE / LANES; half += Kind::parts) {
        Vector sums[SLICES][2 * WINDOW];
        for (auto &slice_sums : sums)
            for (Vector &sum : slice_sums) sum = Kind::start(convert.start());
        for (size_t w = 0; w < part.windows.size(); w++) {
            const Order &order = part.windows[w];
            const uint32_t *at = &order.first[block * (VALUES + 1)];
            add_window<Kind, PLANES, SLICES>(fetch, packed, rows, half, &order.rows[first], at,
                                             (Vector(*)[2 * WINDOW])((Vector *)sums + WINDOW * w));
        }
        for (int s = 0; s < SLICES; s++)
            for (int which = 0; which < Kind::parts; which++) {
                const int lane = LANES * (half + which);
                s16x16 code = convert(Kind::part(sums[s][part.chunk.bits - 1], which, convert.start()));
                if (part.chunk.negative_top) code = -code;
                for (int j = part.chunk.bits - 2; j >= 0; j--)
                    code = code + code + convert(Kind::part(sums[s][j], which, convert.start()));
                add_scaled(totals + lane, code, factor + s * blocks * padded + lane);
            }
    }
}

// result += place value of a chunk times the totals of a tile.
void add_tile(const Cells &c, int64_t tile, int32_t place, const int32_t *totals, int32_t *result) {
    const int64_t width = std::min<int64_t>(TILE, c.columns - tile * TILE);
    for (int64_t i = 0; i < width; i++) result[tile * TILE + i] += totals[i] * place;
}

template <class Kind, int PLANES, int ROUNDING>
void read_tiles(const Read &read, int64_t first_tile, int64_t last_tile) {
    const Cells &c = read.cells;
    const Convert<ROUNDING> convert(c.converter);
    for (int64_t tile = first_tile; tile < last_tile; tile++) {
        memset(read.result + tile * TILE, 0, 4 * std::min<int64_t>(TILE, c.columns - tile * TILE));
        for (const Part &part : read.parts) {
            int32_t totals[TILE] = {};
            for (int64_t first = 0; first < c.rows; first += c.rows_per_block) {
                const int64_t block = first / c.rows_per_block;
                int64_t slice = 0;
                for (; slice + 4 <= c.slices; slice += 4)
                    read_slices<Kind, PLANES, 4>(read, convert, part, tile, block, slice, totals);
                for (; slice < c.slices; slice++)
                    read_slices<Kind, PLANES, 1>(read, convert, part, tile, block, slice, totals);
            }
            add_tile(c, tile, part.chunk.place, totals, read.result);
        }
    }
}

template <class Kind, int ROUNDING> void read_planes(const Read &read, int64_t first_tile, int64_t last_tile) {
#if defined(__AVX512BW__)  // elsewhere arithmetic takes so long that the loop over planes does not matter
    if (read.cells.plane_count == 1) return read_tiles<Kind, 1, ROUNDING>(read, first_tile, last_tile);
    if (read.cells.plane_count == 2) return read_tiles<Kind, 2, ROUNDING>(read, first_tile, last_tile);
#endif
    read_tiles<Kind, 0, ROUNDING>(read, first_tile, last_tile);
}

template <int ROUNDING> void read_kind(const Read &read, int64_t first_tile, int64_t last_tile) {
    constexpr bool is_unsigned = ROUNDING == SHIFT_UNSIGNED || ROUNDING == SCALE_UNSIGNED;
    if constexpr (is_unsigned)
        if (read.cells.only_levels) return read_planes<Levels, ROUNDING>(read, first_tile, last_tile);
    read_planes<WideConductances, ROUNDING>(read, first_tile, last_tile);
}

}  // namespace

EXPORT void cim_read_token(const Cells *cells, const int64_t *inputs, const Chunk *chunks, int32_t chunk_count,
                           int64_t first_tile, int64_t last_tile, int32_t *result) {
    std::vector<Part> parts;
    for (int32_t k = 0; k < chunk_count; k++) {
        Part part{chunks[k], {}};
        const int low = __builtin_ctz((uint32_t)part.chunk.place);
        for (int bit = 0; bit < part.chunk.bits; bit += WINDOW)
            part.windows.emplace_back(inputs, *cells, low + bit, std::min<int>(WINDOW, part.chunk.bits - bit));
        parts.push_back(std::move(part));
    }
    const Read read{*cells, parts, result};
    switch (cells->converter.rounding) {
        case SHIFT_UNSIGNED: return read_kind<SHIFT_UNSIGNED>(read, first_tile, last_tile);
        case SHIFT_SIGNED: return read_kind<SHIFT_SIGNED>(read, first_tile, last_tile);
        case SCALE_UNSIGNED: return read_kind<SCALE_UNSIGNED>(read, first_tile, last_tile);
        case SCALE_SIGNED: return read_kind<SCALE_SIGNED>(read, first_tile, last_tile);
    }
}
