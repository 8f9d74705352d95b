// Random numbers from Philox4x32-10, as noise.py has them.
//
// What is exact there is exact here: the words, and uniform numbers. The logarithm and the cosine of
// normal and logistic ones are computed in double, and not in the last bit as numpy does. So a number
// is only given where it cannot matter: where all that lies within the error of both rounds to the
// same float. Elsewhere, once in some millions, it is NaN, and noise.py asks numpy.
//
// 2026-11-22, one thread of a Zen 4, 16,000 normal numbers: numpy 0.99 ms, AVX-512 0.09, AVX2 0.20,
// portable 0.29; 9 to 16 of 14.4 million were left to numpy.
//
// No `#include` of the standard library's C++ headers: see network.hpp. Twin: noise.py.
//
// Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; the logarithm, sine and
// cosine are those of Sun's fdlibm.

#pragma once

#include <cstdint>

namespace wavewn {

enum class NoiseKind : int { uniform, normal, logistic };

// `count` numbers of one draw: out[i * stride] is of sample position + i. Returns how many are NaN.
struct NoiseRun {
    NoiseKind kind;
    std::uint64_t seed, stream, position, draw;
    std::int64_t count, stride;
    float* out;
};
using NoiseKernel = std::int64_t (*)(const NoiseRun&);

// Null where a set was not compiled in.
namespace portable { extern const NoiseKernel noise __attribute__((weak)); }
namespace avx2 { extern const NoiseKernel noise __attribute__((weak)); }
namespace avx512 { extern const NoiseKernel noise __attribute__((weak)); }

}  // namespace wavewn
