// Sixteen floats: one register of AVX-512, two of AVX, four of SSE or NEON.
//
// Every operation is that of the sixteen lanes, so that a sum has the same order on every machine;
// only `fused` may differ (one rounding where the set has it, else two).
//
// No `#include` of the standard library's C++ headers: see network.hpp.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace wavewn {
namespace WAVEWN_SET {

#if defined(__AVX512F__)
constexpr int NATIVE = 16;
#elif defined(__AVX2__)
constexpr int NATIVE = 8;
#else
constexpr int NATIVE = 4;
#endif
// Numbers in a vector: sixteen, unless a file asks for eight (of AVX2 or less).
#if !defined(WAVEWN_LANES)
#define WAVEWN_LANES 16
#endif
constexpr int LANES = WAVEWN_LANES;
constexpr int PARTS = LANES / NATIVE;

typedef float NativeFloat __attribute__((vector_size(4 * NATIVE)));
typedef std::int32_t NativeInt __attribute__((vector_size(4 * NATIVE)));

#define INLINE inline __attribute__((always_inline))
#define EACH(i) _Pragma("GCC unroll 4") for (int i = 0; i < PARTS; ++i)

struct Floats {
    NativeFloat part[PARTS];
};
struct Ints {
    NativeInt part[PARTS];
};

// Part by part: g++ takes a structure of several registers through the stack.
INLINE Floats load(const float* from) {
    Floats x;
    EACH(i) std::memcpy(&x.part[i], from + NATIVE * i, sizeof(NativeFloat));
    return x;
}
INLINE void store(float* to, const Floats& x) {
    EACH(i) std::memcpy(to + NATIVE * i, &x.part[i], sizeof(NativeFloat));
}
INLINE Ints load(const std::int32_t* from) {
    Ints x;
    EACH(i) std::memcpy(&x.part[i], from + NATIVE * i, sizeof(NativeInt));
    return x;
}
INLINE void store(std::int32_t* to, const Ints& x) {
    EACH(i) std::memcpy(to + NATIVE * i, &x.part[i], sizeof(NativeInt));
}
INLINE Floats all(float value) {
    Floats x;
    EACH(i) x.part[i] = value - (NativeFloat){};
    return x;
}
INLINE Ints all(std::int32_t value) {
    Ints x;
    EACH(i) x.part[i] = value - (NativeInt){};
    return x;
}

#define WAVEWN_OPERATOR(TYPE, OP)                                  \
    INLINE TYPE operator OP(const TYPE& a, const TYPE& b) {        \
        TYPE y;                                                    \
        EACH(i) y.part[i] = a.part[i] OP b.part[i];                \
        return y;                                                  \
    }
WAVEWN_OPERATOR(Floats, +)
WAVEWN_OPERATOR(Floats, -)
WAVEWN_OPERATOR(Floats, *)
WAVEWN_OPERATOR(Floats, /)
WAVEWN_OPERATOR(Ints, +)
WAVEWN_OPERATOR(Ints, -)
#undef WAVEWN_OPERATOR

// NaN in x stays NaN: the comparison is false and x is kept. The instructions of x86 give their
// second operand then, and for two zeros; written as a comparison, each takes two.
INLINE Floats at_most(const Floats& x, const Floats& bound) {
    Floats y;
#if defined(__AVX512F__)
    y.part[0] = _mm512_min_ps(bound.part[0], x.part[0]);
#elif defined(__AVX2__)
    EACH(i) y.part[i] = _mm256_min_ps(bound.part[i], x.part[i]);
#else
    EACH(i) y.part[i] = x.part[i] > bound.part[i] ? bound.part[i] : x.part[i];
#endif
    return y;
}
INLINE Floats at_least(const Floats& x, const Floats& bound) {
    Floats y;
#if defined(__AVX512F__)
    y.part[0] = _mm512_max_ps(bound.part[0], x.part[0]);
#elif defined(__AVX2__)
    EACH(i) y.part[i] = _mm256_max_ps(bound.part[i], x.part[i]);
#else
    EACH(i) y.part[i] = x.part[i] < bound.part[i] ? bound.part[i] : x.part[i];
#endif
    return y;
}
INLINE Floats clamp(const Floats& x, float low, float high) {
    return at_most(at_least(x, all(low)), all(high));
}

// a * b + c with one rounding where the instruction set has it.
INLINE Floats fused(const Floats& a, const Floats& b, const Floats& c) {
    Floats y;
#if defined(__AVX512F__)
    y.part[0] = _mm512_fmadd_ps(a.part[0], b.part[0], c.part[0]);
#elif defined(__FMA__)
    EACH(i) y.part[i] = _mm256_fmadd_ps(a.part[i], b.part[i], c.part[i]);
#elif defined(__aarch64__)
    EACH(i) y.part[i] = vfmaq_f32(c.part[i], a.part[i], b.part[i]);
#else
    EACH(i) y.part[i] = a.part[i] * b.part[i] + c.part[i];
#endif
    return y;
}

// The lanes as integers and back, bit by bit.
INLINE Ints bits(const Floats& x) {
    Ints y;
    EACH(i) y.part[i] = (NativeInt)x.part[i];
    return y;
}
INLINE Floats floats(const Ints& x) {
    Floats y;
    EACH(i) y.part[i] = (NativeFloat)x.part[i];
    return y;
}
INLINE Floats converted(const Ints& x) {
    Floats y;
    EACH(i) y.part[i] = __builtin_convertvector(x.part[i], NativeFloat);
    return y;
}

// 1.5 * 2^23: added to |x| < 2^22 it leaves the nearest whole number, ties to even, in the lowest
// bits of the sum.
constexpr float ROUNDING = 12582912.0f;

// The nearest whole number, and `more`.
INLINE Ints rounded(const Floats& x, std::int32_t more = 0) {
    return bits(x + all(ROUNDING)) - (bits(all(ROUNDING)) - all(more));
}

#if defined(__AVX512FP16__)
// Sixteen of float16; three operations are all that products.hpp asks for.
struct Halves {
    __m256h lanes;
};
INLINE Halves load(const _Float16* from) { return {_mm256_loadu_ph(from)}; }
INLINE void store(_Float16* to, const Halves& x) { _mm256_storeu_ph(to, x.lanes); }
INLINE Halves all(_Float16 value) { return {_mm256_set1_ph(value)}; }
INLINE Halves no_halves() { return {_mm256_setzero_ph()}; }
INLINE Halves halves(const Floats& x) { return {_mm512_cvtxps_ph((__m512)x.part[0])}; }
INLINE Floats converted(const Halves& x) { return {{(NativeFloat)_mm512_cvtxph_ps(x.lanes)}}; }
INLINE Halves fused(const Halves& a, const Halves& b, const Halves& c) {
    return {_mm256_fmadd_ph(a.lanes, b.lanes, c.lanes)};
}
#elif defined(WAVEWN_IMITATE_FP16)
// The same for tests/csrc, on a machine that multiplies no float16: every number is rounded as there.
struct Halves {
    _Float16 lanes[16];
};
INLINE Halves load(const _Float16* from) {
    Halves x;
    std::memcpy(&x, from, sizeof(x));
    return x;
}
INLINE void store(_Float16* to, const Halves& x) { std::memcpy(to, &x, sizeof(x)); }
INLINE Halves all(_Float16 value) {
    Halves x;
    for (auto& lane : x.lanes) lane = value;
    return x;
}
INLINE Halves no_halves() { return Halves{}; }
INLINE Halves halves(const Floats& x) {
    float lane[16];
    store(lane, x);
    Halves y;
    for (int i = 0; i < 16; ++i) y.lanes[i] = static_cast<_Float16>(lane[i]);
    return y;
}
INLINE Floats converted(const Halves& x) {
    float lane[16];
    for (int i = 0; i < 16; ++i) lane[i] = static_cast<float>(x.lanes[i]);
    return load(lane);
}
INLINE Halves fused(const Halves& a, const Halves& b, const Halves& c) {
    Halves y;
    for (int i = 0; i < 16; ++i)  // the product is exact in double
        y.lanes[i] = static_cast<_Float16>(static_cast<double>(a.lanes[i]) * b.lanes[i] +
                                           static_cast<double>(c.lanes[i]));
    return y;
}
#endif

// 2^x for -126 <= x <= 127, within 1.5 units in the last place: 2^n times a polynomial in the rest,
// |rest| <= 1/2, fitted so that 2^0 is 1. Multiplications and additions round on their own, so that
// every instruction set gives the same bits. Twin: engine/quantise.py.
INLINE Floats exp2(const Floats& x) {
    const Floats shifted = x + all(ROUNDING);
    const Floats rest = x - (shifted - all(ROUNDING));
    const Floats square = rest * rest;
    const Floats high = all(0x1.420a8cp-13f) * rest + all(0x1.5f3f78p-10f);
    const Floats middle = all(0x1.3b2d38p-7f) * rest + all(0x1.c6aee6p-5f);
    const Floats low = all(0x1.ebfbd6p-3f) * rest + all(0x1.62e430p-1f);
    const Floats y = ((high * square + middle) * square + low) * rest + all(1.0f);
    Ints exponent = bits(shifted) - bits(all(ROUNDING));
    EACH(i) exponent.part[i] = exponent.part[i] << 23;
    return floats(bits(y) + exponent);
}

//     A = 2^f,  B = 2^g,  z = (1 - A) / ((1 + A) (1 + B))  =  tanh(f') sigmoid(g')
//
// f = -2 log2(e) f' and g = -log2(e) g'; in WaveNet the factors are in the weights.
INLINE Floats activated(const Floats& f, const Floats& g) {
    const Floats a = exp2(clamp(f, -40.0f, 40.0f));
    const Floats b = exp2(clamp(g, -40.0f, 40.0f));
    const Floats one = all(1.0f);
    return (one - a) / ((one + a) * (one + b));
}

// ((0 + 8) + (4 + 12)) + ..., the same tree on every machine.
INLINE float sum(const Floats& x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x.part[0]);
#else
    float lane[LANES];
    store(lane, x);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
    return lane[0];
#endif
}

INLINE float greatest(const Floats& x) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)x.part[0]);
#else
    float lane[LANES];
    store(lane, x);
    for (int i = 1; i < LANES; ++i) lane[0] = lane[i] > lane[0] ? lane[i] : lane[0];
    return lane[0];
#endif
}

INLINE void copy(float* to, const float* from, int count) {
    int i = 0;
    for (; i + LANES <= count; i += LANES) store(to + i, load(from + i));
    for (; i < count; ++i) to[i] = from[i];
}

}  // namespace WAVEWN_SET
}  // namespace wavewn
