// Portable vectors: the GNU extension that gcc and clang compile for any instruction set. A few operations that
// the extension cannot name, or that compilers miss, have an intrinsic where one exists.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

constexpr int LANES = 16;  // columns computed together

typedef uint8_t u8x16 __attribute__((vector_size(16)));
typedef int8_t s8x16 __attribute__((vector_size(16)));
typedef uint8_t u8x32 __attribute__((vector_size(32)));
typedef uint16_t u16x32 __attribute__((vector_size(64)));
typedef int16_t s16x32 __attribute__((vector_size(64)));
typedef double f64x8 __attribute__((vector_size(64)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));
typedef int16_t s16x16 __attribute__((vector_size(32)));
typedef int32_t s32x8 __attribute__((vector_size(32)));
typedef uint32_t u32x8 __attribute__((vector_size(32)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef int32_t s32x16 __attribute__((vector_size(64)));

template <class V> static inline V load(const void *from) {
    V v;
    memcpy(&v, from, sizeof v);
    return v;
}

template <class V> static inline void store(void *to, V v) { memcpy(to, &v, sizeof v); }

// The lower 16 bits.
static inline s16x16 narrow(s32x16 a) {
#if defined(__AVX512F__)
    return (s16x16)_mm512_cvtepi32_epi16((__m512i)a);
#else
    return __builtin_convertvector(a, s16x16);
#endif
}

// The widest vectors of 32-bit lanes that the machine computes at once.
#if defined(__AVX512F__)
typedef s32x16 Wide;
typedef u32x16 WideBits;
#else
typedef s32x8 Wide;
typedef u32x8 WideBits;
#endif

// Bits that are set, lane by lane.
static inline Wide popcount(WideBits a) {
#if defined(__AVX512VPOPCNTDQ__)
    return (Wide)_mm512_popcnt_epi32((__m512i)a);
#else  // Hacker's Delight, section 5-1
    a -= a >> 1 & 0x55555555;
    a = (a & 0x33333333) + (a >> 2 & 0x33333333);
    a = (a + (a >> 4)) & 0x0F0F0F0F;
    return (Wide)(a * 0x01010101 >> 24);
#endif
}

// sum += those of the four signed bytes of each lane whose byte in `selected` is 1, the others' being 0.
static inline Wide add_selected(Wide sum, WideBits bytes, uint32_t selected) {
#if defined(__AVX512VNNI__)
    return (Wide)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32((int)selected), (__m512i)bytes);
#elif defined(__AVX2__) && !defined(__AVX512F__)
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi32((int)selected), (__m256i)bytes);
    return (Wide)_mm256_add_epi32((__m256i)sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#else
    const WideBits four = bytes & selected * 255;
    for (int k = 0; k < 4; k++) sum += (Wide)(four << (24 - 8 * k)) >> 24;
    return sum;
#endif
}

static inline u16x16 min(u16x16 a, u16x16 b) {
#if defined(__AVX2__)
    return (u16x16)_mm256_min_epu16((__m256i)a, (__m256i)b);
#else
    return a < b ? a : b;
#endif
}

static inline s16x16 min(s16x16 a, s16x16 b) {
#if defined(__AVX2__)
    return (s16x16)_mm256_min_epi16((__m256i)a, (__m256i)b);
#else
    return a < b ? a : b;
#endif
}

static inline s16x16 max(s16x16 a, s16x16 b) {
#if defined(__AVX2__)
    return (s16x16)_mm256_max_epi16((__m256i)a, (__m256i)b);
#else
    return a > b ? a : b;
#endif
}

static inline s32x16 clamp(s32x16 a, s32x16 low, s32x16 high) {
#if defined(__AVX512F__)
    return (s32x16)_mm512_min_epi32(_mm512_max_epi32((__m512i)a, (__m512i)low), (__m512i)high);
#else
    a = a > low ? a : low;
    return a < high ? a : high;
#endif
}

// The upper 16 bits of the 32-bit product.
static inline u16x16 multiply_high(u16x16 a, u16x16 b) {
#if defined(__AVX2__)
    return (u16x16)_mm256_mulhi_epu16((__m256i)a, (__m256i)b);
#else
    u16x16 high;
    for (int i = 0; i < LANES; i++) high[i] = (uint16_t)((uint32_t)a[i] * b[i] >> 16);
    return high;
#endif
}

static inline s16x16 multiply_high(s16x16 a, s16x16 b) {
#if defined(__AVX2__)
    return (s16x16)_mm256_mulhi_epi16((__m256i)a, (__m256i)b);
#else
    s16x16 high;
    for (int i = 0; i < LANES; i++) high[i] = (int16_t)((int32_t)a[i] * b[i] >> 16);
    return high;
#endif
}

// total[0..15] += value * factor, 16-bit values widened.
static inline void add_scaled(int32_t *total, s16x16 value, const int32_t *factor) {
#if defined(__AVX512F__)
    __m512i wide = _mm512_mullo_epi32(_mm512_cvtepi16_epi32((__m256i)value), _mm512_loadu_si512(factor));
    _mm512_storeu_si512(total, _mm512_add_epi32(wide, _mm512_loadu_si512(total)));
#elif defined(__AVX2__)
    for (int half = 0; half < 2; half++) {
        __m128i part = half ? _mm256_extracti128_si256((__m256i)value, 1) : _mm256_castsi256_si128((__m256i)value);
        __m256i scale = _mm256_loadu_si256((const __m256i *)(factor + 8 * half));
        __m256i wide = _mm256_mullo_epi32(_mm256_cvtepi16_epi32(part), scale);
        __m256i *to = (__m256i *)(total + 8 * half);
        _mm256_storeu_si256(to, _mm256_add_epi32(wide, _mm256_loadu_si256(to)));
    }
#else
    for (int i = 0; i < LANES; i++) total[i] += value[i] * factor[i];
#endif
}
