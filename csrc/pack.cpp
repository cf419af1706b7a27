// Layouts: cells into column tiles, input bits into table indices.
#include <algorithm>

#include "cimphony.h"

EXPORT int cim_instruction_set() {
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd"))
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

static void pack_row(const int16_t *from, int64_t width, const Cells &cells, int8_t *rest, uint32_t *planes) {
    int16_t value[TILE];
    uint8_t above[TILE];
    std::fill(value, value + TILE, (int16_t)(256 * cells.base));
    std::copy(from, from + width, value);
    for (int i = 0; i < TILE; i++) {
        const int level = (value[i] + 128) >> 8;
        rest[i] = (int8_t)(value[i] - 256 * level);
        above[i] = (uint8_t)(level - cells.base);
    }
    for (int plane = 0; plane < cells.plane_count; plane++) {
        uint32_t bits = 0;
        for (int i = 0; i < TILE; i++) bits |= (uint32_t)(above[i] >> plane & 1) << i;
        planes[plane] = bits;
    }
}

// Row (tile, block, slice, row in block) of the packed layout; blocks before the last one are full.
EXPORT void cim_pack_cells(const int16_t *conductance, const Cells *cells, int64_t first_tile, int64_t last_tile) {
    const Cells &c = *cells;
    int8_t *rest = const_cast<int8_t *>(c.rest) + first_tile * c.slices * c.rows * TILE;
    uint32_t *planes = const_cast<uint32_t *>(c.planes) + first_tile * c.slices * c.rows * c.plane_count;
    for (int64_t tile = first_tile; tile < last_tile; tile++)
        for (int64_t first = 0; first < c.rows; first += c.rows_per_block)
            for (int64_t slice = 0; slice < c.slices; slice++)
                for (int64_t row = first; row < std::min(first + c.rows_per_block, c.rows); row++) {
                    const int16_t *from = conductance + (slice * c.rows + row) * c.columns + tile * TILE;
                    pack_row(from, std::min<int64_t>(TILE, c.columns - tile * TILE), c, rest, planes);
                    rest += TILE;
                    planes += c.plane_count;
                }
}

// The conductances [slice, row, column] of packed cells, `columns` of them, back.
EXPORT void cim_unpack_cells(const Cells *cells, int64_t columns, int64_t first_tile, int64_t last_tile,
                             int16_t *conductance) {
    const Cells &c = *cells;
    const int8_t *rest = c.rest + first_tile * c.slices * c.rows * TILE;
    const uint32_t *planes = c.planes + first_tile * c.slices * c.rows * c.plane_count;
    for (int64_t tile = first_tile; tile < last_tile; tile++)
        for (int64_t first = 0; first < c.rows; first += c.rows_per_block)
            for (int64_t slice = 0; slice < c.slices; slice++)
                for (int64_t row = first; row < std::min(first + c.rows_per_block, c.rows); row++) {
                    int16_t *to = conductance + (slice * c.rows + row) * columns + tile * TILE;
                    for (int64_t i = 0; i < std::min<int64_t>(TILE, columns - tile * TILE); i++) {
                        int level = c.base;
                        for (int plane = 0; plane < c.plane_count; plane++) level += (planes[plane] >> i & 1) << plane;
                        to[i] = (int16_t)(256 * level + rest[i]);
                    }
                    rest += TILE;
                    planes += c.plane_count;
                }
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
