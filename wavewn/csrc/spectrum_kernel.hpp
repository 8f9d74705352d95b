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

#if defined(__AVX2__)
// Eight rows of eight numbers become eight columns.
INLINE void exchange(__m256 (&x)[8]) {
    __m256 y[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        y[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
        y[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4)
#pragma GCC unroll 2
        for (int k = 0; k < 2; ++k) {
            x[i + 2 * k] = _mm256_shuffle_ps(y[i + k], y[i + k + 2], 0x44);
            x[i + 2 * k + 1] = _mm256_shuffle_ps(y[i + k], y[i + k + 2], 0xee);
        }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        y[i] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x20);
        y[i + 4] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x31);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) x[i] = y[i];
}
#endif

// to[j] = number j of each frame's row, for `count` <= 16 of j; rows lie `stride` apart. The lanes
// behind the last frame hear it again.
INLINE void gather(float* to, const float* from, std::int64_t stride, std::int64_t frames, int count) {
    const auto row = [&](int lane) { return from + stride * (lane < frames ? lane : frames - 1); };
#if defined(__AVX2__)
    for (int lane = 0; count == 16 && lane < LANES; lane += 8)
        for (int j = 0; j < 16; j += 8) {
            __m256 block[8];
#pragma GCC unroll 8
            for (int n = 0; n < 8; ++n) block[n] = _mm256_loadu_ps(row(lane + n) + j);
            exchange(block);
#pragma GCC unroll 8
            for (int n = 0; n < 8; ++n) _mm256_storeu_ps(to + LANES * (j + n) + lane, block[n]);
        }
    if (count == 16) return;
#endif
    for (int lane = 0; lane < LANES; ++lane)
        for (int j = 0; j < count; ++j) to[LANES * j + lane] = row(lane)[j];
}

// The same for all numbers of a row, times a window.
inline void gather_windowed(float* to, const float* from, const float* window, std::int64_t length,
                            std::int64_t stride, std::int64_t frames) {
    float tile[16 * LANES];
    for (std::int64_t j = 0; j < length; j += 16) {
        const auto count = static_cast<int>(length - j < 16 ? length - j : 16);
        gather(tile, from + j, stride, frames, count);
        for (int n = 0; n < count; ++n)
            store(to + LANES * (j + n), load(tile + LANES * n) * all(window[j + n]));
    }
}

// What mels state, as natural logarithms of magnitudes.
inline void gather_logarithms(float* to, const float* mel, const float* scale, const float* mean,
                              std::int64_t n_mels, std::int64_t frames) {
    gather_windowed(to, mel, scale, n_mels, n_mels, frames);
    for (std::int64_t band = 0; band < n_mels; ++band)
        store(to + LANES * band, load(to + LANES * band) + all(mean[band]));
}

// A row of a sparse matrix times what lies in `from`.
INLINE Floats gathered(const Reach& reach, const float* from) {
    Floats sum = all(0.0f);
    for (std::int64_t n = 0; n < reach.count; ++n)
        sum = fused(load(from + LANES * (reach.first + n)), all(reach.weights[n]), sum);
    return sum;
}

// The opposite: adds `count` <= 16 numbers of each frame to its row.
INLINE void scatter_add(float* to, const float* from, std::int64_t stride, std::int64_t frames,
                        int count) {
#if defined(__AVX2__)
    for (int j = 8; count == 16 && j >= 0; j -= 8)  // rows overlap: the oldest is added first
        for (int lane = 0; lane < LANES; lane += 8) {
            __m256 block[8];
#pragma GCC unroll 8
            for (int n = 0; n < 8; ++n) block[n] = _mm256_loadu_ps(from + LANES * (j + n) + lane);
            exchange(block);
#pragma GCC unroll 8
            for (int n = 0; n < 8; ++n) {
                float* const row = to + stride * (lane + n) + j;
                if (lane + n < frames)
                    _mm256_storeu_ps(row, _mm256_add_ps(_mm256_loadu_ps(row), block[n]));
            }
        }
    if (count == 16) return;
#endif
    for (int lane = 0; lane < frames; ++lane)
        for (int j = 0; j < count; ++j) to[stride * lane + j] += from[LANES * j + lane];
}

