// Precisions: how weights are read, how inputs are spread and written, and how the two meet.
//
//     Plain      float32, two roundings: the same bits on every instruction set
//     Fused      float32, one rounding where the set has it
//     Half       float16 weights, float32 inputs and sums; or, where the set multiplies float16, inputs
//                in float16, too, and 32 products summed in float16 before they go to float32
//     Eight      int8 weights and inputs, exact int32 sums
//     Fine       Eight with two numbers for an input
//
// Twin: engine/twin.py.

#pragma once

#include "network.hpp"
#include "vectors.hpp"

namespace wavewn {
namespace WAVEWN_SET {

struct Plain {
    using Input = float;
    using Weight = float;
    using Sums = Floats;
    static constexpr int GROUP = 1;      // inputs that meet a vector of outputs at once
    static constexpr int CHUNK = 0;      // groups after which sums are `flush`ed; 0: never
    static constexpr int REGISTERS = 1;  // of a vector's sums
    static constexpr int KEPT = 16;      // floats that hold a vector's sums: see `keep`
    static constexpr bool INIT_FIRST = true;  // sums begin with `init`; else they end with it
    static constexpr bool IN_TILES = false;   // whether AMX can do it
    static constexpr bool WHOLE = false;      // whether inputs are whole numbers
    static INLINE void write(const Product&, const Floats& x, int at, Input* to) {
        store(to + at, x);
    }
    static INLINE void flush(Sums&) {}
    static INLINE void keep(const Sums& y, float* to) { store(to, y); }
    static INLINE Sums kept(const float* from) { return load(from); }
    static INLINE Sums start(const Product&, int, const float* init) { return load(init); }
    static INLINE Floats read(const Weight* w) { return load(w); }
    static INLINE Floats spread(const Product&, const Input* x) { return all(*x); }
    static INLINE void meet(Sums& y, const Floats& w, const Floats& x) { y = y + w * x; }
    static INLINE Floats finish(const Product&, int, const Sums& y, const float*) { return y; }
};

struct Fused : Plain {
    static INLINE void meet(Sums& y, const Floats& w, const Floats& x) { y = fused(w, x, y); }
};

#if defined(__AVX512FP16__) || defined(WAVEWN_IMITATE_FP16)
struct HalfSums {
    Floats total;
    Halves part;
};
struct Half {
    using Input = _Float16;
    using Weight = _Float16;
    using Sums = HalfSums;
    static constexpr int GROUP = 1;
    static constexpr int CHUNK = 32;
    static constexpr int REGISTERS = 2;
    static constexpr int KEPT = 32;
    static constexpr bool INIT_FIRST = true;
    static constexpr bool IN_TILES = false;
    static constexpr bool WHOLE = false;
    static INLINE void write(const Product&, const Floats& x, int at, Input* to) {
        store(to + at, halves(x));
    }
    // A chunk may have begun.
    static INLINE void keep(const Sums& y, float* to) {
        store(to, y.total);
        std::memcpy(to + 16, &y.part, sizeof(y.part));
    }
    static INLINE Sums kept(const float* from) {
        Sums y{load(from), no_halves()};
        std::memcpy(&y.part, from + 16, sizeof(y.part));
        return y;
    }
    static INLINE Sums start(const Product&, int, const float* init) {
        return {load(init), no_halves()};
    }
    static INLINE Halves read(const Weight* w) { return load(w); }
    static INLINE Halves spread(const Product&, const Input* x) { return all(*x); }
    static INLINE void meet(Sums& y, const Halves& w, const Halves& x) {
        y.part = fused(w, x, y.part);
    }
    static INLINE void flush(Sums& y) {
        y.total = y.total + converted(y.part);
        y.part = no_halves();
    }
    static INLINE Floats finish(const Product&, int, Sums y, const float*) {
        flush(y);
        return y.total;
    }
};
#elif defined(__AVX2__)
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

// What Eight's kinds share: inputs as bytes, signed ones raised by RAISED; sums of int32; and the way
// back to float32 in two roundings more.
template <int RAISED, bool SIGNED>
struct Whole {
    using Input = std::uint8_t;
    using Weight = std::int8_t;
    using Sums = Ints;
    static constexpr std::int32_t RAISE = RAISED;
    static constexpr int GROUP = 4;
    static constexpr int CHUNK = 0;
    static constexpr int REGISTERS = 1;
    static constexpr int KEPT = 16;
    static constexpr bool INIT_FIRST = false;
    static constexpr bool IN_TILES = RAISED != 0;
    static constexpr bool WHOLE = true;
    static INLINE void write(const Product& p, const Floats& x, int at, Input* to) {
        constexpr float low = SIGNED ? -127.0f : 0.0f, high = SIGNED ? 127.0f : 255.0f;
        put(clamp(x * load(p.gain + at), low, high), SIGNED ? RAISED : 0, to + at);
    }
    // The nearest whole numbers, and `more`.
    static INLINE void put(const Floats& x, int more, Input* to) {
#if defined(__AVX512F__)
        // The lowest bits of the sum are what is wanted: see ROUNDING.
        const Ints sums = bits(x + all(ROUNDING + static_cast<float>(more)));
        const __m128i bytes = _mm512_cvtepi32_epi8((__m512i)sums.part[0]);
        std::memcpy(to, &bytes, 16);
#else
        std::int32_t lane[16];
        store(lane, rounded(x, more));
        for (int i = 0; i < 16; ++i) to[i] = static_cast<Input>(lane[i]);
#endif
    }
    static INLINE void flush(Sums&) {}
    static INLINE void keep(const Sums& y, float* to) { std::memcpy(to, &y, sizeof(y)); }
    static INLINE Sums kept(const float* from) {
        Sums y;
        std::memcpy(&y, from, sizeof(y));
        return y;
    }
    static INLINE Sums start(const Product& p, int vector, const float*) {
        return load(p.shift + 16 * vector);
    }
    static INLINE Floats finish(const Product& p, int vector, const Sums& y, const float* init) {
        return converted(y) * load(p.scale + 16 * vector) + load(init);
    }
};

#if defined(__AVX512VNNI__)
// Inputs as bytes without sign: signed ones are raised by 128, which `shift` takes back.
template <bool SIGNED>
struct EightOfVNNI : Whole<128, SIGNED> {
    using typename Whole<128, SIGNED>::Weight, typename Whole<128, SIGNED>::Input,
        typename Whole<128, SIGNED>::Sums;
    static INLINE __m512i read(const Weight* w) { return _mm512_loadu_si512(w); }
    static INLINE __m512i spread(const Product&, const Input* x) {
        std::int32_t four;
        std::memcpy(&four, x, 4);
        return _mm512_set1_epi32(four);
    }
    static INLINE void meet(Sums& y, __m512i w, __m512i x) {
        y.part[0] = (NativeInt)_mm512_dpbusd_epi32((__m512i)y.part[0], x, w);
    }
};
using Eight = EightOfVNNI<true>;
using EightUnsigned = EightOfVNNI<false>;
#elif defined(__AVX2__)
struct Bytes {
    __m256i part[2];
};
template <bool SIGNED>
struct EightOfAVX2 : Whole<0, SIGNED> {
    using typename Whole<0, SIGNED>::Weight, typename Whole<0, SIGNED>::Input;
    static INLINE Bytes read(const Weight* w) {
        const auto from = reinterpret_cast<const __m256i*>(w);
        return {{_mm256_loadu_si256(from), _mm256_loadu_si256(from + 1)}};
    }
    static INLINE __m256i spread(const Product&, const Input* x) {
        std::int32_t four;
        std::memcpy(&four, x, 4);
        return _mm256_set1_epi32(four);
    }
};
// Signed inputs: |x| times w with the sign of x. vpmaddubsw adds two products in 16 bits, of which
// 2 * 127 * 127 is 32,258: nothing saturates.
struct Eight : EightOfAVX2<true> {
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
struct EightUnsigned : EightOfAVX2<false> {
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
template <bool SIGNED>
struct PortableEight : Whole<128, SIGNED> {
    using typename Whole<128, SIGNED>::Weight, typename Whole<128, SIGNED>::Input,
        typename Whole<128, SIGNED>::Sums;
    static INLINE const Weight* read(const Weight* w) { return w; }
    static INLINE const Input* spread(const Product&, const Input* x) { return x; }
    static INLINE void meet(Sums& y, const Weight* w, const Input* x) {
        std::int32_t lane[16];
        store(lane, y);
        for (int i = 0; i < 16; ++i)
            lane[i] += x[0] * w[4 * i] + x[1] * w[4 * i + 1] + x[2] * w[4 * i + 2] +
                       x[3] * w[4 * i + 3];
        y = load(lane);
    }
};
using Eight = PortableEight<true>;
using EightUnsigned = PortableEight<false>;
#endif

// An input in two numbers that share one pass over the weights: q = round(s), r = round(128 (s - q))
// with s = gain * input; y = (float(sum of q w) + float(sum of r w) / 128) * scale + init. The second
// numbers lie behind all the first ones and the sixteen that `write` may spill.
template <class P>
struct FineOf : P {
    static constexpr int REGISTERS = 2;
    static constexpr int KEPT = 32;
    static constexpr bool IN_TILES = false;
    struct Sums {
        typename P::Sums coarse, rest;
    };
    struct Pair {
        decltype(P::spread(Product(), nullptr)) coarse, rest;
    };
    static INLINE void write(const Product& p, const Floats& x, int at, typename P::Input* to) {
        const Floats scaled = x * load(p.gain + at);
        const Floats whole = converted(rounded(clamp(scaled, -127.0f, 127.0f)));
        P::put(whole, P::RAISE, to + at);
        const Floats rest = clamp((scaled - whole) * all(128.0f), -127.0f, 127.0f);
        P::put(rest, P::RAISE, to + p.inputs + 16 + at);
    }
    static INLINE void flush(Sums&) {}
    static INLINE void keep(const Sums& y, float* to) {
        P::keep(y.coarse, to);
        P::keep(y.rest, to + 16);
    }
    static INLINE Sums kept(const float* from) { return {P::kept(from), P::kept(from + 16)}; }
    static INLINE Sums start(const Product& p, int vector, const float* init) {
        return {P::start(p, vector, init), P::start(p, vector, init)};
    }
    static INLINE Pair spread(const Product& p, const typename P::Input* x) {
        return {P::spread(p, x), P::spread(p, x + p.inputs + 16)};
    }
    template <class Weight>
    static INLINE void meet(Sums& y, const Weight& w, const Pair& x) {
        P::meet(y.coarse, w, x.coarse);
        P::meet(y.rest, w, x.rest);
    }
    static INLINE Floats finish(const Product& p, int vector, const Sums& y, const float* init) {
        const Floats whole = converted(y.coarse) + converted(y.rest) * all(1.0f / 128);
        return whole * load(p.scale + 16 * vector) + load(init);
    }
};
template <class P>
struct FineOrPlain {
    using Type = P;
};
template <>
struct FineOrPlain<Eight> {
    using Type = FineOf<Eight>;
};
template <class P>
using Fine = typename FineOrPlain<P>::Type;

}  // namespace WAVEWN_SET
}  // namespace wavewn
