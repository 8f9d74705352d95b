// What the device has and the host lacks: words, halves, a warp's matrix product.

#pragma once

#include <math.h>
#include <string.h>

#include "shape.hpp"

namespace wavewn {

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

// mma.m16n8k16 by the letter of the PTX manual. Lane 4 g + q has
//     a0 a1: row g, columns 2 q and 2 q + 1     a2 a3: row g + 8, the same
//     a4 a5: row g, columns 2 q + 8 and + 9     a6 a7: row g + 8, the same
//     b0 b1: rows 2 q and 2 q + 1, column g     b2 b3: rows 2 q + 8 and + 9
//     c0 c1: row g, columns 2 q and 2 q + 1     c2 c3: row g + 8, the same
//
// a(lane), b(lane) give the fragments of a lane; result(lane, i) += what is summed for c_i.
template <class A, class B, class C>
void multiply_fragments(A a, B b, C result) {
    float left[16][16], right[16][8];
    for (int lane = 0; lane < LANES; ++lane) {
        const int g = lane / 4, q = lane % 4;
        const Word own = a(lane);
        const Pair pair = b(lane);
        for (int i = 0; i < 8; ++i)
            left[g + (i / 2 % 2 ? 8 : 0)][2 * q + i % 2 + (i >= 4 ? 8 : 0)] =
                float_of_half(own.part[i / 2] >> 16 * (i % 2) & 0xffff);
        for (int i = 0; i < 4; ++i)
            right[2 * q + i % 2 + (i >= 2 ? 8 : 0)][g] =
                float_of_half(pair.part[i / 2] >> 16 * (i % 2) & 0xffff);
    }
    for (int lane = 0; lane < LANES; ++lane)
        for (int i = 0; i < 4; ++i) {
            const int row = lane / 4 + (i >= 2 ? 8 : 0), column = lane % 4 * 2 + i % 2;
            float& sum = result(lane, i);
            for (int k = 0; k < 16; ++k) sum += left[row][k] * right[k][column];
        }
}

}  // namespace wavewn
