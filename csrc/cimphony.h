// The C interface of the kernels. The Python side mirrors it with ctypes; a change here is a change there.
#pragma once
#include <cstdint>

#include "philox.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

constexpr int TILE = 32;   // columns stored together

// How a column sum becomes a code: clamp((sum * multiplier + half) >> shift, low, high).
enum Rounding : int32_t {
    SHIFT_UNSIGNED = 0,  // multiplier 1, sums 0 to 65535
    SHIFT_SIGNED = 1,    // multiplier 1, sums -32768 to 32767
    SCALE_UNSIGNED = 2,  // shift 17 to 31, sums 0 to 65535
    SCALE_SIGNED = 3,    // shift 17 to 31, sums -32768 to 32767
    LONG_UNSIGNED = 4,   // multiplier 1, sums of 32 bits, added up from runs of rows with sums 0 to 65535
    LONG_SIGNED = 5,     // the same, sums of runs -32768 to 32767
};

struct Converter {
    int32_t rounding, multiplier, shift, low, high, run;  // run: rows, where sums are long
};

// Cells as the kernels read them. A conductance is 256 * level + error; a level is base plus bit planes.
struct Cells {
    int64_t rows, columns, slices, rows_per_block;
    const uint32_t *panels;    // [tile, block, slice]; see Panel
    const int32_t *places;     // [slice], place values with their signs
    const uint32_t *inverted;  // [slice, block, tile], a bit for each column whose place value is negated; null: none is
    int32_t plane_count, base, only_levels;  // only_levels: every error is 0, levels and their sums fit a byte
    Converter converter;
};

// Input bits as table indices: word [block, token, group], byte j = which rows of the group have bit j set.
// A group has up to 6 rows (5 with entries of 64 bytes); their subset sums make one table. An index counts 8 bytes.
struct Chunk {
    const uint64_t *words;
    int32_t bits;    // 1 to 8 bits in this chunk
    int32_t place;   // place value of its lowest bit
    int32_t negative_top;  // its highest bit is the sign of a two's complement
    int32_t unused;
};

// Inputs as digits, each block of rows filled up with zeros to an even number, and a converter for sums of 32 bits.
struct Digits {
    const int16_t *values;  // [token, digit, padded row]
    const int32_t *places;  // [digit]
    int64_t tokens, count, padded_rows;
    double gain, low, high;  // code = floor(clamp(sum * gain, low, high) + 0.5)
};

// The noise of reads: round_half_up(sqrt(variance of the selected cells) * normal * scale) on every sum.
struct Noise {
    const int32_t *variance;   // [slice, row, column]; null where all cells have the same
    const int16_t *squares;    // [token, digit, padded row], the digits squared
    const double *sums;        // [block, token, digit], variance of the read; used where `variance` is null
    const Key *keys;    // [block, digit, slice]
    NormalTable table;
    int64_t first_token;
    double scale;
};

EXPORT int cim_instruction_set();
EXPORT int cim_widest_entry();  // bytes of the largest table entry of this build: 32, or 64
EXPORT void cim_bounds(const int16_t *conductance, int64_t slices, int64_t rows, int64_t columns,
                       int64_t rows_per_block, int32_t *result);
EXPORT void cim_pack_cells(const int16_t *conductance, const Cells *cells, int64_t first_tile, int64_t last_tile);
EXPORT void cim_unpack_cells(const Cells *cells, int64_t columns, int64_t first_tile, int64_t last_tile,
                             int16_t *conductance);
EXPORT void cim_pack_inputs(const int64_t *inputs, int64_t tokens, int64_t rows, int64_t rows_per_block,
                            int32_t group, int32_t entry_bytes, int32_t low_bit, int32_t bits, uint64_t *words);
EXPORT void cim_read_tables(const Cells *cells, const Chunk *chunks, int32_t chunk_count, int32_t group, int32_t entry_bytes,
                            int64_t tokens,
                            int64_t first_tile, int64_t last_tile, int32_t *result);
EXPORT void cim_read_token(const Cells *cells, const int64_t *inputs, int64_t tokens, const Chunk *chunks,
                           int32_t chunk_count, int64_t first_tile, int64_t last_tile, int32_t *result);
EXPORT void cim_random(uint32_t key0, uint32_t key1, int64_t start, int64_t count, const int32_t *value,
                       const int32_t *difference, int32_t *result);
EXPORT void cim_read_direct(const Cells *cells, const Digits *digits, const Noise *noise, int64_t first_tile,
                            int64_t last_tile, int32_t *result);
