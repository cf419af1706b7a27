// Philox4x32-10 and the integer inverse of the normal distribution: the same integers as cimphony/random.py.
#pragma once
#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

constexpr int BATCH = 16;  // Philox blocks computed side by side

struct Key {
    uint32_t word[2];
};

struct NormalTable {
    const int32_t *value, *difference;  // 32 octaves of 32 segments
};

// Both halves of the 64-bit products of BATCH words with a constant.
static inline void multiply_wide(const uint32_t *word, uint32_t by, uint32_t *low, uint32_t *high) {
#if defined(__AVX512F__)
    const __m512i a = _mm512_loadu_si512(word), b = _mm512_set1_epi32((int)by);
    const __m512i even = _mm512_mul_epu32(a, b), odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), b);
    _mm512_storeu_si512(low, _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32)));
    _mm512_storeu_si512(high, _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd));
#else
    for (int i = 0; i < BATCH; i++) {
        const uint64_t product = (uint64_t)word[i] * by;
        low[i] = (uint32_t)product;
        high[i] = (uint32_t)(product >> 32);
    }
#endif
}

// Four words of each counter.
static inline void philox(const uint64_t counter[BATCH], Key key, uint32_t words[4 * BATCH]) {
    alignas(64) uint32_t c0[BATCH], c1[BATCH], c2[BATCH] = {}, c3[BATCH] = {};
    alignas(64) uint32_t low0[BATCH], high0[BATCH], low1[BATCH], high1[BATCH];
    for (int i = 0; i < BATCH; i++) {
        c0[i] = (uint32_t)counter[i];
        c1[i] = (uint32_t)(counter[i] >> 32);
    }
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        multiply_wide(c0, 0xD2511F53u, low0, high0);
        multiply_wide(c2, 0xCD9E8D57u, low1, high1);
        for (int i = 0; i < BATCH; i++) {
            c0[i] = high1[i] ^ c1[i] ^ key.word[0];
            c1[i] = low1[i];
            c2[i] = high0[i] ^ c3[i] ^ key.word[1];
            c3[i] = low0[i];
        }
        key.word[0] += 0x9E3779B9u;
        key.word[1] += 0xBB67AE85u;
    }
    for (int i = 0; i < BATCH; i++) {
        words[4 * i] = c0[i];
        words[4 * i + 1] = c1[i];
        words[4 * i + 2] = c2[i];
        words[4 * i + 3] = c3[i];
    }
}

// Standard normal times 2^16.
static inline int32_t normal(uint32_t word, const NormalTable &table) {
    const uint32_t doubled = (word << 1) | 1;
    const int octave = __builtin_clz(doubled);
    const uint32_t mantissa = (doubled << octave) & 0x7FFFFFFFu;
    const uint32_t entry = (uint32_t)octave * 32 + (mantissa >> 26);
    const int32_t fraction = mantissa >> 10 & 0xFFFF;
    const int32_t magnitude = table.value[entry] + ((table.difference[entry] * fraction + 0x8000) >> 16);
    const int32_t negative = -(int32_t)(word >> 31);
    return (magnitude ^ negative) - negative;
}
