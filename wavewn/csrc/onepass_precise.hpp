// Layers of one-pass models that read floats: precise ones and smoothings. Included by
// onepass_kernel.hpp.

#pragma once

#include "onepass.hpp"
#include "vectors.hpp"

namespace wavewn {
namespace WAVEWN_SET {

// The first `count` lanes.
INLINE void store_part(float* to, const Floats& x, int count) {
    if (count == 16) return store(to, x);
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), (__m512)x.part[0]);
#else
    float lane[16];
    store(lane, x);
    for (int i = 0; i < count; ++i) to[i] = lane[i];
#endif
}

// Rows whose sums of sixteen outputs stay in registers at once.
#if defined(__AVX512F__)
constexpr int PRECISE_ROWS = 8;
#elif defined(__AVX2__) || defined(__aarch64__)
constexpr int PRECISE_ROWS = 2;
#else
constexpr int PRECISE_ROWS = 1;
#endif
constexpr int HALF = NATIVE / 2;
constexpr int HALVES = 16 / HALF;

typedef float HalfFloat __attribute__((vector_size(4 * HALF)));
typedef double NativeDouble __attribute__((vector_size(8 * HALF)));

INLINE NativeDouble widened(const float* from) {
#if defined(__AVX512F__)
    return (NativeDouble)_mm512_cvtps_pd(_mm256_loadu_ps(from));  // g++ 12 converts two halves
#else
    HalfFloat x;
    std::memcpy(&x, from, sizeof(x));
    return __builtin_convertvector(x, NativeDouble);
#endif
}
// a * b + c. The product of what were floats is exact: one rounding, however it is computed.
INLINE NativeDouble fused(NativeDouble a, NativeDouble b, NativeDouble c) {
#if defined(__AVX512F__)
    return (NativeDouble)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__)
    return (NativeDouble)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
    return a * b + c;
#endif
}

// `R` rows of sixteen outputs, of which `width` are there: to = bias + weights @ from, in doubles.
template <int R>
INLINE void precise_tile(const OnePassLayer& layer, const float* w, const float* bias,
                         const float* from, float* to, int width) {
    constexpr std::int64_t BLOCK = 32;
    NativeDouble sum[R][HALVES] = {};
    for (std::int64_t tap = 0; tap < layer.taps; ++tap)
        for (std::int64_t begin = 0; begin < layer.inputs; begin += BLOCK) {
            const std::int64_t left = layer.inputs - begin, count = left < BLOCK ? left : BLOCK;
            const float* const rows = from + tap * layer.dilation * layer.inputs + begin;
            double x[R][BLOCK];
            for (int r = 0; r < R; ++r)
                for (std::int64_t i = 0; i < count; i += HALF) {
                    const NativeDouble wide = widened(rows + r * layer.inputs + i);
                    std::memcpy(x[r] + i, &wide, sizeof(wide));
                }
            for (std::int64_t i = 0; i < count; ++i, w += 16) {
                NativeDouble weight[HALVES];
#pragma GCC unroll 8
                for (int v = 0; v < HALVES; ++v) weight[v] = widened(w + HALF * v);
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    const NativeDouble one = x[r][i] - (NativeDouble){};
#pragma GCC unroll 8
                    for (int v = 0; v < HALVES; ++v) sum[r][v] = fused(one, weight[v], sum[r][v]);
                }
            }
        }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
        float lane[16];
#pragma GCC unroll 8
        for (int v = 0; v < HALVES; ++v) {
            const HalfFloat y =
                __builtin_convertvector(sum[r][v] + widened(bias + HALF * v), HalfFloat);
            std::memcpy(lane + HALF * v, &y, sizeof(y));
        }
        std::memcpy(to + r * layer.outputs, lane, sizeof(float) * static_cast<std::size_t>(width));
    }
}

template <int R = PRECISE_ROWS>
__attribute__((noinline)) void precise_tiles(const OnePassLayer& layer, const float* w,
                                             const float* bias, const float* from, float* to,
                                             int width, std::int64_t rows) {
    if (rows == R) return precise_tile<R>(layer, w, bias, from, to, width);
    if constexpr (R > 1) precise_tiles<R - 1>(layer, w, bias, from, to, width, rows);
}

inline void convolve_precisely(const OnePassLayer& layer, const float* from, float* to,
                               std::int64_t rows) {
    const auto* w = static_cast<const float*>(layer.weights);
    for (std::int64_t first = 0; first < layer.outputs; first += 16) {
        const std::int64_t left = layer.outputs - first;
        for (std::int64_t row = 0; row < rows; row += PRECISE_ROWS) {
            const std::int64_t count = rows - row < PRECISE_ROWS ? rows - row : PRECISE_ROWS;
            precise_tiles(layer, w, layer.bias + first, from + row * layer.inputs,
                          to + row * layer.outputs + first, static_cast<int>(left < 16 ? left : 16),
                          count);
        }
        w += layer.taps * layer.inputs * 16;
    }
}

inline void smooth(const OnePassLayer& layer, const float* from, float* to, std::int64_t rows) {
    const auto* const w = static_cast<const float*>(layer.weights);
    const std::int64_t count = rows * layer.outputs;
    for (std::int64_t i = 0; i < count; i += 16) {
        Floats sum = all(0.0f);
        for (std::int64_t tap = 0; tap < layer.taps; ++tap)
            sum = fused(all(w[tap]), load(from + tap * layer.outputs + i), sum);
        store_part(to + i, sum, static_cast<int>(count - i < 16 ? count - i : 16));
    }
}

}  // namespace WAVEWN_SET
}  // namespace wavewn
