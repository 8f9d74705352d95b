// Gates in whole numbers: from a gate's sums to the eight bits of z, in int8.
//
//     t = clamp(round(2^11 f)),  u = clamp(round(2^11 g))       16 bits; f and g: see `activated`
//     T(t) = KNOTS[i] + floor((KNOTS[i + 1] - KNOTS[i]) r / 512),   |t| = 512 i + r, with t's sign
//     z = round(round(-T(t) (TOP - T(u)) / 2^15) / 2^7)         -127 to 127
//
// T is TOP (1 - 2^f) / (1 + 2^f) with the sign turned, in 64 chords: within 0.0005 of it, where the
// rounding to eight bits costs 0.004. TOP^2 / 2^21 is 127. Everything is exact, so every
// instruction set gives the same bits; on AVX-512 it takes 19 instructions for sixteen z, none of
// them a division, where `activated` and rounding take 65. f and g come 2^11 times as large
// (GATE_UNIT): packing.cpp has that in their scales and conditions.
//
// Twin: engine/twin.py, `open_whole`.

#pragma once

#include "vectors.hpp"

namespace wavewn {
namespace WAVEWN_SET {

constexpr int CHORDS = 64;
constexpr int TOP = 16320;
constexpr float LARGEST_WORD = 32767.0f;

// Halfway between the function and its chords.
constexpr std::int16_t KNOTS[CHORDS + 1] = {
    0,     1412,  2803,  4153,  5445,  6664,  7800,  8846,  9798,  10656, 11422,
    12101, 12698, 13220, 13673, 14065, 14403, 14693, 14941, 15152, 15333, 15486,
    15616, 15726, 15819, 15897, 15964, 16020, 16067, 16107, 16141, 16169, 16193,
    16213, 16230, 16245, 16256, 16267, 16275, 16282, 16288, 16293, 16298, 16301,
    16304, 16307, 16309, 16311, 16312, 16313, 16314, 16315, 16316, 16317, 16317,
    16318, 16318, 16318, 16319, 16319, 16319, 16319, 16319, 16319, 16320};

template <class Number>
struct Chords {
    alignas(64) Number base[CHORDS];
    alignas(64) Number slope[CHORDS];
};
template <class Number>
constexpr Chords<Number> make_chords() {
    Chords<Number> chords{};
    for (int i = 0; i < CHORDS; ++i) {
        chords.base[i] = KNOTS[i];
        chords.slope[i] = static_cast<Number>(KNOTS[i + 1] - KNOTS[i]);
    }
    return chords;
}

#if defined(__AVX512BW__)
constexpr Chords<std::int16_t> chords = make_chords<std::int16_t>();

// Words of a and b, four and four in turn.
INLINE __m512i words(const Floats& a, const Floats& b) {
    const __m512 top = _mm512_set1_ps(LARGEST_WORD);
    const __m512i low = _mm512_cvtps_epi32(_mm512_min_ps(top, (__m512)a.part[0]));
    const __m512i high = _mm512_cvtps_epi32(_mm512_min_ps(top, (__m512)b.part[0]));
    return _mm512_max_epi16(_mm512_packs_epi32(low, high), _mm512_set1_epi16(-32767));
}

// |T|.
INLINE __m512i on_chords(__m512i t) {
    const __m512i size = _mm512_abs_epi16(t), chord = _mm512_srli_epi16(size, 9);
    const __m512i* const base = reinterpret_cast<const __m512i*>(chords.base);
    const __m512i* const slope = reinterpret_cast<const __m512i*>(chords.slope);
    const __m512i rise = _mm512_mulhi_epu16(_mm512_slli_epi16(size, 7),
                                            _mm512_permutex2var_epi16(slope[0], chord, slope[1]));
    return _mm512_add_epi16(_mm512_permutex2var_epi16(base[0], chord, base[1]), rise);
}

// The bytes of z, each raised by `raised`, of two vectors of f and g.
INLINE __m256i opened(const Floats& f, const Floats& g, const Floats& other_f,
                      const Floats& other_g, int raised) {
    const __m512i zero = _mm512_setzero_si512();
    const __m512i top = _mm512_set1_epi16(TOP);
    const __m512i t = words(f, other_f), u = words(g, other_g);
    const __m512i a = on_chords(t), b = on_chords(u);
    const __m512i tanh = _mm512_mask_sub_epi16(a, _mm512_cmpgt_epi16_mask(t, zero), zero, a);
    const __m512i sigmoid =
        _mm512_mask_add_epi16(_mm512_sub_epi16(top, b), _mm512_movepi16_mask(u), top, b);
    const __m512i z = _mm512_mulhrs_epi16(tanh, sigmoid);
    const auto half = static_cast<short>(64 + 128 * raised);
    const __m512i whole = _mm512_srai_epi16(_mm512_add_epi16(z, _mm512_set1_epi16(half)), 7);
    return _mm512_cvtepi16_epi8(whole);
}
#endif

// Sixteen z, or twice sixteen that lie one after the other, as operands.
INLINE void open_gate(const Floats& f, const Floats& g, int raised, std::uint8_t* to) {
#if defined(__AVX512BW__)
    const __m256i bytes = opened(f, g, f, g, raised);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtepi64_epi32(bytes));
#else
    static constexpr Chords<std::int32_t> chords = make_chords<std::int32_t>();
    std::int32_t t[16], u[16];
    store(t, rounded(clamp(f, -LARGEST_WORD, LARGEST_WORD)));
    store(u, rounded(clamp(g, -LARGEST_WORD, LARGEST_WORD)));
    for (int i = 0; i < 16; ++i) {
        const std::int32_t x = t[i] < 0 ? -t[i] : t[i], y = u[i] < 0 ? -u[i] : u[i];
        const std::int32_t a = chords.base[x >> 9] + (chords.slope[x >> 9] * (x & 511) >> 9);
        const std::int32_t b = chords.base[y >> 9] + (chords.slope[y >> 9] * (y & 511) >> 9);
        const std::int32_t tanh = t[i] < 0 ? a : -a, sigmoid = u[i] < 0 ? TOP + b : TOP - b;
        const std::int32_t z = (tanh * sigmoid + (1 << 14)) >> 15;
        to[i] = static_cast<std::uint8_t>(((z + 64) >> 7) + raised);
    }
#endif
}
INLINE void open_gates(const Floats& f, const Floats& g, const Floats& other_f,
                       const Floats& other_g, int raised, std::uint8_t* to) {
#if defined(__AVX512BW__)
    const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    const __m256i bytes = opened(f, g, other_f, other_g, raised);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permutevar8x32_epi32(bytes, order));
#else
    open_gate(f, g, raised, to);
    open_gate(other_f, other_g, raised, to + 16);
#endif
}

}  // namespace WAVEWN_SET
}  // namespace wavewn
