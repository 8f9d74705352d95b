// Frames of audio and their spectra natively: levelling, and the source and filters of the spectral
// model.
//
// The idea. Sixteen frames lie in the sixteen lanes of a vector, one sample of each, and all of them
// go through the same transform at once: no shuffles, no short loops, and no frame can tell whether
// others came with it. So the bits of a frame depend neither on its company nor on how audio was cut.
// Up to eight frames, as in short pushes, lie in half as many lanes, with the same bits.
//
// A transform of n real samples is one of n / 2 complex numbers, the even samples and the odd ones,
// and a last step that takes the two apart. The complex one goes by stages of radix 4, 2, 3 and 5,
// each of which reads one buffer and writes the other in the next stage's order (Stockham), so that
// nothing is ever reversed. Backwards it is the same with real and imaginary parts exchanged.
//
//     spectrum_kernel.hpp   the arithmetic, compiled once for each instruction set, and for eight
//                           lanes (spectrum_few_SET.cpp)
//     spectrum_tables.cpp   what it reads
//     spectrum_levelling.cpp, spectrum_synthesis.cpp   chunks, and what streams remember
//
// 2026-11-22, one thread of a Zen 4, 1024 points, 80 bands: 26 us for a levelling of up to sixteen
// frames, 15 of up to eight; with AVX2 28 and 16. In torch the four levellings of a chunk of 8 frames
// took 1.44 ms, here 0.06. A radix of 8 beside the others: AVX-512 4 % faster, AVX2 5 % slower.
//
// No `#include` of the standard library's C++ headers: see network.hpp. Twins: nn/levelling.py, and
// models/spectral.py with nn/harmonics.py.

#pragma once

#include <cstdint>

namespace wavewn {

constexpr int MOST_FRAMES = 16;  // at once
constexpr int FEW_FRAMES = 8;    // that half a vector holds
constexpr int MOST_STAGES = 24;

// y[q + s (r p + k)] = t[p][k] * sum over j of x[q + s (p + m j)] e^(-2 pi i j k / r), for all p < m
// and q < s, with t[p][k] = e^(-2 pi i p k / (r m)).
struct Stage {
    int radix;
    std::int64_t m, s;
    const float* turns;  // [m][radix - 1][real, imaginary], k from 1 on
};

// Of `length` real samples, even in number.
struct Transform {
    std::int64_t length;
    int count;
    Stage stages[MOST_STAGES];
    const float* halves;  // [length / 4 + 1][real, imaginary] of e^(-2 pi i k / length)
};

// Row k of a sparse matrix: `count` weights for the inputs from `first` on.
struct Reach {
    std::int64_t first, count;
    const float* weights;
};

struct LevellingTables {
    Transform transform;
    std::int64_t win_length, hop_length, n_mels;
    float power, floor;
    const float* window;     // [win_length], halved
    const float* synthesis;  // [win_length], over the length of the transform
    const Reach* heard;      // [n_mels], of bins
    const Reach* between;    // [bins], of bands
    const float* mean;       // [n_mels]
    const float* scale;
};

// Up to MOST_FRAMES frames, numbered from 0: frame i is audio[i * hop_length ...].
struct LevellingRun {
    const LevellingTables* tables;
    std::int64_t frames;
    const float* audio;
    const float* mel;  // [frames][n_mels]
    float* total;      // levelled frames are added to it, the oldest first
    float* scratch;    // levelling_scratch floats, on a boundary of 64 bytes
};

// Floats that a run works with.
constexpr std::int64_t levelling_scratch(const LevellingTables& t) {
    const std::int64_t bins = t.transform.length / 2 + 1;
    return MOST_FRAMES * (2 * bins * 2 + bins + t.n_mels);
}

struct SynthesisTables {
    Transform transform;  // of a sub-frame's window
    std::int64_t hop_length, n_mels;
    float voice, loud;        // as in models/spectral.py
    const float* window;      // [length], halved
    const float* synthesis;   // [length], over the length of the transform
    const Reach* envelope;    // [bins], of bands
    const float* level;       // [bins]
    const float* mean;        // [n_mels]
    const float* scale;
};

// Up to MOST_FRAMES sub-frames.
struct SynthesisRun {
    const SynthesisTables* tables;
    std::int64_t frames;
    const double* cycles;   // [frames], periods that go by in a sub-frame
    const double* phase;    // [frames], periods at its middle
    const float* spectra;   // [frames][3][bins]: of harmonics, turn, of noise
    const float* mel;       // [frames][n_mels]
    const float* noise;     // [frames][length]
    float* total;           // filtered sub-frames are added to it, the oldest first
    float* scratch;         // synthesis_scratch floats, on a boundary of 64 bytes
};
constexpr std::int64_t synthesis_scratch(const SynthesisTables& t) {
    return MOST_FRAMES * (3 * 2 * (t.transform.length / 2 + 1) + t.n_mels);
}

// For tests: a function of each number.
enum class Function : int { exp, log, root, sin, cos };

struct SpectrumKernels {
    void (*level)(const LevellingRun&);
    void (*synthesize)(const SynthesisRun&);
    // Real frames [MOST_FRAMES][length] to spectra [MOST_FRAMES][bins][real, imaginary], and back, unscaled;
    // `scratch` has 4 * (length / 2 + 1) * MOST_FRAMES floats.
    void (*forward)(const Transform&, const float* frames, float* spectra, float* scratch);
    void (*back)(const Transform&, const float* spectra, float* frames, float* scratch);
    void (*apply)(Function, const float* from, float* to, std::int64_t count);  // whole vectors
};

// Null where a set was not compiled in.
namespace portable { extern const SpectrumKernels spectrum __attribute__((weak)); }
namespace avx2 { extern const SpectrumKernels spectrum __attribute__((weak)); }
namespace avx512 { extern const SpectrumKernels spectrum __attribute__((weak)); }
namespace few_portable { extern const SpectrumKernels spectrum __attribute__((weak)); }
namespace few_avx2 { extern const SpectrumKernels spectrum __attribute__((weak)); }

}  // namespace wavewn
