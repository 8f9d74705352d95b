// y = init + x @ matrix, for each precision: the loop in which all the time goes.
//
// The outputs of a block stay in registers while the inputs pass by; each weight is read once and
// serves all lanes of the call. A lane's sums have the same order whoever else is there.
//
// A precision says how weights are read, how inputs are spread, and how the two meet:
//
//     Plain      float32, two roundings: the same bits on every instruction set
//     Fused      float32, one rounding where the set has it
//     Half       float16 weights, float32 sums; sets that cannot read float16 never see it
//     Eight      int8 weights and inputs, exact int32 sums
//
// Twins: engine/workspace.py, affine; for int8 engine/quantise.py.

#pragma once

#include "network.hpp"
#include "vectors.hpp"

namespace wavewn {
namespace WAVEWN_SET {

// Sums that fit into the registers of a set, in vectors of sixteen, beside weights and inputs.
#if defined(__AVX512F__)
constexpr int MOST_SUMS = 24;
#elif defined(__aarch64__)
constexpr int MOST_SUMS = 6;
#elif defined(__AVX2__)
constexpr int MOST_SUMS = 5;
#else
constexpr int MOST_SUMS = 3;
#endif

struct Plain {
    using Input = float;
    using Weight = float;
    using Sums = Floats;
    static constexpr int GROUP = 1;  // inputs that meet a vector of outputs at once
    static INLINE Sums start(const Product&, int, const float* init) { return load(init); }
    static INLINE Floats read(const Weight* w) { return load(w); }
    static INLINE Floats spread(const Input* x) { return all(*x); }
    static INLINE void meet(Sums& y, const Floats& w, const Floats& x) { y = y + w * x; }
    static INLINE Floats finish(const Product&, int, const Sums& y, const float*) { return y; }
};

struct Fused : Plain {
    static INLINE void meet(Sums& y, const Floats& w, const Floats& x) { y = fused(w, x, y); }
};

#if defined(__AVX2__)
struct Half : Fused {
    using Weight = std::uint16_t;
    static INLINE Floats read(const Weight* w) {
        Floats y;
#if defined(__AVX512F__)
        y.part[0] = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w)));
#else
        EACH(i) {
            const auto from = reinterpret_cast<const __m128i*>(w + 8 * i);
            y.part[i] = _mm256_cvtph_ps(_mm_loadu_si128(from));
        }
#endif
        return y;
    }
};
#else
using Half = Fused;  // packing.cpp keeps the rounded weights in float32 for such a set
#endif

// What Eight's kinds share: sums of int32, and the way back to float32 in three roundings.
struct Whole {
    using Weight = std::int8_t;
    using Sums = Ints;
    static constexpr int GROUP = 4;
    static INLINE Sums start(const Product& p, int vector, const float*) {
        return load(p.shift + 16 * vector);
    }
    static INLINE Floats finish(const Product& p, int vector, const Sums& y, const float* init) {
        return converted(y) * load(p.scale + 16 * vector) + load(init);
    }
};

#if defined(__AVX512VNNI__)
// Inputs as bytes without sign: signed ones are raised by 128, which `shift` takes back.
struct Eight : Whole {
    using Input = std::uint8_t;
    static constexpr int RAISED = 128;
    static INLINE __m512i read(const Weight* w) { return _mm512_loadu_si512(w); }
    static INLINE __m512i spread(const Input* x) {
        std::int32_t four;
        std::memcpy(&four, x, 4);
        return _mm512_set1_epi32(four);
    }
    static INLINE void meet(Sums& y, __m512i w, __m512i x) {
        y.part[0] = (NativeInt)_mm512_dpbusd_epi32((__m512i)y.part[0], x, w);
    }
};
using EightUnsigned = Eight;
#elif defined(__AVX2__)
struct Bytes {
    __m256i part[2];
};
struct EightOfAVX2 : Whole {
    using Input = std::uint8_t;
    static constexpr int RAISED = 0;
    static INLINE Bytes read(const Weight* w) {
        const auto from = reinterpret_cast<const __m256i*>(w);
        return {{_mm256_loadu_si256(from), _mm256_loadu_si256(from + 1)}};
    }
    static INLINE __m256i spread(const Input* x) {
        std::int32_t four;
        std::memcpy(&four, x, 4);
        return _mm256_set1_epi32(four);
    }
};
// Signed inputs: |x| times w with the sign of x. vpmaddubsw adds two products in 16 bits, of which
// 2 * 127 * 127 is 32,258: nothing saturates.
struct Eight : EightOfAVX2 {
    static INLINE void meet(Sums& y, const Bytes& w, __m256i x) {
        const __m256i size = _mm256_abs_epi8(x);
        EACH(i) {
            const __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(w.part[i], x));
            const __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
            y.part[i] = y.part[i] + (NativeInt)fours;
        }
    }
};
// Inputs of 0 to 255: 2 * 255 * 127 does not fit into 16 bits, so the products are made in 32.
struct EightUnsigned : EightOfAVX2 {
    static INLINE void meet(Sums& y, const Bytes& w, __m256i x) {
        const __m256i wide = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(x));
        EACH(i) {
            const __m256i low = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(w.part[i]));
            const __m256i high = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(w.part[i], 1));
            const __m256i pairs = _mm256_hadd_epi32(_mm256_madd_epi16(low, wide),
                                                    _mm256_madd_epi16(high, wide));
            y.part[i] = y.part[i] + (NativeInt)_mm256_permute4x64_epi64(pairs, 0xD8);
        }
    }
};
#else
struct Eight : Whole {
    using Input = std::uint8_t;
    static constexpr int RAISED = 128;
    static INLINE const Weight* read(const Weight* w) { return w; }
    static INLINE const Input* spread(const Input* x) { return x; }
    static INLINE void meet(Sums& y, const Weight* w, const Input* x) {
        std::int32_t lane[16];
        std::memcpy(lane, &y, sizeof(lane));
        for (int i = 0; i < 16; ++i)
            lane[i] += x[0] * w[4 * i] + x[1] * w[4 * i + 1] + x[2] * w[4 * i + 2] +
                       x[3] * w[4 * i + 3];
        std::memcpy(&y, lane, sizeof(lane));
    }
};
using EightUnsigned = Eight;
#endif