// Adds what `back` left in z, times a window, to a sum in which a frame begins every `hop` samples.
// From the end of the windows to their beginning, so that older frames are added before newer.
inline void add_frames(float* total, const float* z, const float* window, std::int64_t length,
                       std::int64_t hop, std::int64_t frames) {
    float tile[16 * LANES];
    for (std::int64_t j = (length - 1) / 16 * 16; j >= 0; j -= 16) {
        const auto count = static_cast<int>(length - j < 16 ? length - j : 16);
        for (int n = 0; n < count; ++n)  // real and imaginary parts are exchanged
            store(tile + LANES * n, load(z + LANES * ((j + n) ^ 1)) * all(window[j + n]));
        scatter_add(total + j, tile, hop, frames, count);
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

    // Even samples are real parts, odd ones imaginary: in memory one after another.
    gather_windowed(x, run.audio, t.window, t.win_length, t.hop_length, run.frames);
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
    gather_logarithms(lacks, run.mel, t.scale, t.mean, t.n_mels, run.frames);
    for (std::int64_t band = 0; band < t.n_mels; ++band) {
        const Floats sum = gathered(t.heard[band], magnitudes);
        const Floats own = logarithm(at_least(sum, all(t.floor))) / all(t.power);
        store(lacks + LANES * band, clamp(load(lacks + LANES * band) - own, -MOST, MOST));
    }
    for (std::int64_t k = 0; k < bins; ++k)
        write(x, k, read(x, k) * exponential(gathered(t.between[k], lacks)));

    put_together(t.transform, x);
    float* const z = transform(t.transform, x, x == run.scratch ? y : run.scratch);
    add_frames(run.total, z, t.synthesis, t.win_length, t.hop_length, run.frames);
}

// ---- the source and filters of the spectral model ----

// Twice the sum of the cosines of all harmonics below half the sample rate, in sample `place` from
// the middle of the sub-frames: nn/harmonics.py, operation by operation.
struct Source {
    double f0[LANES], phase[LANES];  // periods a sample; at the middle
    float twice[LANES];              // 2 K + 1 of K harmonics
};
INLINE Floats harmonics(const Source& source, double place) {
    constexpr double WHOLE = 6755399441055744.0;  // 1.5 * 2^52: rounds what it is added to
    constexpr float PI = 3.14159265358979f;
    float from_whole[LANES];
    for (int lane = 0; lane < LANES; ++lane) {
        const double periods = source.phase[lane] + source.f0[lane] * place;
        from_whole[lane] = static_cast<float>(periods - ((periods + WHOLE) - WHOLE));
    }
    const Floats t = load(from_whole), count = load(source.twice);
    const Floats low = turn(t * all(PI)).sine, high = turn(count * all(PI) * t).sine;
    Floats y;
    EACH(i) {
        const NativeInt near = (low.part[i] < 1e-4f) & (low.part[i] > -1e-4f);
        const NativeFloat ratio = high.part[i] / (near ? 1.0f - (NativeFloat){} : low.part[i]);
        y.part[i] = (near ? count.part[i] : ratio) - 1.0f;
    }
    return y;
}

//     voice = rfft(harmonics * window), air = rfft(noise * window)
//     frame = irfft(voice e^(stated + harmonic + VOICE) e^(i turn) + air e^(stated + breath)) * synthesis
//
// in:      cycles, phase, spectra, mel, noise
// in/out:  total
// scratch: three buffers of complex vectors, logarithms of the bands
inline void synthesize(const SynthesisRun& run) {
    constexpr float QUIET = -80.0f;  // the logarithms of the filters need go no lower
    const SynthesisTables& t = *run.tables;
    const std::int64_t length = t.transform.length, bins = length / 2 + 1;
    float* const stated = run.scratch;
    float* const buffers[] = {stated + LANES * t.n_mels, stated + LANES * (t.n_mels + 2 * bins),
                              stated + LANES * (t.n_mels + 4 * bins)};
    Source source;
    for (int lane = 0; lane < LANES; ++lane) {
        const std::int64_t frame = lane < run.frames ? lane : run.frames - 1;
        source.f0[lane] = run.cycles[frame] / static_cast<double>(t.hop_length);
        source.phase[lane] = run.phase[frame];
        source.twice[lane] = 2.0f * static_cast<float>(__builtin_floor(0.5 / source.f0[lane])) + 1.0f;
    }
    const double middle = 0.5 * static_cast<double>(length - 1);
    for (std::int64_t j = 0; j < length; ++j)
        store(buffers[0] + LANES * j,
              harmonics(source, static_cast<double>(j) - middle) * all(t.window[j]));
    float* const voice = transform(t.transform, buffers[0], buffers[1]);
    take_apart(t.transform, voice);
    float* const other = voice == buffers[0] ? buffers[1] : buffers[0];
    gather_windowed(other, run.noise, t.window, length, length, run.frames);
    float* const air = transform(t.transform, other, buffers[2]);
    take_apart(t.transform, air);

    gather_logarithms(stated, run.mel, t.scale, t.mean, t.n_mels, run.frames);
    float harmonic[16 * LANES], angle[16 * LANES], breath[16 * LANES];
    for (std::int64_t first = 0; first < bins; first += 16) {
        const auto count = static_cast<int>(bins - first < 16 ? bins - first : 16);
        gather(harmonic, run.spectra + first, 3 * bins, run.frames, count);
        gather(angle, run.spectra + bins + first, 3 * bins, run.frames, count);
        gather(breath, run.spectra + 2 * bins + first, 3 * bins, run.frames, count);
        for (int n = 0; n < count; ++n) {
            const std::int64_t k = first + n;
            const Floats level = gathered(t.envelope[k], stated) - all(t.level[k]);
            const Floats loud = level + load(harmonic + LANES * n) + all(t.voice);
            const Floats gain = exponential(clamp(loud, QUIET, t.loud));
            const Turn turned = turn(load(angle + LANES * n));
            const Floats c = gain * turned.cosine, s = gain * turned.sine;
            const Floats hiss = exponential(clamp(level + load(breath + LANES * n), QUIET, t.loud));
            const Complex a = read(voice, k), b = read(air, k) * hiss;
            write(voice, k, {a.re * c - a.im * s + b.re, a.re * s + a.im * c + b.im});
        }
    }
    put_together(t.transform, voice);
    const float* const z = transform(t.transform, voice, air);
    add_frames(run.total, z, t.synthesis, length, t.hop_length, run.frames);
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
            case Function::sin: store(to + i, turn(x).sine); break;
            case Function::cos: store(to + i, turn(x).cosine); break;
        }
    }
}

extern const SpectrumKernels spectrum = {level, synthesize, forward, back, apply};

}  // namespace WAVEWN_SET
}  // namespace wavewn
