// Philox4x32-10 and the integer inverse of the normal distribution: the same integers as cimphony/random.py.
#pragma once
#include <cstdint>

constexpr int BATCH = 16;  // Philox blocks computed side by side

struct Key {
    uint32_t word[2];
};

struct NormalTable {
    const int32_t *value, *difference;  // 32 octaves of 32 segments
};

// Four words of each counter.
static inline void philox(const uint64_t counter[BATCH], Key key, uint32_t words[4 * BATCH]) {
    uint32_t c0[BATCH], c1[BATCH], c2[BATCH] = {}, c3[BATCH] = {};
    for (int i = 0; i < BATCH; i++) {
        c0[i] = (uint32_t)counter[i];
        c1[i] = (uint32_t)(counter[i] >> 32);
    }
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < BATCH; i++) {
            const uint64_t p0 = (uint64_t)c0[i] * 0xD2511F53u, p1 = (uint64_t)c2[i] * 0xCD9E8D57u;
            c0[i] = (uint32_t)(p1 >> 32) ^ c1[i] ^ key.word[0];
            c1[i] = (uint32_t)p1;
            c2[i] = (uint32_t)(p0 >> 32) ^ c3[i] ^ key.word[1];
            c3[i] = (uint32_t)p0;
        }
        key.word[0] += 0x9E3779B9u;
        key.word[1] += 0xBB67AE85u;
    }
    for (int i = 0; i < BATCH; i++) {
        words[4 * i + 0] = c0[i];
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
