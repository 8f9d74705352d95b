// Functions of sixteen floats beside those of vectors.hpp, for spectra.
//
// Additions and multiplications round on their own: every instruction set gives the same bits.

#pragma once

#include "vectors.hpp"

namespace wavewn {
namespace WAVEWN_SET {

// e^x for |x| <= 80, within 1e-7 * (1 + |x|) of its size: the product with log2(e) rounds. NaN stays
// NaN, which it does not in exp2.
INLINE Floats exponential(const Floats& x) { return exp2(x * all(0x1.715476p+0f)) + (x - x); }

// The square root, rounded as IEEE says.
INLINE Floats root(const Floats& x) {
    Floats y;
#if defined(__AVX512F__)
    y.part[0] = (NativeFloat)_mm512_sqrt_ps((__m512)x.part[0]);
#elif defined(__AVX2__)
    EACH(i) y.part[i] = (NativeFloat)_mm256_sqrt_ps((__m256)x.part[i]);
#elif defined(__x86_64__)
    EACH(i) y.part[i] = (NativeFloat)_mm_sqrt_ps((__m128)x.part[i]);
#else
    EACH(i) for (int lane = 0; lane < NATIVE; ++lane)
        y.part[i][lane] = __builtin_sqrtf(x.part[i][lane]);
#endif
    return y;
}

// log(x) for normal x > 0, within 2 units in the last place or 6e-8: x = 2^n (1 + f) with
// 1 + f from sqrt(1/2) to sqrt(2), and f - f^2 / 2 + f^3 times a polynomial.
// Source: S. Moshier's Cephes, logf.
INLINE Floats logarithm(const Floats& x) {
    constexpr std::int32_t HALF = 0x3f3504f3;  // sqrt(1/2), bit by bit
    Ints exponent = bits(x) - all(HALF);
    EACH(i) exponent.part[i] = exponent.part[i] >> 23;
    Ints shifted = exponent;
    EACH(i) shifted.part[i] = shifted.part[i] << 23;
    const Floats f = floats(bits(x) - shifted) - all(1.0f);
    const Floats n = converted(exponent);
    const Floats square = f * f;
    Floats y = all(7.0376836292e-2f) * f + all(-1.1514610310e-1f);
    y = y * f + all(1.1676998740e-1f);
    y = y * f + all(-1.2420140846e-1f);
    y = y * f + all(1.4249322787e-1f);
    y = y * f + all(-1.6668057665e-1f);
    y = y * f + all(2.0000714765e-1f);
    y = y * f + all(-2.4999993993e-1f);
    y = y * f + all(3.3333331174e-1f);
    y = y * f * square;
    y = y + n * all(-2.12194440e-4f) - all(0.5f) * square;
    return f + y + n * all(0.693359375f);
}

struct Turn {
    Floats sine, cosine;
};

// sin(x) and cos(x) for |x| <= 8192, within 1.2e-7: what is left of x of multiples of pi / 2, which
// are taken off in three parts, the first two of them so short that the products are exact.
// Source: S. Moshier's Cephes, sinf and cosf.
INLINE Turn turn(const Floats& x) {
    const Ints n = rounded(x * all(0.6366197723675814f));
    const Floats quarters = converted(n);
    Floats r = x - quarters * all(1.5703125f);
    r = r - quarters * all(4.837512969970703e-4f);
    r = r - quarters * all(7.549789948768648e-8f);
    const Floats square = r * r;
    Floats s = all(-1.9515295891e-4f) * square + all(8.3321608736e-3f);
    s = (s * square + all(-1.6666654611e-1f)) * square * r + r;
    Floats c = all(2.443315711809948e-5f) * square + all(-1.388731625493765e-3f);
    c = (c * square + all(4.166664568298827e-2f)) * square * square - all(0.5f) * square + all(1.0f);
    // Each quarter exchanges the two; the sign of sin changes with every second one, that of cos one
    // quarter earlier.
    Turn y;
    EACH(i) {
        const NativeInt odd = -(n.part[i] & 1);
        const NativeInt sine = (((NativeInt)c.part[i]) & odd) | (((NativeInt)s.part[i]) & ~odd);
        const NativeInt cosine = (((NativeInt)s.part[i]) & odd) | (((NativeInt)c.part[i]) & ~odd);
        y.sine.part[i] = (NativeFloat)(sine ^ ((n.part[i] & 2) << 30));
        y.cosine.part[i] = (NativeFloat)(cosine ^ (((n.part[i] + 1) & 2) << 30));
    }
    return y;
}

}  // namespace WAVEWN_SET
}  // namespace wavewn
