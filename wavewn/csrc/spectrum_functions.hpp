// Functions of sixteen floats beside those of vectors.hpp, for spectra.
//
// Additions and multiplications round on their own: every instruction set gives the same bits.

#pragma once

#include "vectors.hpp"

namespace wavewn {
namespace WAVEWN_SET {

// e^x for |x| <= 80, within 1e-7 * (1 + |x|) of its size: the product with log2(e) rounds.
INLINE Floats exponential(const Floats& x) { return exp2(x * all(0x1.715476p+0f)); }

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

}  // namespace WAVEWN_SET
}  // namespace wavewn
