// What convolutions of one-pass models, and gates in training, multiply: float32, or bfloat16 by
// twos.
//
// `meet` adds the products of a vector's weights and a spread input to sums; `write` and `widen` turn
// sixteen numbers into operands and back, `narrow` and `wide` one.

#pragma once

#include "vectors.hpp"

namespace wavewn {
namespace WAVEWN_SET {

struct Single {
    using Operand = float;
    static constexpr int GROUP = 1;
    using Weights = Floats;
    static INLINE Floats read(const Operand* w) { return load(w); }
    static INLINE Floats spread(const Operand* x) { return all(*x); }
    static INLINE Floats meet(const Floats& w, const Floats& x, const Floats& sum) {
        return fused(w, x, sum);
    }
    static INLINE void write(Operand* to, const Floats& x) { store(to, x); }
    static INLINE Floats widen(const Operand* from) { return load(from); }
    static INLINE Operand narrow(float x) { return x; }
    static INLINE float wide(Operand x) { return x; }
};

// A bfloat16, given as its bits.
INLINE float widened(std::uint16_t x) {
    const std::uint32_t bits32 = static_cast<std::uint32_t>(x) << 16;
    float y;
    std::memcpy(&y, &bits32, 4);
    return y;
}

#if defined(__AVX512BF16__)
// Two inputs at a time; products and their sums are float32, rounded as VDPBF16PS does.
struct Brain {
    using Operand = std::uint16_t;
    static constexpr int GROUP = 2;
    using Weights = __m512i;
    static INLINE __m512i read(const Operand* w) { return _mm512_loadu_si512(w); }
    static INLINE __m512i spread(const Operand* x) {
        std::int32_t pair;
        std::memcpy(&pair, x, 4);
        return _mm512_set1_epi32(pair);
    }
    static INLINE Floats meet(const __m512i& w, const __m512i& x, const Floats& sum) {
        return {{(NativeFloat)_mm512_dpbf16_ps((__m512)sum.part[0], (__m512bh)w, (__m512bh)x)}};
    }
    static INLINE void write(Operand* to, const Floats& x) {
        const __m256bh narrowed = _mm512_cvtneps_pbh((__m512)x.part[0]);
        std::memcpy(to, &narrowed, 32);
    }
    static INLINE Floats widen(const Operand* from) {
        const __m256i bits16 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
        return {{(NativeFloat)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits16), 16)}};
    }
    static INLINE Operand narrow(float x) {
        Operand lanes[16];
        write(lanes, all(x));
        return lanes[0];
    }
    static INLINE float wide(Operand x) { return widened(x); }
};
#elif defined(WAVEWN_IMITATE_AMX)
// The same for tests/csrc, on any machine.
struct Brain {
    using Operand = std::uint16_t;
    static constexpr int GROUP = 2;
    struct Weights {
        Operand lanes[32];
    };
    static Weights read(const Operand* w) {
        Weights x;
        std::memcpy(&x, w, sizeof(x));
        return x;
    }
    static Weights spread(const Operand* x) {
        Weights y;
        for (int i = 0; i < 32; ++i) y.lanes[i] = x[i % 2];
        return y;
    }
    static Floats meet(const Weights& w, const Weights& x, const Floats& sum) {
        float lane[16];
        store(lane, sum);
        for (int i = 0; i < 32; ++i) lane[i / 2] += wide(w.lanes[i]) * wide(x.lanes[i]);
        return load(lane);
    }
    static void write(Operand* to, const Floats& x) {
        float lane[16];
        store(lane, x);
        for (int i = 0; i < 16; ++i) to[i] = narrow(lane[i]);
    }
    static Floats widen(const Operand* from) {
        float lane[16];
        for (int i = 0; i < 16; ++i) lane[i] = wide(from[i]);
        return load(lane);
    }
    static Operand narrow(float x) {
        std::uint32_t bits32;
        std::memcpy(&bits32, &x, 4);
        return static_cast<Operand>((bits32 + 0x7fff + (bits32 >> 16 & 1)) >> 16);
    }
    static float wide(Operand x) { return widened(x); }
};
#endif

}  // namespace WAVEWN_SET
}  // namespace wavewn
