// Streams of random numbers, many at a time.
#include <algorithm>

#include "cimphony.h"
#include "philox.h"

// Words start to start + count - 1 of a stream; as normal numbers where a table is given.
EXPORT void cim_random(uint32_t key0, uint32_t key1, int64_t start, int64_t count, const int32_t *value,
                       const int32_t *difference, int32_t *result) {
    const NormalTable table{value, difference};
    const int64_t end = start + count;
    uint64_t counter[BATCH];
    uint32_t words[4 * BATCH];
    for (int64_t block = start / 4; 4 * block < end; block += BATCH) {
        for (int i = 0; i < BATCH; i++) counter[i] = (uint64_t)(block + i);
        philox(counter, Key{{key0, key1}}, words);
        if (value != nullptr)
            for (int i = 0; i < 4 * BATCH; i++) words[i] = (uint32_t)normal(words[i], table);
        const int64_t low = std::max(start, 4 * block), high = std::min(end, 4 * (block + BATCH));
        std::copy(words + (low - 4 * block), words + (high - 4 * block), (uint32_t *)result + (low - start));
    }
}
