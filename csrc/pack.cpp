// Layouts: cells into column tiles, input bits into table indices.
#include <algorithm>

#include "cimphony.h"
#include "expand.h"

EXPORT int cim_instruction_set() {
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512vnni") &&
        __builtin_cpu_supports("avx512vpopcntdq"))
        return 4;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) return 3;
#endif
    return 1;
}

// result: smallest and largest sum of any selection of rows in a block, smallest and largest level, and whether any
// conductance lies between levels.
EXPORT void cim_bounds(const int16_t *conductance, int64_t slices, int64_t rows, int64_t columns,
                       int64_t rows_per_block, int32_t *result) {
    int32_t low = 0, high = 0, bottom = INT32_MAX, top = INT32_MIN, between = 0;
    int32_t below[64], above[64];
    for (int64_t slice = 0; slice < slices; slice++)
        for (int64_t first = 0; first < rows; first += rows_per_block)
            for (int64_t column = 0; column < columns; column += 64) {
                const int64_t width = std::min<int64_t>(64, columns - column);
                std::fill(below, below + 64, 0);
                std::fill(above, above + 64, 0);
                for (int64_t row = first; row < std::min(first + rows_per_block, rows); row++) {
                    const int16_t *from = conductance + (slice * rows + row) * columns + column;
                    for (int64_t i = 0; i < width; i++) {
                        const int32_t value = from[i], level = (value + 128) >> 8;
                        below[i] += std::min(value, 0);
                        above[i] += std::max(value, 0);
                        bottom = std::min(bottom, level);
                        top = std::max(top, level);
                        between |= value & 255;
                    }
                }
                low = std::min(low, *std::min_element(below, below + 64));
                high = std::max(high, *std::max_element(above, above + 64));
            }
    result[0] = low, result[1] = high, result[2] = bottom, result[3] = top, result[4] = between != 0;
}

// Calls `with(panel, slice, first row, rows)` for every panel of a tile.
template <class With> static void each_panel(const Cells &c, int64_t tile, With with) {
    for (int64_t first = 0; first < c.rows; first += c.rows_per_block)
        for (int64_t slice = 0; slice < c.slices; slice++)
            with(Panel(c, tile, first / c.rows_per_block, slice), slice, first, std::min(c.rows_per_block, c.rows - first));
}

// Adds a row to a panel of zeros.
static void pack_row(const int16_t *from, int64_t width, const Panel &panel, int64_t row) {
    int16_t value[TILE];
    std::fill(value, value + TILE, (int16_t)(256 * panel.base));
    std::copy(from, from + width, value);
    uint32_t *levels = const_cast<uint32_t *>(panel.levels) + row / 32 * TILE;
    uint32_t *errors = const_cast<uint32_t *>(panel.errors) + row / 4 * TILE;
    for (int plane = 0; plane < panel.planes; plane++, levels += panel.words * TILE)
        for (int i = 0; i < TILE; i++) {
            const uint32_t above = (uint32_t)(((value[i] + 128) >> 8) - panel.base);
            levels[i] |= (above >> (panel.planes - 1 - plane) & 1) << row % 32;
        }
    if (panel.errors)
        for (int i = 0; i < TILE; i++) errors[i] |= (uint32_t)(((value[i] + 128) & 255) ^ 128) << row % 4 * 8;
}

EXPORT void cim_pack_cells(const int16_t *conductance, const Cells *cells, int64_t first_tile, int64_t last_tile) {
    const Cells &c = *cells;
    for (int64_t tile = first_tile; tile < last_tile; tile++)
        each_panel(c, tile, [&](const Panel &panel, int64_t slice, int64_t first, int64_t rows) {
            const int16_t *values = conductance + (slice * c.rows + first) * c.columns + tile * TILE;
            for (int64_t row = 0; row < rows; row++, values += c.columns)
                pack_row(values, std::min<int64_t>(TILE, c.columns - tile * TILE), panel, row);
        });
}

// The conductances [slice, row, column] of packed cells, `columns` of them, back.
EXPORT void cim_unpack_cells(const Cells *cells, int64_t columns, int64_t first_tile, int64_t last_tile,
                             int16_t *conductance) {
    const Cells &c = *cells;
    for (int64_t tile = first_tile; tile < last_tile; tile++)
        each_panel(c, tile, [&](const Panel &panel, int64_t slice, int64_t first, int64_t rows) {
            const int64_t width = columns - tile * TILE;
            int16_t *to = conductance + (slice * c.rows + first) * columns + tile * TILE;
            u16x16 four[4];
            for (int half = 0; half < 2 && width > half * LANES; half++)
                for (int64_t row = 0; row < rows; row++) {
                    if (row % 4 == 0) panel.conductances(row / 4, half, four);
                    memcpy(to + row * columns + half * LANES, four + row % 4, 2 * std::min<int64_t>(LANES, width - half * LANES));
                }
        });
}

// Byte i bit j -> byte j bit i (Hacker's Delight, section 7-3).
static inline uint64_t transpose(uint64_t x) {
    uint64_t t = (x ^ x >> 7) & 0x00AA00AA00AA00AAull;
    x ^= t ^ t << 7;
    t = (x ^ x >> 14) & 0x0000CCCC0000CCCCull;
    x ^= t ^ t << 14;
    t = (x ^ x >> 28) & 0x00000000F0F0F0F0ull;
    return x ^ t ^ t << 28;
}

// Bits low_bit to low_bit + bits - 1 of every input; indices count table entries in units of 8 bytes.
EXPORT void cim_pack_inputs(const int64_t *inputs, int64_t tokens, int64_t rows, int64_t rows_per_block,
                            int32_t group, int32_t entry_bytes, int32_t low_bit, int32_t bits, uint64_t *words) {
    const int scale = entry_bytes == 64 ? 3 : 2;
    const uint64_t mask = (1u << bits) - 1;
    for (int64_t first = 0; first < rows; first += rows_per_block) {
        const int64_t last = std::min(first + rows_per_block, rows);
        for (int64_t token = 0; token < tokens; token++)
            for (int64_t row = first; row < last; row += group) {
                uint64_t bytes = 0;
                for (int64_t r = row; r < std::min(row + group, last); r++)
                    bytes |= ((uint64_t)(inputs[token * rows + r] >> low_bit) & mask) << 8 * (r - row);
                *words++ = transpose(bytes) << scale;
            }
    }
}
