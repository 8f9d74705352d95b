// Levelling of streams: the tables, and what a stream remembers from one chunk to the next.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "spectrum_tables.hpp"

namespace wavewn {

// As nn/levelling.py has it, borrowed.
struct PlainLevelling {
    std::int64_t n_fft, win_length, hop_length, n_mels;
    float power, floor;
    const float* window;     // [win_length]
    const float* synthesis;  // [win_length]
    const float* heard;      // [bins, n_mels]
    const float* between;    // [n_mels, bins]
    const float* mean;       // [n_mels]
    const float* scale;      // [n_mels]
};

// One levelling of a chunk, in numbers of rows; engine/spectrum.py makes it.
struct LevellingStep {
    std::int64_t audio_rows;
    Kept audio;
    std::int64_t start;         // number of the first sample at hand: the oldest one kept
    std::int64_t begin;         // that of the first window's first sample; below 0 it is reflected
    std::int64_t end;           // that of the sample after the last
    std::int64_t ended;         // whether the utterance ends there
    std::int64_t frames;        // that are levelled
    Kept mel;
    std::int64_t overlap_state;
    std::int64_t out_begin, out_rows;  // what is given of the frames' sum
};
constexpr std::int64_t LEVELLING_NUMBERS = 15;
static_assert(sizeof(LevellingStep) == LEVELLING_NUMBERS * sizeof(std::int64_t), "rows of numbers");

class LevellingNetwork {
   public:
    LevellingNetwork(const SpectrumSet& set, const PlainLevelling&);

    std::int64_t n_mels() const { return tables_.n_mels; }

    // Throws std::invalid_argument for steps that leave what they are given: a state of so many
    // floats, so many frames of mel, samples to level and to give. Returns the bytes of an arena.
    std::size_t check(const std::vector<LevellingStep>&, std::int64_t state, std::int64_t mel_rows,
                      std::int64_t audio, std::int64_t out) const;

    // One stream, levelled as often as there are steps. Allocates nothing.
    void run(const std::vector<LevellingStep>&, char* arena, float* state, const float* mel,
             std::int64_t mel_rows, const float* audio, float* out) const noexcept;

   private:
    std::int64_t overlap() const { return tables_.win_length - tables_.hop_length; }
    // Samples of the windows of a step, and of their sum.
    std::int64_t padded(const LevellingStep&) const;
    std::int64_t total(const LevellingStep&) const;

    struct Rooms {
        float *scratch, *joined, *stated, *windows, *sum, *between;
        std::size_t bytes;
    };
    Rooms lay_out(const std::vector<LevellingStep>&, std::int64_t mel_rows, char* arena) const;

    const SpectrumSet& set_;
    const TransformTables transform_;
    const SparseMatrix heard_, between_;
    std::vector<float> window_, synthesis_, mean_, scale_;
    LevellingTables tables_{};
};

}  // namespace wavewn
