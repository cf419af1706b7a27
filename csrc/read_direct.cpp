// The read of multi-bit inputs, of sums too large for 16 bits, and of noisy reads: multiply and add, 32-bit sums.
//
// Rows go in pairs, so that one instruction multiplies 16-bit digits with 16-bit conductances and adds both
// products. Conversion works on doubles, which hold every value exactly; only the noise of a read rounds, with the
// operations of the definition in their order.
#include <algorithm>
#include <vector>

#include "cimphony.h"
#include "expand.h"
#include "philox.h"
#include "simd.h"

namespace {

constexpr int64_t READS = 512;  // token digits whose sums are kept at a time
constexpr int STEP = 4;         // token digits computed together

struct Sums {
    int32_t lane[LANES];
    operator int32_t *() { return lane; }
    operator const int32_t *() const { return lane; }
};

inline f64x8 floor_of(f64x8 value) {
#if defined(__AVX512F__)
    return (f64x8)_mm512_roundscale_pd((__m512d)value, 0x09);
#else
    f64x8 whole;
    for (int i = 0; i < 8; i++) whole[i] = __builtin_floor(value[i]);
    return whole;
#endif
}

inline f64x8 root_of(f64x8 value) {
#if defined(__AVX512F__)
    return (f64x8)_mm512_sqrt_pd((__m512d)value);
#else
    f64x8 root;
    for (int i = 0; i < 8; i++) root[i] = __builtin_sqrt(value[i]);
    return root;
#endif
}

// sum += pairs of 16-bit products; `digits` holds two of them.
inline s32x16 multiply_add(s32x16 sum, s16x32 pairs, uint32_t digits) {
#if defined(__AVX512BW__)
    return (s32x16)_mm512_add_epi32((__m512i)sum, _mm512_madd_epi16((__m512i)pairs, _mm512_set1_epi32((int)digits)));
#elif defined(__AVX2__)
    union { s32x16 whole; __m256i half[2]; } total = {sum};
    union { s16x32 whole; __m256i half[2]; } cell = {pairs};
    const __m256i both = _mm256_set1_epi32((int)digits);
    for (int i = 0; i < 2; i++) total.half[i] = _mm256_add_epi32(total.half[i], _mm256_madd_epi16(cell.half[i], both));
    return total.whole;
#else
    const int32_t first = (int16_t)digits, second = (int16_t)(digits >> 16);
    for (int i = 0; i < LANES; i++) sum[i] += pairs[2 * i] * first + pairs[2 * i + 1] * second;
    return sum;
#endif
}

inline s16x32 interleave(u16x16 a, u16x16 b) {
    union { uint32_t wide[LANES]; s16x32 pairs; } both;
    for (int i = 0; i < LANES; i++) both.wide[i] = a[i] | (uint32_t)b[i] << 16;
    return both.pairs;
}

// sums [read] = digits [read, pair] times pairs [pair].
void multiply(const std::vector<s16x32> &pairs, int64_t count, const int16_t *digits, int64_t stride, int64_t reads,
              Sums *sums) {
    for (int64_t from = 0; from < reads; from += STEP) {
        const int here = (int)std::min<int64_t>(STEP, reads - from);
        const char *row[STEP];
        for (int i = 0; i < STEP; i++) row[i] = (const char *)(digits + (from + std::min(i, here - 1)) * stride);
        s32x16 sum[STEP] = {};
        for (int64_t pair = 0; pair < count; pair++)
            for (int i = 0; i < STEP; i++) sum[i] = multiply_add(sum[i], pairs[pair], load<uint32_t>(row[i] + 4 * pair));
        for (int i = 0; i < here; i++) store(sums[from + i], sum[i]);
    }
}

// Normal numbers [token, LANES] of a read; the index of a number is token * columns + column.
void fill_normals(Key key, const NormalTable &table, int64_t first, int64_t columns, int64_t tokens, Sums *to,
                  int64_t stride) {
    for (int64_t token = 0; token < tokens;) {
        const int64_t here = std::min<int64_t>(3, tokens - token);  // five blocks cover the columns of a token
        uint64_t counter[BATCH] = {};
        uint32_t words[4 * BATCH];
        for (int64_t i = 0; i < here; i++)
            for (int k = 0; k < 5; k++) counter[5 * i + k] = (uint64_t)((first + (token + i) * columns) / 4 + k);
        philox(counter, key, words);
        for (int64_t i = 0; i < here; i++, token++) {
            const uint32_t *word = words + 20 * i + (first + token * columns) % 4;
            for (int lane = 0; lane < LANES; lane++) to[token * stride][lane] = normal(word[lane], table);
        }
    }
}

struct Read {
    const Cells &cells;
    const Digits &digits;
    const Noise *noise;
    int32_t *result;
};

// One block and slice of the columns from `column` on, a multiple of LANES; a few tokens.
struct Part {
    int64_t block, slice, first_row, rows, column, first_token, tokens;
};

struct Scratch {
    std::vector<s16x32> cells, low, high;
    std::vector<Sums> sums, low_sums, high_sums, normals, totals;
    explicit Scratch(int64_t rows)
        : cells((rows + 1) / 2), low(cells.size()), high(cells.size()), sums(READS), low_sums(READS), high_sums(READS),
          normals(READS), totals(READS) {}
};

void load_cells(const Cells &c, const Part &part, std::vector<s16x32> &to) {
    const Panel panel(c, part.column / TILE, part.block, part.slice);
    for (int64_t quad = 0; quad < panel.quads; quad++) {
        u16x16 row[4];
        panel.conductances(quad, (int)(part.column % TILE / LANES), row);
        for (int64_t k = 4 * quad; k < std::min(part.rows, 4 * quad + 4); k += 2)
            to[k / 2] = interleave(row[k % 4], k + 1 < part.rows ? row[k % 4 + 1] : u16x16{});
    }
}

// Variances in two parts of 15 bits.
void load_variance(const Cells &c, const int32_t *variance, const Part &part, Scratch &scratch) {
    const int64_t width = std::min<int64_t>(LANES, c.columns - part.column);
    for (int64_t row = 0; row < part.rows; row += 2) {
        u16x16 low[2] = {}, high[2] = {};
        for (int64_t k = 0; k < std::min<int64_t>(2, part.rows - row); k++) {
            const int32_t *from = variance + (part.slice * c.rows + part.first_row + row + k) * c.columns + part.column;
            for (int64_t i = 0; i < width; i++) {
                low[k][i] = from[i] & 0x7FFF;
                high[k][i] = (uint16_t)(from[i] >> 15);
            }
        }
        scratch.low[row / 2] = interleave(low[0], low[1]);
        scratch.high[row / 2] = interleave(high[0], high[1]);
    }
}

// Sums of the reads of a part, and of their variances, from the digits.
void add_up(const Read &read, const Part &part, int64_t reads, Scratch &scratch) {
    const Digits &d = read.digits;
    const int64_t at = part.first_token * d.count * d.padded_rows + part.block * ((read.cells.rows_per_block + 1) / 2 * 2);
    const int64_t pairs = (part.rows + 1) / 2;
    load_cells(read.cells, part, scratch.cells);
    multiply(scratch.cells, pairs, d.values + at, d.padded_rows, reads, scratch.sums.data());
    if (read.noise == nullptr || read.noise->variance == nullptr) return;
    load_variance(read.cells, read.noise->variance, part, scratch);
    multiply(scratch.low, pairs, read.noise->squares + at, d.padded_rows, reads, scratch.low_sums.data());
    multiply(scratch.high, pairs, read.noise->squares + at, d.padded_rows, reads, scratch.high_sums.data());
}

inline f64x8 half_of(const Sums &sums, int half) { return __builtin_convertvector(load<s32x8>(sums + 8 * half), f64x8); }

// round_half_up(sqrt(variance) * normal * scale), rounding where the definition rounds.
inline f64x8 noise_of(const Noise &noise, const Scratch &scratch, int64_t i, int64_t read, int half) {
    f64x8 root;
    if (noise.variance == nullptr)
        root = f64x8{} + __builtin_sqrt(noise.sums[read]);
    else
        root = root_of(half_of(scratch.low_sums[i], half) + 32768.0 * half_of(scratch.high_sums[i], half));
    return floor_of(root * half_of(scratch.normals[i], half) * noise.scale + 0.5);
}

// Codes of the reads of one digit of every token, weighed and added to the totals.
void convert(const Read &read, const Part &part, int64_t digit, const int32_t *factor, Scratch &scratch) {
    const Digits &d = read.digits;
    const int64_t block_reads = part.block * d.tokens * d.count;
    const s32x8 place = s32x8{} + d.places[digit];
    for (int64_t token = 0; token < part.tokens; token++) {
        const int64_t i = token * d.count + digit, at = block_reads + part.first_token * d.count + i;
        for (int half = 0; half < 2; half++) {
            f64x8 sum = half_of(scratch.sums[i], half);
            if (read.noise != nullptr) sum += noise_of(*read.noise, scratch, i, at, half);
            f64x8 code = sum * d.gain;
            code = code < d.low ? f64x8{} + d.low : code;
            code = code > d.high ? f64x8{} + d.high : code;
            const s32x8 whole = __builtin_convertvector(floor_of(code + 0.5), s32x8);
            int32_t *total = scratch.totals[token] + 8 * half;
            store(total, load<s32x8>(total) + whole * load<s32x8>(factor + 8 * half) * place);
        }
    }
}

void read_part(const Read &read, const Part &part, Scratch &scratch) {
    const Cells &c = read.cells;
    const Digits &d = read.digits;
    int32_t factor[LANES];
    weigh(c, part.slice, part.block, part.column, LANES, factor);
    add_up(read, part, part.tokens * d.count, scratch);
    for (int64_t digit = 0; digit < d.count; digit++) {
        if (read.noise != nullptr) {
            const Key key = read.noise->keys[(part.block * d.count + digit) * c.slices + part.slice];
            const int64_t first = (read.noise->first_token + part.first_token) * c.columns + part.column;
            fill_normals(key, read.noise->table, first, c.columns, part.tokens, &scratch.normals[digit], d.count);
        }
        convert(read, part, digit, factor, scratch);
    }
}

}  // namespace

EXPORT void cim_read_direct(const Cells *cells, const Digits *digits, const Noise *noise, int64_t first_tile,
                            int64_t last_tile, int32_t *result) {
    const Cells &c = *cells;
    const Read read{c, *digits, noise, result};
    Scratch scratch(c.rows_per_block);
    const int64_t last = std::min(last_tile * TILE, c.columns), step = READS / digits->count;
    for (int64_t column = first_tile * TILE; column < last; column += LANES)
        for (int64_t token = 0; token < digits->tokens; token += step) {
            const int64_t tokens = std::min(step, digits->tokens - token), width = std::min<int64_t>(LANES, c.columns - column);
            std::fill(scratch.totals.begin(), scratch.totals.begin() + tokens, Sums{});
            for (int64_t first = 0; first < c.rows; first += c.rows_per_block)
                for (int64_t slice = 0; slice < c.slices; slice++) {
                    const int64_t rows = std::min(c.rows_per_block, c.rows - first);
                    read_part(read, {first / c.rows_per_block, slice, first, rows, column, token, tokens}, scratch);
                }
            for (int64_t i = 0; i < tokens; i++)
                memcpy(result + (token + i) * c.columns + column, scratch.totals[i], 4 * width);
        }
}
