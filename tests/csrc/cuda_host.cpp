// The device code of csrc/cuda, run by the CPU: a block's threads one after another between two of
// the calls that join them. See csrc/cuda/block.hpp, whose twin this is.

#include <math.h>
#include <string.h>

#include <memory>

#include "shape.hpp"

namespace wavewn {

template <class T>
struct Own {
    T values[Shape::threads];
    T& operator[](int thread) { return values[thread]; }
    const T& operator[](int thread) const { return values[thread]; }
};

struct alignas(16) Word {
    unsigned part[4];
};
struct alignas(8) Pair {
    unsigned part[2];
};

inline float rounded_product(float a, float b) { return a * b; }
inline float rounded_sum(float a, float b) { return a + b; }
inline float fused(float a, float b, float c) { return a * b + c; }
inline float exp2_of(float x) { return exp2f(x); }
inline float quotient(float a, float b) { return a / b; }
inline Word streamed(const Word* from) { return *from; }

inline float float_of(unsigned bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// To the nearest half, of two the even one.
inline unsigned short half_of(float x) {
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    const unsigned sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return static_cast<unsigned short>(sign | 0x7e00);
    if (bits >= 0x477ff000) return static_cast<unsigned short>(sign | 0x7c00);
    if (bits < 0x38800000)  // a multiple of 2^-24
        return static_cast<unsigned short>(
            sign | static_cast<unsigned>(nearbyintf(float_of(bits) * 16777216.0f)));
    const unsigned nearest = bits + 0xfff + (bits >> 13 & 1) - 0x38000000;
    return static_cast<unsigned short>(sign | nearest >> 13);
}

inline float float_of_half(unsigned half) {
    const float sign = half & 0x8000 ? -1.0f : 1.0f;
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 31) return fraction ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * ldexpf(static_cast<float>(fraction), -24);
    return sign * ldexpf(static_cast<float>(1024 + fraction), exponent - 25);
}

struct Block {
    char* memory;
    int index;

    int number() const { return index; }
    template <class F>
    void each(F f) {
        for (int thread = 0; thread < Shape::threads; ++thread) f(thread);
    }
    void barrier() {}
    void together() {}
    template <class T>
    Own<T> across(const Own<T>& x, int mask) {
        Own<T> y;
        each([&](int thread) { y[thread] = x[thread ^ mask]; });
        return y;
    }
    template <class T>
    Own<T> below(const Own<T>& x, int count) {
        Own<T> y;
        each([&](int thread) { y[thread] = x[thread % LANES < count ? thread : thread - count]; });
        return y;
    }
    // mma.m16n8k16 by the letter of the PTX manual. Lane 4 g + q has
    //     a0 a1: row g, columns 2 q and 2 q + 1     a2 a3: row g + 8, the same
    //     a4 a5: row g, columns 2 q + 8 and + 9     a6 a7: row g + 8, the same
    //     b0 b1: rows 2 q and 2 q + 1, column g     b2 b3: rows 2 q + 8 and + 9
    //     c0 c1: row g, columns 2 q and 2 q + 1     c2 c3: row g + 8, the same
    void multiply_halves(int busy, Own<float> (&c)[4], const Own<Word>& a, const Own<Pair>& b) {
        for (int warp = 0; warp < busy; ++warp) {
            float left[16][16], right[16][8];
            for (int lane = 0; lane < LANES; ++lane) {
                const int g = lane / 4, q = lane % 4, thread = warp * LANES + lane;
                for (int i = 0; i < 8; ++i)
                    left[g + (i / 2 % 2 ? 8 : 0)][2 * q + i % 2 + (i >= 4 ? 8 : 0)] =
                        float_of_half(a[thread].part[i / 2] >> 16 * (i % 2) & 0xffff);
                for (int i = 0; i < 4; ++i)
                    right[2 * q + i % 2 + (i >= 2 ? 8 : 0)][g] =
                        float_of_half(b[thread].part[i / 2] >> 16 * (i % 2) & 0xffff);
            }
            for (int lane = 0; lane < LANES; ++lane)
                for (int i = 0; i < 4; ++i) {
                    const int row = lane / 4 + (i >= 2 ? 8 : 0), column = lane % 4 * 2 + i % 2;
                    float& sum = c[i][warp * LANES + lane];
                    for (int k = 0; k < 16; ++k) sum += left[row][k] * right[k][column];
                }
        }
    }
};

}  // namespace wavewn

#include "samples.hpp"

using wavewn::Int64;
using wavewn::Shape;

extern "C" {

Int64 wavewn_shared_bytes() { return Shape::shared_bytes; }
Int64 wavewn_state_size() { return Shape::state_size; }
Int64 wavewn_ring_at(int layer) { return Shape::ring_at(layer); }
int wavewn_constants() { return Shape::constants; }

void wavewn_samples(Int64 blocks, const wavewn::Word* weights, const float* constants,
                    float* state, const Int64* clock, const float* gates, const float* upsampled,
                    const float* predictors, const float* noise, const float* forced, float* audio,
                    float* parameters, Int64* broken, Int64 batch, Int64 samples,
                    float temperature, float log_scale_min, float pre_emphasis) {
    const wavewn::Arguments arguments{
        weights, constants, state, clock, gates, upsampled, predictors, noise, forced, audio,
        parameters, broken, batch, samples, temperature, log_scale_min, pre_emphasis};
    std::unique_ptr<wavewn::Word[]> memory(new wavewn::Word[Shape::shared_bytes / 16]);
    for (Int64 i = 0; i < blocks; ++i) {
        memset(static_cast<void*>(memory.get()), 0xff, Shape::shared_bytes);  // NaN, as a GPU may
        wavewn::Block block{reinterpret_cast<char*>(memory.get()), static_cast<int>(i)};
        wavewn::wavenet_samples<Shape>(block, arguments);
    }
}

}
