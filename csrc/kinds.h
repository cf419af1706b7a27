// What the reads of bit-serial inputs share: the converter in registers, and the integers that cells add.
#pragma once
#include <type_traits>

#include "cimphony.h"
#include "expand.h"
#include "simd.h"

template <int ROUNDING> struct Convert {
    static constexpr bool is_long = false;
    static constexpr bool is_signed = ROUNDING == SHIFT_SIGNED || ROUNDING == SCALE_SIGNED;
    static constexpr bool scales = ROUNDING == SCALE_UNSIGNED || ROUNDING == SCALE_SIGNED;
    typedef typename std::conditional<is_signed, s16x16, u16x16>::type Sum;
    Sum multiplier, half, low, high;
    int shift;

    explicit Convert(const Converter &c) {
        shift = scales ? c.shift - 16 : c.shift;
        for (int i = 0; i < LANES; i++) {
            multiplier[i] = c.multiplier;
            half[i] = (1 << shift) >> 1;
            low[i] = c.low;
            high[i] = c.high;
        }
    }
    // Where the sum is scaled, rounding needs no more than its upper half: floor(floor(a / 2^16) / 2^k) = floor(a / 2^(16+k)).
    // What every sum starts from: half a step, unless that is added after scaling.
    inline u16x16 start() const { return scales ? u16x16{} : (u16x16)half; }
    inline s16x16 operator()(u16x16 total) const {
        Sum code = (Sum)total;
        if constexpr (scales) code = multiply_high(code, multiplier) + half;
        code = min(code >> shift, high);
        if constexpr (is_signed) code = max(code, low);
        return (s16x16)code;
    }
};

// Sums of 32 bits; `run` groups of rows add up to 16, signed or not.
template <bool SIGNED> struct ConvertLong {
    static constexpr bool is_long = true;
    typedef typename std::conditional<SIGNED, s16x16, u16x16>::type Sum;
    s32x16 half, low, high;
    int shift, run;

    explicit ConvertLong(const Converter &c)
        : half(s32x16{} + ((1 << c.shift) >> 1)), low(s32x16{} + c.low), high(s32x16{} + c.high), shift(c.shift), run(c.run) {}
    inline s16x16 operator()(s32x16 total) const { return narrow(clamp((total + half) >> shift, low, high)); }
};
template <> struct Convert<LONG_UNSIGNED> : ConvertLong<false> { using ConvertLong::ConvertLong; };
template <> struct Convert<LONG_SIGNED> : ConvertLong<true> { using ConvertLong::ConvertLong; };

// Analog cells: conductances of LANES columns in 16 bits.
struct Conductances {
    typedef u16x16 Vector;
    static constexpr int parts = 1;
    static void rows(const Panel &panel, int half, Vector *to) {
        for (int64_t quad = 0; quad < panel.quads; quad++) panel.conductances(quad, half, to + 4 * quad);
    }
    static inline Vector start(u16x16 start) { return start; }
    static inline u16x16 part(Vector sum, int, u16x16) { return sum; }
};

#if defined(__AVX512BW__)
// The same, twice as many columns: fewer instructions for the tables, which is what a few tokens wait for.
struct WideConductances {
    typedef u16x32 Vector;
    static constexpr int parts = 2;
    static inline Vector join(u16x16 low, u16x16 high) {
        return (Vector)_mm512_inserti64x4(_mm512_castsi256_si512((__m256i)low), (__m256i)high, 1);
    }
    static void rows(const Panel &panel, int, Vector *to) {
        for (int64_t quad = 0; quad < panel.quads; quad++) {
            u16x16 low[4], high[4];
            panel.conductances(quad, 0, low), panel.conductances(quad, 1, high);
            for (int k = 0; k < 4; k++) *to++ = join(low[k], high[k]);
        }
    }
    static inline Vector start(u16x16 start) { return join(start, start); }
    static inline u16x16 part(Vector sum, int which, u16x16) {
        return (u16x16)(which ? _mm512_extracti64x4_epi64((__m512i)sum, 1) : _mm512_castsi512_si256((__m512i)sum));
    }
};
#else
typedef Conductances WideConductances;
#endif

// Cells without any error: levels of 2 * LANES columns in 8 bits.
struct Levels {
    typedef u8x32 Vector;
    static constexpr int parts = 2;
    static void rows(const Panel &panel, int, Vector *to) { panel.all_levels(to); }
    static inline Vector start(u16x16) { return Vector{}; }
    static inline u16x16 part(Vector sum, int which, u16x16 start) {
        union { Vector whole; u8x16 half[2]; } both = {sum};
        return (__builtin_convertvector(both.half[which], u16x16) << 8) + start;
    }
};
