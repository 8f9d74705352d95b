// Random numbers; see noise.hpp. Compiled once for each instruction set.
//
// Every loop is over the lanes of a block, without a branch: compilers make vectors of them.

#pragma once

#include <cstring>

#include "noise.hpp"

namespace wavewn {
namespace WAVEWN_SET {

constexpr int BLOCK = 64;
constexpr double WORD = 0x1p-32;
constexpr double ERROR = 0x1p-46;  // relative, of ours and of numpy's numbers, both far below

inline std::uint64_t bits(double x) {
    std::uint64_t y;
    std::memcpy(&y, &x, sizeof(y));
    return y;
}
inline double number(std::uint64_t x) {
    double y;
    std::memcpy(&y, &x, sizeof(y));
    return y;
}
// A whole number below 2^52, as a double.
inline double whole(std::uint64_t x) { return number(x | bits(0x1p52)) - 0x1p52; }

// Within 1 unit in the last place, for 2^-40 < x < 2^40.
inline double logarithm(double x) {
    constexpr std::uint64_t ROOT = 0x3fe6a09e667f3bcd, BIAS = 1024;  // sqrt(1/2), bit by bit
    const std::uint64_t exponent = (bits(x) - ROOT + (BIAS << 52)) >> 52;
    const double k = whole(exponent) - static_cast<double>(BIAS);
    const double f = number(bits(x) - ((exponent - BIAS) << 52)) - 1.0;
    const double s = f / (2.0 + f), z = s * s, half = 0.5 * f * f;
    double r = 1.479819860511658591e-01;
    r = r * z + 1.531383769920937332e-01;
    r = r * z + 1.818357216161805012e-01;
    r = r * z + 2.222219843214978396e-01;
    r = r * z + 2.857142874366239149e-01;
    r = r * z + 3.999999999940941908e-01;
    r = (r * z + 6.666666666666735130e-01) * z;
    const double rest = s * (half + r) + k * 1.90821492927058770002e-10;
    return k * 6.93147180369123816490e-01 - ((half - rest) - f);
}

// Within 1 unit in the last place, for 0 <= x <= 7.
inline double cosine(double x) {
    constexpr double WHOLE = 0x1.8p52;  // rounds what it is added to
    const double shifted = x * 6.36619772367581382433e-01 + WHOLE;
    const double n = shifted - WHOLE;
    const std::uint64_t quarter = bits(shifted);
    const double r = (x - n * 1.57079632673412561417) - n * 6.07710050650619224932e-11;
    const double z = r * r, half = 0.5 * z, most = 1.0 - half;
    double s = 1.58969099521155010221e-10;
    s = s * z - 2.50507602534068634195e-08;
    s = s * z + 2.75573137070700676789e-06;
    s = s * z - 1.98412698298579493134e-04;
    s = s * z + 8.33333333332248946124e-03;
    s = r + z * r * (s * z - 1.66666666666666324348e-01);
    double c = -1.13596475577881948265e-11;
    c = c * z + 2.08757232129817482790e-09;
    c = c * z - 2.75573143513906633035e-07;
    c = c * z + 2.48015872894767294178e-05;
    c = c * z - 1.38888888888741095749e-03;
    c = c * z + 4.16666666666666019037e-02;
    c = most + (((1.0 - most) - half) + z * z * c);
    // cos, -sin, -cos, sin of the rest.
    const std::uint64_t odd = 0 - (quarter & 1);
    const std::uint64_t either = (bits(s) & odd) | (bits(c) & ~odd);
    return number(either ^ (((quarter + 1) & 2) << 62));
}

// The four words of each sample of a block.
inline void encrypt(const NoiseRun& run, std::uint64_t first, std::uint64_t (&word)[4][BLOCK]) {
    constexpr std::uint64_t LOW = 0xffffffff, M0 = 0xd2511f53, M1 = 0xcd9e8d57;
    for (int i = 0; i < BLOCK; ++i) {
        const std::uint64_t position = first + static_cast<std::uint64_t>(i);
        std::uint64_t c0 = position & LOW, c1 = position >> 32, c2 = run.stream, c3 = run.draw;
        std::uint64_t k0 = run.seed & LOW, k1 = run.seed >> 32;
        for (int round = 0; round < 10; ++round) {
            const std::uint64_t p0 = c0 * M0, p1 = c2 * M1;
            c0 = (p1 >> 32) ^ c1 ^ k0;
            c1 = p1 & LOW;
            c2 = (p0 >> 32) ^ c3 ^ k1;
            c3 = p0 & LOW;
            k0 = (k0 + 0x9e3779b9) & LOW;
            k1 = (k1 + 0xbb67ae85) & LOW;
        }
        word[0][i] = c0, word[1][i] = c1, word[2][i] = c2, word[3][i] = c3;
    }
}

// A number, and how far it may lie from the true one.
struct Estimate {
    double value, error;
};
template <NoiseKind Kind>
inline Estimate estimate(std::uint64_t word0, std::uint64_t word1) {
    if constexpr (Kind == NoiseKind::uniform) return {(whole(word0 >> 9) + 0.5) * 0x1p-23, 0.0};
    const double u = (whole(word0) + 0.5) * WORD;
    if constexpr (Kind == NoiseKind::logistic) {
        const double low = logarithm(u), high = logarithm(1.0 - u);  // 1 - u is exact
        return {low - high, ERROR * (0.0 - low - high)};
    }
    const double angle = (whole(word1) + 0.5) * (WORD * 2.0 * 3.141592653589793);
    const double y = __builtin_sqrt(-2.0 * logarithm(u)) * cosine(angle);
    return {y, ERROR * __builtin_fabs(y)};
}

template <NoiseKind Kind>
std::int64_t draw_all(const NoiseRun& run) {
    std::int64_t unsure = 0;
    for (std::int64_t begin = 0; begin < run.count; begin += BLOCK) {
        std::uint64_t word[4][BLOCK];
        float low[BLOCK], high[BLOCK];
        encrypt(run, run.position + static_cast<std::uint64_t>(begin), word);
        for (int i = 0; i < BLOCK; ++i) {
            const Estimate y = estimate<Kind>(word[0][i], word[1][i]);
            low[i] = static_cast<float>(y.value - y.error);
            high[i] = static_cast<float>(y.value + y.error);
        }
        const std::int64_t count = run.count - begin < BLOCK ? run.count - begin : BLOCK;
        for (std::int64_t i = 0; i < count; ++i) {
            const bool sure = low[i] == high[i];
            run.out[(begin + i) * run.stride] = sure ? low[i] : __builtin_nanf("");
            unsure += !sure;
        }
    }
    return unsure;
}

inline std::int64_t draw(const NoiseRun& run) {
    switch (run.kind) {
        case NoiseKind::uniform: return draw_all<NoiseKind::uniform>(run);
        case NoiseKind::normal: return draw_all<NoiseKind::normal>(run);
        case NoiseKind::logistic: return draw_all<NoiseKind::logistic>(run);
    }
    return 0;
}

extern const NoiseKernel noise = draw;

}  // namespace WAVEWN_SET
}  // namespace wavewn
