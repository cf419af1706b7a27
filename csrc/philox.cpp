// Random numbers: the same integers as cimphony/random.py, many at a time.
#include <algorithm>

#include "cimphony.h"

namespace {

constexpr int BATCH = 16;  // Philox blocks computed side by side

// Four words of each of BATCH consecutive counters.
inline void philox(uint64_t counter, uint32_t key0, uint32_t key1, uint32_t words[BATCH][4]) {
    uint32_t c0[BATCH], c1[BATCH], c2[BATCH] = {}, c3[BATCH] = {};
    for (int i = 0; i < BATCH; i++) {
        c0[i] = (uint32_t)(counter + i);
        c1[i] = (uint32_t)((counter + i) >> 32);
    }
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < BATCH; i++) {
            const uint64_t p0 = (uint64_t)c0[i] * 0xD2511F53u, p1 = (uint64_t)c2[i] * 0xCD9E8D57u;
            c0[i] = (uint32_t)(p1 >> 32) ^ c1[i] ^ key0;
            c1[i] = (uint32_t)p1;
            c2[i] = (uint32_t)(p0 >> 32) ^ c3[i] ^ key1;
            c3[i] = (uint32_t)p0;
        }
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    for (int i = 0; i < BATCH; i++) {
        words[i][0] = c0[i];
        words[i][1] = c1[i];
        words[i][2] = c2[i];
        words[i][3] = c3[i];
    }
}

// Standard normal times 2^16 from a word; `table` has (value, difference) for 32 octaves of 32 segments.
inline int32_t normal(uint32_t word, const int32_t *value, const int32_t *difference) {
    const uint32_t doubled = (word << 1) | 1;
    const int octave = __builtin_clz(doubled);
    const uint32_t mantissa = (doubled << octave) & 0x7FFFFFFFu;
    const uint32_t entry = (uint32_t)octave * 32 + (mantissa >> 26);
    const int64_t fraction = mantissa >> 10 & 0xFFFF;
    const int32_t magnitude = value[entry] + (int32_t)((difference[entry] * fraction + 0x8000) >> 16);
    return word >> 31 ? -magnitude : magnitude;
}

}  // namespace

// Words start to start + count - 1 of a stream; as normal numbers where a table is given.
EXPORT void cim_random(uint32_t key0, uint32_t key1, int64_t start, int64_t count, const int32_t *value,
                       const int32_t *difference, int32_t *result) {
    uint32_t words[BATCH][4];
    const int64_t end = start + count;
    for (int64_t block = start / 4; 4 * block < end; block += BATCH) {
        philox((uint64_t)block, key0, key1, words);
        const int64_t low = std::max(start, 4 * block), high = std::min(end, 4 * (block + BATCH));
        const uint32_t *word = words[0] + (low - 4 * block);
        int32_t *to = result + (low - start);
        if (value == nullptr)
            std::copy(word, word + (high - low), (uint32_t *)to);
        else
            for (int64_t i = 0; i < high - low; i++) to[i] = normal(word[i], value, difference);
    }
}
