// Transforms and levelling of sixteen frames at once; see spectrum.hpp. Compiled once for each
// instruction set.
//
// A complex vector lies as sixteen real parts and sixteen imaginary ones behind them.

#pragma once

#include "spectrum.hpp"
#include "spectrum_functions.hpp"

namespace wavewn {
namespace WAVEWN_SET {

struct Complex {
    Floats re, im;
};
INLINE Complex read(const float* x, std::int64_t i) {
    return {load(x + 2 * LANES * i), load(x + 2 * LANES * i + LANES)};
}
INLINE void write(float* x, std::int64_t i, const Complex& a) {
    store(x + 2 * LANES * i, a.re);
    store(x + 2 * LANES * i + LANES, a.im);
}
INLINE Complex operator+(const Complex& a, const Complex& b) { return {a.re + b.re, a.im + b.im}; }
INLINE Complex operator-(const Complex& a, const Complex& b) { return {a.re - b.re, a.im - b.im}; }
INLINE Complex operator*(const Complex& a, const Floats& b) { return {a.re * b, a.im * b}; }
INLINE Complex turned_back(const Complex& a) { return {a.im, all(0.0f) - a.re}; }  // -i a
INLINE Complex conjugate(const Complex& a) { return {a.re, all(0.0f) - a.im}; }
// a times re + i im, or its conjugate.
INLINE Complex times(const Complex& a, float re, float im) {
    const Floats c = all(re), s = all(im), minus = all(-im);
    return {fused(a.re, c, a.im * minus), fused(a.re, s, a.im * c)};
}

// ---- the complex transform ----

template <int R>
INLINE void butterfly(Complex (&a)[R]) {
    if constexpr (R == 2) {
        const Complex sum = a[0] + a[1];
        a[1] = a[0] - a[1];
        a[0] = sum;
    } else if constexpr (R == 3) {
        const Complex sum = a[1] + a[2];
        const Complex middle = a[0] - sum * all(0.5f);
        const Complex side = turned_back((a[1] - a[2]) * all(0.8660254037844386f));
        a[0] = a[0] + sum;
        a[1] = middle + side;
        a[2] = middle - side;
    } else if constexpr (R == 4) {
        const Complex even = a[0] + a[2], odd = a[1] + a[3];
        const Complex other = a[0] - a[2], side = turned_back(a[1] - a[3]);
        a[0] = even + odd;
        a[1] = other + side;
        a[2] = even - odd;
        a[3] = other - side;
    } else {
        const Floats c1 = all(0.30901699437494745f), c2 = all(-0.8090169943749475f);
        const Floats s1 = all(0.9510565162951535f), s2 = all(0.5877852522924731f);
        const Complex outer = a[1] + a[4], inner = a[2] + a[3];
        const Complex far = a[1] - a[4], near = a[2] - a[3];
        const Complex one = a[0] + (outer * c1 + inner * c2);
        const Complex two = a[0] + (outer * c2 + inner * c1);
        const Complex side1 = turned_back(far * s1 + near * s2);
        const Complex side2 = turned_back(far * s2 - near * s1);
        a[0] = a[0] + (outer + inner);
        a[1] = one + side1;
        a[2] = two + side2;
        a[3] = two - side2;
        a[4] = one - side1;
    }
}

template <int R, bool Last>
void stage(const Stage& st, const float* x, float* y) {
    const float* turns = st.turns;
    for (std::int64_t p = 0; p < st.m; ++p, turns += 2 * (R - 1))
        for (std::int64_t q = 0; q < st.s; ++q) {
            Complex a[R];
#pragma GCC unroll 5
            for (int j = 0; j < R; ++j) a[j] = read(x, q + st.s * (p + st.m * j));
            butterfly<R>(a);
            write(y, q + st.s * R * p, a[0]);
#pragma GCC unroll 5
            for (int k = 1; k < R; ++k)
                write(y, q + st.s * (R * p + k),
                      Last ? a[k] : times(a[k], turns[2 * k - 2], turns[2 * k - 1]));
        }
}

template <int R>
void stage_of(const Stage& st, const float* x, float* y) {
    if (st.m == 1) return stage<R, true>(st, x, y);
    stage<R, false>(st, x, y);
}

// From x, with y to work in; returns which of them has the result.
inline float* transform(const Transform& t, float* x, float* y) {
    for (int n = 0; n < t.count; ++n) {
        const Stage& st = t.stages[n];
        switch (st.radix) {
            case 2: stage_of<2>(st, x, y); break;
            case 3: stage_of<3>(st, x, y); break;
            case 4: stage_of<4>(st, x, y); break;
            case 5: stage_of<5>(st, x, y); break;
        }
        float* const other = x;
        x = y;
        y = other;
    }
    return x;
}

// ---- its last step, and its first backwards ----

// Bins 0 to h of twice as many real samples, in the place of 0 to h - 1. Twice the bins.
inline void take_apart(const Transform& t, float* z) {
    const std::int64_t h = t.length / 2;
    const Complex ends = read(z, 0);
    const Floats zero = all(0.0f), first = ends.re + ends.im, last = ends.re - ends.im;
    write(z, 0, {first + first, zero});
    write(z, h, {last + last, zero});
    for (std::int64_t k = 1; k <= h - k; ++k) {
        const Complex a = read(z, k), b = conjugate(read(z, h - k));
        const Complex even = a + b, odd = times(turned_back(a - b), t.halves[2 * k], t.halves[2 * k + 1]);
        write(z, k, even + odd);
        write(z, h - k, conjugate(even - odd));
    }
}

// The opposite, real and imaginary parts exchanged, and twice as much.
inline void put_together(const Transform& t, float* z) {
    const std::int64_t h = t.length / 2;
    const Floats first = read(z, 0).re, last = read(z, h).re;  // what is imaginary there is not heard
    write(z, 0, {first - last, first + last});
    for (std::int64_t k = 1; k <= h - k; ++k) {
        const Complex a = read(z, k), b = conjugate(read(z, h - k));
        const Complex even = a + b, odd = times(a - b, t.halves[2 * k], -t.halves[2 * k + 1]);
        // even + i odd, and the conjugate of even - i odd
        write(z, k, {even.im + odd.re, even.re - odd.im});
        write(z, h - k, {odd.re - even.im, even.re + odd.im});
    }
}

// ---- between rows and lanes ----

// to[j] = sample j of each frame, for 16 of j; frame i begins at from + stride * i, the lanes behind
// the last frame hear it again.
INLINE void gather(float* to, const float* from, std::int64_t stride, std::int64_t frames) {
    for (int lane = 0; lane < LANES; ++lane) {
        const float* const row = from + stride * (lane < frames ? lane : frames - 1);
#pragma GCC unroll 16
        for (int j = 0; j < 16; ++j) to[LANES * j + lane] = row[j];
    }
}

// ---- levelling ----

//     lack  = stated - log(heard [magnitude ** power]) / power      within MOST
//     frame = irfft(rfft(frame * window) * exp(between [lack])) * synthesis
//
// in:      audio, mel
// in/out:  total
// scratch: two buffers of complex vectors, magnitudes of the bins, lacks of the bands
inline void level(const LevellingRun& run) {
    constexpr float MOST = 3.0f;
    const LevellingTables& t = *run.tables;
    const std::int64_t h = t.transform.length / 2, bins = h + 1;
    float* x = run.scratch;
    float* const y = x + 2 * LANES * bins;
    float* const magnitudes = y + 2 * LANES * bins;
    float* const lacks = magnitudes + LANES * bins;
    float tile[16 * LANES];

    for (std::int64_t j = 0; j < t.win_length; j += 16) {
        const std::int64_t count = t.win_length - j < 16 ? t.win_length - j : 16;
        if (count == 16) {
            gather(tile, run.audio + j, t.hop_length, run.frames);
        } else {
            for (int lane = 0; lane < LANES; ++lane) {
                const std::int64_t frame = lane < run.frames ? lane : run.frames - 1;
                for (int n = 0; n < count; ++n)
                    tile[LANES * n + lane] = run.audio[t.hop_length * frame + j + n];
            }
        }
        // Even samples are real parts, odd ones imaginary: in memory one after another.
        for (int n = 0; n < count; ++n)
            store(x + LANES * (j + n), load(tile + LANES * n) * all(t.window[j + n]));
    }
    for (std::int64_t j = t.win_length; j < t.transform.length; ++j) store(x + LANES * j, all(0.0f));
    x = transform(t.transform, x, y);
    take_apart(t.transform, x);

    for (std::int64_t k = 0; k < bins; ++k) {
        const Complex a = read(x, k);
        const Floats energy = at_least(a.re * a.re + a.im * a.im, all(1e-14f));
        Floats magnitude = energy;
        if (t.power == 1.0f)
            magnitude = root(energy);
        else if (t.power != 2.0f)
            magnitude = exponential(logarithm(energy) * all(0.5f * t.power));
        store(magnitudes + LANES * k, magnitude);
    }
    for (std::int64_t band = 0; band < t.n_mels; ++band) {
        const Reach& reach = t.heard[band];
        Floats sum = all(0.0f);
        for (std::int64_t n = 0; n < reach.count; ++n)
            sum = fused(load(magnitudes + LANES * (reach.first + n)), all(reach.weights[n]), sum);
        float stated[LANES];
        for (int lane = 0; lane < LANES; ++lane)
            stated[lane] = run.mel[(lane < run.frames ? lane : run.frames - 1) * t.n_mels + band];
        const Floats wanted = load(stated) * all(t.scale[band]) + all(t.mean[band]);
        const Floats lack = wanted - logarithm(at_least(sum, all(t.floor))) / all(t.power);
        store(lacks + LANES * band, clamp(lack, -MOST, MOST));
    }
    for (std::int64_t k = 0; k < bins; ++k) {
        const Reach& reach = t.between[k];
        Floats sum = all(0.0f);
        for (std::int64_t n = 0; n < reach.count; ++n)
            sum = fused(load(lacks + LANES * (reach.first + n)), all(reach.weights[n]), sum);
        write(x, k, read(x, k) * exponential(sum));
    }

    put_together(t.transform, x);
    float* const z = transform(t.transform, x, x == run.scratch ? y : run.scratch);
    // From the end of the windows to their beginning, so that older frames are added before newer.
    for (std::int64_t j = (t.win_length - 1) / 16 * 16; j >= 0; j -= 16) {
        const auto count = static_cast<int>(t.win_length - j < 16 ? t.win_length - j : 16);
        for (int n = 0; n < count; ++n)  // real and imaginary parts are exchanged
            store(tile + LANES * n, load(z + LANES * ((j + n) ^ 1)) * all(t.synthesis[j + n]));
        for (int lane = 0; lane < run.frames; ++lane) {
            float* const to = run.total + t.hop_length * lane + j;
            if (count == 16) {
#pragma GCC unroll 16
                for (int n = 0; n < 16; ++n) to[n] += tile[LANES * n + lane];
            } else {
                for (int n = 0; n < count; ++n) to[n] += tile[LANES * n + lane];
            }
        }
    }
}

// ---- for tests ----

inline void forward(const Transform& t, const float* frames, float* spectra, float* scratch) {
    const std::int64_t bins = t.length / 2 + 1;
    for (std::int64_t j = 0; j < t.length; ++j)
        for (int lane = 0; lane < LANES; ++lane)
            scratch[LANES * j + lane] = 0.5f * frames[t.length * lane + j];
    float* const z = transform(t, scratch, scratch + 2 * LANES * bins);
    take_apart(t, z);
    for (int lane = 0; lane < LANES; ++lane)
        for (std::int64_t k = 0; k < 2 * bins; ++k)
            spectra[2 * bins * lane + k] = z[LANES * k + lane];
}

inline void back(const Transform& t, const float* spectra, float* frames, float* scratch) {
    const std::int64_t bins = t.length / 2 + 1;
    for (std::int64_t k = 0; k < 2 * bins; ++k)
        for (int lane = 0; lane < LANES; ++lane)
            scratch[LANES * k + lane] = spectra[2 * bins * lane + k];
    put_together(t, scratch);
    const float* const z = transform(t, scratch, scratch + 2 * LANES * bins);
    for (std::int64_t j = 0; j < t.length; ++j)
        for (int lane = 0; lane < LANES; ++lane) frames[t.length * lane + j] = z[LANES * (j ^ 1) + lane];
}

inline void apply(Function function, const float* from, float* to, std::int64_t count) {
    for (std::int64_t i = 0; i < count; i += LANES) {
        const Floats x = load(from + i);
        switch (function) {
            case Function::exp: store(to + i, exponential(x)); break;
            case Function::log: store(to + i, logarithm(x)); break;
            case Function::root: store(to + i, root(x)); break;
        }
    }
}

extern const SpectrumKernels spectrum = {level, forward, back, apply};

}  // namespace WAVEWN_SET
}  // namespace wavewn