// y[n] = init[n] + x[n] @ block, or y[n] += that, for a block of V vectors from `first` on.
//
// x:    [N] operands of p.inputs
// init: [N] rows of the whole product, may be y
// y:    [N] rows of the whole product
template <class P, int V, int N>
__attribute__((noinline)) void multiply_block(const Product& p, int first,
                                              const typename P::Input* const* x,
                                              const float* const* init, float* const* y, bool add) {
    constexpr int SLICE = MOST_SUMS / N < 1 ? 1 : MOST_SUMS / N < V ? MOST_SUMS / N : V;
    const int groups = p.inputs / P::GROUP;
    const auto* weights = static_cast<const typename P::Weight*>(p.weights) +
                          std::int64_t(first) * 16 * p.inputs;
#pragma GCC unroll 8
    for (int begin = 0; begin < V; begin += SLICE) {
        const auto* w = weights + begin * 16 * P::GROUP;
        typename P::Sums sums[N][SLICE];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
            for (int v = 0; v < SLICE; ++v)
                if (begin + v < V) {
                    const int vector = first + begin + v;
                    sums[n][v] = P::start(p, vector, init[n] + 16 * vector);
                }
        for (int k = 0; k < groups; ++k) {
#pragma GCC unroll 8
            for (int v = 0; v < SLICE; ++v)
                if (begin + v < V) {
                    const auto weight = P::read(w + v * 16 * P::GROUP);
#pragma GCC unroll 4
                    for (int n = 0; n < N; ++n)
                        P::meet(sums[n][v], weight, P::spread(x[n] + k * P::GROUP));
                }
            w += V * 16 * P::GROUP;
        }
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
            for (int v = 0; v < SLICE; ++v)
                if (begin + v < V) {
                    const int at = 16 * (first + begin + v);
                    Floats result = P::finish(p, at / 16, sums[n][v], init[n] + at);
                    if (add) result = load(y[n] + at) + result;
                    store(y[n] + at, result);
                }
    }
}

template <class P, int N>
INLINE void multiply_lanes(const Product& p, const typename P::Input* const* x,
                           const float* const* init, float* const* y, bool add) {
    int v = 0;
    for (; v + BLOCK_VECTORS <= p.vectors; v += BLOCK_VECTORS)
        multiply_block<P, BLOCK_VECTORS, N>(p, v, x, init, y, add);
    switch (p.vectors - v) {
        case 1: return multiply_block<P, 1, N>(p, v, x, init, y, add);
        case 2: return multiply_block<P, 2, N>(p, v, x, init, y, add);
        case 3: return multiply_block<P, 3, N>(p, v, x, init, y, add);
        case 4: return multiply_block<P, 4, N>(p, v, x, init, y, add);
        case 5: return multiply_block<P, 5, N>(p, v, x, init, y, add);
        case 6: return multiply_block<P, 6, N>(p, v, x, init, y, add);
        case 7: return multiply_block<P, 7, N>(p, v, x, init, y, add);
        default: return;
    }
}

// y[n] = init[n] + x[n] @ matrix for any number of rows, or y[n] += that.
template <class P>
void multiply(const Product& p, const typename P::Input* const* x, const float* const* init,
              float* const* y, int rows, bool add = false) {
    int n = 0;
    for (; n + 4 <= rows; n += 4) multiply_lanes<P, 4>(p, x + n, init + n, y + n, add);
    for (; n < rows; ++n) multiply_lanes<P, 1>(p, x + n, init + n, y + n, add);
}

}  // namespace WAVEWN_SET
}  // namespace wavewn
