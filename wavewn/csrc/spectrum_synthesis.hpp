// The source and filters of the spectral model, and what a stream of them remembers.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "spectrum_tables.hpp"

namespace wavewn {

// As models/spectral.py and nn/harmonics.py have it, borrowed.
struct PlainSynthesis {
    std::int64_t n_fft, hop_length, subframes, n_mels;  // a hop is a sub-frame's
    float voice, loud;
    const float* window;     // [n_fft]
    const float* synthesis;  // [n_fft]
    const float* envelope;   // [n_mels, bins]
    const float* level;      // [bins]
    const float* mean;       // [n_mels]
    const float* scale;      // [n_mels]
    std::int64_t pitches, near;
    const double* pitch;     // [pitches], logarithms of F0 in Hz
    double steps_a_hertz, step;
};

// One chunk, in numbers of rows; engine/spectrum.py makes it. Of what is joined, rows are sub-frames.
struct SynthesisStep {
    std::int64_t logits_rows, spectra_rows, mel_rows;  // frames
    std::int64_t noise_rows;                           // samples
    std::int64_t phase_state;
    Kept heard;  // samples of noise, of those that the first sub-frame hears
    Kept spectra, mel, cycles, phase, noise;
    std::int64_t frames;  // sub-frames that are made
    std::int64_t overlap_state;
    std::int64_t out_begin, out_rows;  // what is given of their sum
};
constexpr std::int64_t SYNTHESIS_NUMBERS = 27;
static_assert(sizeof(SynthesisStep) == SYNTHESIS_NUMBERS * sizeof(std::int64_t), "rows of numbers");

class SynthesisNetwork {
   public:
    SynthesisNetwork(const SpectrumSet& set, const PlainSynthesis&);

    std::int64_t n_mels() const { return tables_.n_mels; }
    std::int64_t logits() const { return subframes_ * static_cast<std::int64_t>(pitch_.size()); }
    std::int64_t spectra() const { return subframes_ * 3 * bins(); }

    // Throws std::invalid_argument for a step that leaves what it is given. Returns the bytes of an
    // arena.
    std::size_t check(const SynthesisStep&, std::int64_t state) const;

    // One stream. Allocates nothing.
    void run(const SynthesisStep&, char* arena, float* state, const float* logits,
             const float* spectra, const float* mel, const float* noise, float* out) const noexcept;

   private:
    struct Rooms {
        float *scratch, *spectra, *mels, *mel, *samples, *heard, *noise, *cycles, *phase, *sum;
        double *periods, *middles;
        std::size_t bytes;
    };
    Rooms lay_out(const SynthesisStep&, char* arena) const;

    std::int64_t length() const { return tables_.transform.length; }
    std::int64_t bins() const { return length() / 2 + 1; }
    std::int64_t overlap() const { return length() - tables_.hop_length; }
    // Periods that go by in a sub-frame: nn/harmonics.py, PitchNetwork.cycles.
    double cycles(const float* logits) const noexcept;

    const SpectrumSet& set_;
    const TransformTables transform_;
    const SparseMatrix envelope_;
    std::vector<float> window_, synthesis_, level_, mean_, scale_;
    const std::vector<double> pitch_;
    const std::int64_t subframes_, near_;
    const double steps_a_hertz_, step_;
    SynthesisTables tables_{};
};

}  // namespace wavewn
